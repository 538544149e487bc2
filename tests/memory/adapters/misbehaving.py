"""Works that misbehave in every way a reader might, run by the real fork server in the guard's tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from memory.adapters.forkserver import Work
from memory.errors import RejectedFile


def reader(greeting: str) -> Work:
    """Does what the request's `do` says."""

    def work(source: BinaryIO, request: dict[str, Any]) -> bytes:
        return _ACTIONS[request["do"]](source, request, greeting)

    return work


def _echo(source: BinaryIO, request: dict[str, Any], greeting: str) -> bytes:
    return f"{greeting} {request['name']}: ".encode() + source.read()


def _loop(*_: object) -> bytes:
    while True:
        pass


def _sleep(*_: object) -> bytes:
    time.sleep(600)
    return b"awake"


def _hoard(*_: object) -> bytes:
    hoard = []
    while True:
        hoard.append(bytearray(50 * 1024**2))


def _abort(*_: object) -> bytes:
    os.abort()


def _crash(*_: object) -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b"still here"


def _leave(*_: object) -> bytes:
    os._exit(0)


def _flood(*_: object) -> bytes:
    return bytes(8 * 1024**2)


def _refuse(*_: object) -> bytes:
    raise RejectedFile("it is not to my taste")


def _fail(*_: object) -> bytes:
    raise LookupError("the secret sentence of the file")


def _recurse(*_: object) -> bytes:
    return _recurse()


def _environment(*_: object) -> bytes:
    return repr(dict(os.environ)).encode()


def _open_files(*_: object) -> bytes:
    return " ".join(str(Path(f"/proc/self/fd/{fd}").resolve()) for fd in os.listdir("/proc/self/fd")).encode()  # noqa: PTH208


def _litter(_source: BinaryIO, request: dict[str, Any], _greeting: str) -> bytes:
    """Leaves a file and a process behind, and names them."""
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return f"{path} {process.pid}".encode()


def _call(_source: BinaryIO, request: dict[str, Any], _greeting: str) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", request["port"]), timeout=5):
            return b"reached"
    except OSError:
        return b"cut off"


def _meet(_source: BinaryIO, request: dict[str, Any], _greeting: str) -> bytes:
    """Comes back once as many children as `guests` are in the room at the same time."""
    room = Path(request["room"])
    (room / request["name"]).touch()
    while len(list(room.iterdir())) < request["guests"]:
        time.sleep(0.02)
    return b"met"


def _alone(_source: BinaryIO, request: dict[str, Any], _greeting: str) -> bytes:
    """Says whether somebody else was in the room at any moment of its stay."""
    room = Path(request["room"])
    (room / request["name"]).touch()
    seen = 0
    for _ in range(20):
        seen = max(seen, len(list(room.iterdir())))
        time.sleep(0.01)
    (room / request["name"]).unlink()
    return str(seen).encode()


def _announce(_source: BinaryIO, request: dict[str, Any], _greeting: str) -> bytes:
    Path(request["to"]).write_text(str(os.getpid()))
    return _sleep()


_ACTIONS: dict[str, Callable[..., bytes]] = {
    "echo": _echo,
    "loop": _loop,
    "sleep": _sleep,
    "hoard": _hoard,
    "abort": _abort,
    "crash": _crash,
    "leave": _leave,
    "flood": _flood,
    "refuse": _refuse,
    "fail": _fail,
    "recurse": _recurse,
    "environment": _environment,
    "open files": _open_files,
    "litter": _litter,
    "call": _call,
    "meet": _meet,
    "alone": _alone,
    "announce": _announce,
}
