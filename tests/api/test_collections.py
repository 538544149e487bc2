"""Collections over HTTP."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

COLLECTIONS = "/v1/memory/collections"


def _create(client: TestClient, tenant: Tenant, **body: Any) -> Any:
    answer = client.post(COLLECTIONS, headers=tenant.headers, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_new_collection_has_all_its_fields(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, name="people", description="who is who", metadata={"team": "a"})

    assert made.keys() == {
        "id",
        "name",
        "description",
        "metadata",
        "memory_count",
        "restricted",
        "created_at",
        "updated_at",
    }
    assert (made["name"], made["description"], made["metadata"]) == ("people", "who is who", {"team": "a"})
    assert (made["memory_count"], made["restricted"]) == (0, False)
    assert datetime.fromisoformat(made["created_at"]).utcoffset() is not None
    assert len(made["created_at"]) == len("2026-01-01T00:00:00.000000+00:00")
    assert client.get(f"{COLLECTIONS}/people", headers=tenant.headers).json() == made


def test_optional_fields_have_defaults_and_unknown_ones_are_ignored(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, name="people", colour="red")

    assert (made["description"], made["metadata"]) == (None, {})
    assert "colour" not in made


def test_a_name_that_is_taken_is_409_and_changes_nothing(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, name="people", description="first")

    answer = client.post(COLLECTIONS, headers=tenant.headers, json={"name": "people", "description": "second"})

    assert answer.status_code == 409
    assert client.get(f"{COLLECTIONS}/people", headers=tenant.headers).json() == made


@pytest.mark.parametrize("name", ["Zürich & Umgebung", "100 % sure?", "日本語", "a+b#c", "..", "bulk"])
def test_names_may_be_anything_readable(client: TestClient, tenant: Tenant, name: str) -> None:
    _create(client, tenant, name=name)
    path = f"{COLLECTIONS}/{quote(name, safe='')}"
    if name == "..":
        # HTTP clients resolve the dots themselves unless they are encoded.
        path = f"{COLLECTIONS}/%2E%2E"

    assert client.get(path, headers=tenant.headers).json()["name"] == name
    assert client.delete(path, headers=tenant.headers).json() == {"deleted": True, "name": name}


def test_names_are_trimmed_and_case_sensitive(client: TestClient, tenant: Tenant) -> None:
    assert _create(client, tenant, name="  People ")["name"] == "People"
    assert client.get(f"{COLLECTIONS}/people", headers=tenant.headers).status_code == 404
    assert client.get(f"{COLLECTIONS}/%20People%20", headers=tenant.headers).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None},
        {"name": ""},
        {"name": "   "},
        {"name": "a/b"},
        {"name": "a\nb"},
        {"name": "a\x00b"},
        {"name": "a\x85b"},
        {"name": "x" * 129},
        {"name": 7},
        {"name": "a", "metadata": []},
        {"name": "a", "metadata": None},
        {"name": "a", "metadata": {"deep": "x" * 33_000}},
        {"name": "a", "description": 1},
        [],
        None,
    ],
)
def test_a_wrong_body_is_422_with_a_sentence(client: TestClient, tenant: Tenant, body: Any) -> None:
    answer = client.post(COLLECTIONS, headers=tenant.headers, json=body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert isinstance(answer.json()["errors"], list)


@pytest.mark.parametrize(
    ("metadata", "detail"),
    [
        ({"nul": "\x00"}, "metadata: must not contain NUL characters"),
        ({"deep": "x" * 33_000}, "metadata: 33011 bytes of JSON; the limit is 32768"),
    ],
)
def test_a_refused_field_is_named_once(client: TestClient, tenant: Tenant, metadata: Any, detail: str) -> None:
    answer = client.post(COLLECTIONS, headers=tenant.headers, json={"name": "a", "metadata": metadata})

    assert answer.status_code == 422
    assert answer.json()["detail"] == detail


@pytest.mark.parametrize("name", ["a%00b", "a%0Ab", "%20", "x" * 129])
def test_a_name_in_the_path_obeys_the_same_rules(client: TestClient, tenant: Tenant, name: str) -> None:
    answer = client.get(f"{COLLECTIONS}/{name}", headers=tenant.headers)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("name: ")


def test_bytes_that_are_not_utf8_in_the_path_do_not_break(client: TestClient, tenant: Tenant) -> None:
    assert client.get(f"{COLLECTIONS}/%ff%fe", headers=tenant.headers).status_code == 404


def test_listing_pages_and_counts(client: TestClient, tenant: Tenant) -> None:
    for name in ("c", "a", "d", "b"):
        _create(client, tenant, name=name)

    def names(**params: int) -> list[str]:
        answer = client.get(COLLECTIONS, headers=tenant.headers, params=params)
        assert answer.headers["X-Total-Count"] == "4"
        return [collection["name"] for collection in answer.json()]

    everything = names()
    assert sorted(everything) == ["a", "b", "c", "d"]
    assert names(limit=3) + names(limit=3, offset=3) == everything
    assert names(offset=4) == []


def test_without_a_limit_all_are_listed(client: TestClient, tenant: Tenant) -> None:
    for number in range(51):
        _create(client, tenant, name=str(number))

    listed = client.get(COLLECTIONS, headers=tenant.headers)

    assert len(listed.json()) == int(listed.headers["X-Total-Count"]) == 51


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "offset=-1", "limit=" + "9" * 30, "offset=" + "9" * 30]
)
def test_paging_out_of_range_is_422(client: TestClient, tenant: Tenant, query: str) -> None:
    answer = client.get(f"{COLLECTIONS}?{query}", headers=tenant.headers)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(query.partition("=")[0])


def test_an_update_changes_only_what_is_sent(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, name="people", description="first", metadata={"a": 1})

    answer = client.put(f"{COLLECTIONS}/people", headers=tenant.headers, json={"metadata": {"b": 2}})

    assert answer.status_code == 200
    assert (answer.json()["description"], answer.json()["metadata"]) == ("first", {"b": 2})
    assert (answer.json()["id"], answer.json()["created_at"]) == (made["id"], made["created_at"])
    cleared = client.put(f"{COLLECTIONS}/people", headers=tenant.headers, json={"description": None})
    assert (cleared.json()["description"], cleared.json()["metadata"]) == (None, {"b": 2})


@pytest.mark.parametrize("body", [{}, {"name": "other"}])
def test_an_update_of_nothing_is_400(client: TestClient, tenant: Tenant, body: dict[str, Any]) -> None:
    _create(client, tenant, name="people")

    assert client.put(f"{COLLECTIONS}/people", headers=tenant.headers, json=body).status_code == 400


def test_metadata_cannot_be_set_to_null(client: TestClient, tenant: Tenant) -> None:
    _create(client, tenant, name="people")

    assert client.put(f"{COLLECTIONS}/people", headers=tenant.headers, json={"metadata": None}).status_code == 422


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_collection_is_404(client: TestClient, tenant: Tenant, method: str) -> None:
    body = {"description": "x"} if method == "PUT" else None

    assert client.request(method, f"{COLLECTIONS}/nowhere", headers=tenant.headers, json=body).status_code == 404


def test_deleting_takes_the_memories_along_and_works_once(client: TestClient, tenant: Tenant) -> None:
    memories = f"{COLLECTIONS}/people/memories"
    memory = client.post(memories, headers=tenant.headers, json={"text": "Ada likes tea"}).json()

    first, second = (client.delete(f"{COLLECTIONS}/people", headers=tenant.headers) for _ in range(2))

    assert (first.status_code, first.json()) == (200, {"deleted": True, "name": "people"})
    assert second.status_code == 404
    assert client.get(memories, headers=tenant.headers).json() == []
    assert client.get(f"{memories}/{memory['id']}", headers=tenant.headers).status_code == 404
