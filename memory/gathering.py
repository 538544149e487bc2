"""Short texts that many ask to embed at the same time share batches; who asks alone never waits."""

import os
import threading
from collections.abc import Callable, Sequence

from memory.errors import Misconfigured, Unavailable
from memory.ports import Vectors

# Beyond these the batch is no quicker than its texts one by one, and the shortest would wait for the longest.
SHORT_CHARACTERS = 400
_BATCH_CHARACTERS = 2_000
_GATHER_SECONDS = 0.004


class Gathering:
    """Embeds single texts. As long as the engine has room each goes at once; the others gather meanwhile.

    A batch leaves as soon as there is room, at the latest after a few milliseconds, carried by the thread that opened
    it. Safe to use from many threads.
    """

    def __init__(
        self,
        embed: Callable[[Sequence[str]], Vectors],
        *,
        at_once: int = os.cpu_count() or 1,
        seconds: float = _GATHER_SECONDS,
    ) -> None:
        self._embed = embed
        self._at_once = at_once
        self._seconds = seconds
        self._room = threading.Condition()
        self._running = 0
        self._open: _Batch | None = None

    def embed(self, text: str) -> Vectors:
        """The vector of one text, shape (dimensions,). Raises what the embedder raises for this text."""
        with self._room:
            batch, place = self._join(text)
        if place == 0:
            try:
                self._carry(batch)
            finally:
                # However the carrying thread ends, even while it waits: those who joined go on by themselves.
                with self._room:
                    self._close(batch)
                batch.arrived.set()
        return batch.vector(place, self._embed)

    def _carry(self, batch: "_Batch") -> None:
        with self._room:
            self._room.wait_for(lambda: self._running < self._at_once, self._seconds)
            self._close(batch)
            self._running += 1
        try:
            batch.embed(self._embed)
        finally:
            with self._room:
                self._running -= 1
                self._room.notify_all()

    def _close(self, batch: "_Batch") -> None:
        if self._open is batch:
            self._open = None

    def _join(self, text: str) -> "tuple[_Batch, int]":
        """The batch that the text goes with, and its place there; the first one carries."""
        if self._open is None or not self._open.has_room(text):
            self._open = _Batch()
        self._open.texts.append(text)
        return self._open, len(self._open.texts) - 1


class _Batch:
    """Texts on their way, and what became of them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.arrived = threading.Event()
        self._vectors: Vectors | None = None
        self._error: Unavailable | Misconfigured | None = None

    def has_room(self, text: str) -> bool:
        return sum(map(len, self.texts)) + len(text) <= _BATCH_CHARACTERS

    def embed(self, embed: Callable[[Sequence[str]], Vectors]) -> None:
        try:
            self._vectors = embed(self.texts)
        except (Unavailable, Misconfigured) as error:
            # No text's fault: asking again for each would only make the trouble larger.
            self._error = error
        except Exception:
            if len(self.texts) == 1:
                raise

    def vector(self, place: int, embed: Callable[[Sequence[str]], Vectors]) -> Vectors:
        self.arrived.wait()
        if self._error is not None:
            # Each gets one of its own: two threads that raise the same one would write into one traceback.
            raise type(self._error)(self._error.detail) from self._error
        if self._vectors is None:
            # One of them is to blame: each tries for itself, and only that one fails.
            return embed([self.texts[place]])[0]  # type: ignore[no-any-return]
        return self._vectors[place]  # type: ignore[no-any-return]
