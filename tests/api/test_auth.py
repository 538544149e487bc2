"""Every route asks for a key unless it is listed as public, and shows one tenant nothing of another's."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest
from fastapi import Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.testclient import TestClient

from api import auth
from api.app import create_app
from api.routing import GuardedRoute
from memory.drops import IncomingFile
from memory.errors import Forbidden
from memory.schemas import Caller, CollectionCreate, DropOptions, MemoryCreate
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant

SECRET = "the harbour master keeps the spare key under the anchor"


class Route(NamedTuple):
    method: str
    path: str
    guard: auth.Guard | None
    asks_before_reading: bool


def _routes() -> list[Route]:
    found: list[Route] = []
    for route in iter_route_contexts(create_app(Settings(_env_file=None)).routes):
        original = route.original_route
        demanded = {d.call for d in original.dependant.dependencies} if isinstance(original, APIRoute) else set()
        guard = next((guard for guard in auth.GUARDS if guard in demanded), None)
        guarded = isinstance(original, GuardedRoute)
        found += [Route(method, str(route.path), guard, guarded) for method in sorted(route.methods or {"GET"})]
    return found


ROUTES = [route for route in _routes() if route.path not in auth.PUBLIC]
# By effect, not by method: a search is a POST that changes nothing.
READING_POSTS = {"/v1/memory/collections/{collection}/search", "/v1/memory/search"}
# A valid request for every route that has a body; a route that is missing here fails the tests below.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/memory/collections"): {"json": {"name": "harbour"}},
    ("PUT", "/v1/memory/collections/{name}"): {"json": {"description": "taken over"}},
    ("POST", "/v1/memory/collections/{collection}/memories"): {"json": {"text": "mine"}},
    ("POST", "/v1/memory/collections/{collection}/memories/bulk"): {"json": [{"text": "mine"}]},
    ("PATCH", "/v1/memory/collections/{collection}/memories/{memory_id}"): {"json": {"text": "taken over"}},
    ("POST", "/v1/memory/collections/{collection}/search"): {"json": {"query": SECRET}},
    ("POST", "/v1/memory/search"): {"json": {"query": SECRET}},
    ("POST", "/v1/memory/collections/{collection}/drop"): {
        "files": {"files": ("mine.txt", b"mine")},
        "params": {"async_ingest": "true"},
    },
}
ABSENT_ID = "6f1d4a52-0f5e-4c8b-9a3e-0d6c1d2e3f40"


def _id(route: Route) -> str:
    return f"{route.method} {route.path}"


every_route = pytest.mark.parametrize("route", ROUTES, ids=_id)


def _call(client: TestClient, route: Route, headers: dict[str, str], **names: str) -> Any:
    values = {"name": "harbour", "collection": "harbour", "memory_id": ABSENT_ID, "batch_id": ABSENT_ID, **names}
    body = BODIES[route.method, route.path] if route.method in {"POST", "PUT", "PATCH"} else {}
    return client.request(route.method, route.path.format(**values), headers=headers, **body)


def test_there_are_routes() -> None:
    assert len(ROUTES) >= 15
    assert {route.path for route in _routes()} >= auth.PUBLIC


@every_route
def test_a_route_that_is_not_public_demands_a_key(route: Route) -> None:
    assert route.guard is not None


@every_route
def test_a_stranger_is_refused_before_the_body_is_read(route: Route) -> None:
    assert route.asks_before_reading


@every_route
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "mv_0123456789abcdef0123456789abcdef",
        "Bearer",
        "Bearer ",
        "Bearer mv_0123456789abcdef0123456789abcdef",
        "Bearer \u00e4\u00f6\u00fc",
        "Bearer mv_a b",
        "Basic bXZfMDEyMzQ1Njc4OWFiY2RlZg==",
    ],
)
def test_without_a_valid_key_it_is_401(client: TestClient, route: Route, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    path = route.path.format(name="a", collection="a", memory_id=ABSENT_ID, batch_id=ABSENT_ID)

    answer = client.request(route.method, path, headers=headers, content=b"{not json")  # type: ignore[arg-type]

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert isinstance(answer.json()["detail"], str)


@every_route
def test_a_read_only_key_reads_and_never_writes(client: TestClient, tenant: Tenant, route: Route) -> None:
    answer = _call(client, route, tenant.read_only)

    if route.method == "GET" or route.path in READING_POSTS:
        assert answer.status_code in {200, 404}
    else:
        assert answer.status_code == 403
        assert "read-only" in answer.json()["detail"]


@every_route
def test_a_route_shows_and_changes_nothing_of_another_tenant(
    client: TestClient, services: Services, new_tenant: Callable[..., Tenant], route: Route
) -> None:
    owner, stranger = new_tenant(), new_tenant()
    services.collections.create(owner.caller, CollectionCreate(name="harbour", description=SECRET))
    memory = services.memories.create(owner.caller, "harbour", MemoryCreate(text=SECRET))
    file = IncomingFile("anchor.txt", "text/plain", io.BytesIO(SECRET.encode()))
    batch = services.drops.open(owner.caller, "harbour", [file], DropOptions())
    before = _everything(client, owner, str(batch.batch_id))

    answer = _call(client, route, stranger.headers, memory_id=str(memory.id), batch_id=str(batch.batch_id))

    assert SECRET not in answer.text
    assert "anchor.txt" not in answer.text
    if "_id}" in route.path or "{name}" in route.path:
        assert answer.status_code == 404
    elif route.method == "GET":
        assert (answer.status_code, answer.json(), answer.headers["X-Total-Count"]) == (200, [], "0")
    elif route.path in READING_POSTS:
        assert (answer.status_code, answer.json()["results"]) == (200, [])
    else:
        assert answer.status_code in {201, 202}
    assert _everything(client, owner, str(batch.batch_id)) == before


def _everything(client: TestClient, tenant: Tenant, batch_id: str) -> list[Any]:
    paths = [
        "/v1/memory/collections",
        "/v1/memory/collections/harbour/memories",
        f"/v1/memory/ingest/batch/{batch_id}",
    ]
    answers = [client.get(path, headers=tenant.headers) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    return [answer.json() for answer in answers]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR "])
def test_the_scheme_is_matched_in_any_case(client: TestClient, tenant: Tenant, scheme: str) -> None:
    key = tenant.headers["Authorization"].removeprefix("Bearer ")

    assert client.get("/v1/memory/collections", headers={"Authorization": f"{scheme} {key}"}).status_code == 200


def _request_of(caller: Caller) -> Request:
    return Request({"type": "http", "headers": [], "state": {"caller": caller}})


def test_operator_routes_are_for_operators(new_tenant: Callable[..., Tenant]) -> None:
    admin, other = new_tenant(admin=True).caller, new_tenant().caller

    assert anyio.run(auth.operator, _request_of(admin), None) == admin
    with pytest.raises(Forbidden):
        anyio.run(auth.operator, _request_of(other), None)
