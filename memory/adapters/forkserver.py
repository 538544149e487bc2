"""The warm process that forks one limited, isolated child for each request; `guard.py` starts it and talks to it.

Run as `python -m memory.adapters.forkserver WORK CONTROL PARENT FOLDER PROGRAMS`: WORK is `module:function:argument`,
CONTROL an inherited socket's number, PARENT the process that must outlive it, FOLDER for its temporary files, removed
at the end, PROGRAMS `programs` when children start others.
The function is called once, with the argument, and returns the work of every child: it takes the file and the request
and returns the answer's bytes.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from memory.adapters import confinement
from memory.errors import RejectedFile

# The answer's bytes, or pieces of them where they are too many to hold.
Work = Callable[[BinaryIO, dict[str, Any]], bytes | Iterable[bytes]]

DONE, REFUSED = b"+", b"-"
# How a child ends when the machine has no room left, which is not its file's fault.
NO_ROOM = 75
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# How often the server looks after running children: whether they fill the disk, and whom they left behind.
_ROUND_SECONDS = 0.5
# A file that had more room than this, and still has too little, is too large for the machine.
_ROOM_FOR_ANY = 1024**2
# What the warm process has mapped at most, for machines that do not tell.
_LARGE_PROCESS = 4 * 1024**3
# Whatever forks faster than it is ended is ended with the next round.
_GENERATIONS = 50


@dataclass
class _Running:
    caller: socket.socket
    deadline: float
    folder: str
    disk_bytes: int
    timed_out: bool = False
    flooded: bool = False


class Server:
    """Forks a child per request, ends it when its time is up or the disk fills, and tells each caller how it ended."""

    def __init__(self, control: socket.socket, work: Work, kept: list[str]) -> None:
        self._control = control
        self._kept = kept
        self._work = work
        self._running: dict[int, _Running] = {}
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> None:
        """Returns once the control socket is closed, with every child ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            self._control.sendall(json.dumps({"kept": self._kept}).encode())
            try:
                while self._take_events(selector):
                    self._end_overdue()
                    self._end_flooding()
                    self._reap()
                    self._end_orphans()
            finally:
                signal.set_wakeup_fd(-1)
                for pid in self._running:
                    _kill(pid)

    def _take_events(self, selector: selectors.BaseSelector) -> bool:
        nearest = min((running.deadline for running in self._running.values()), default=None)
        timeout = None if nearest is None else min(_ROUND_SECONDS, max(0.0, nearest - time.monotonic()))
        ready = {key.fileobj for key, _ in selector.select(timeout)}
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._control in ready:
            # One byte at a time, so that two requests never arrive as one message.
            message, descriptors, _, _ = socket.recv_fds(self._control, 1, 3)
            if not message:
                return False
            self._start(*descriptors)
        return True

    def _start(self, caller_fd: int, source_fd: int, result_fd: int) -> None:
        caller = socket.socket(fileno=caller_fd)
        with caller.makefile("rb") as lines:
            request = json.loads(lines.readline())
        try:
            folder = tempfile.mkdtemp(prefix="file-")
            pid = os.fork()
        except OSError as error:
            # The others go on; there may be room for this one later.
            os.close(source_fd)
            os.close(result_fd)
            _tell(caller, {"unable": error.strerror or type(error).__name__})
            return
        if pid == 0:
            # Every other caller must see its socket close when its own child is done.
            for other in (self._control, self._woken, self._wake, caller, *(r.caller for r in self._running.values())):
                other.close()
            _run_child(self._work, request, folder, source_fd, result_fd)
        os.close(source_fd)
        os.close(result_fd)
        limits = request["limits"]
        self._running[pid] = _Running(
            caller, time.monotonic() + limits["wall_seconds"], folder, disk_bytes=limits["disk_bytes"]
        )

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for pid, running in self._running.items():
            if running.deadline <= now:
                running.timed_out = True
                running.deadline = now + 5
                _kill(pid)

    def _end_flooding(self) -> None:
        for pid, running in self._running.items():
            if not running.flooded and _size(running.folder, running.disk_bytes) > running.disk_bytes:
                running.flooded = True
                _kill(pid)

    def _end_orphans(self) -> None:
        """Ends what left its child's group and outlived it: the kernel hands it to this process."""
        for _ in range(_GENERATIONS):
            orphans = [pid for pid in _children() if pid not in self._running]
            if not orphans:
                return
            for pid in orphans:
                _kill(pid)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _reap(self) -> None:
        for pid in list(self._running):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # What the child started ends with it; its number is taken until it is waited for, so this hits nobody else.
            _kill(pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            running = self._running.pop(pid)
            shutil.rmtree(running.folder, ignore_errors=True)
            _tell(running.caller, {"code": code, "timed_out": running.timed_out, "flooded": running.flooded})


def _tell(caller: socket.socket, ended: dict[str, Any]) -> None:
    with caller, contextlib.suppress(OSError):
        caller.sendall(json.dumps(ended).encode())


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []  # a kernel that does not tell


def _size(folder: str, enough: int) -> int:
    """The bytes of all files in a folder, counted until there are more than enough."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118 - many, and quickly
        if size > enough:
            break
    return size


def _run_child(work: Work, request: dict[str, Any], folder: str, source_fd: int, result_fd: int) -> None:
    """The child's whole life; never returns."""
    code = 1
    try:
        server = os.getppid()
        os.setsid()
        die_with(server, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        tempfile.tempdir = folder
        os.environ["TMPDIR"] = folder
        os.chdir(folder)
        with contextlib.suppress(OSError):
            # Where memory runs out before the limit does, this one goes, not whoever serves it.
            Path("/proc/self/oom_score_adj").write_text("1000")
        _limit(request["limits"])
        confinement.leave_files(folder)
        confinement.leave_calls(programs=request["programs"])
        with open(source_fd, "rb") as source, open(result_fd, "wb") as result:
            _answer(work, source, request, result)
        code = 0
    finally:
        os._exit(code)


def _answer(work: Work, source: BinaryIO, request: dict[str, Any], result: BinaryIO) -> None:
    try:
        result.write(DONE)
        answer = work(source, request)
        for piece in [answer] if isinstance(answer, bytes) else answer:
            result.write(piece)
        result.flush()
        return
    except RejectedFile as error:
        reason = error.detail
    except MemoryError:
        reason = "it needs more memory to read than one file may use"
    except RecursionError:
        reason = "it is nested too deeply"
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise  # it writes without end, and a refusal could not be written either
        reason = f"it is damaged or not what it seems to be ({type(error).__name__})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            if os.fstat(result.fileno()).st_size < _ROOM_FOR_ANY:
                os._exit(NO_ROOM)
            reason = "this machine has no room for what it unpacks to"
    except Exception as error:  # noqa: BLE001 - whatever a reader raises on a hostile file, it is that file's failure
        # The type alone: a message may quote the file.
        reason = f"it is damaged or not what it seems to be ({type(error).__name__})"
    with contextlib.suppress(OSError):
        result.flush()  # what is left in the buffer must not follow the refusal
    os.ftruncate(result.fileno(), 0)
    result.seek(0)
    result.write(REFUSED + reason.encode())


def _limit(limits: dict[str, int]) -> None:
    if sys.platform == "linux":
        # The warm process is large already; the limit is what reading this one file may add.
        taken = confinement.address_space()
        most = (taken if taken is not None else _LARGE_PROCESS) + limits["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # The hard limit is a second later: the first signal can still be told from other kills.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["result_bytes"], limits["result_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def die_with(parent: int, number: signal.Signals) -> None:
    """Has the kernel send the signal to this process when `parent` ends, also when `parent` is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Leaves the network, loads the work and serves until the control socket closes or the parent ends."""
    work_name, control_fd, parent, folder, programs = arguments
    kept = confinement.kept(folder, network=confinement.leave_network(), programs=programs == "programs")
    _adopt_orphans()

    def leave(*_: object) -> None:
        """Ends at once, whatever is being imported or done; the children end with this process. The parent removes the
        folder, unless it was killed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    die_with(int(parent), signal.SIGTERM)
    with socket.socket(fileno=int(control_fd)) as control:
        control.set_inheritable(False)
        module, function, argument = work_name.split(":")
        work: Work = getattr(importlib.import_module(module), function)(argument)
        # Keeps the collector from touching, and so copying, the pages that the children share.
        gc.freeze()
        Server(control, work, kept).serve()
    leave()


if __name__ == "__main__":
    main(sys.argv[1:])
