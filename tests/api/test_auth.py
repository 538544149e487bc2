"""Every route asks for a key unless it is listed as public, and shows one tenant nothing of another's."""

import io
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import Request
from starlette.testclient import TestClient

from api import auth
from memory.drop_schemas import DropOptions
from memory.errors import Forbidden
from memory.intake import IncomingFile
from memory.schemas import Caller, CollectionCreate
from memory.services import Services
from tests.api.conftest import Tenant, carrying, without_links
from tests.api.routes import GUARDED, ROWS, Route, request_of, routes

SECRET = "the harbour master keeps the spare key under the anchor"


every_route = pytest.mark.parametrize("route", GUARDED, ids=str)


def test_there_are_routes() -> None:
    assert len(GUARDED) >= 35
    assert {route.path for route in routes()} >= auth.PUBLIC


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert {(route.method, route.path) for route in GUARDED} == ROWS.keys()


@every_route
def test_a_route_that_is_not_public_demands_a_key(route: Route) -> None:
    assert route.guard is not None


@every_route
def test_what_changes_something_is_for_writers(route: Route) -> None:
    changes = ROWS[route.method, route.path].changes

    # To forget may be a dry run, which is a look: the rule decides, by the body.
    assert not changes or route.guard is auth.writer or route.path.endswith("/forget")


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
    answer = client.request(route.method, route.at(), headers=headers, content=b"{not json")  # type: ignore[arg-type]

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert isinstance(answer.json()["detail"], str)


@every_route
def test_a_read_only_key_reads_and_never_writes(client: TestClient, tenant: Tenant, route: Route) -> None:
    answer = client.request(**request_of(route), headers=tenant.read_only)

    if ROWS[route.method, route.path].outcomes.read_only == 403:
        assert answer.status_code == 403
        assert "read-only" in answer.json()["detail"] or route.guard is auth.operator
    else:
        assert answer.status_code in {200, 404}


@every_route
def test_a_route_shows_and_changes_nothing_of_another_tenant(
    client: TestClient, services: Services, new_tenant: Callable[..., Tenant], route: Route
) -> None:
    owner, stranger = new_tenant(), new_tenant()
    services.collections.create(owner.caller, CollectionCreate(name="harbour", description=SECRET))
    memory = carrying(services, owner.caller, "harbour", SECRET)
    file = IncomingFile("anchor.txt", "text/plain", io.BytesIO(SECRET.encode()))
    batch = services.drops.open(owner.caller, "harbour", [file], DropOptions())
    before = _everything(client, owner, str(batch.batch_id))

    names = {"memory_id": memory.id, "batch_id": batch.batch_id, "key_id": owner.caller.key_id}
    sent = request_of(route, **{name: str(value) for name, value in names.items()})
    answer = client.request(**sent, headers=stranger.headers)

    assert SECRET not in answer.text
    assert "anchor.txt" not in answer.text
    assert answer.status_code == ROWS[route.method, route.path].outcomes.stranger
    if answer.status_code == 200 and route.method == "GET" and "{collection}" in route.path:
        assert answer.headers.get("X-Total-Count", "0") == "0"
    if route.path.endswith("/search"):
        assert answer.json()["results"] == []
    assert _everything(client, owner, str(batch.batch_id)) == before


def _everything(client: TestClient, tenant: Tenant, batch_id: str) -> list[Any]:
    paths = [
        "/v1/memory/collections",
        "/v1/memory/collections/harbour/memories",
        f"/v1/memory/ingest/batch/{batch_id}",
        "/v1/memory/agents",
    ]
    answers = [client.get(path, headers=tenant.headers) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return [without_links(answer) for answer in answers]


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
