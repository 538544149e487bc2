"""Runs work on files of strangers in limited child processes of a warm fork server: the caller survives any file."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import structlog

import memory
from memory.adapters import forkserver
from memory.errors import RejectedFile, Unavailable

log = structlog.stdlib.get_logger(__name__)

_START_SECONDS = 300
_ANSWER_BYTES = 4096
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_THREAD_LIMIT": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}


@dataclass(frozen=True)
class Limits:
    """What one child may use. Memory is what it may add to the warm process it is forked from."""

    memory_bytes: int = 1024**3
    cpu_seconds: int = 60
    wall_seconds: int = 90
    result_bytes: int = 64 * 1024**2
    disk_bytes: int = 256 * 1024**2


class Guard:
    """Hands files to one fork server, at most `concurrency` at once; the others wait. Safe to call from many threads.

    `work` is `module:function:argument`: what the function returns for the argument runs in each child; it gets the
    open file and the request and returns bytes. `programs`: whether it starts others, which most do not. The server
    starts in the background, is started again when it dies, and ends with this process. After `renewed_after` files it
    makes way for a new one, once those under way are done.
    """

    def __init__(
        self, work: str, *, concurrency: int, programs: bool = False, renewed_after: int | None = None
    ) -> None:
        self._work = work
        self._renewed_after = renewed_after
        self._served = self._under_way = 0
        self._programs = programs
        self._slots = threading.BoundedSemaphore(concurrency)
        self._changed = threading.Condition()
        self._control: socket.socket | None = None
        self._leaving: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._kept: tuple[str, ...] = ()
        self._trouble: str | None = None
        # The kernel ends the server when the thread that started it ends, so that thread lives as long as the guard.
        self._keeper = threading.Thread(target=self._keep, name=f"guard {work}", daemon=True)
        self._keeper.start()

    def run(self, path: Path, request: Mapping[str, Any], limits: Limits) -> bytes:
        """What `work` made of the file. Raises RejectedFile when the child did not end well, Unavailable when the
        server died under it.
        """
        with self.open(path, request, limits) as result:
            return result.read()

    @contextlib.contextmanager
    def open(self, path: Path, request: Mapping[str, Any], limits: Limits) -> Iterator[BinaryIO]:
        """The same as an open file, for a result that is too large to hold. Raises the same."""
        with _temporary_file() as result:
            with self._slots, contextlib.ExitStack() as stack:
                try:
                    source = stack.enter_context(path.open("rb"))
                except OSError as error:
                    raise Unavailable("the file to read could not be opened") from error
                sent = json.dumps({**request, "limits": asdict(limits), "programs": self._programs})
                ended = self._run_child(source, result, sent, limits)
            if "unable" in ended or ended["code"] == forkserver.NO_ROOM:
                raise Unavailable(f"no file can be read now: {ended.get('unable', 'no room for temporary files')}")
            if ended["timed_out"]:
                raise RejectedFile(f"reading it took longer than {limits.wall_seconds} seconds")
            if ended["flooded"]:
                raise RejectedFile("it fills the disk when it is read")
            if ended["code"] == -signal.SIGXCPU:
                raise RejectedFile(f"reading it took more than {limits.cpu_seconds} seconds of computing")
            if ended["code"] == -signal.SIGKILL:
                raise RejectedFile("the system ended its reader: it needs more memory or computing than there is")
            result.seek(0)
            verdict = result.read(1)
            if ended["code"] == 0 and verdict == forkserver.REFUSED:
                raise RejectedFile(result.read().decode())
            if ended["code"] != 0 or verdict != forkserver.DONE:
                raise RejectedFile("it broke its reader: it is damaged, or unpacks to more than one file may")
            yield result

    def close(self) -> None:
        """Ends the server and every read in flight."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for control in (self._control, self._leaving):
                if control is not None:
                    with contextlib.suppress(OSError):
                        control.shutdown(socket.SHUT_RDWR)
            process = self._process
        self._keeper.join(5)
        if self._keeper.is_alive() and process is not None:
            process.kill()
            self._keeper.join()

    @property
    def server_pid(self) -> int | None:
        """The fork server's process id while it serves."""
        with self._changed:
            return self._process.pid if self._process is not None and self._control is not None else None

    def kept(self) -> tuple[str, ...]:
        """What children cannot give up or be held to on this machine, in words for the operator; waits for the server.
        Raises Unavailable.
        """
        with self._changed:
            self._wait_for_server()
            return self._kept

    def _run_child(self, source: BinaryIO, result: BinaryIO, request: str, limits: Limits) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                ours.sendall(request.encode() + b"\n")
                self._send([theirs.fileno(), source.fileno(), result.fileno()])
            # The server keeps the time; this is for a server that hangs itself.
            ours.settimeout(limits.wall_seconds + 60)
            try:
                answer = ours.makefile("rb").read()
            except TimeoutError as error:
                self._kill_server()
                raise Unavailable("the process that reads files hung; it is started again") from error
            except ConnectionError:
                answer = b""  # it died before it had read the request
            finally:
                self._back()
        if not answer:
            raise Unavailable("the process that reads files died; it is started again")
        ended: dict[str, Any] = json.loads(answer)
        return ended

    def _send(self, descriptors: list[int]) -> None:
        with self._changed:
            control = self._wait_for_server()
            try:
                socket.send_fds(control, [b"r"], descriptors)
            except OSError as error:
                raise Unavailable("the process that reads files died; it is started again") from error
            self._served += 1
            self._under_way += 1
            if self._served == self._renewed_after:
                # Nobody is sent there any more.
                self._leaving, self._control = self._control, None

    def _wait_for_server(self) -> socket.socket:
        self._changed.wait_for(lambda: self._control or self._closing or self._trouble, _START_SECONDS)
        if self._control is None or self._closing:
            raise Unavailable(self._trouble or "the process that reads files does not run")
        return self._control

    def _back(self) -> None:
        with self._changed:
            self._under_way -= 1
            if self._leaving is not None and self._under_way == 0:
                with contextlib.suppress(OSError):
                    self._leaving.shutdown(socket.SHUT_RDWR)

    def _kill_server(self) -> None:
        with self._changed:
            if self._process is not None:
                self._process.kill()

    def _keep(self) -> None:
        pause = 0.1
        while not self._closing:
            started = time.monotonic()
            try:
                with tempfile.TemporaryDirectory(prefix="rememberos-", ignore_cleanup_errors=True) as folder:
                    self._serve_once(folder)
            except OSError as error:
                # No room on the disk, or for another process: that may change.
                self._stuck(f"the process that reads files cannot be started: {error.strerror or type(error).__name__}")
            pause = 0.1 if time.monotonic() - started > 30 else min(pause * 2, 5)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause)

    def _serve_once(self, folder: str) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                command = [sys.executable, "-P", "-m", forkserver.__name__, self._work]
                programs = "programs" if self._programs else "alone"
                process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                    [*command, str(theirs.fileno()), str(os.getpid()), folder, programs],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    start_new_session=True,  # a signal to our group must not end reads that we would wait for
                    env=_environment(folder),
                )
            with self._changed:
                self._process = process
            ready = ours.recv(_ANSWER_BYTES)
            with self._changed:
                if ready and not self._closing:
                    self._kept = tuple(json.loads(ready)["kept"])
                    self._control, self._trouble = ours, None
                    self._changed.notify_all()
                else:
                    process.kill()
            if ready:
                _tell_once(self._kept)
            else:
                self._stuck("the process that reads files ended while it was starting")
            process.wait()
            with self._changed:
                self._control = self._leaving = self._process = None
                self._served = 0

    def _stuck(self, trouble: str) -> None:
        with self._changed:
            if self._closing:
                return
            if self._trouble != trouble:
                log.warning("no files can be read", reason=trouble)
            self._trouble = trouble
            self._changed.notify_all()


@cache
def _tell_once(kept: tuple[str, ...]) -> None:
    if kept:
        log.warning("readers of files keep more than they need", kept=kept, reason="the system does not take it")


def _temporary_file() -> BinaryIO:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise Unavailable("no file can be read now: there is no folder for temporary files") from error


def _environment(folder: str) -> dict[str, str]:
    # Nothing else is inherited: a reader that a file takes over finds no secret.
    house = str(Path(memory.__file__).parent.parent)
    return _ENVIRONMENT | {
        "PATH": os.pathsep.join(os.get_exec_path()),
        "PYTHONPATH": house,
        "HOME": folder,
        "TMPDIR": folder,
    }
