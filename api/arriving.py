"""Files while they arrive: in memory while they are small, on the disk until they are whole; both bounded."""

import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import anyio
from anyio import to_thread
from fastapi import Request

from api import heap
from memory.errors import SlowRequest, Unavailable

# A file up to here never touches the disk.
_HELD_BYTES = 64 * 1024
_STALLED_SECONDS = 60.0
# Of at most 10 MiB each.
ON_DISK_AT_ONCE = 256
# On its way to a bucket all of a file is in memory, so large ones go one by one; they fill the line anyway.
_LARGE_BYTES = 1024 * 1024
_LARGE_STORED_AT_ONCE = 1
_STORED_AT_ONCE = 8
_WRITTEN_AT_ONCE = 8
_TIDIED_EVERY_SECONDS = 2.0


class Room:
    """What all requests of this process share: a folder for what is too large, and how much may lie there at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.on_disk = anyio.Semaphore(ON_DISK_AT_ONCE)
        self.large_being_stored = anyio.Semaphore(_LARGE_STORED_AT_ONCE)
        self.being_stored = anyio.Semaphore(_STORED_AT_ONCE)
        self.writers = anyio.CapacityLimiter(_WRITTEN_AT_ONCE)
        self.closed = 0

    def file(self) -> BinaryIO:
        """A file without a name: it is gone with the process, however that ends."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._folder)

    async def tidy(self) -> None:
        """Gives back the memory that files took, until it is cancelled."""
        tidied_at = 0
        while True:
            await anyio.sleep(_TIDIED_EVERY_SECONDS)
            if self.closed != tidied_at:
                tidied_at = self.closed
                await to_thread.run_sync(heap.give_back)


class Arriving:
    """One file."""

    def __init__(self, room: Room, most_bytes: int) -> None:
        self.size = 0
        self._most_bytes = most_bytes
        self._room = room
        self._held = bytearray()
        self._disk: BinaryIO | None = None
        self._has_room = False

    @property
    def is_over(self) -> bool:
        """Whether it is larger than it may be; nothing of it is kept then."""
        return self.size > self._most_bytes

    async def add(self, data: bytes) -> None:
        """Raises Unavailable."""
        self.size += len(data)
        if self.is_over:
            self.close()
            return
        if len(self._held) + len(data) < _HELD_BYTES:
            self._held += data
        else:
            await self._to_disk(data)

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[BinaryIO]:
        """All of it, for as long as it is being stored."""
        try:
            if not self._has_room:
                yield io.BytesIO(self._held)
                return
            disk = await self._to_disk(b"")
            disk.seek(0)
            async with self._room.large_being_stored if self.size > _LARGE_BYTES else self._room.being_stored:
                yield disk
        finally:
            self.close()

    def close(self) -> None:
        self._held = bytearray()
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.close()
        if self._has_room:
            self._has_room = False
            self._room.closed += 1
            self._room.on_disk.release()

    async def _to_disk(self, data: bytes) -> BinaryIO:
        if not self._has_room:
            await self._room.on_disk.acquire()
            self._has_room = True
        held, self._held = self._held, bytearray()
        try:
            return await to_thread.run_sync(self._write, held, data, limiter=self._room.writers)
        except OSError as error:
            raise Unavailable("there is no room for files that arrive; try again later") from error

    def _write(self, held: bytearray, data: bytes) -> BinaryIO:
        disk = self._disk = self._disk or self._room.file()
        disk.write(held)
        disk.write(data)
        disk.flush()
        return disk


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises SlowRequest when nothing does."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(_STALLED_SECONDS):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise SlowRequest(f"nothing of the body arrived for {_STALLED_SECONDS:.0f} s") from error
        if piece is None:
            return
        yield piece
