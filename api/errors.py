"""How a refusal leaves the house: every error answer is JSON with a readable `detail` string."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from memory.errors import AppError

_SHOWN_ERRORS = 100
_SHOWN_CHARACTERS = 300
# What the validating library says in words of its own language, or of its insides.
_IN_PLAIN_WORDS = {
    "model_attributes_type": "Input should be a JSON object",
    "dict_type": "Input should be a JSON object",
    "json_invalid": "Input should be a JSON object",
    "string_unicode": "Input should be valid Unicode",
    "uuid_type": "Input should be an id",
}

log = structlog.stdlib.get_logger(__name__)


class ErrorAnswer(BaseModel):
    """Body of every refusal."""

    detail: str


class ValidationError(BaseModel):
    """One thing that is wrong with the request, and where."""

    type: str
    loc: list[str | int]
    msg: str


class HTTPValidationError(BaseModel):
    """Body of a 422: one sentence, and the list it was made from."""

    detail: str
    errors: list[ValidationError]


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "Well-formed, and cannot be done"},
    401: {"model": ErrorAnswer, "description": "No key, or one that is unknown, revoked or expired"},
    403: {"model": ErrorAnswer, "description": "This key may not do this"},
    404: {"model": ErrorAnswer, "description": "No such thing"},
    409: {"model": ErrorAnswer, "description": "It exists already, changed meanwhile, or was asked for before"},
    413: {"model": ErrorAnswer, "description": "Over a size limit"},
    422: {"model": HTTPValidationError, "description": "Wrong shape or out of range"},
    429: {"model": ErrorAnswer, "description": "Too many requests in this minute; see `Retry-After`"},
    503: {"model": ErrorAnswer, "description": "Something that this needs does not answer now; see `Retry-After`"},
}


def beyond_the_end(size: int) -> JSONResponse:
    """The answer to a range of a file that begins behind its last byte."""
    return _answer(416, {"detail": f"the file has {size} bytes"}, {"Content-Range": f"bytes */{size}"})


def internal_error(request_id: str) -> JSONResponse:
    """The answer to something unforeseen: nothing of it but the number under which the log has it."""
    return _answer(500, {"detail": f"Something went wrong on our side. The log has it under request {request_id}."})


def too_many_requests(limit: int, retry_after: int) -> JSONResponse:
    """The answer to one request too many, where no handler stands behind."""
    return _answer(429, {"detail": over_the_limit(limit, retry_after)})


def over_the_limit(limit: int, retry_after: int) -> str:
    return f"more than {limit} requests in a minute; try again in {retry_after} s"


async def _refusal(_: Request, error: AppError) -> JSONResponse:
    if error.status >= 500:
        log.warning("refused", status=error.status, reason=error.detail)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    body: dict[str, Any] = {"detail": encodable(error.detail)}
    if error.status == 422:
        body["errors"] = [{"type": "value_error", "loc": ["body"], "msg": body["detail"]}]
    return _answer(error.status, body, headers)


async def _http_refusal(request: Request, error: HTTPException) -> JSONResponse:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_at(request))
    return _answer(error.status_code, {"detail": encodable(str(error.detail))}, headers)


def _methods_at(request: Request) -> list[str]:
    """All methods of this path's template: the framework knows only those of the first route that stands there."""
    contexts = list(iter_route_contexts(request.app.routes))
    first = next(context for context in contexts if context.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for context in contexts if context.path == first.path for method in context.methods or ()})


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    shown = [_shown(one) for one in error.errors()[:_SHOWN_ERRORS]]
    return _answer(422, {"detail": _sentence(shown, len(error.errors())), "errors": shown})


def _answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status_code=status, headers=headers)


def _shown(error: dict[str, Any]) -> dict[str, Any]:
    """Without `input` and `ctx`: they repeat what was sent, which may be secret, huge or not JSON at all."""
    loc = [part if isinstance(part, int) else encodable(str(part))[:_SHOWN_CHARACTERS] for part in error["loc"]]
    message = in_plain_words(error)
    if error["type"] == "json_invalid":
        message = f"the body is not valid JSON: {error.get('ctx', {}).get('error', 'cannot be read')}"
    return {"type": error["type"], "loc": loc, "msg": encodable(message)[:_SHOWN_CHARACTERS]}


def in_plain_words(error: Mapping[str, Any]) -> str:
    """What one error of validation says, in words of ours where its own are of the code."""
    said = str(error["msg"]).removeprefix("Value error, ")
    if said.startswith("Expected UploadFile"):
        return "Input should be a file with a name, in multipart/form-data"
    return _IN_PLAIN_WORDS.get(error["type"], said).replace(" after validation", "")


def _sentence(errors: Sequence[dict[str, Any]], total: int) -> str:
    first = errors[0]
    message = first["msg"]
    if first["type"] != "json_invalid":
        where, *field = first["loc"]
        message = f"{'.'.join(map(str, field)) or where}: {uncapitalised(message)}"
    return f"{message} (and {total - 1} more)" if total > 1 else message


def uncapitalised(message: str) -> str:
    return message[:1].lower() + message[1:]


def encodable(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 answer can carry, replaced."""
    return text.encode("utf-8", "replace").decode()


# One per family; what none of them knows ends in `middleware.Failures`.
HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    AppError: _refusal,
    RequestValidationError: _invalid_request,
    HTTPException: _http_refusal,
}
