"""Search over HTTP. How well it ranks is tested where it ranks."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

SEARCH = "/v1/memory/collections/people/search"
EVERYWHERE = "/v1/memory/search"


@pytest.fixture
def filled(client: TestClient, tenant: Tenant) -> Tenant:
    for collection, body in (
        (
            "people",
            {"text": "Ada drinks tea in the morning", "category": "habit", "metadata": {"who": {"name": "Ada"}}},
        ),
        ("people", {"text": "Invoice ERR_1234 was never paid", "container_tag": "books"}),
        ("places", {"text": "The tea house in Kyoto opens at nine"}),
    ):
        path = f"/v1/memory/collections/{collection}/memories"
        assert client.post(path, headers=tenant.headers, json=body).status_code == 201
    return tenant


def _search(client: TestClient, tenant: Tenant, path: str = SEARCH, **body: Any) -> Any:
    answer = client.post(path, headers=tenant.headers, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _texts(found: Any) -> list[str]:
    return [hit["text"] for hit in found["results"]]


def test_the_answer_has_the_documented_form(client: TestClient, filled: Tenant) -> None:
    found = _search(client, filled, query="what does Ada drink?")

    assert found.keys() == {"results", "query_embedding_ms", "search_ms", "cached"}
    assert found["cached"] is False
    best = found["results"][0]
    assert best["text"] == "Ada drinks tea in the morning"
    assert best["collection"] == "people"
    assert {"id", "text", "category", "importance", "score", "source", "metadata", "images", "created_at"} < best.keys()
    assert 0 < best["score"] <= 1
    assert 0 < best["vector_score"] <= 1
    assert best["text_score"] == 1


def test_one_collection_or_all(client: TestClient, filled: Tenant) -> None:
    assert all(hit["collection"] == "people" for hit in _search(client, filled, query="tea")["results"])
    everywhere = _search(client, filled, EVERYWHERE, query="tea")["results"]
    assert {hit["collection"] for hit in everywhere} == {"people", "places"}


@pytest.mark.parametrize("mode", ["hybrid", "text"])
def test_an_exact_code_is_found_however_unlike(client: TestClient, filled: Tenant, mode: str) -> None:
    found = _search(client, filled, query="ERR_1234", mode=mode, min_score=1)

    assert _texts(found) == ["Invoice ERR_1234 was never paid"]


def test_vector_mode_keeps_to_the_threshold(client: TestClient, filled: Tenant) -> None:
    assert _texts(_search(client, filled, query="tea", mode="vector", min_score=1)) == []
    assert _search(client, filled, query="tea", mode="vector", min_score=0)["results"][0]["text_score"] is None


def test_filters_narrow(client: TestClient, filled: Tenant) -> None:
    everything: dict[str, Any] = {"query": "Ada invoice tea", "min_score": 0, "limit": 50}

    assert _texts(_search(client, filled, **everything, category="habit")) == ["Ada drinks tea in the morning"]
    assert _texts(_search(client, filled, **everything, container_tag="books")) == ["Invoice ERR_1234 was never paid"]
    who = {"who": {"name": "Ada"}}
    assert _texts(_search(client, filled, **everything, metadata_filter=who)) == ["Ada drinks tea in the morning"]
    assert _texts(_search(client, filled, **everything, metadata_filter={"who": "Bob"})) == []
    nothing: dict[str, Any] = {"category": None, "metadata_filter": None, "container_tag": None}
    assert len(_texts(_search(client, filled, **everything, **nothing))) == 2


def test_limit_holds(client: TestClient, filled: Tenant) -> None:
    assert len(_texts(_search(client, filled, EVERYWHERE, query="tea", min_score=0, limit=1))) == 1


def test_an_unknown_collection_and_an_empty_tenant_find_nothing(client: TestClient, tenant: Tenant) -> None:
    assert _texts(_search(client, tenant, "/v1/memory/collections/nowhere/search", query="tea")) == []
    assert _texts(_search(client, tenant, EVERYWHERE, query="tea")) == []
    assert client.get("/v1/memory/collections", headers=tenant.headers).json() == []


@pytest.mark.parametrize("query", ["the", "?!", "a & b | !c <-> 'd", "%_\\", "ü\x00ber", "\u200b", "(" * 200])
def test_strange_queries_are_queries(client: TestClient, filled: Tenant, query: str) -> None:
    for mode in ("hybrid", "vector", "text"):
        _search(client, filled, query=query, mode=mode)


@pytest.mark.parametrize("path", [SEARCH, EVERYWHERE])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "x" * 10_001}, "query"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "limit": 51}, "limit"),
        ({"query": "a", "limit": None}, "limit"),
        ({"query": "a", "limit": 10**30}, "limit"),
        ({"query": "a", "min_score": 1.1}, "min_score"),
        ({"query": "a", "min_score": -0.1}, "min_score"),
        ({"query": "a", "mode": "magic"}, "mode"),
        ({"query": "a", "metadata_filter": ["x"]}, "metadata_filter"),
        ({"query": "a", "container_tag": "x" * 129}, "container_tag"),
    ],
)
def test_out_of_range_is_422_and_names_the_field(
    client: TestClient, tenant: Tenant, path: str, body: dict[str, Any], field: str
) -> None:
    answer = client.post(path, headers=tenant.headers, json=body)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{field}: ")


def test_a_repeated_question_comes_from_the_cache_until_something_changes(client: TestClient, filled: Tenant) -> None:
    first = _search(client, filled, query="tea")
    second = _search(client, filled, query=" tea ", limit=5)
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["query_embedding_ms"] == 0
    assert second["results"] == first["results"]
    path = "/v1/memory/collections/people/memories"
    assert client.post(path, headers=filled.headers, json={"text": "tea, again"}).status_code == 201
    third = _search(client, filled, query="tea")
    assert third["cached"] is False
    assert "tea, again" in _texts(third)


def test_a_kept_answer_is_for_those_who_may_have_it(
    client: TestClient, filled: Tenant, new_tenant: Callable[..., Tenant]
) -> None:
    stranger = new_tenant()
    key = client.post("/v1/memory/keys", headers=filled.headers, json={"label": "agent"}).json()
    agent = {"Authorization": f"Bearer {key['api_key']}"}
    question = {"query": "tea"}
    for _ in range(2):
        assert client.post(SEARCH, headers=agent, json=question).json()["results"]
        assert client.post(SEARCH, headers=stranger.headers, json=question).json()["results"] == []

    grants = "/v1/memory/collections/people/grants"
    other = client.post("/v1/memory/keys", headers=filled.headers, json={"label": "other"}).json()
    granted = {"agent_key_id": other["id"], "can_read": True, "can_write": True}
    assert client.put(grants, headers=filled.headers, json=granted).status_code in {200, 201}
    assert client.post(SEARCH, headers=agent, json=question).status_code == 403
    client.delete(f"/v1/memory/keys/{key['id']}", headers=filled.headers)
    assert client.post(SEARCH, headers=agent, json=question).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (SEARCH, b'{"query": 7}', 422),
        (SEARCH, b"{", 422),
        (SEARCH, b'{"query": "tea", "limit": NaN}', 422),
        ("/v1/memory/collections/%00/search", b'{"query": "tea"}', 422),
    ],
)
def test_what_cannot_be_asked_is_refused_after_the_key(
    client: TestClient, filled: Tenant, path: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    refused = client.post(path, headers={**headers, **filled.headers}, content=body)
    assert refused.status_code == status
    assert refused.json()["detail"]
    for strange in ({}, {"Authorization": "Bearer mv_notthekeyofanybodyatall"}):
        assert client.post(path, headers={**headers, **strange}, content=body).status_code == 401
