"""How many requests a minute: per key, per client address for strangers and public routes; counted here alone."""

import ipaddress
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from pydantic import SecretStr
from redis.asyncio import ConnectionPool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from memory.errors import Misconfigured, TooManyRequests
from memory.schemas import Caller
from memory.settings import Settings

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
# Asked by machines that restart what does not answer: counted, and never refused.
NEVER_REFUSED = frozenset({"/v1/memory/health"})
# Pages for people. Links to files are not among them: whoever holds one was given it for a key, and a page of memories
# shows many at once, so they count as a stranger's requests do.
PUBLIC_PAGES = ("/openapi.json", "/api-explorer.html", "/api-explorer/", *NEVER_REFUSED)

_WINDOW_SECONDS = 60
_STORE_SECONDS = 0.25
_AFTER_TROUBLE_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Window:
    """What is left of one identity's minute; `end` is in unix seconds."""

    limit: int
    remaining: int
    end: float
    exceeded: bool

    @property
    def reset(self) -> int:
        return math.ceil(self.end)

    @property
    def retry_after(self) -> int:
        return max(1, math.ceil(self.end - time.time()))


class Limiter:
    """Fixed windows of a minute, in this process or in Redis. A store that does not answer lets everybody through."""

    def __init__(self, *, per_key: int, per_stranger: int, redis_url: SecretStr | None = None) -> None:
        self._per_key = per_key
        self._per_stranger = per_stranger
        self._pool = None if redis_url is None else _pool(redis_url)
        self._windows = FixedWindowRateLimiter(MemoryStorage() if self._pool is None else _in_redis(self._pool))
        self._trusted_again_at = 0.0

    async def of_key(self, caller: Caller) -> Window | None:
        return await self._hit(self._per_key, "key", str(caller.key_id))

    async def of_address(self, scope: Scope) -> Window | None:
        """Who shows no key that we know, beyond the public pages."""
        return await self._hit(self._per_key, "address", client_address(scope))

    async def of_public(self, scope: Scope) -> Window | None:
        return await self._hit(self._per_stranger, "public", client_address(scope))

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _hit(self, amount: int, *identity: str) -> Window | None:
        if amount == 0:
            return None
        item = RateLimitItemPerMinute(amount)
        now = time.monotonic()
        if now >= self._trusted_again_at:
            try:
                # In the process nothing can be late, and watching for it would cost each request more than counting.
                with nullcontext() if self._pool is None else anyio.fail_after(_STORE_SECONDS):
                    allowed = await self._windows.hit(item, *identity)
                    end, remaining = await self._windows.get_window_stats(item, *identity)
                return Window(amount, remaining, end, not allowed)
            except Exception as error:  # noqa: BLE001  whatever it is, the limiter must not be what stops requests
                self._trusted_again_at = now + _AFTER_TROUBLE_SECONDS
                log.warning("rate limits are off: their store does not answer", error=type(error).__name__)
        return Window(amount, amount, time.time() + _WINDOW_SECONDS, exceeded=False)


def limiter(settings: Settings) -> Limiter:
    """The limiter that the settings ask for. Raises Misconfigured."""
    return Limiter(
        per_key=settings.rate_limit_per_minute,
        per_stranger=settings.public_rate_limit_per_minute,
        redis_url=settings.redis_url,
    )


async def admit(request: Request) -> None:
    """Counts a request to a route that asks for a key. Raises TooManyRequests."""
    counted: Limiter = request.app.state.limiter
    caller = getattr(request.state, "caller", None)
    window = await (counted.of_key(caller) if isinstance(caller, Caller) else counted.of_address(request.scope))
    request.state.window = window
    if window is not None and window.exceeded:
        raise TooManyRequests(errors.over_the_limit(window.limit, window.retry_after))


class PublicLimit:
    """Counts requests to public pages by the client's address, and refuses those over the limit."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self.app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PUBLIC_PAGES):
            window = scope["state"]["window"] = await self._limiter.of_public(scope)
            if window is not None and window.exceeded and scope["path"] not in NEVER_REFUSED:
                await errors.too_many_requests(window.limit, window.retry_after)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class RateHeaders:
    """Puts what is left of the minute on every answer, whoever made it; what nobody counted is counted here."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self.app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                window = state["window"] if "window" in state else await self._limiter.of_address(scope)
                if window is not None:
                    _describe(window, message)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _describe(window: Window, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in zip(HEADERS, (window.limit, window.remaining, window.reset), strict=True):
        headers[name] = str(value)
    if message["status"] == 429:
        headers["Retry-After"] = str(window.retry_after)


def client_address(scope: Scope) -> str:
    """Where a request comes from; of IPv6 the /64, which one household or server has to itself."""
    host = str((scope.get("client") or ("unknown",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def _pool(redis_url: SecretStr) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            redis_url.get_secret_value(), socket_timeout=_STORE_SECONDS, socket_connect_timeout=_STORE_SECONDS
        )
    except ValueError as error:
        raise Misconfigured("REDIS_URL is not an address of Redis: `redis://host:port/0`") from error


def _in_redis(pool: ConnectionPool) -> RedisStorage:
    options: dict[str, Any] = {"connection_pool": pool}
    # The pool says where; the address is only asked for its scheme.
    return RedisStorage("async+redis://", implementation="redispy", key_prefix="rememberos-limits", **options)
