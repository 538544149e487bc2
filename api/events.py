"""Server-sent events: who listens holds no thread and no connection, and a bounded number may listen at once."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio import to_thread
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from memory.errors import AppError, Unavailable

# Each asks the database once or twice a second.
AT_MOST = 200
# A key or grant that was taken back is noticed at the latest when its holder asks again.
LASTS_SECONDS = 900.0
# Proxies cut connections on which nothing comes for half a minute or a minute.
HEARTBEAT_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Event:
    """One event; `data` is a single line. Without a name it is a heartbeat, which clients skip."""

    name: str | None
    data: str

    def encoded(self) -> str:
        return f": {self.data}\n\n" if self.name is None else f"event: {self.name}\ndata: {self.data}\n\n"


HEARTBEAT = Event(None, "still here")


class EventStream(StreamingResponse):
    """An answer of events that ends when its source does, or its client goes away. Raises Unavailable when full."""

    media_type = "text/event-stream"
    listening = 0

    def __init__(self, events: AsyncIterator[Event]) -> None:
        if EventStream.listening >= AT_MOST:
            raise Unavailable("too many are following events; ask for the batch itself, or again in a moment")
        # Caches and proxies that collect before they pass on would make one late event of all.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((event.encoded() async for event in events), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        EventStream.listening += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            EventStream.listening -= 1


async def follow(
    first: Seen, look: Callable[[], Seen], told: Callable[[Seen], Event], has_ended: Callable[[Seen], bool]
) -> AsyncIterator[Event]:
    """What `told` makes of `first`, and of what `look` sees whenever that has changed, until it has ended.

    `look` is asked in a thread, holds nothing in between, and raises when its caller may no longer see it.
    """
    until = time.monotonic() + LASTS_SECONDS
    seen, spoke, pause = first, time.monotonic(), _FIRST_PAUSE_SECONDS
    yield told(seen)
    while not has_ended(seen) and time.monotonic() < until:
        await anyio.sleep(pause)
        try:
            now = await to_thread.run_sync(look)
        except AppError as error:
            if not error.retryable:
                return
            now = seen
        if now != seen:
            seen, spoke, pause = now, time.monotonic(), _FIRST_PAUSE_SECONDS
            yield told(seen)
            continue
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        if time.monotonic() - spoke >= HEARTBEAT_SECONDS:
            spoke = time.monotonic()
            yield HEARTBEAT
