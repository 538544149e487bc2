"""The audit log: every change leaves an entry in its own transaction, and no entry tells what anything says."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from memory.agents import GrantWanted, KeyCreate
from memory.drop_schemas import DropOptions
from memory.errors import Unavailable
from memory.intake import IncomingFile
from memory.services import Services
from memory.settings import Settings
from memory.store import changes
from tests.api.conftest import Tenant, carrying, without_links
from tests.api.routes import GUARDED, ROWS, Route, request_of

SECRET = "the harbour master keeps the spare key under the anchor"
CHANGING = [route for route in GUARDED if ROWS[route.method, route.path].changes]

Entries = list[dict[str, Any]]


@pytest.fixture
def audited(settings: Settings) -> Iterator[Callable[[Tenant], Entries]]:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value(), autocommit=True) as owner:

        def entries(tenant: Tenant) -> Entries:
            rows = owner.execute(
                "select to_jsonb(a) from audit a where tenant_id = %s order by created_at, id", (tenant.id,)
            ).fetchall()
            return [row[0] for row in rows]

        yield entries


@pytest.fixture
def names(services: Services, tenant: Tenant) -> dict[str, str]:
    """What the rows of the route table change, with a text of its own in every place that holds one."""
    spare = services.accounts.create_key(tenant.caller, KeyCreate(label="spare"))
    services.grants.put(
        tenant.caller, "harbour", GrantWanted(agent_key_id=tenant.caller.key_id, can_read=True, can_write=True)
    )
    services.grants.put(tenant.caller, "harbour", GrantWanted(agent_key_id=spare.id))
    caller = services.accounts.authenticate(tenant.headers["Authorization"].removeprefix("Bearer "))
    memory = carrying(services, caller, "harbour", SECRET)
    files = [IncomingFile("anchor.txt", "text/plain", io.BytesIO(f"{SECRET} {n}".encode())) for n in range(2)]
    batch = services.drops.open(caller, "harbour", files, DropOptions())
    # One that can be taken up again, one that can be cancelled.
    _, ((failed,), _) = services.ingesting.unfinished(tenant.id, batch.batch_id, 2)
    services.ingesting.give_up(tenant.id, failed, "no")
    return {
        "memory_id": str(memory.id),
        "batch_id": str(batch.batch_id),
        "key_id": str(spare.id),
        "agent_key_id": str(spare.id),
    }


def test_the_table_of_routes_knows_what_changes() -> None:
    assert {route.path for route in CHANGING if route.method == "GET"} == set()
    assert {str(route) for route in GUARDED if route.method in {"PUT", "PATCH", "DELETE"}} <= set(map(str, CHANGING))


@pytest.mark.parametrize("route", CHANGING, ids=str)
def test_every_change_leaves_an_entry_without_contents(
    client: TestClient,
    tenant: Tenant,
    names: dict[str, str],
    audited: Callable[[Tenant], Entries],
    route: Route,
) -> None:
    before = audited(tenant)

    answer = client.request(**request_of(route, **names), headers=tenant.headers)

    assert answer.status_code < 300, answer.text
    (entry,) = audited(tenant)[len(before) :]
    assert entry["actor_id"] == str(tenant.caller.key_id)
    assert entry["actor_label"] == "main"
    assert entry["action"]
    assert entry["resource"]
    assert len(entry["ip_hash"]) == 32
    written = json.dumps(entry)
    sent = json.dumps(request_of(route, **names), default=str)
    for told in (SECRET, "anchor", "mine", "taken over", "testclient", "mv_"):
        assert told not in written, f"of {sent}"
    if "api_key" in answer.text:
        assert answer.json()["api_key"] not in written


@pytest.mark.parametrize("route", CHANGING, ids=str)
def test_a_change_whose_entry_cannot_be_written_is_none(
    client: TestClient,
    tenant: Tenant,
    names: dict[str, str],
    audited: Callable[[Tenant], Entries],
    monkeypatch: pytest.MonkeyPatch,
    route: Route,
) -> None:
    before = _state(client, tenant, names)

    def fail(*_: object) -> None:
        raise Unavailable("the audit log does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(changes, "record", fail)
        answer = client.request(**request_of(route, **names), headers=tenant.headers)

    assert answer.status_code == 503
    assert _state(client, tenant, names) == before


def test_an_address_is_told_by_a_salted_hash(
    client: TestClient, services: Services, tenant: Tenant, audited: Callable[[Tenant], Entries]
) -> None:
    key = tenant.headers["Authorization"].removeprefix("Bearer ")

    one, same, other = (
        services.accounts.authenticate(key, address=address).ip_hash
        for address in ("192.0.2.7", "192.0.2.7", "192.0.2.8")
    )

    assert one == same
    assert one != other
    assert one is not None
    assert "192" not in one
    assert services.accounts.authenticate(key).ip_hash is None


def _state(client: TestClient, tenant: Tenant, names: dict[str, str]) -> list[Any]:
    paths = (
        "/v1/memory/collections",
        "/v1/memory/collections/harbour/memories?include_archived=true",
        "/v1/memory/collections/harbour/grants",
        "/v1/memory/collections/harbour/curation",
        "/v1/memory/agents",
        f"/v1/memory/ingest/batch/{names['batch_id']}",
    )
    answers = [client.get(path, headers=tenant.headers) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return [without_links(answer) for answer in answers]
