"""The header `Idempotency-Key`: a POST that is sent again is answered again, and not carried out again."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import structlog
from anyio import to_thread
from fastapi import Request, Response

from api.forms import TakenUpload
from memory.errors import AppError, Conflict, Invalid, Repeated
from memory.idempotency import Answer, Idempotency, Repeatable, Unanswered, repeatable
from memory.schemas import Caller

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
MAX_CHARACTERS = 255
# POST routes that pay no heed to the header, and why; a test looks at all others.
HEEDLESS = {
    "/v1/memory/search": "changes nothing",
    "/v1/memory/collections/{collection}/search": "changes nothing",
    "/v1/memory/collections/{collection}/drop/missing": "changes nothing",
    "/v1/memory/collections/{collection}/dedup": "creates nothing, and what it did is not there to be done again",
    "/v1/memory/collections/{collection}/archive-stale": "creates nothing; what is archived is not archived again",
    "/v1/memory/ingest/batch/{batch_id}/retry": "creates nothing; what is queued again has no longer failed",
    "/v1/memory/ingest/batch/{batch_id}/cancel": "creates nothing; what is cancelled is not cancelled again",
}

_KEPT_HEADERS = ("content-type", "etag", "x-total-count")
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
# Between the commit of a change and its kept answer lies no more than that, unless a route says so.
_PATIENCE_SECONDS = 5.0

PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes it safe to send this request again: for 24 hours a repeat gets the first one's answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": "^[!-~]+$"},
}

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Handler = Callable[[Request], Awaitable[Response]]
Rebuild = Callable[[Request, Caller, str], Response]

log = structlog.stdlib.get_logger(__name__)

_secret: set[Callable[..., Any]] = set()
_patience: dict[Callable[..., Any], float] = {}
_rebuilds: dict[Callable[..., Any], Rebuild] = {}


def answers_with_a_secret(endpoint: Endpoint) -> Endpoint:
    """For a route whose answer holds a key or a signed link: it is not kept, and a repeat is 409."""
    _secret.add(endpoint)
    return endpoint


def takes_long(seconds: float, rebuild: Rebuild) -> Callable[[Endpoint], Endpoint]:
    """For a route that answers long after its change is committed: a repeat waits that long for the answer.

    When it was lost, `rebuild(request, caller, resource)` makes another one of what the change left behind.
    """

    def remember(endpoint: Endpoint) -> Endpoint:
        _patience[endpoint] = seconds
        _rebuilds[endpoint] = rebuild
        return endpoint

    return remember


async def answered_once(
    request: Request, endpoint: Callable[..., Any], handle: Handler, *, takes_form: bool, takes_json: bool
) -> Response:
    """The answer of `handle`, or the one that the same request got before. Raises Conflict, Invalid."""
    key = _key(request)
    body = await _digest(request, takes_form=takes_form, takes_json=takes_json)
    repeat = repeatable(path=request.scope["path"], key=key, body=body)
    return await _answered(request, endpoint, handle, repeat)


async def _answered(request: Request, endpoint: Callable[..., Any], handle: Handler, repeat: Repeatable) -> Response:
    house: Idempotency = request.app.state.services.idempotency
    caller: Caller = request.state.caller
    earlier = await to_thread.run_sync(house.recall, caller, repeat)
    if earlier is not None:
        collection = request.path_params.get("collection")
        if collection is not None:
            # What the first one was told belongs to who may write there now, not to who might then.
            await to_thread.run_sync(request.app.state.services.grants.require_write, caller, collection)
        return await _again(request, endpoint, house, repeat, earlier)
    request.state.caller = replace(caller, once=repeat.once)
    try:
        response = await handle(request)
    except Repeated:
        earlier = await to_thread.run_sync(house.recall, caller, repeat)
        if earlier is None:
            raise
        return await _again(request, endpoint, house, repeat, earlier)
    if endpoint not in _secret and response.status_code < 300:
        await _keep(house, caller, repeat, response)
    return response


async def _again(
    request: Request, endpoint: Callable[..., Any], house: Idempotency, repeat: Repeatable, found: Answer | Unanswered
) -> Response:
    """The first request's answer, waited for while it may still come."""
    caller: Caller = replace(request.state.caller, once=None)
    patience = 0.0 if endpoint in _secret else _patience.get(endpoint, _PATIENCE_SECONDS)
    pause = _FIRST_PAUSE_SECONDS
    while isinstance(found, Unanswered) and found.age_seconds < patience:
        await anyio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        found = await to_thread.run_sync(house.recall, caller, repeat) or found
    if isinstance(found, Answer):
        return Response(found.body, found.status, {**found.headers, REPLAYED: "true"})
    if endpoint in _rebuilds and found.resource is not None:
        response = await to_thread.run_sync(_rebuilds[endpoint], request, caller, found.resource)
        response.headers[REPLAYED] = "true"
        return response
    made = f" ({found.resource})" if found.resource else ""
    kept = "was lost" if endpoint not in _secret else "holds a secret and is given only once"
    raise Conflict(f"a request with this Idempotency-Key was carried out already{made}; its answer {kept}")


async def _keep(house: Idempotency, caller: Caller, repeat: Repeatable, response: Response) -> None:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    answer = Answer(response.status_code, headers, bytes(response.body))
    try:
        await to_thread.run_sync(house.keep, caller, repeat, answer)
    except AppError as error:
        # The change is made and its mark is set: a repeat is told so, it only misses the answer.
        log.warning("answer not kept", error=type(error).__name__)


def _key(request: Request) -> str:
    given = request.headers[HEADER]
    if not 1 <= len(given) <= MAX_CHARACTERS or not all("!" <= character <= "~" for character in given):
        raise Invalid(f"{HEADER}: 1 to {MAX_CHARACTERS} visible ASCII characters")
    return given


async def _digest(request: Request, *, takes_form: bool, takes_json: bool) -> bytes:
    """Of all that the request says besides its path: the query, and JSON or a form by its content, because the order
    of keys, spaces and a form's boundary differ from one sending to the next."""
    digest = hashlib.sha256()
    _add(digest, request.scope["query_string"])
    if takes_form:
        for name, value in (await request.form()).multi_items():
            _add(digest, name.encode())
            if isinstance(value, TakenUpload):
                _add(digest, (value.filename or "").encode("utf-8", "surrogatepass"))
                _add(digest, value.digest)
            elif isinstance(value, str):
                _add(digest, value.encode("utf-8", "surrogatepass"))
    elif takes_json:
        _add(digest, _canonical(await request.body()))
    return digest.digest()


def _canonical(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        # It is refused in a moment; or it is empty.
        return body


def _add(digest: "hashlib._Hash", part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "big") + part)
