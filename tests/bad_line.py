"""A line to a server that is as bad as a test wants it: dead, silent, slow, or cut in the middle of what it carries."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Fault = Literal["none", "refused", "silent", "cut"]
Way = Literal["to the server", "from the server"]


@dataclass
class BadLine:
    """Carries bytes between `url` and a server.

    `refused` ends each connection at once, `silent` swallows all that is sent. Both hold for connections that are open
    too, and begin as soon as `sound_bytes` went to the server. `cut` ends a connection after `cut_bytes` from the
    server. Each piece is held up for `slow_seconds`.
    """

    url: str
    fault: Fault = "none"
    sound_bytes: int = 0
    cut_bytes: int = 0
    slow_seconds: float = 0.0

    def break_down(self, fault: Fault, *, sound_bytes: int = 0, cut_bytes: int = 0) -> None:
        self.fault, self.sound_bytes, self.cut_bytes = fault, sound_bytes, cut_bytes

    def heal(self) -> None:
        self.fault, self.slow_seconds = "none", 0.0

    def passes(self, size: int, carried: int, way: Way) -> int | None:
        """How many bytes of a piece go on; None when the connection ends."""
        if way == "to the server" and self.fault in {"refused", "silent"} and self.sound_bytes > 0:
            self.sound_bytes -= size
            return size
        if self.fault == "refused" or (self.fault == "cut" and way == "from the server" and carried >= self.cut_bytes):
            return None
        if self.fault == "cut" and way == "from the server":
            return min(size, self.cut_bytes - carried)
        return 0 if self.fault == "silent" else size


@contextmanager
def bad_line(server_url: str) -> Iterator[BadLine]:
    """A line to the server, without a fault at first."""
    host, port = server_url.removeprefix("http://").split(":")
    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        line = BadLine(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def accept() -> None:
            while True:
                try:
                    near, _ = listening.accept()
                except OSError:
                    return
                far = socket.create_connection((host, int(port)))
                ends.extend((near, far))
                for source, to, way in ((near, far, "to the server"), (far, near, "from the server")):
                    threading.Thread(target=_carry, args=(line, source, to, way), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield line
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for one in ends:
                _end(one)


def _carry(line: BadLine, source: socket.socket, to: socket.socket, way: Way) -> None:
    carried = 0
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            time.sleep(line.slow_seconds)
            passing = line.passes(len(piece), carried, way)
            if passing is None:
                break
            to.sendall(piece[:passing])
            carried += passing
    _end(source)
    _end(to)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
