"""Grants: the first restricts a collection, the last that goes opens it again, and nobody lets itself in."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from memory.agents import KeyCreate
from memory.services import Services
from tests.api.conftest import Tenant
from tests.conftest import Headers

VAULT = "/v1/memory/collections/vault"
GRANTS = f"{VAULT}/grants"


@dataclass(frozen=True)
class Agent:
    id: str
    headers: Headers


@pytest.fixture
def agent(services: Services, tenant: Tenant) -> Callable[..., Agent]:
    def make(**wanted: Any) -> Agent:
        made = services.accounts.create_key(tenant.caller, KeyCreate(**wanted))
        return Agent(str(made.id), {"Authorization": f"Bearer {made.api_key}"})

    return make


def _grant(client: TestClient, headers: Headers, agent: Agent, **rights: bool) -> int:
    return client.put(GRANTS, headers=headers, json={"agent_key_id": agent.id, **rights}).status_code


def _reads(client: TestClient, agent: Agent) -> bool:
    return client.get(f"{VAULT}/memories", headers=agent.headers).status_code == 200


def _writes(client: TestClient, agent: Agent) -> bool:
    return client.post(f"{VAULT}/memories", headers=agent.headers, json={"text": "a"}).status_code == 201


def test_a_grant_lets_read_and_not_write_unless_it_says_so(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    granted = agent(label="granted")

    answer = client.put(GRANTS, headers=tenant.headers, json={"agent_key_id": granted.id})

    right = {"agent_key_id": granted.id, "label": "granted", "can_read": True, "can_write": False}
    assert answer.status_code == 200
    assert answer.json()["grants"] == [right]
    shown = client.get(GRANTS, headers=tenant.headers)
    assert (shown.status_code, shown.json()) == (200, {"restricted": True, "grants": [right]})
    assert _reads(client, granted)
    assert not _writes(client, granted)


def test_both_rights_stand_for_themselves(client: TestClient, tenant: Tenant, agent: Callable[..., Agent]) -> None:
    blind = agent()

    assert _grant(client, tenant.headers, blind, can_read=False, can_write=True) == 200
    assert _writes(client, blind)
    assert not _reads(client, blind)
    assert _grant(client, tenant.headers, blind, can_read=False, can_write=False) == 200
    assert not _writes(client, blind)
    assert client.get(GRANTS, headers=tenant.headers).json()["restricted"] is True


def test_a_read_only_key_never_writes_whatever_its_grant(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    dashboard = agent(read_only=True)

    assert _grant(client, tenant.headers, dashboard, can_write=True) == 200

    assert _reads(client, dashboard)
    assert not _writes(client, dashboard)
    assert _grant(client, dashboard.headers, dashboard) == 403


def test_an_open_collection_says_so(client: TestClient, tenant: Tenant) -> None:
    client.post("/v1/memory/collections", headers=tenant.headers, json={"name": "vault"})

    for headers in (tenant.headers, tenant.read_only):
        answer = client.get(GRANTS, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"restricted": False, "grants": []})


def test_the_first_grant_makes_a_missing_collection_and_restricts_it(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    assert client.get(GRANTS, headers=tenant.headers).status_code == 404
    assert client.delete(f"{GRANTS}/{uuid4()}", headers=tenant.headers).status_code == 404

    assert _grant(client, tenant.headers, agent()) == 200

    assert client.get(VAULT, headers=tenant.headers).json()["restricted"] is True
    assert not _reads(client, agent())


@pytest.mark.parametrize("key_id", ["00000000-0000-4000-8000-000000000000", "nonsense", ""])
def test_an_unknown_key_is_404_and_changes_nothing(client: TestClient, tenant: Tenant, key_id: str) -> None:
    answer = client.put(GRANTS, headers=tenant.headers, json={"agent_key_id": key_id})

    assert answer.status_code == 404
    assert client.get(VAULT, headers=tenant.headers).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"agent_key_id": 7}, {"agent_key_id": None}, {"agent_key_id": str(uuid4()), "can_read": "perhaps"}]
)
def test_what_is_no_grant_is_422(client: TestClient, tenant: Tenant, body: dict[str, Any]) -> None:
    assert client.put(GRANTS, headers=tenant.headers, json=body).status_code == 422


def test_another_tenants_key_is_unknown(client: TestClient, tenant: Tenant, new_tenant: Callable[..., Tenant]) -> None:
    stranger = new_tenant()

    answer = client.put(GRANTS, headers=tenant.headers, json={"agent_key_id": str(stranger.caller.key_id)})

    assert answer.status_code == 404


def test_of_an_open_collection_any_writer_may_restrict_it_also_against_itself(
    client: TestClient, agent: Callable[..., Agent]
) -> None:
    first, second = agent(), agent()
    assert _writes(client, first)

    assert _grant(client, first.headers, second, can_write=True) == 200

    assert not _reads(client, first)
    assert _grant(client, first.headers, first) == 403
    assert client.get(GRANTS, headers=first.headers).status_code == 403
    assert client.delete(f"{GRANTS}/{second.id}", headers=first.headers).status_code == 403
    assert _reads(client, second)


def test_a_restricted_collection_is_managed_by_its_writers_and_the_main_key(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    writer, reader, other = agent(), agent(), agent()
    assert _grant(client, tenant.headers, writer, can_write=True) == 200

    assert _grant(client, writer.headers, reader) == 200
    assert _grant(client, reader.headers, other) == 403
    assert _grant(client, tenant.headers, other) == 200
    assert client.delete(f"{GRANTS}/{other.id}", headers=reader.headers).status_code == 403
    assert client.delete(f"{GRANTS}/{other.id}", headers=writer.headers).status_code == 200
    assert client.get(GRANTS, headers=reader.headers).status_code == 200


def test_the_main_key_manages_and_does_not_read(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    writer = agent()
    assert _grant(client, writer.headers, writer, can_write=True) == 200
    assert _writes(client, writer)

    assert client.get(f"{VAULT}/memories", headers=tenant.headers).status_code == 403
    assert client.post(f"{VAULT}/search", headers=tenant.headers, json={"query": "a"}).status_code == 403
    assert client.get(VAULT, headers=tenant.headers).status_code == 200
    names = [found["name"] for found in client.get("/v1/memory/collections", headers=tenant.headers).json()]
    assert names == ["vault"]
    assert client.get("/v1/memory/collections", headers=agent().headers).json() == []


def test_the_last_grant_that_goes_opens_the_collection(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    one, two = agent(), agent()
    _grant(client, tenant.headers, one)
    _grant(client, tenant.headers, two)

    left = client.delete(f"{GRANTS}/{one.id}", headers=tenant.headers)
    assert left.status_code == 200
    assert left.json()["deleted"] is True
    assert left.json()["id"] == one.id
    assert left.json()["restricted"] is True
    assert not _reads(client, one)

    assert client.delete(f"{GRANTS}/{two.id}", headers=tenant.headers).json()["restricted"] is False
    assert _reads(client, one)
    assert client.delete(f"{GRANTS}/{two.id}", headers=tenant.headers).status_code == 404


def test_a_revoked_keys_grants_stay_and_keep_the_collection_closed(
    client: TestClient, tenant: Tenant, agent: Callable[..., Agent]
) -> None:
    granted, other = agent(), agent()
    _grant(client, tenant.headers, granted)
    client.delete(f"/v1/memory/keys/{granted.id}", headers=tenant.headers)

    shown = client.get(GRANTS, headers=tenant.headers).json()

    assert [grant["agent_key_id"] for grant in shown["grants"]] == [granted.id]
    assert not _reads(client, other)


def test_a_rotated_key_keeps_its_grants(client: TestClient, tenant: Tenant, agent: Callable[..., Agent]) -> None:
    granted = agent()
    _grant(client, tenant.headers, granted)

    rotated = client.post("/v1/memory/admin/rotate-key", headers=granted.headers).json()

    assert _reads(client, Agent(rotated["id"], {"Authorization": f"Bearer {rotated['api_key']}"}))


def test_a_collection_made_anew_is_open(client: TestClient, tenant: Tenant, agent: Callable[..., Agent]) -> None:
    granted, other = agent(), agent()
    _grant(client, tenant.headers, granted)
    assert client.delete(VAULT, headers=tenant.headers).status_code == 200

    assert _writes(client, other)
    assert client.get(GRANTS, headers=other.headers).json() == {"restricted": False, "grants": []}


def test_who_is_being_shut_out_does_not_slip_in(client: TestClient, agent: Callable[..., Agent]) -> None:
    """Both restrict an open collection to themselves at once; only one of them can have been first."""
    for _ in range(10):
        one, two = agent(), agent()
        assert _writes(client, one)
        with ThreadPoolExecutor(2) as both:
            answers = list(both.map(lambda who: _grant(client, who.headers, who, can_write=True), (one, two)))
        assert sorted(answers) == [200, 403]
        (winner,) = [who for who, status in zip((one, two), answers, strict=True) if status == 200]
        assert client.delete(f"{GRANTS}/{winner.id}", headers=winner.headers).status_code == 200
