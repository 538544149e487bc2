"""Routes of the heading "Search"."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from anyio import to_thread
from fastapi import Request, Response
from pydantic import TypeAdapter, ValidationError

from api import auth, limits
from api.auth import Reader
from api.deps import Collection, Services
from api.routing import GuardedRoute, JsonRequest, answer, is_json
from api.routing import router as guarded_router
from memory.cache import Asked
from memory.schemas import CollectionName, SearchRequest, SearchResponse
from memory.services import Services as House

# What a stranger may send before the key is looked at; the server has taken in that much by itself anyway.
_SHORT_BYTES = 64 * 1024
_name: TypeAdapter[str] = TypeAdapter(CollectionName)


class _Question(NamedTuple):
    token: str
    collection: str | None
    wanted: SearchRequest


class SearchRoute(GuardedRoute):
    """The key and what is kept of the answer are asked for together, in one trip to the database and one thread.

    Only a short and sound question goes this way; everything else is left to the guard and the framework, which know
    how to refuse it.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        by_the_book = super().get_route_handler()

        async def answered(request: Request) -> Response:
            if not _is_plain(request):
                return await by_the_book(request)
            read = JsonRequest(request.scope, request.receive)
            await read.take(_SHORT_BYTES)
            question = await _question(read)
            if question is None:
                return await by_the_book(read.unread())
            services: House = request.app.state.services
            try:
                asked = await to_thread.run_sync(partial(_looked_up, services, request, question))
            finally:
                await limits.admit(request)
            if isinstance(asked, Response):
                return asked
            return await to_thread.run_sync(lambda: answer(services.search.answer(asked)))

        return answered


router = guarded_router("search")
router.route_class = SearchRoute


@router.post("/v1/memory/collections/{collection}/search", response_model=SearchResponse)
def search_collection(caller: Reader, services: Services, collection: Collection, body: SearchRequest) -> Response:
    """Searches one collection; an unknown one has no results."""
    return answer(services.search.search(caller, collection, body))


@router.post("/v1/memory/search", response_model=SearchResponse)
def search(caller: Reader, services: Services, body: SearchRequest) -> Response:
    """Searches all your collections."""
    return answer(services.search.search(caller, None, body))


def _is_plain(request: Request) -> bool:
    declared = request.headers.get("content-length", "")
    is_short = declared.isdecimal() and int(declared) <= _SHORT_BYTES
    return is_short and is_json(request.headers.get("content-type", ""))


async def _question(request: JsonRequest) -> _Question | None:
    token = await auth.shown_key(request)
    if token is None:
        return None
    try:
        name = request.path_params.get("collection")
        collection = None if name is None else _name.validate_python(name)
        return _Question(token, collection, SearchRequest.model_validate(await request.json()))
    except (ValidationError, json.JSONDecodeError):
        return None


def _looked_up(services: House, request: Request, question: _Question) -> Asked | Response:
    address = request.client.host if request.client else None
    caller, states = services.accounts.enter(question.token, question.collection, address=address)
    request.state.caller = caller
    asked = services.search.look(caller, question.collection, question.wanted, states)
    return asked if asked.kept is None else Response(asked.kept.json(), media_type="application/json")
