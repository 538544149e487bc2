"""External ids, versions, and the fates of memories over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

PEOPLE = "/v1/memory/collections/people"
UNKNOWN_ID = "6f1d4a52-0f5e-4c8b-9a3e-0d6c1d2e3f40"


def _create(client: TestClient, tenant: Tenant, text: str = "Ada likes tea", **body: Any) -> Any:
    answer = client.post(f"{PEOPLE}/memories", headers=tenant.headers, json={"text": text, **body})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def _post(client: TestClient, tenant: Tenant, memory: Any, act: str, body: Any, **headers: str) -> Any:
    path = f"{PEOPLE}/memories/{memory['id']}/{act}"
    return client.post(path, headers={**tenant.headers, **headers}, json=body)


def _read(client: TestClient, tenant: Tenant, memory: Any) -> Any:
    return client.get(f"{PEOPLE}/memories/{memory['id']}", headers=tenant.headers)


def test_an_external_id_seen_again_is_200_and_the_same_memory(client: TestClient, tenant: Tenant) -> None:
    body = {"text": "Ada likes tea", "external_id": "crm/17", "category": "taste"}
    first = client.post(f"{PEOPLE}/memories", headers=tenant.headers, json=body)
    again = client.post(
        f"{PEOPLE}/memories", headers=tenant.headers, json={"text": "Ada likes coffee", "external_id": "crm/17"}
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["ETag"] == '"2"'
    assert (again.json()["id"], again.json()["category"]) == (first.json()["id"], "taste")
    history = client.get(f"{PEOPLE}/memories/{first.json()['id']}/history", headers=tenant.headers)
    assert history.headers["X-Total-Count"] == "2"
    assert [(one["text"], one["version"], one["reason"]) for one in history.json()] == [
        ("Ada likes coffee", 2, None),
        ("Ada likes tea", 1, "edited"),
    ]
    assert history.json()[1].keys() == {
        "id",
        "version",
        "text",
        "valid_from",
        "valid_to",
        "superseded_by",
        "reason",
        "changed_by",
    }
    assert history.json()[1]["changed_by"]["label"] == "main"


def test_a_bulk_counts_what_is_new_and_what_was_there(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, external_id="a")
    body = [{"text": "x", "external_id": "a"}, {"text": "y", "external_id": "b"}, {"text": "z"}]
    answer = client.post(f"{PEOPLE}/memories/bulk", headers=tenant.headers, json=body)
    assert answer.status_code == 201
    assert (answer.json()["created"], answer.json()["updated"]) == (2, 1)
    assert answer.json()["ids"][0] == made["id"]


def test_a_bulk_with_an_external_id_twice_is_422(client: TestClient, tenant: Tenant) -> None:
    body = [{"text": "x", "external_id": "a"}, {"text": "y", "external_id": "a"}]
    answer = client.post(f"{PEOPLE}/memories/bulk", headers=tenant.headers, json=body)
    assert answer.status_code == 422
    assert "external_id" in answer.json()["detail"]
    assert client.get("/v1/memory/collections", headers=tenant.headers).json() == []


@pytest.mark.parametrize(("act", "mark"), [("pin", "pinned"), ("archive", "archived")])
def test_a_mark_is_set_and_taken_back(client: TestClient, tenant: Tenant, act: str, mark: str) -> None:
    made = _create(client, tenant)
    for value, version in ((True, 2), (True, 2), (False, 3)):
        answer = _post(client, tenant, made, act, {mark: value})
        assert (answer.status_code, answer.json()[mark], answer.headers["ETag"]) == (200, value, f'"{version}"')
    wrong: list[Any] = [{}, {mark: None}, {mark: "perhaps"}, {mark: 1}, [], {"other": True}]
    for body in wrong:
        assert _post(client, tenant, made, act, body).status_code == 422
    assert _post(client, tenant, {"id": UNKNOWN_ID}, act, {mark: True}).status_code == 404
    assert _post(client, tenant, {"id": "nonsense"}, act, {mark: True}).status_code == 404


def test_a_move_makes_its_target(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant)
    answer = _post(client, tenant, made, "move", {"to_collection": "friends"})
    assert (answer.status_code, answer.json()["collection"], answer.headers["ETag"]) == (200, "friends", '"2"')
    assert (answer.json()["id"], answer.json()["created_at"]) == (made["id"], made["created_at"])
    assert _read(client, tenant, made).status_code == 404
    assert (
        client.get(f"/v1/memory/collections/friends/memories/{made['id']}", headers=tenant.headers).status_code == 200
    )
    for name in ("", "a/b", None):
        assert _post(client, tenant, made, "move", {"to_collection": name}).status_code == 422
    assert _post(client, tenant, made, "move", {"to_collection": "friends"}).status_code == 404


def test_a_move_onto_a_taken_external_id_is_409(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, external_id="a")
    client.post(
        "/v1/memory/collections/friends/memories", headers=tenant.headers, json={"text": "x", "external_id": "a"}
    )
    answer = _post(client, tenant, made, "move", {"to_collection": "friends"})
    assert answer.status_code == 409
    assert "external_id" in answer.json()["detail"]


def test_forgetting_by_meaning(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant)
    other = _create(client, tenant, "The quarterly report is due on Friday")
    look = client.post(f"{PEOPLE}/forget", headers=tenant.read_only, json={"query": "Ada likes tea", "dry_run": True})
    assert look.status_code == 200
    assert look.json() | {"memories": []} == {
        "dry_run": True,
        "deleted": 0,
        "would_delete": 1,
        "ids": [made["id"]],
        "skipped_pinned": 0,
        "memories": [],
    }
    [preview] = look.json()["memories"]
    assert (preview["id"], preview["text"]) == (made["id"], "Ada likes tea")
    assert 0.9 < preview["score"] <= 1
    refused = client.post(f"{PEOPLE}/forget", headers=tenant.read_only, json={"query": "Ada likes tea"})
    assert refused.status_code == 403
    done = client.post(f"{PEOPLE}/forget", headers=tenant.headers, json={"query": "Ada likes tea"})
    assert (done.status_code, done.json()["deleted"], done.json()["ids"]) == (200, 1, [made["id"]])
    assert _read(client, tenant, made).status_code == 404
    assert _read(client, tenant, other).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": None}, "query"),
        ({"query": "x" * 10_001}, "query"),
        ({"query": "a", "min_score": 1.01}, "min_score"),
        ({"query": "a", "min_score": -0.1}, "min_score"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "limit": 101}, "limit"),
        ({"query": "a", "dry_run": "yes"}, "dry_run"),
        ({"query": "a", "container_tag": ""}, "container_tag"),
    ],
)
def test_a_wrong_wish_to_forget_is_422(client: TestClient, tenant: Tenant, body: Any, field: str) -> None:
    answer = client.post(f"{PEOPLE}/forget", headers=tenant.headers, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{field}: ")


def test_related_memories_come_with_their_score(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant)
    near = _create(client, tenant, "Ada likes green tea")
    _create(client, tenant, "The quarterly report is due on Friday")

    def related(**params: Any) -> Response:
        path = f"{PEOPLE}/memories/{made['id']}/related"
        answer: Response = client.get(path, headers=tenant.read_only, params=params)
        return answer

    found = related(limit=1).json()
    assert [hit["id"] for hit in found] == [near["id"]]
    assert 0.5 < found[0]["score"] <= 1
    assert len(related().json()) == 2
    assert [hit["id"] for hit in related(min_score=0.5).json()] == [near["id"]]
    for params in ({"limit": 0}, {"limit": 51}, {"min_score": 2}, {"min_score": "nan"}):
        assert related(**params).status_code == 422
    assert client.get(f"{PEOPLE}/memories/{UNKNOWN_ID}/related", headers=tenant.headers).status_code == 404


# Versions as conditions


def _acts(client: TestClient, tenant: Tenant, memory: Any, if_match: str) -> list[Response]:
    headers = {**tenant.headers, "If-Match": if_match}
    path = f"{PEOPLE}/memories/{memory['id']}"
    return [
        client.patch(path, headers=headers, json={"importance": 0.1}),
        client.post(f"{path}/pin", headers=headers, json={"pinned": True}),
        client.post(f"{path}/archive", headers=headers, json={"archived": True}),
        client.post(f"{path}/move", headers=headers, json={"to_collection": "friends"}),
        client.delete(path, headers=headers),
    ]


@pytest.mark.parametrize("if_match", ['"2"', '"2", "3"', 'W/"1"', '"one"', '""', '"1 "', f'"{"9" * 50}"', "2", '"1,2"'])
def test_another_version_is_412_and_changes_nothing(client: TestClient, tenant: Tenant, if_match: str) -> None:
    made = _create(client, tenant)
    for answer in _acts(client, tenant, made, if_match):
        assert answer.status_code == 412
        assert isinstance(answer.json()["detail"], str)
    assert _read(client, tenant, made).json() == made


@pytest.mark.parametrize("if_match", ["nonsense", '"1', '1"', '"1" "2"', '"1",', ",", "*, *", "'1'", "1.0", "-1"])
def test_what_is_no_list_of_tags_is_422(client: TestClient, tenant: Tenant, if_match: str) -> None:
    made = _create(client, tenant)
    for answer in _acts(client, tenant, made, if_match):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("If-Match: an `ETag` as it was given")
    assert _read(client, tenant, made).json() == made


@pytest.mark.parametrize("if_match", ['"1"', "*", "1", ' "1" ', '"7","1"', 'W/"2", "1"'])
def test_the_same_version_goes_through(client: TestClient, tenant: Tenant, if_match: str) -> None:
    for number in range(5):
        made = _create(client, tenant)
        assert _acts_one(client, tenant, made, if_match, number).status_code == 200


def _acts_one(client: TestClient, tenant: Tenant, memory: Any, if_match: str, number: int) -> Response:
    headers = {**tenant.headers, "If-Match": if_match}
    path = f"{PEOPLE}/memories/{memory['id']}"
    acts: list[tuple[str, str, Any]] = [
        ("PATCH", path, {"importance": 0.1}),
        ("POST", f"{path}/pin", {"pinned": True}),
        ("POST", f"{path}/archive", {"archived": True}),
        ("POST", f"{path}/move", {"to_collection": "friends"}),
        ("DELETE", path, None),
    ]
    method, place, body = acts[number]
    answer: Response = client.request(method, place, headers=headers, json=body)
    return answer


def test_every_answer_of_one_memory_carries_its_version(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant)
    answers = [
        _read(client, tenant, made),
        client.patch(f"{PEOPLE}/memories/{made['id']}", headers=tenant.headers, json={"text": "new"}),
        _post(client, tenant, made, "pin", {"pinned": True}),
        _post(client, tenant, made, "archive", {"archived": True}),
        _post(client, tenant, made, "move", {"to_collection": "friends"}),
    ]
    assert [answer.headers["ETag"] for answer in answers] == [f'"{number}"' for number in range(1, 6)]
    assert [answer.json()["version"] for answer in answers] == list(range(1, 6))


# Time


def test_a_time_that_is_taken_back_brings_nothing_back_and_a_set_one_can_be_cleared(
    client: TestClient, tenant: Tenant
) -> None:
    made = _create(client, tenant, expires_at="2999-01-01T00:00:00Z")
    path = f"{PEOPLE}/memories/{made['id']}"
    assert client.patch(path, headers=tenant.headers, json={"expires_at": None}).json()["expires_at"] is None
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    assert client.patch(path, headers=tenant.headers, json={"expires_at": past}).status_code == 200
    assert client.patch(path, headers=tenant.headers, json={"expires_at": None}).status_code == 404
    for act in ("history", "related"):
        assert client.get(f"{path}/{act}", headers=tenant.headers).status_code == 404


def test_a_history_in_pages(client: TestClient, tenant: Tenant) -> None:
    made = _create(client, tenant, "0")
    path = f"{PEOPLE}/memories/{made['id']}"
    for number in range(1, 4):
        client.patch(path, headers=tenant.headers, json={"text": str(number)})
    page = client.get(f"{path}/history", headers=tenant.headers, params={"limit": 2, "offset": 1})
    assert ([one["text"] for one in page.json()], page.headers["X-Total-Count"]) == (["2", "1"], "4")
    for query in ("limit=0", "limit=201", "offset=-1"):
        assert client.get(f"{path}/history?{query}", headers=tenant.headers).status_code == 422
    assert client.get(f"{PEOPLE}/memories/{UNKNOWN_ID}/history", headers=tenant.headers).status_code == 404
