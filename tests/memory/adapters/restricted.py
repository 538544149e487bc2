"""A process on a system that refuses more than usual, in which a guard is tried: `python -m … CONDITION WORK FILE`.

What it does after the conditions are made, and what came of it, goes to the standard output as JSON.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import structlog

from memory.adapters import confinement
from memory.adapters.guard import Guard, Limits
from memory.errors import AppError

_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_PRCTL = {"x86_64": 157, "aarch64": 167}
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_LANDLOCK = (444, 445, 446)
_SECCOMP_OPTION = 22
_READ_FILES, _WRITE_FILES, _LIST = 1 << 2, 1 << 1, 1 << 3

Step = tuple[int, int, int, int]


def _refuse(number: int, code: int) -> list[Step]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _FAIL | code)]


def no_namespaces() -> list[Step]:
    """As in a container."""
    return _refuse(_UNSHARE[os.uname().machine], errno.EPERM)


def no_landlock() -> list[Step]:
    """As in older kernels."""
    return [step for number in _LANDLOCK for step in _refuse(number, errno.ENOSYS)]


def landlock_refused() -> list[Step]:
    """As in older containers on newer kernels."""
    return [step for number in _LANDLOCK for step in _refuse(number, errno.EPERM)]


def no_seccomp() -> list[Step]:
    """As in kernels that were built without it."""
    # The last step takes the number of the call back for those that follow.
    return [
        (_EQUAL, 0, 4, _PRCTL[os.uname().machine]),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 0, 1, _SECCOMP_OPTION),
        (_RETURN, 0, 0, _FAIL | errno.EINVAL),
        (_LOAD, 0, 0, 0),
    ]


def install(steps: list[Step]) -> None:
    """Refuses the calls to this process and all that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert confinement._install([(_LOAD, 0, 0, 0), *steps, (_RETURN, 0, 0, _ALLOW)])


def deny_proc(rights: int) -> None:
    """Takes the rights over /proc, by Landlock where the kernel has it: no right of root is needed for that."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)
    attributes = struct.pack("=Q", rights)
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for place in Path("/").iterdir():
        if place.name != "proc":
            confinement._allow(libc, ruleset, str(place), rights)
    libc.syscall(446, ruleset, ctypes.c_uint32(0))


def unreadable_proc() -> None:
    deny_proc(_READ_FILES | _LIST | _WRITE_FILES)


def names_refused() -> None:
    """As in systems that let a process into a namespace and refuse it its name there."""
    deny_proc(_WRITE_FILES)


def nothing_at_all() -> None:
    unreadable_proc()
    install([*no_namespaces(), *no_landlock(), *no_seccomp()])


CONDITIONS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "namespaces": lambda: install(no_namespaces()),
    "landlock": lambda: install(no_landlock()),
    "landlock by policy": lambda: install(landlock_refused()),
    "seccomp": lambda: install(no_seccomp()),
    "all three": lambda: install([*no_namespaces(), *no_landlock(), *no_seccomp()]),
    "names": names_refused,
    "proc": unreadable_proc,
    "proc and all three": nothing_at_all,
    "processes": lambda: None,
    "a new server": lambda: None,
}
LIMITS = Limits(memory_bytes=128 * 1024**2, cpu_seconds=20, wall_seconds=20)


def attempt(guard: Guard, path: Path, request: dict[str, Any]) -> str:
    try:
        return guard.run(path, request, LIMITS).decode()
    except AppError as error:
        return f"{type(error).__name__}: {error.detail}"


def _limit_processes(pid: int | None, most: int) -> int:
    """How many the user may have before that process, or this one, gets no further; and what it was before."""
    process = psutil.Process(pid)
    before, hard = process.rlimit(psutil.RLIMIT_NPROC)
    process.rlimit(psutil.RLIMIT_NPROC, (most, hard))
    return before


def _in_the_end(guard: Guard, path: Path, request: dict[str, Any]) -> str:
    """What comes of it once the server is there again."""
    deadline = time.monotonic() + 30
    while (outcome := attempt(guard, path, request)).startswith("Unavailable") and time.monotonic() < deadline:
        time.sleep(0.05)
    return outcome


def main(condition: str, work: str, path: Path) -> None:
    CONDITIONS[condition]()
    with structlog.testing.capture_logs() as logs:
        guard = Guard(work, concurrency=1)
        echo = {"do": "echo", "name": "first"}
        outcomes = [attempt(guard, path, echo)]
        server = guard.server_pid
        assert server is not None
        no_more = resource.RLIM_INFINITY
        if condition == "processes":
            no_more = _limit_processes(server, 1)
        if condition == "a new server":
            no_more = _limit_processes(None, 1)
            os.kill(server, signal.SIGKILL)
            while guard.server_pid is not None:
                time.sleep(0.01)
        outcomes += [attempt(guard, path, request) for request in ({"do": "think"}, {"do": "hoard"}, echo)]
        if condition in ("processes", "a new server"):
            _limit_processes(server if condition == "processes" else None, no_more)
            outcomes.append(_in_the_end(guard, path, echo))
        is_same = guard.server_pid == server
        guard.close()
    said = [entry for entry in logs if entry["log_level"] == "warning"]
    sys.stdout.write(json.dumps({"outcomes": outcomes, "said": said, "same server": is_same, "user": os.geteuid()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
