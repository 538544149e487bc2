"""Works that misbehave in every way a reader might, run by the real fork server in the guard's tests."""

import errno
import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from memory.adapters.forkserver import Work
from memory.errors import RejectedFile


def reader(board: str) -> Work:
    """Does what the request's `do` says. The board is a file to write on, opened before the child is confined. A file
    beside it names the process that each server was."""
    with Path(f"{board}.servers").open("a") as servers:
        servers.write(f"{os.getpid()}\n")
    notes = os.open(board, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def work(source: BinaryIO, request: dict[str, Any]) -> bytes | Iterator[bytes]:
        return _ACTIONS[request["do"]](source, request, notes)

    return work


def _echo(source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    return f"Hello {request['name']}: ".encode() + source.read()


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


def _fall(*_: object) -> bytes:
    """As where the memory of the machine runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
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


def _litter(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    """Leaves a file and a process behind, and names them."""
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return f"{path} {process.pid}".encode()


def _call(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", request["port"]), timeout=5):
            return b"reached"
    except OSError:
        return b"cut off"


def _noted(notes: int) -> list[str]:
    return os.pread(notes, 1 << 20, 0).decode().split()


def _meet(_source: BinaryIO, request: dict[str, Any], notes: int) -> bytes:
    """Comes back once as many children as `guests` have come."""
    os.write(notes, b"+ ")
    while _noted(notes).count("+") < request["guests"]:
        time.sleep(0.02)
    return b"met"


def _alone(_source: BinaryIO, request: dict[str, Any], notes: int) -> bytes:
    """Says how many were there at once, at most, during its stay."""
    os.write(notes, b"+ ")
    seen = 0
    for _ in range(20):
        noted = _noted(notes)
        seen = max(seen, noted.count("+") - noted.count("-"))
        time.sleep(0.01)
    os.write(notes, b"- ")
    return str(seen).encode()


def _announce(_source: BinaryIO, request: dict[str, Any], notes: int) -> bytes:
    os.write(notes, f"{os.getpid()} ".encode())
    return _sleep()


def _defy(source: BinaryIO, request: dict[str, Any], notes: int) -> bytes:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    return _announce(source, request, notes)


def _fork(*_: object) -> bytes:
    os.fork()
    return b"forked"


def _start(*_: object) -> bytes:
    subprocess.run(["/bin/sh", "-c", "exit 0"], check=True)
    return b"started"


def _escape(*_: object) -> bytes:
    """Starts a process that leaves the group and outlives its parent."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    return str(child.pid).encode()


def _bomb(*_: object) -> bytes:
    """Forks without end, each into a session of its own."""
    while True:
        if os.fork() == 0:
            os.setsid()


def _fill(*_: object) -> bytes:
    for number in range(100_000):
        Path(f"{number}").write_bytes(bytes(512 * 1024))
    return b"filled"


def _run_out(_source: BinaryIO, request: dict[str, Any], _notes: int) -> Iterator[bytes]:
    """Writes so much, then the disk is full."""
    yield bytes(request["after"])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _peek(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    return Path(request["at"]).read_bytes()


def _list(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    return " ".join(os.listdir(request["at"])).encode()  # noqa: PTH208


def _scribble(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    Path(request["at"]).write_text("overwritten")
    return b"written"


def _murder(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    os.kill(request["pid"], signal.SIGKILL)
    return b"done"


def _think(*_: object) -> bytes:
    """What readers do themselves: threads, temporary files, late imports, a look at their own process."""
    with ThreadPoolExecutor(2) as threads, tempfile.NamedTemporaryFile("w+") as file:
        file.write(str(sum(threads.map(len, ["a", "bb"]))))
        file.seek(0)
        importlib.import_module("wave")
        return file.read().encode() + str(Path("/proc/self/statm").exists()).encode()


def _open_a_socket(_source: BinaryIO, request: dict[str, Any], _notes: int) -> bytes:
    kinds = {"udp": (socket.AF_INET, socket.SOCK_DGRAM), "unix": (socket.AF_UNIX, socket.SOCK_STREAM)}
    with socket.socket(*kinds[request["kind"]]):
        return b"opened"


_ACTIONS: dict[str, Callable[..., bytes | Iterator[bytes]]] = {
    "echo": _echo,
    "loop": _loop,
    "sleep": _sleep,
    "hoard": _hoard,
    "abort": _abort,
    "crash": _crash,
    "fall": _fall,
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
    "defy": _defy,
    "fork": _fork,
    "start": _start,
    "escape": _escape,
    "bomb": _bomb,
    "fill": _fill,
    "run out": _run_out,
    "peek": _peek,
    "list": _list,
    "scribble": _scribble,
    "murder": _murder,
    "think": _think,
    "open a socket": _open_a_socket,
}
