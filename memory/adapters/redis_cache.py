"""A cache in Redis, shared by all processes of an installation."""

import logging
import threading
import time
from collections.abc import Callable

from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from memory.errors import Misconfigured
from memory.ports import Cache

_log = logging.getLogger(__name__)

_PREFIX = "rememberos:answer:"
# Without a cache every answer is still right: nobody waits long for one.
_WAIT_SECONDS = 0.25
_AWAY_SECONDS = 5.0


class RedisCache(Cache):
    """Whatever goes wrong with Redis counts as nothing found; for a while nobody asks it again.

    Safe to use from many threads. Raises Misconfigured for an address that is none.
    """

    def __init__(
        self,
        url: SecretStr,
        *,
        wait_seconds: float = _WAIT_SECONDS,
        away_seconds: float = _AWAY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._redis: Redis = Redis.from_url(
                url.get_secret_value(),
                socket_timeout=wait_seconds,
                socket_connect_timeout=wait_seconds,
                # Once more at once: a connection from before a restart of the server is closed when it is next used.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            # Its message may quote the address, and with it the password.
            raise Misconfigured("REDIS_URL is not an address of the form redis://[:password@]host:port/0") from error
        self._away_seconds = away_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._away_until = float("-inf")

    def get(self, key: str) -> bytes | None:
        found = self._asked(lambda: self._redis.get(_PREFIX + key))
        return found if isinstance(found, bytes) else None

    def put(self, key: str, value: bytes, *, seconds: float) -> None:
        self._asked(lambda: self._redis.set(_PREFIX + key, value, px=max(1, round(seconds * 1000))))

    def close(self) -> None:
        self._redis.close()

    def _asked(self, ask: Callable[[], object]) -> object:
        if self._clock() < self._away_until:
            return None
        try:
            return ask()
        except (RedisError, OSError) as error:
            with self._lock:
                first = self._clock() >= self._away_until
                self._away_until = self._clock() + self._away_seconds
            if first:
                _log.warning("Redis does not answer; searching without its cache: %s", type(error).__name__)
            return None
