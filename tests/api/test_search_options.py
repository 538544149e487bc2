"""What a search over HTTP can be asked besides the query: explanations, context, times, filters, a number of tokens."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

MEMORIES = "/v1/memory/collections/talk/memories"
SEARCH = "/v1/memory/collections/talk/search"
EVERYWHERE = "/v1/memory/search"
ISLANDS = [
    "Shall we go to the island in May?",
    "The ferry to Texel leaves at nine",
    "Then I will bring the bicycles",
    "And who looks after the hens while we are on the ferry?",
]
_LEAF = {"field": "category", "op": "eq", "value": "a"}


@pytest.fixture
def filled(client: TestClient, tenant: Tenant) -> Tenant:
    items = [
        {"text": text, "sequence": "chat", "position": place, "metadata": {"turn": place, "by": {"name": "Ada"}}}
        for place, text in enumerate(ISLANDS)
    ]
    answer = client.post(f"{MEMORIES}/bulk", headers=tenant.headers, json=items)
    assert answer.status_code == 201, answer.text
    return tenant


def _results(client: TestClient, tenant: Tenant, path: str = SEARCH, **body: Any) -> Any:
    answer = client.post(path, headers=tenant.headers, json={"query": "ferry to Texel", "min_score": 0, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_a_plain_result_carries_no_more_than_a_plain_result(client: TestClient, filled: Tenant) -> None:
    for hit in _results(client, filled):
        assert {"explain", "context"}.isdisjoint(hit)
        assert 0 <= hit["vector_score"] <= 1
        assert 0 <= hit["text_score"] <= 1


def test_an_explanation(client: TestClient, filled: Tenant) -> None:
    best, *others = _results(client, filled, explain=True)
    assert best["text"] == ISLANDS[1]
    explain = best["explain"]
    assert explain.keys() == {
        "origin", "cosine", "bm25", "text_score", "neighbour", "fused", "vector_rank", "text_rank"
    }  # fmt: skip
    assert (explain["origin"], explain["vector_rank"], explain["text_rank"]) == ("both", 1, 1)
    assert explain["text_score"] == 1
    assert explain["fused"] == pytest.approx((explain["cosine"] + 0.7) / 1.7)
    assert best["score"] == pytest.approx(min(explain["fused"] + explain["neighbour"], 1))
    fused = {hit["text"]: hit["explain"]["fused"] for hit in [best, *others]}
    assert set(fused) == set(ISLANDS)
    assert explain["neighbour"] == pytest.approx(
        0.2 * fused[ISLANDS[0]] + 0.2 * fused[ISLANDS[2]] + 0.1 * fused[ISLANDS[3]]
    )


def test_context_gives_whole_memories_around_each_result(client: TestClient, filled: Tenant) -> None:
    for path in (SEARCH, EVERYWHERE):
        [hit] = _results(client, filled, path, limit=1, context=2)
        assert [memory["text"] for memory in hit["context"]["before"]] == ISLANDS[:1]
        assert [memory["text"] for memory in hit["context"]["after"]] == ISLANDS[2:]
        stored = client.get(f"{MEMORIES}/{hit['context']['before'][0]['id']}", headers=filled.headers).json()
        assert hit["context"]["before"][0] == stored
    [hit] = _results(client, filled, limit=1, context=1, filter={"field": "metadata.turn", "op": "gt", "value": 0})
    assert hit["context"]["before"] == []


def test_as_of(client: TestClient, filled: Tenant) -> None:
    now = datetime.now(UTC)
    assert _results(client, filled, as_of=(now - timedelta(hours=1)).isoformat()) == []
    assert len(_results(client, filled, as_of=(now + timedelta(hours=1)).isoformat())) == 4


def test_a_number_of_tokens(client: TestClient, filled: Tenant) -> None:
    assert len(_results(client, filled, max_tokens=1)) == 1
    assert len(_results(client, filled, max_tokens=26)) == 2
    assert len(_results(client, filled, max_tokens=1_000)) == 4


def test_what_needs_a_language_model_is_plain_search_without_one(client: TestClient, filled: Tenant) -> None:
    plain = _results(client, filled)
    assert _results(client, filled, rewrite=True) == plain
    assert _results(client, filled, rerank=True) == plain


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize(
    ("tree", "turns"),
    [
        ({"field": "metadata.turn", "op": "gte", "value": 2}, {2, 3}),
        ({"field": "metadata.by.name", "op": "eq", "value": "Bob"}, set()),
        ({"not": {"field": "metadata.turn", "op": "in", "value": [0, 1]}}, {2, 3}),
        ({"or": [{"field": "metadata.turn", "op": "eq", "value": n} for n in (0, 3)]}, {0, 3}),
        ({"field": "created_at", "op": "gt", "value": "2020-01-01"}, {0, 1, 2, 3}),
        ({"field": "sequence", "op": "ne", "value": "chat"}, set()),
        ({"field": "created_by.id", "op": "exists"}, {0, 1, 2, 3}),
    ],
)
def test_filters(client: TestClient, filled: Tenant, mode: str, tree: Any, turns: set[int]) -> None:
    found = _results(client, filled, query="go by ferry, island, bicycles, hens", mode=mode, filter=tree)
    assert {hit["metadata"]["turn"] for hit in found} == turns
    both = _results(client, filled, mode="vector", filter=tree, metadata_filter={"turn": 3})
    assert {hit["metadata"]["turn"] for hit in both} == turns & {3}


@pytest.mark.parametrize("path", [SEARCH, EVERYWHERE])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context": 4}, "context"),
        ({"context": -1}, "context"),
        ({"context": "2"}, "context"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"as_of": "yesterday"}, "as_of"),
        ({"as_of": "0001-01-01T00:00:00+14:00"}, "as_of"),
        ({"explain": "sure"}, "explain"),
        ({"rewrite": 1}, "rewrite"),
        ({"filter": []}, "filter"),
        ({"filter": {"field": "text", "op": "eq", "value": 1}}, "filter"),
        ({"filter": {"not": {"not": {"not": {"not": {"not": {"not": _LEAF}}}}}}}, "filter"),
        ({"filter": {"or": [_LEAF] * 51}}, "filter"),
        ({"filter": {"and": [{"or": [_LEAF] * 30}, {"or": [_LEAF] * 30}]}}, "filter"),
    ],
)
def test_out_of_range_is_422_and_names_the_field(
    client: TestClient, tenant: Tenant, path: str, body: Any, field: str
) -> None:
    answer = client.post(path, headers=tenant.headers, json={"query": "tea", **body})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


@pytest.mark.parametrize("value", ["'; drop table memories; --", "%s", "%(vector)s", "\\", "\x00", "{}", "$1"])
def test_what_is_compared_is_never_sql(client: TestClient, filled: Tenant, value: str) -> None:
    for field in ("category", "metadata.turn", f"metadata.{value.replace(chr(0), '')}x"):
        for op in ("eq", "ne", "contains"):
            _results(client, filled, filter={"field": field, "op": op, "value": value}, query=f'tea "{value}"')
    assert len(_results(client, filled)) == 4


def test_a_whole_number_may_be_written_with_a_point(client: TestClient, filled: Tenant) -> None:
    assert len(_results(client, filled, limit=2.0)) == 2
    assert client.post(SEARCH, headers=filled.headers, json={"query": "ferry", "limit": 2.5}).status_code == 422
