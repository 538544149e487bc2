"""A source on its way into the store: counted, hashed, and cut off at its limit."""

import hashlib
import io
from collections.abc import Iterator
from typing import BinaryIO

from memory.errors import TooLarge
from memory.ports import StoredObject

_BLOCK_BYTES = 1024 * 1024


class Incoming:
    """A source on its way in: counted, hashed and cut off at the limit."""

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._size = 0
        self._digest = hashlib.sha256()

    def up_to(self, wanted: int) -> bytearray:
        """At least `wanted` bytes, or all that there is. Raises TooLarge."""
        collected = bytearray()
        while len(collected) < wanted and (block := self._read()):
            collected += block
        return collected

    def whole(self) -> bytearray:
        """All that there is. Raises TooLarge."""
        return self.up_to(self._max_bytes + 1)

    def after(self, first: bytearray) -> Iterator[bytes | bytearray]:
        """`first`, then the rest. Raises TooLarge, which makes the store give up what it has so far."""
        if first:
            yield first
        while block := self._read():
            yield block

    def stored(self) -> StoredObject:
        return StoredObject(self._size, self._digest.digest())

    def _read(self) -> bytes:
        block = self._source.read(_BLOCK_BYTES)
        self._size += len(block)
        if self._size > self._max_bytes:
            raise over(self._max_bytes)
        self._digest.update(block)
        return block


def over(max_bytes: int) -> TooLarge:
    return TooLarge(f"larger than {max_bytes} bytes")


def left(source: BinaryIO) -> int:
    here = source.tell()
    end = source.seek(0, io.SEEK_END)
    source.seek(here)
    return end - here
