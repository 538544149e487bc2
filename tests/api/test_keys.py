"""Keys and agents: listed, made, rotated and revoked; what one key may do to another."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from starlette.testclient import TestClient

from memory.settings import Settings
from tests.api.conftest import Tenant
from tests.conftest import Headers

KEYS = "/v1/memory/keys"
LISTED = {"id", "label", "read_only", "prefix", "created_at", "expires_at", "last_used_at", "revoked"}


def _create(client: TestClient, headers: Headers, **body: Any) -> dict[str, Any]:
    answer = client.post(KEYS, headers=headers, json=body)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


def _list(client: TestClient, headers: Headers) -> dict[str, dict[str, Any]]:
    answer = client.get(KEYS, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["X-Total-Count"] == str(len(answer.json()))
    return {key["id"]: key for key in answer.json()}


def _with(key: dict[str, Any]) -> Headers:
    return {"Authorization": f"Bearer {key['api_key']}"}


def _works(client: TestClient, key: dict[str, Any]) -> bool:
    return client.get("/v1/memory/agents", headers=_with(key)).status_code == 200


# Making and listing


def test_a_key_is_shown_once_and_then_only_its_beginning(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant.headers, label="Support bot")

    assert made.keys() == LISTED | {"api_key"}
    assert (made["label"], made["read_only"], made["expires_at"], made["revoked"]) == (
        "Support bot",
        False,
        None,
        False,
    )
    assert made["api_key"].startswith("mv_")
    assert len(made["api_key"]) == len("mv_") + 43
    listed = client.get(KEYS, headers=tenant.headers)
    assert made["api_key"] not in listed.text
    (entry,) = [key for key in listed.json() if key["id"] == made["id"]]
    assert entry.keys() == LISTED
    assert made["api_key"].startswith(entry["prefix"])
    assert len(entry["prefix"]) == 8
    assert _works(client, made)


def test_a_key_needs_neither_fields_nor_a_body(client: TestClient, tenant: Tenant) -> None:
    assert _create(client, tenant.headers)["label"] is None
    assert client.post(KEYS, headers=tenant.headers).status_code == 201


def test_keys_are_listed_newest_first_and_by_the_page(client: TestClient, tenant: Tenant) -> None:
    made = [_create(client, tenant.headers, label=str(number))["id"] for number in range(3)]

    page = client.get(KEYS, headers=tenant.headers, params={"limit": 2, "offset": 1})

    assert [key["id"] for key in page.json()] == [made[1], made[0]]
    assert page.headers["X-Total-Count"] == "5"
    assert client.get(KEYS, headers=tenant.headers, params={"limit": 201}).status_code == 422


def test_without_a_limit_all_keys_and_agents_are_listed(client: TestClient, tenant: Tenant) -> None:
    for _ in range(50):
        _create(client, tenant.headers)

    for path in (KEYS, "/v1/memory/agents"):
        listed = client.get(path, headers=tenant.headers)
        assert len(listed.json()) == int(listed.headers["X-Total-Count"]) == 52


@pytest.mark.parametrize(
    "body",
    [
        {"label": ""},
        {"label": "x" * 129},
        {"label": 7},
        {"read_only": "yes"},
        {"read_only": None},
        {"expires_at": "tomorrow"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        [],
    ],
)
def test_what_is_no_key_is_422(client: TestClient, tenant: Tenant, body: Any) -> None:
    answer = client.post(KEYS, headers=tenant.headers, json=body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_a_key_ends_when_it_was_said_to(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = _create(client, tenant.headers, expires_at=soon.isoformat())
    assert datetime.fromisoformat(made["expires_at"]) == soon
    assert _works(client, made)

    _as_owner(settings, "update keys set expires_at = now() where id = %s", made["id"])

    assert not _works(client, made)
    assert made["id"] not in [agent["id"] for agent in client.get("/v1/memory/agents", headers=tenant.headers).json()]
    assert _list(client, tenant.headers)[made["id"]]["revoked"] is False


def test_a_read_only_key_manages_no_keys(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant.headers, read_only=True)

    assert made["read_only"] is True
    for method, path in (("GET", KEYS), ("POST", KEYS), ("DELETE", f"{KEYS}/{made['id']}")):
        assert client.request(method, path, headers=_with(made)).status_code == 403
    assert client.post("/v1/memory/admin/rotate-key", headers=_with(made)).status_code == 403


def test_the_last_use_is_noted(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    made = _create(client, tenant.headers)
    assert _list(client, tenant.headers)[made["id"]]["last_used_at"] is None
    before = datetime.now(UTC) - timedelta(seconds=1)

    assert _works(client, made)

    used = None
    while used is None:
        used = _list(client, tenant.headers)[made["id"]]["last_used_at"]
    assert datetime.fromisoformat(used) > before


# Agents


def test_agents_are_the_keys_that_work(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant.headers, label="Support bot", read_only=True)
    revoked = _create(client, tenant.headers)
    client.delete(f"{KEYS}/{revoked['id']}", headers=tenant.headers)

    for headers in (tenant.headers, tenant.read_only):
        answer = client.get("/v1/memory/agents", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["X-Total-Count"] == "3"
        agents = {agent["id"]: agent for agent in answer.json()}
        assert agents[made["id"]] == {
            "id": made["id"],
            "label": "Support bot",
            "read_only": True,
            "created_at": made["created_at"],
        }
        assert revoked["id"] not in agents


# Revoking


@pytest.mark.parametrize("way", ["/{id}", "?id={id}"])
def test_a_revoked_key_stays_in_the_list_and_opens_nothing(client: TestClient, tenant: Tenant, way: str) -> None:
    made = _create(client, tenant.headers)
    path = KEYS + way.format(**made)

    answer = client.delete(path, headers=tenant.headers)

    assert (answer.status_code, answer.json()) == (200, {"deleted": True, "id": made["id"]})
    assert not _works(client, made)
    assert _list(client, tenant.headers)[made["id"]]["revoked"] is True
    assert client.delete(path, headers=tenant.headers).status_code == 404


def test_what_is_no_key_cannot_be_revoked(
    client: TestClient, tenant: Tenant, new_tenant: Callable[..., Tenant]
) -> None:
    stranger = new_tenant()
    for key_id in (uuid4(), "nonsense", stranger.caller.key_id):
        assert client.delete(f"{KEYS}/{key_id}", headers=tenant.headers).status_code == 404
        assert client.delete(KEYS, headers=tenant.headers, params={"id": str(key_id)}).status_code == 404
    assert client.delete(KEYS, headers=tenant.headers).status_code == 422
    assert client.get(KEYS, headers=stranger.headers).status_code == 200


def test_the_last_key_that_can_write_cannot_be_revoked(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    last = f"{KEYS}/{tenant.caller.key_id}"
    expired = _create(client, tenant.headers)
    _as_owner(settings, "update keys set expires_at = now() where id = %s", expired["id"])

    answer = client.delete(last, headers=tenant.headers)

    assert answer.status_code == 400
    assert "last" in answer.json()["detail"]
    other = _create(client, tenant.headers)
    assert client.delete(last, headers=tenant.headers).status_code == 200
    assert client.delete(f"{KEYS}/{other['id']}", headers=_with(other)).status_code == 400
    # A read-only key and an expired one are nobody's last.
    for key in _list(client, _with(other)).values():
        if key["read_only"] or key["id"] == expired["id"]:
            assert client.delete(f"{KEYS}/{key['id']}", headers=_with(other)).status_code == 200


def test_two_keys_that_revoke_one_another_at_once_leave_one(client: TestClient, tenant: Tenant) -> None:
    first = _create(client, tenant.headers)
    second = _create(client, tenant.headers)
    client.delete(f"{KEYS}/{tenant.caller.key_id}", headers=tenant.headers)

    with ThreadPoolExecutor(2) as both:
        list(
            both.map(
                lambda pair: client.delete(f"{KEYS}/{pair[1]['id']}", headers=_with(pair[0])),
                [(first, second), (second, first)],
            )
        )

    assert sorted((_works(client, first), _works(client, second))) == [False, True]


# Rotating


def test_a_rotated_key_keeps_who_it_is(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant.headers, label="Support bot")

    answer = client.post("/v1/memory/admin/rotate-key", headers=_with(made))

    assert answer.status_code == 200
    rotated = answer.json()
    assert {name: rotated[name] for name in ("id", "label", "read_only", "created_at")} == {
        name: made[name] for name in ("id", "label", "read_only", "created_at")
    }
    assert rotated["api_key"] != made["api_key"]
    assert rotated["api_key"].startswith(rotated["prefix"])
    assert not _works(client, made)
    assert _works(client, rotated)
    assert client.post("/v1/memory/admin/rotate-key", headers=_with(made)).status_code == 401


def test_the_main_key_stays_the_main_one_when_it_is_rotated(client: TestClient, tenant: Tenant, services: Any) -> None:
    rotated = client.post("/v1/memory/admin/rotate-key", headers=tenant.headers).json()

    caller = services.accounts.authenticate(rotated["api_key"])

    assert caller.is_main
    assert caller.key_id == tenant.caller.key_id


def test_of_two_rotations_at_once_one_counts(client: TestClient, tenant: Tenant) -> None:
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda _: client.post("/v1/memory/admin/rotate-key", headers=tenant.headers), range(2)))

    assert sorted(answer.status_code for answer in answers) == [200, 401]
    (rotated,) = [answer.json() for answer in answers if answer.status_code == 200]
    assert _works(client, rotated)


def _as_owner(settings: Settings, statement: str, *values: Any) -> None:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        owner.execute(statement, values)
