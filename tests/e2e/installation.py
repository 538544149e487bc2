"""A whole product started as a person would start it, on free ports and with a data folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from memory.settings import Settings
from ops.client import Client
from ops.processes import is_alive

COMMAND = Path(sys.executable).with_name("rememberos")
_START_SECONDS = 240.0


class Installation:
    """`rememberos up` or `demo` as a process, with these settings; `data` stays when it ends."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.settings: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self._output = data.with_name(f"{data.name}.out")
        self._family: list[psutil.Process] = []

    def start(self, command: str = "up") -> None:
        """Starts it in the background; what it prints goes to a file."""
        environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(COMMAND), command, "--data", str(self.data), "--port", "0"],
                env={**environment, "TEMPORAL_UI_PORT": "0", **self.settings},
                cwd=self.data.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def runtime(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.data / "runtime.json").read_text())
        return loaded

    @property
    def family(self) -> list[psutil.Process]:
        """It and all its descendants."""
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def client(self, key: str | None = None) -> Client:
        return Client(self.runtime["api_url"], key or (self.data / "admin-key").read_text().strip())

    def wait_for(self, text: str) -> None:
        """Until it has printed `text`."""
        self.wait_until(lambda: text in self.output, text)

    def wait_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not done():
            assert self.process is not None
            assert self.process.poll() is None, f"it ended before: {what}\n{self.output}"
            assert time.monotonic() < deadline, f"not seen: {what}\n{self.output}"
            time.sleep(0.1)

    def stop(self) -> int:
        """SIGTERM, and its exit code; nothing of it may be left."""
        assert self.process is not None
        family = self.family
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert_gone(family)
        return code

    def kill(self) -> None:
        """Ends all of it at once, for tests that failed on the way."""
        if self.process is not None and self.process.poll() is None:
            family = self.family
            self.process.kill()
            self.process.wait()
            assert_gone(family)


def assert_gone(processes: list[psutil.Process]) -> None:
    """Every one of them ends within moments."""
    psutil.wait_procs(processes, timeout=30)
    left = [process for process in processes if is_alive(process)]
    assert left == []
