"""What every route of ours has in common: the key is checked and counted before the body is read, the body is bounded,
and a POST that is sent again is carried out once."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.types import Message

from api import auth, errors, forms, idempotency, limits
from memory.errors import Invalid, TooLarge

MEGABYTE = 1024 * 1024

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Model = TypeVar("Model", bound=BaseModel)

_body_limits: dict[Callable[..., Any], int] = {}


def body_limit(limit_bytes: int) -> Callable[[Endpoint], Endpoint]:
    """For a route whose JSON body may be larger than 1 MB. Stands below the router's decorator."""

    def remember(endpoint: Endpoint) -> Endpoint:
        _body_limits[endpoint] = limit_bytes
        return endpoint

    return remember


def router(tag: str) -> APIRouter:
    """A router whose routes are guarded, with the refusals that all of them share in their documentation."""
    return APIRouter(tags=[tag], route_class=GuardedRoute, responses=errors.REFUSALS)


def answer(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None, /) -> Response:
    """A model as JSON. Made in the route's own thread: FastAPI would validate it again, one more thread hop away."""
    return Response(model.model_dump_json(), status, headers, "application/json")


def answer_list(adapter: TypeAdapter[list[Model]], models: Sequence[Model], total: int) -> Response:
    """A bare array; how many there are in all stands in a header."""
    return Response(adapter.dump_json(list(models)), 200, {"X-Total-Count": str(total)}, "application/json")


class GuardedRoute(APIRoute):
    """FastAPI reads and parses the body first and asks for the key afterwards; here a stranger's body is never read."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.heeds_repeats = "POST" in (options.get("methods") or ()) and path not in idempotency.HEEDLESS
        if self.heeds_repeats:
            options["openapi_extra"] = {"parameters": [idempotency.PARAMETER], **(options.get("openapi_extra") or {})}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()
        guard = None if self.path in auth.PUBLIC else _guard(self)
        takes_form = self.body_field is not None and isinstance(self.body_field.field_info, Form)
        takes_json = self.body_field is not None and not takes_form
        limit = _body_limits.get(self.endpoint, MEGABYTE)

        async def answered(request: Request) -> Response:
            if self.heeds_repeats and guard is not None and idempotency.HEADER in request.headers:
                return await idempotency.answered_once(
                    request, self.endpoint, handle, takes_form=takes_form, takes_json=takes_json
                )
            return await handle(request)

        async def guarded(request: Request) -> Response:
            if guard is not None:
                try:
                    await auth.check(request, guard)
                finally:
                    await limits.admit(request)
            if takes_form:
                return await _with_its_form(request, self.endpoint, answered)
            if takes_json:
                request = JsonRequest(request.scope, request.receive)
                await request.take(limit)
            return await answered(request)

        return guarded


async def _with_its_form(
    request: Request, endpoint: Callable[..., Any], answered: Callable[[Request], Awaitable[Response]]
) -> Response:
    """The answer to a request whose files lie in the store by then; those that it does not keep go with its end."""
    state, caller = request.app.state, request.state.caller
    await to_thread.run_sync(state.services.grants.require_write, caller, request.path_params["collection"])
    taking = state.services.intake.of(caller.tenant_id)
    try:
        form = forms.FormRequest(request.scope, request.receive)
        await form.take(taking, state.room, forms.limits_of(endpoint))
        return await answered(form)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(taking.end)


def _guard(route: APIRoute) -> auth.Guard:
    demanded = {dependant.call for dependant in route.dependant.dependencies}
    return next((guard for guard in auth.GUARDS if guard in demanded), auth.reader)


class JsonRequest(Request):
    """A request whose body is read up to a limit and parsed as JSON proper, without NaN and the infinities."""

    async def take(self, limit: int) -> None:
        """Reads the body. Raises TooLarge, at once when the length is declared, and Invalid when it is not JSON."""
        declared = self.headers.get("content-length", "")
        too_large = TooLarge(f"the body is over the limit of {limit // MEGABYTE} MB")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        body = bytearray()
        async for piece in self.stream():
            body += piece
            if len(body) > limit:
                raise too_large
        if body and not is_json(self.headers.get("content-type", "")):
            raise Invalid("send the body as JSON, with the header `Content-Type: application/json`")
        self._taken = bytes(body)

    async def body(self) -> bytes:
        return self._taken

    def unread(self) -> Request:
        """The request as it was before its body was taken."""

        async def receive() -> Message:
            return {"type": "http.request", "body": self._taken, "more_body": False}

        return Request(self.scope, receive)

    async def json(self) -> Any:
        try:
            return json.loads(self._taken, parse_constant=_not_json)
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("not UTF-8", "", error.start) from error
        except RecursionError as error:
            raise json.JSONDecodeError("nested too deeply", "", 0) from error
        except ValueError as error:
            # An integer of more digits than Python converts.
            raise json.JSONDecodeError("a number is too long", "", 0) from error


def is_json(content_type: str) -> bool:
    """Whether a body of this type is read as JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _not_json(constant: str) -> NoReturn:
    raise json.JSONDecodeError(f"{constant} is not a JSON value", "", 0)
