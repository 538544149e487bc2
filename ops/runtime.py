"""`DIR/runtime.json`: where a running installation is reached and which processes it has; and its leftovers."""

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ops.private import write_private
from ops.processes import end, gone_is_fine


@dataclass(frozen=True)
class Runtime:
    """What a running installation tells about itself; `database_url` holds a password, so the file is private."""

    api_url: str
    database_url: str
    temporal_address: str
    temporal_ui: str | None
    pids: dict[str, int]

    def write(self, data: Path) -> None:
        write_private(_file(data), json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, data: Path) -> "Runtime | None":
        """The installation that runs on this data folder, or was killed there; None when there is none."""
        try:
            return cls(**json.loads(_file(data).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    @staticmethod
    def remove(data: Path) -> None:
        _file(data).unlink(missing_ok=True)


def end_leftovers(data: Path) -> list[str]:
    """Ends children of a killed `up` that still run on this folder, and returns their names.

    Postgres is left to its own start, which waits for an orderly end.
    """
    runtime = Runtime.read(data)
    if runtime is None:
        return []
    found = {name: pid for name, pid in runtime.pids.items() if name != "postgres" and _is_ours(name, pid, data)}
    processes = [psutil.Process(pid) for pid in found.values() if psutil.pid_exists(pid)]
    for process in processes:
        with gone_is_fine():
            processes = [*processes, *process.children(recursive=True)]
    end(processes, signal.SIGKILL, seconds=10)
    return sorted(found)


def _file(data: Path) -> Path:
    return data / "runtime.json"


def _is_ours(name: str, pid: int, data: Path) -> bool:
    """By command line and environment: the number may name a stranger by now, or another installation's child."""
    try:
        process = psutil.Process(pid)
        command = process.cmdline()
        if name == "temporal":
            return str(data / "temporal" / "temporal.db") in command
        return command[-2:] == ["-m", name] and process.environ().get("REMEMBEROS_DATA") == os.fspath(data)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
