"""Waiting for work that goes on elsewhere: asked for with growing pauses, by a bounded number of threads."""

import threading
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

WAIT_SECONDS = 55.0
# Each who waits holds a thread, of which the API has 200 for everybody; one more is told to ask again later.
_waiting = threading.BoundedSemaphore(100)
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


def _seconds(value: object) -> object:
    words = {"true": WAIT_SECONDS, "false": 0.0}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


# How long a caller wants to wait: seconds, or a word for all or nothing.
Wait = Annotated[
    float,
    Field(ge=0, le=WAIT_SECONDS),
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": WAIT_SECONDS}, {"type": "boolean"}]}),
]


def wait_until(has_ended: Callable[[], bool], patience_seconds: float = WAIT_SECONDS) -> bool:
    """Whether it has ended before patience has; at once false when too many wait already.

    `has_ended` is asked again and again and must hold nothing in between.
    """
    if not _waiting.acquire(blocking=False):
        return False
    try:
        until = time.monotonic() + patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while not has_ended():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        return True
    finally:
        _waiting.release()
