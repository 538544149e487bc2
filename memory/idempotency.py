"""Requests that may be repeated: each is carried out once, and a repeat gets the first one's answer."""

import hashlib
import json
import threading
import time
import zlib
from dataclasses import dataclass
from uuid import uuid4

from memory.errors import Conflict
from memory.ports import Sealer
from memory.schemas import Caller, Once
from memory.store import requests
from memory.store.database import Database

_BETWEEN_CLEARINGS_SECONDS = 600.0
_CLEARED_AT_ONCE = 1_000


@dataclass(frozen=True)
class Answer:
    """What the first request was told; `headers` are those that belong to its content."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Unanswered:
    """The first request was carried out and its answer is not there: it is on its way, withheld, or lost."""

    age_seconds: float
    resource: str | None


@dataclass(frozen=True)
class Repeatable:
    """One request with its `Idempotency-Key`, which seals the kept answer: the database alone cannot read it."""

    once: Once
    secret: bytes


def repeatable(*, path: str, key: str, body: bytes) -> Repeatable:
    """`body` is a digest of everything that the request says besides its path."""
    secret = key.encode()
    return Repeatable(Once(path, hashlib.sha256(b"idempotency\0" + secret).digest(), body, uuid4()), secret)


class Idempotency:
    """Remembers for a day what was answered. The mark itself is set in the transaction of the change."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer
        self._lock = threading.Lock()
        self._clear_at = 0.0

    def recall(self, caller: Caller, request: Repeatable) -> Answer | Unanswered | None:
        """What came of the same request before; None when it was never carried out.

        Raises Conflict when the key was used for something else.
        """
        with self._database.transaction(caller.tenant_id) as session:
            mark = requests.find(session, caller, request.once)
        if mark is None:
            return None
        if mark.body != request.once.body:
            raise Conflict("this Idempotency-Key was sent before with another request")
        if mark.status is None or mark.answer is None:
            return Unanswered(mark.age_seconds, mark.resource)
        headers, _, body = zlib.decompress(self._sealer.open(request.secret, mark.answer)).partition(b"\n")
        return Answer(mark.status, json.loads(headers), body)

    def keep(self, caller: Caller, request: Repeatable, answer: Answer) -> None:
        """Keeps the answer for a day, if the request left a mark."""
        content = json.dumps(answer.headers).encode() + b"\n" + answer.body
        sealed = self._sealer.seal(request.secret, zlib.compress(content, 1))
        with self._database.transaction(caller.tenant_id) as session:
            requests.keep_answer(session, caller, request.once, answer.status, sealed)
        if self._time_to_clear():
            with self._database.across() as session:
                requests.forget_old(session, _CLEARED_AT_ONCE)

    def _time_to_clear(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if now < self._clear_at:
                return False
            self._clear_at = now + _BETWEEN_CLEARINGS_SECONDS
            return True
