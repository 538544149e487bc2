"""A cache in the process: bounded by entries and by bytes, the least used go first."""

import threading
import time
from collections.abc import Callable

from cachetools import TLRUCache

from memory.ports import Cache

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024


class LocalCache(Cache):
    """Safe to use from many threads; another process does not see it."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        # The smallest entry counts as its share of the whole, which bounds how many there are.
        self._least = max_bytes // max_entries
        self._kept: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            max_bytes, ttu=lambda _key, entry, now: now + entry[1], timer=clock, getsizeof=self._size
        )

    def get(self, key: str) -> bytes | None:
        with self._lock:
            entry = self._kept.get(key)
        return None if entry is None else entry[0]

    def put(self, key: str, value: bytes, *, seconds: float) -> None:
        if len(value) <= self._max_bytes:
            with self._lock:
                self._kept[key] = (value, seconds)

    def close(self) -> None:
        with self._lock:
            self._kept.clear()

    def _size(self, entry: tuple[bytes, float]) -> int:
        return max(len(entry[0]), self._least)
