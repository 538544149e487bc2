"""Memories over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

PEOPLE = "/v1/memory/collections/people/memories"
UNKNOWN_ID = "6f1d4a52-0f5e-4c8b-9a3e-0d6c1d2e3f40"


def _create(client: TestClient, tenant: Tenant, **body: Any) -> Any:
    answer = client.post(PEOPLE, headers=tenant.headers, json={"text": "Ada likes tea", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def _patch(client: TestClient, tenant: Tenant, memory_id: str, body: Any) -> Any:
    return client.patch(f"{PEOPLE}/{memory_id}", headers=tenant.headers, json=body)


def test_a_new_memory_has_all_its_fields_and_defaults(client: TestClient, tenant: Tenant) -> None:
    answer = client.post(PEOPLE, headers=tenant.headers, json={"text": "  Ada likes tea ", "unknown": 1})

    assert answer.status_code == 201
    assert answer.headers["ETag"] == '"1"'
    made = answer.json()
    assert UUID(made.pop("id")).version == 4
    assert UUID(made["created_by"].pop("id"))
    for name in ("created_at", "updated_at", "valid_from"):
        assert datetime.fromisoformat(made.pop(name)).utcoffset() == timedelta()
    assert made == {
        "text": "Ada likes tea",
        "collection": "people",
        "importance": 0.7,
        "category": "other",
        "source": "api",
        "metadata": {},
        "container_tag": None,
        "images": [],
        "pinned": False,
        "archived": False,
        "created_by": {"label": "main"},
        "type": None,
        "is_latest": True,
        "sequence": None,
        "position": None,
        "external_id": None,
        "version": 1,
        "valid_to": None,
        "superseded_by": None,
        "expires_at": None,
    }


def test_everything_that_is_sent_comes_back(client: TestClient, tenant: Tenant) -> None:
    sent = {
        "text": "Zürich, naïve, 日本, \U0001f600",
        "importance": 0.25,
        "category": "place",
        "source": "sdk",
        "metadata": {"nested": {"list": [1, 2.5, None, True, "ü"]}, "": "empty key", "back\\u0000slash": "\\u0000"},
        "container_tag": "user 7",
        "external_id": "crm/17 ü",
        "sequence": "thread-1",
        "position": 12,
        "expires_at": "2999-01-01T12:00:00+02:00",
    }

    made = _create(client, tenant, **sent)
    read = client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers)

    assert read.json() == made
    assert {**sent, "expires_at": "2999-01-01T10:00:00.000000+00:00"} == {name: made[name] for name in sent}


def test_nul_characters_are_dropped_from_text(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, text="a\x00b", category="c\x00", container_tag="t\x00g")

    assert (made["text"], made["category"], made["container_tag"]) == ("ab", "c", "tg")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n\t"}, "text"),
        ({"text": "\x00"}, "text"),
        ({"text": " \x00 "}, "text"),
        ({"text": "x" * 10_001}, "text"),
        ({"text": 5}, "text"),
        ({"text": ["a"]}, "text"),
        ({"text": "a", "importance": 1.2}, "importance"),
        ({"text": "a", "importance": -0.1}, "importance"),
        ({"text": "a", "importance": None}, "importance"),
        ({"text": "a", "importance": "high"}, "importance"),
        ({"text": "a", "importance": "0.5"}, "importance"),
        ({"text": "a", "importance": True}, "importance"),
        ({"text": "a", "category": "x" * 65}, "category"),
        ({"text": "a", "category": None}, "category"),
        ({"text": "a", "source": ""}, "source"),
        ({"text": "a", "metadata": "x"}, "metadata"),
        ({"text": "a", "metadata": {"a": "x" * 33_000}}, "metadata"),
        ({"text": "a", "metadata": {"a": "\x00"}}, "metadata"),
        ({"text": "a", "metadata": {"\x00": "a"}}, "metadata"),
        ({"text": "a", "container_tag": "x" * 129}, "container_tag"),
        ({"text": "a", "container_tag": ""}, "container_tag"),
        ({"text": "a", "external_id": ""}, "external_id"),
        ({"text": "a", "external_id": "x" * 257}, "external_id"),
        ({"text": "a", "external_id": 7}, "external_id"),
        ({"text": "a", "position": 2**31}, "position"),
        ({"text": "a", "position": 1.5}, "position"),
        ({"text": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"text": "a", "expires_at": 4102444800}, "expires_at"),
        ({"text": "a", "expires_at": "4102444800"}, "expires_at"),
        ({"text": "a", "expires_at": "4102444800.5"}, "expires_at"),
        ({"text": "a", "expires_at": True}, "expires_at"),
    ],
)
def test_a_wrong_value_is_422_and_names_its_field(
    client: TestClient, tenant: Tenant, body: dict[str, Any], field: str
) -> None:
    answer = client.post(PEOPLE, headers=tenant.headers, json=body)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert answer.json()["errors"][0]["loc"] == ["body", field]
    assert client.get("/v1/memory/collections", headers=tenant.headers).json() == []


def test_metadata_is_measured_without_the_space_between(client: TestClient, tenant: Tenant) -> None:
    # As compact as JSON goes, and in UTF-8: 32 KB and not a byte more.
    fits = {"ü": "x" * (32 * 1024 - 9)}

    assert _create(client, tenant, metadata=fits)["metadata"] == fits
    over = client.post(PEOPLE, headers=tenant.headers, json={"text": "a", "metadata": {**fits, "ü": fits["ü"] + "x"}})
    assert over.status_code == 422


def test_the_longest_text_is_counted_in_code_points(client: TestClient, tenant: Tenant) -> None:
    assert _create(client, tenant, text=" " + "\U0001f600" * 10_000)["text"] == "\U0001f600" * 10_000


def test_listing_is_newest_first_in_pages(client: TestClient, tenant: Tenant) -> None:
    made = [_create(client, tenant, text=f"memory {number}")["id"] for number in range(5)]

    def ids(**params: int) -> list[str]:
        answer = client.get(PEOPLE, headers=tenant.headers, params=params)
        assert answer.headers["X-Total-Count"] == "5"
        return [memory["id"] for memory in answer.json()]

    assert ids() == made[::-1]
    assert ids(limit=2, offset=1) == [made[3], made[2]]
    assert ids(offset=5) == []


def test_listing_filters(client: TestClient, tenant: Tenant) -> None:
    tagged = _create(client, tenant, container_tag="a")["id"]
    categorised = _create(client, tenant, category="tea")["id"]

    def ids(**params: str) -> list[str]:
        return [memory["id"] for memory in client.get(PEOPLE, headers=tenant.headers, params=params).json()]

    assert ids(container_tag="a") == [tagged]
    assert ids(category="tea") == [categorised]
    assert ids(container_tag="a", category="tea") == []
    assert ids(container_tag="a\x00") == [tagged]
    assert ids(container_tag="nobody", include_archived="true", include_superseded="true") == []


def test_an_unknown_collection_lists_as_empty(client: TestClient, tenant: Tenant) -> None:
    answer = client.get("/v1/memory/collections/nowhere/memories", headers=tenant.headers)

    assert (answer.status_code, answer.json(), answer.headers["X-Total-Count"]) == (200, [], "0")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=many", "offset=-1", "include_archived=perhaps", "offset=" + "9" * 40]
)
def test_a_listing_out_of_range_is_422(client: TestClient, tenant: Tenant, query: str) -> None:
    answer = client.get(f"{PEOPLE}?{query}", headers=tenant.headers)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(query.partition("=")[0])


def test_only_what_is_sent_changes(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, metadata={"a": 1}, expires_at="2999-01-01T00:00:00Z", sequence="s", position=1)

    answer = _patch(client, tenant, made["id"], {"importance": 0.1, "unknown": 1})

    assert answer.status_code == 200
    changed = answer.json()
    assert changed["updated_at"] > made["updated_at"]
    assert answer.headers["ETag"] == f'"{changed["version"]}"'
    same = made.keys() - {"importance", "updated_at", "version"}
    assert {name: changed[name] for name in same} == {name: made[name] for name in same}
    assert changed["importance"] == 0.1
    assert client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers).json() == changed


def test_a_changed_text_is_found_and_the_old_one_is_not(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, text="The password of the lighthouse is albatross")

    changed = _patch(client, tenant, made["id"], {"text": "The password of the lighthouse is cormorant"}).json()

    def hits(query: str) -> list[str]:
        body = {"query": query, "mode": "text"}
        found = client.post("/v1/memory/collections/people/search", headers=tenant.headers, json=body).json()
        return [hit["text"] for hit in found["results"]]

    assert hits("cormorant") == [changed["text"]]
    assert hits("albatross") == []
    assert changed["version"] == made["version"] + 1


def test_null_clears_what_may_be_empty(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, expires_at="2999-01-01T00:00:00Z", sequence="s", position=1)

    changed = _patch(client, tenant, made["id"], {"expires_at": None, "sequence": None, "position": None}).json()

    assert (changed["expires_at"], changed["sequence"], changed["position"]) == (None, None, None)


def test_metadata_is_replaced_whole(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, metadata={"a": 1, "b": 2})

    assert _patch(client, tenant, made["id"], {"metadata": {"c": 3}}).json()["metadata"] == {"c": 3}


@pytest.mark.parametrize(
    "body",
    [
        {"text": None},
        {"text": " "},
        {"text": "x" * 10_001},
        {"importance": None},
        {"importance": 2},
        {"importance": "1"},
        {"importance": False},
        {"category": None},
        {"metadata": None},
        {"metadata": []},
        {"expires_at": "soon"},
        [],
    ],
)
def test_a_wrong_patch_is_422_and_changes_nothing(client: TestClient, tenant: Tenant, body: Any) -> None:
    made = _create(client, tenant)

    answer = _patch(client, tenant, made["id"], body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert answer.json()["errors"][0]["loc"][0] == "body"
    assert client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers).json() == made


@pytest.mark.parametrize("body", [{}, {"pinned": True, "collection": "other"}])
def test_a_patch_of_nothing_is_400(client: TestClient, tenant: Tenant, body: dict[str, Any]) -> None:
    made = _create(client, tenant)

    assert _patch(client, tenant, made["id"], body).status_code == 400


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "memory_id",
    [
        UNKNOWN_ID,
        "1",
        "not-an-id",
        "%00",
        "%ff",
        "6f1d4a520f5e4c8b9a3e0d6c1d2e3f40",
        f"%7B{UNKNOWN_ID}%7D",
        f"urn:uuid:{UNKNOWN_ID}",
        "9" * 500,
    ],
)
def test_an_unknown_or_malformed_id_is_404(client: TestClient, tenant: Tenant, method: str, memory_id: str) -> None:
    body = {"importance": 1} if method == "PATCH" else None

    answer = client.request(method, f"{PEOPLE}/{memory_id}", headers=tenant.headers, json=body)

    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_memory_is_not_found_under_another_collection(client: TestClient, tenant: Tenant, method: str) -> None:
    made = _create(client, tenant)
    client.post("/v1/memory/collections", headers=tenant.headers, json={"name": "other"})
    path = f"/v1/memory/collections/other/memories/{made['id']}"
    body = {"importance": 1} if method == "PATCH" else None

    assert client.request(method, path, headers=tenant.headers, json=body).status_code == 404
    assert client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers).json() == made


def test_an_expired_memory_is_gone_at_once(client: TestClient, tenant: Tenant) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    made = _create(client, tenant, expires_at=past)

    assert client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers).status_code == 404
    assert client.get(PEOPLE, headers=tenant.headers).json() == []


def test_deleting_works_once(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant)

    first, second = (client.delete(f"{PEOPLE}/{made['id']}", headers=tenant.headers) for _ in range(2))

    assert (first.status_code, first.json()) == (200, {"deleted": True, "id": made["id"]})
    assert second.status_code == 404
    assert client.get(PEOPLE, headers=tenant.headers).headers["X-Total-Count"] == "0"


def test_bulk_answers_in_input_order(client: TestClient, tenant: Tenant) -> None:
    texts = [f"memory {number}" for number in range(100)]

    answer = client.post(f"{PEOPLE}/bulk", headers=tenant.headers, json=[{"text": text} for text in texts])

    assert answer.status_code == 201
    made = answer.json()
    assert made.keys() == {"created", "updated", "ids", "memories"}
    assert (made["created"], made["updated"]) == (100, 0)
    assert [memory["text"] for memory in made["memories"]] == texts
    assert [memory["id"] for memory in made["memories"]] == made["ids"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], "body"),
        ([{"text": "a"}] * 101, "body"),
        ([{"text": "a"}, {"text": ""}], "1.text"),
        ([{"text": "a"}, {"text": "b", "importance": 3}], "1.importance"),
        ([{"text": "a"}, None], "1"),
        ({"text": "a"}, "body"),
    ],
)
def test_bulk_is_all_or_nothing(client: TestClient, tenant: Tenant, body: Any, where: str) -> None:
    answer = client.post(f"{PEOPLE}/bulk", headers=tenant.headers, json=body)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{where}: ")
    assert client.get(PEOPLE, headers=tenant.headers).json() == []


def test_a_full_bulk_of_the_longest_texts_is_taken(client: TestClient, tenant: Tenant) -> None:
    body = [{"text": f"{number} " + "ü" * 9_000} for number in range(100)]

    assert client.post(f"{PEOPLE}/bulk", headers=tenant.headers, json=body).status_code == 201
