"""Who is asking: bearer key to Caller, what a route demands of its caller, and the list of routes that demand none."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from memory.errors import Forbidden, Unauthorized
from memory.schemas import Caller

# Every other route needs a key; a test walks all of them.
PUBLIC = frozenset(
    {
        "/openapi.json",
        "/api-explorer.html",
        "/api-explorer",
        "/v1/memory/health",
        "/v1/memory/files/{key:path}",
    }
)

_bearer = HTTPBearer(auto_error=False, bearerFormat="mv_…", description="An API key: `Authorization: Bearer mv_…`")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]

Guard = Callable[[Request, HTTPAuthorizationCredentials | None], Awaitable[Caller]]


async def reader(request: Request, credentials: _Credentials) -> Caller:
    """Any valid key."""
    known = getattr(request.state, "caller", None)
    if isinstance(known, Caller):
        return known
    if credentials is None:
        raise Unauthorized("send your API key as `Authorization: Bearer mv_…`")
    authenticate = partial(
        request.app.state.services.accounts.authenticate,
        credentials.credentials,
        address=request.client.host if request.client else None,
    )
    caller: Caller = await to_thread.run_sync(authenticate)
    request.state.caller = caller
    return caller


async def writer(request: Request, credentials: _Credentials) -> Caller:
    """A key that may change things."""
    caller = await reader(request, credentials)
    if caller.read_only:
        raise Forbidden("this key is read-only: it can search and read, not write")
    return caller


async def operator(request: Request, credentials: _Credentials) -> Caller:
    """A key of the installation's own operators."""
    caller = await reader(request, credentials)
    if not caller.is_admin:
        raise Forbidden("only an operator of this installation may do this")
    return caller


async def _token(credentials: _Credentials) -> str:
    return credentials.credentials if credentials else ""


GUARDS: tuple[Guard, ...] = (operator, writer, reader)

Reader = Annotated[Caller, Depends(reader)]
Writer = Annotated[Caller, Depends(writer)]
Operator = Annotated[Caller, Depends(operator)]
# The key itself, for the one route that replaces it.
Token = Annotated[str, Depends(_token)]


async def shown_key(request: Request) -> str | None:
    """The key that a request shows, whether it is one or not."""
    credentials = await _bearer(request)
    return None if credentials is None else credentials.credentials


async def check(request: Request, guard: Guard) -> None:
    """Runs a guard ahead of the dependencies, which FastAPI solves only after it has read the whole body."""
    await guard(request, await _bearer(request))
