"""The account over HTTP: who it is, what it holds, its audit log, and the limits of its tier."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from memory import quotas
from memory.account_schemas import Limits
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant
from tests.conftest import Headers

ADMIN = "/v1/memory/admin"
COLLECTIONS = "/v1/memory/collections"


def _get(client: TestClient, headers: Headers, path: str, **params: Any) -> Any:
    answer = client.get(f"{ADMIN}/{path}", headers=headers, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _create(client: TestClient, headers: Headers, collection: str = "people", **body: Any) -> Any:
    return client.post(f"{COLLECTIONS}/{collection}/memories", headers=headers, json={"text": "Ada", **body})


def test_me_is_the_account_with_its_limits(client: TestClient, tenant: Tenant) -> None:
    told = _get(client, tenant.headers, "me")

    assert datetime.fromisoformat(told.pop("created_at")).utcoffset() == timedelta()
    assert told == {
        "id": str(tenant.id),
        "name": tenant.email,
        "email": tenant.email,
        "tier": "self_hosted",
        "is_admin": False,
        "limits": {
            "max_collections": None,
            "max_memories": None,
            "max_storage_bytes": None,
            "max_file_bytes": 10 * 1024 * 1024,
            "requests_per_minute": None,
        },
    }


def test_stats_count_what_is_there(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    nothing = {"collections": 0, "memories": 0, "storage_bytes": 0, "added_7d": 0, "added_30d": 0}
    assert _get(client, tenant.headers, "stats") == nothing

    ids = [_create(client, tenant.headers).json()["id"] for _ in range(4)]
    _create(client, tenant.headers, expires_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat())
    client.post(f"{COLLECTIONS}/people/memories/{ids[0]}/archive", headers=tenant.headers, json={"archived": True})
    client.post(
        f"{COLLECTIONS}/drops/drop",
        headers=tenant.headers,
        params={"async_ingest": "true"},
        files={"files": ("a.txt", b"12345")},
    )
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        for days, memory_id in ((8, ids[0]), (31, ids[1])):
            owner.execute(
                "update memories set created_at = now() - make_interval(days => %s) where id = %s", (days, memory_id)
            )

    counted = {"collections": 2, "memories": 4, "storage_bytes": 5, "added_7d": 2, "added_30d": 3}
    assert _get(client, tenant.headers, "stats") == counted


def test_the_audit_log_is_the_operators_own(client: TestClient, new_tenant: Callable[..., Tenant]) -> None:
    operator, other = new_tenant(admin=True), new_tenant()
    _create(client, other.headers)
    assert client.get(f"{ADMIN}/audit", headers=other.headers).status_code == 403
    memory_id = _create(client, operator.headers).json()["id"]
    client.delete(f"{COLLECTIONS}/people/memories/{memory_id}", headers=operator.headers)

    answer = client.get(f"{ADMIN}/audit", headers=operator.headers)

    assert answer.headers["X-Total-Count"] == "2"
    deleted, created = answer.json()
    assert deleted.keys() == {"id", "created_at", "actor", "action", "resource", "ip_hash"}
    assert (deleted["action"], deleted["resource"]) == ("memory.delete", f"memory {memory_id}")
    assert deleted["actor"] == {"id": str(operator.caller.key_id), "label": "main"}
    assert created["action"] == "memory.create"
    assert datetime.fromisoformat(deleted["created_at"]) >= datetime.fromisoformat(created["created_at"])
    assert _get(client, operator.headers, "audit", limit=1) == [deleted]


def test_the_audit_log_goes_so_many_days_back(
    client: TestClient, new_tenant: Callable[..., Tenant], settings: Settings
) -> None:
    operator = new_tenant(admin=True)
    _create(client, operator.headers)
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        owner.execute("update audit set created_at = now() - interval '31 days' where tenant_id = %s", (operator.id,))

    assert _get(client, operator.headers, "audit") == []
    assert len(_get(client, operator.headers, "audit", days=32)) == 1


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "days=0", "days=-1", "days=x", "days=99999999999"])
def test_an_audit_log_out_of_range_is_422(client: TestClient, new_tenant: Callable[..., Tenant], query: str) -> None:
    assert client.get(f"{ADMIN}/audit?{query}", headers=new_tenant(admin=True).headers).status_code == 422


@pytest.fixture
def small(services: Services, monkeypatch: pytest.MonkeyPatch) -> Headers:
    """An account that may have two collections, three memories and ten bytes."""
    few = Limits(max_collections=2, max_memories=3, max_storage_bytes=10, max_file_bytes=quotas.MAX_FILE_BYTES)
    monkeypatch.setitem(quotas.TIERS, "free", few)
    number = datetime.now(UTC).timestamp()
    made = services.accounts.create_tenant(email=f"small-{number}@example.org", tier="free")
    return {"Authorization": f"Bearer {made.api_key}"}


def _drop(client: TestClient, headers: Headers, size: int, collection: str = "a") -> Any:
    return client.post(
        f"{COLLECTIONS}/{collection}/drop",
        headers=headers,
        params={"async_ingest": "true"},
        files={"files": ("a.txt", io.BytesIO(b"x" * size))},
    )


def test_one_collection_too_many_is_403_on_every_way(client: TestClient, small: Headers) -> None:
    assert client.post(COLLECTIONS, headers=small, json={"name": "a"}).status_code == 201
    memory = _create(client, small, "b").json()

    refusals = [
        client.post(COLLECTIONS, headers=small, json={"name": "c"}),
        _create(client, small, "c"),
        client.post(f"{COLLECTIONS}/c/memories/bulk", headers=small, json=[{"text": "x"}]),
        client.post(f"{COLLECTIONS}/b/memories/{memory['id']}/move", headers=small, json={"to_collection": "c"}),
        client.put(f"{COLLECTIONS}/c/grants", headers=small, json={"agent_key_id": memory["created_by"]["id"]}),
        _drop(client, small, 1, "c"),
    ]

    assert {answer.status_code for answer in refusals} == {403}
    assert all("free" in answer.json()["detail"] and "2 collections" in answer.json()["detail"] for answer in refusals)
    assert [one["name"] for one in client.get(COLLECTIONS, headers=small).json()] == ["a", "b"]
    # What is there works on.
    assert client.post(COLLECTIONS, headers=small, json={"name": "a"}).status_code == 409
    assert _create(client, small, "a").status_code == 201
    assert client.delete(f"{COLLECTIONS}/a", headers=small).status_code == 200
    assert _create(client, small, "c").status_code == 201


def test_one_memory_too_many_is_403(client: TestClient, small: Headers) -> None:
    made = [_create(client, small, external_id=str(number)).json()["id"] for number in range(2)]
    bulk = [{"text": "x"}, {"text": "y"}]

    assert client.post(f"{COLLECTIONS}/people/memories/bulk", headers=small, json=bulk).status_code == 403
    assert client.post(f"{COLLECTIONS}/people/memories/bulk", headers=small, json=bulk[:1]).status_code == 201
    refused = _create(client, small)
    assert (refused.status_code, "3 memories" in refused.json()["detail"]) == (403, True)
    assert _drop(client, small, 1, "people").status_code == 403
    # An update is no new one, and everything stays readable.
    assert _create(client, small, external_id="0", text="changed").status_code == 200
    assert client.get(f"{COLLECTIONS}/people/memories", headers=small).headers["X-Total-Count"] == "3"
    client.delete(f"{COLLECTIONS}/people/memories/{made[1]}", headers=small)
    assert _create(client, small).status_code == 201


def test_one_byte_too_many_is_403(client: TestClient, small: Headers) -> None:
    assert _drop(client, small, 6).status_code == 202
    assert _drop(client, small, 5).status_code == 403
    assert _drop(client, small, 4).status_code == 202
    assert _get(client, small, "stats")["storage_bytes"] == 10


def test_many_at_once_do_not_slip_past_a_limit(client: TestClient, small: Headers) -> None:
    def create(number: int) -> int:
        return client.post(COLLECTIONS, headers=small, json={"name": str(number)}).status_code

    with ThreadPoolExecutor(6) as all_at_once:
        answers = list(all_at_once.map(create, range(6)))

    assert sorted(answers) == [201, 201, 403, 403, 403, 403]


def test_the_tiers_are_as_published() -> None:
    def most(tier: str) -> tuple[int | None, int | None, int | None]:
        limits = quotas.of_tier(tier)
        return limits.max_collections, limits.max_memories, limits.max_storage_bytes

    assert most("free") == (10, 10_000, 2**30)
    assert most("pro") == (200, 500_000, 50 * 2**30)
    assert most("enterprise") == most("self_hosted") == (None, None, None)
