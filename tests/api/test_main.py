"""`python -m api` as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from api.__main__ import _listen


@contextmanager
def _serving(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    environment = {
        "PATH": os.environ["PATH"],
        "REMEMBEROS_DATA": str(folder),
        "DATABASE_URL": f"postgresql://app:secret@/nothing?host={folder}",
        "API_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_serves_on_a_free_port_says_where_and_ends_on_sigterm(tmp_path: Path) -> None:
    with _serving(tmp_path, port=0) as process:
        assert process.stderr is not None
        line = json.loads(next(line for line in process.stderr if '"serving"' in line))

        with urlopen(f"{line['url']}/v1/memory/health", timeout=60) as answer:
            assert json.load(answer) == {"status": "healthy"}
        with urlopen(f"{line['url']}/openapi.json", timeout=60) as answer:
            assert json.load(answer)["servers"] == [{"url": line["url"]}]

        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode in {0, -signal.SIGTERM}
        assert "Traceback" not in rest
        assert "secret" not in rest


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _serving(tmp_path, port) as process:
            _, said = process.communicate(timeout=60)

    assert process.returncode == 1
    assert f"API_PORT={port}" in said
    assert "Traceback" not in said


def test_answers_do_not_wait_for_acknowledgements() -> None:
    listener = _listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            # What asyncio looks at before it switches Nagle's algorithm off.
            assert accepted.proto == socket.IPPROTO_TCP
