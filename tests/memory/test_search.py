"""Search: what is found, what is never shown, and in which order, through every kind of filter."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import pytest

from memory.errors import Unavailable
from memory.schemas import Caller, Memory, MemoryCreate, SearchHit, SearchRequest
from memory.services import Services
from memory.store import allowed
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant

_MODES: tuple[Literal["hybrid", "vector", "text"], ...] = ("hybrid", "vector", "text")


@pytest.fixture(autouse=True)
def _calm(words: WordEmbedder) -> Iterator[None]:
    yield
    words.down = False


_ANY_QUERY = [
    *("the", "and or not is", "?!", "'", '"', "\\", "& | ! <-> ( :*", "😀", "中文测试", "%s %(x)s :x", "a" * 10_000),
    "\u0301",
]


def _remember(house: Services, caller: Caller, *texts: str, collection: str = "notes", **values: Any) -> list[Memory]:
    wanted = [MemoryCreate(text=text, **values) for text in texts]
    return [
        memory
        for start in range(0, len(wanted), 500)
        for memory in house.memories.create_many(caller, collection, wanted[start : start + 500])
    ]


def _hits(
    house: Services, caller: Caller, query: str, collection: str | None = "notes", **wanted: Any
) -> list[SearchHit]:
    request = SearchRequest.model_validate({"query": query, "limit": 50, **wanted})
    return house.search.search(caller, collection, request).results


def _texts(house: Services, caller: Caller, query: str, collection: str | None = "notes", **wanted: Any) -> list[str]:
    return [hit.text for hit in _hits(house, caller, query, collection, **wanted)]


# What is found


def test_an_answer_says_how_well_and_how_fast(house: Services, tenant: Tenant) -> None:
    [made] = _remember(house, tenant.caller, "green tea", metadata={"a": 1}, container_tag="t")
    answer = house.search.search(tenant.caller, "notes", SearchRequest(query="green tea"))
    [hit] = answer.results
    assert hit.model_dump(exclude={"score", "vector_score", "text_score"}) == made.model_dump()
    assert [hit.score, hit.vector_score, hit.text_score] == pytest.approx([1, 1, 1], abs=1e-3)
    assert answer.query_embedding_ms >= 0
    assert answer.search_ms > 0
    assert answer.cached is False


def test_as_many_as_are_asked_for(house: Services, tenant: Tenant) -> None:
    _remember(house, tenant.caller, *(f"tea {number}" for number in range(60)))
    for mode in _MODES:
        for limit in (1, 5, 50):
            assert len(_hits(house, tenant.caller, "tea", mode=mode, limit=limit)) == limit
    assert len(house.search.search(tenant.caller, "notes", SearchRequest(query="tea")).results) == 5


def test_an_unknown_or_empty_collection_finds_nothing(house: Services, tenant: Tenant) -> None:
    for mode in _MODES:
        assert _hits(house, tenant.caller, "tea", "unknown", mode=mode) == []
        assert _hits(house, tenant.caller, "tea", None, mode=mode) == []
    _remember(house, tenant.caller, "tea")
    for mode in _MODES:
        assert _hits(house, tenant.caller, "tea", "unknown", mode=mode) == []


def test_nobody_finds_what_another_tenant_has(house: Services, new_tenant: Callable[..., Tenant]) -> None:
    mine, other = new_tenant(), new_tenant()
    _remember(house, mine.caller, "green tea", metadata={"a": 1}, container_tag="t", category="c")
    _remember(house, other.caller, "black coffee")
    for mode in _MODES:
        for collection in ("notes", None):
            wanted: dict[str, Any] = {"mode": mode, "min_score": 0}
            assert "green tea" in _texts(house, mine.caller, "green tea", collection, **wanted)
            assert "green tea" not in _texts(house, other.caller, "green tea", collection, **wanted)
            for narrow in ({"container_tag": "t"}, {"category": "c"}, {"metadata_filter": {"a": 1}}):
                assert _texts(house, other.caller, "green tea", collection, **wanted, **narrow) == []


def test_min_score_holds_back_what_only_the_vector_arm_brings(house: Services, tenant: Tenant) -> None:
    far = "kumquat " + " ".join(f"filler{number}" for number in range(60))
    _remember(house, tenant.caller, "green tea", "green leaves on a tree", far)
    near = _hits(house, tenant.caller, "green kumquat", mode="vector", min_score=0)
    assert len(near) == 3
    for min_score in (0.0, 0.3, 0.6, 1.0):
        found = {hit.text: hit for hit in _hits(house, tenant.caller, "green kumquat", min_score=min_score)}
        # Each holds a word of the query: the text arm finds it, however far its vector is.
        assert set(found) == {"green tea", "green leaves on a tree", far}
        scored = {hit.text: hit.vector_score for hit in near}
        assert {text: hit.vector_score for text, hit in found.items()} == pytest.approx(scored, abs=1e-6)
        by_vector = _hits(house, tenant.caller, "green kumquat", mode="vector", min_score=min_score)
        assert [hit.text for hit in by_vector] == [
            hit.text for hit in near if hit.vector_score is not None and hit.vector_score >= min_score
        ]
    assert set(_texts(house, tenant.caller, "leaf greens", mode="text", min_score=1)) == {
        "green leaves on a tree",
        "green tea",
    }


def test_words_are_found_in_all_their_forms_and_codes_in_one(house: Services, tenant: Tenant) -> None:
    late = ["ticket OPS-12226 is late", "ticket OPS-12227 is late"]
    _remember(house, tenant.caller, *late, "error ERR_1234 in db-01", "mailed a@b.org")
    for query, first in (
        ("tickets lateness", "ticket OPS-12227 is late"),
        ("ops-12226", "ticket OPS-12226 is late"),
        ("12226", "ticket OPS-12226 is late"),
        ("OPS 12226", "ticket OPS-12226 is late"),
        ("err_1234", "error ERR_1234 in db-01"),
        ("DB-01?", "error ERR_1234 in db-01"),
        ("who is a@b.org", "mailed a@b.org"),
    ):
        assert _texts(house, tenant.caller, query, mode="text")[0] == first, query
    assert _texts(house, tenant.caller, "OPS-99999", mode="text") == late[::-1]


@pytest.mark.parametrize("query", _ANY_QUERY, ids=range(len(_ANY_QUERY)))
def test_a_query_of_any_kind_is_answered(house: Services, tenant: Tenant, query: str) -> None:
    _remember(house, tenant.caller, "green tea", query)
    for mode in _MODES:
        _hits(house, tenant.caller, query, mode=mode)
        _hits(house, tenant.caller, query, None, mode=mode, metadata_filter={"a": 1})
    assert query.strip() in _texts(house, tenant.caller, query, mode="vector")
    assert query.strip() in _texts(house, tenant.caller, query)


def test_stop_words_alone_are_looked_for_as_they_stand(house: Services, tenant: Tenant) -> None:
    _remember(house, tenant.caller, "the who", "green tea")
    [hit] = _hits(house, tenant.caller, "the", mode="text")
    assert (hit.text, hit.text_score) == ("the who", 1)


def test_the_longest_query_finds_its_own_memory(house: Services, tenant: Tenant) -> None:
    words = [f"word{number:04}" for number in range(1_100)]
    text = " ".join(words)[:10_000]
    _remember(house, tenant.caller, text, *words[::10])
    for mode in _MODES:
        assert _texts(house, tenant.caller, text, mode=mode)[0] == text


def test_chinese_and_emoji_are_found_by_text(house: Services, tenant: Tenant) -> None:
    _remember(house, tenant.caller, "中文 测试", "Привет мир", "日本語")
    assert _texts(house, tenant.caller, "测试", mode="text") == ["中文 测试"]
    assert _texts(house, tenant.caller, "МИР", mode="text") == ["Привет мир"]


# What is never shown


def test_only_what_is_true_now_is_found(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    _remember(
        house, tenant.caller, "tea now", "tea superseded", "tea expired", "tea archived", "tea superseded archived"
    )
    _remember(house, tenant.caller, "tea soon gone", expires_at=datetime.now(UTC) + timedelta(hours=1))
    _remember(house, tenant.caller, "tea gone", expires_at=datetime.now(UTC) - timedelta(hours=1))
    for word, fate in (
        ("superseded", "is_latest = false"),
        ("expired", "expires_at = now()"),
        ("archived", "archived = true"),
    ):
        as_owner.execute(f"update memories set {fate} where tenant_id = %s and text like %s", (tenant.id, f"%{word}%"))
    for mode in _MODES:
        for collection in ("notes", None):
            wanted: dict[str, Any] = {"mode": mode, "min_score": 0}
            assert set(_texts(house, tenant.caller, "tea", collection, **wanted)) == {"tea now", "tea soon gone"}
            assert set(_texts(house, tenant.caller, "tea", collection, include_archived=True, **wanted)) == {
                "tea now",
                "tea soon gone",
                "tea archived",
            }


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("selective", [0, 10_000], ids=["filtered after", "filtered before"])
def test_filters_hold_in_both_arms(
    house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, mode: str, selective: int
) -> None:
    monkeypatch.setattr(allowed, "FEW", selective)
    values: list[dict[str, Any]] = [
        {"category": "a", "container_tag": "t", "metadata": {"n": 1, "o": {"p": [1, 2]}, "s": "'"}},
        {"category": "a", "container_tag": "u", "metadata": {"n": 1}},
        {"category": "b", "container_tag": "t", "metadata": {"n": 2}},
        {"category": "b", "metadata": {"n": "1"}},
    ]
    for number, value in enumerate(values):
        _remember(house, tenant.caller, f"tea {number}", **value)

    def found(**wanted: Any) -> set[str]:
        return {
            text.removeprefix("tea ") for text in _texts(house, tenant.caller, "tea", mode=mode, min_score=0, **wanted)
        }

    assert found() == set("0123")
    assert found(category="a") == set("01")
    assert found(category="A") == set()
    assert found(container_tag="t") == set("02")
    assert found(category="a", container_tag="t") == {"0"}
    assert found(metadata_filter={}) == set("0123")
    assert found(metadata_filter={"n": 1}) == set("01")
    assert found(metadata_filter={"o": {"p": [2]}}) == {"0"}
    assert found(metadata_filter={"n": 1}, container_tag="u") == {"1"}
    assert found(metadata_filter={"n": 1}, container_tag="u", category="b") == set()
    assert found(metadata_filter={"s": "'"}) == {"0"}
    assert found(metadata_filter={"n": None}) == set()


def test_the_best_by_text_is_the_best_of_what_passes_the_filter(house: Services, tenant: Tenant) -> None:
    _remember(house, tenant.caller, "tea tea tea tea", container_tag="other")
    _remember(house, tenant.caller, "tea with a biscuit and a newspaper", container_tag="mine")
    [hit] = _hits(house, tenant.caller, "tea", container_tag="mine", mode="text")
    assert hit.score == hit.text_score == 1


_CROWD = 3_000


@pytest.fixture(scope="module")
def crowd(house: Services) -> Caller:
    """3,000 memories that are all nearer than the one that a test makes visible."""
    made = house.accounts.create_tenant(email=f"{uuid4()}@example.org")
    caller = house.accounts.authenticate(made.api_key)
    _remember(house, caller, *["red apple"] * _CROWD)
    _remember(house, caller, "a red apple pie with cream, cherries and sugar")
    return caller


@pytest.mark.parametrize("selective", [0, 500, 10_000], ids=["wide", "in between", "narrow"])
@pytest.mark.parametrize(
    ("of_crowd", "of_one", "wanted"),
    [
        ("archived = true", "", {}),
        ("expires_at = now()", "", {}),
        ("is_latest = false", "", {}),
        ("container_tag = 'other'", "container_tag = 'mine'", {"container_tag": "mine"}),
        ("category = 'other'", "category = 'mine'", {"category": "mine"}),
        ("metadata = '{\"a\": 1}'", "metadata = '{\"a\": 2}'", {"metadata_filter": {"a": 2}}),
        # Wide by its metadata, and still one is left.
        ("metadata = '{\"a\": 1}', archived = true", "metadata = '{\"a\": 1}'", {"metadata_filter": {"a": 1}}),
        (
            "metadata = '{\"a\": 1}', category = 'other'",
            "metadata = '{\"a\": 1}', category = 'mine'",
            {"metadata_filter": {"a": 1}, "category": "mine"},
        ),
    ],
)
def test_one_behind_thousands_that_are_not_shown_is_found(
    house: Services,
    crowd: Caller,
    as_owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    of_crowd: str,
    of_one: str,
    wanted: dict[str, Any],
    selective: int,
) -> None:
    monkeypatch.setattr(allowed, "FEW", selective)
    as_owner.execute(
        "update memories set archived = false, expires_at = null, is_latest = true, container_tag = null, "
        "category = 'other', metadata = '{}' where tenant_id = %s",
        (crowd.tenant_id,),
    )
    crowded = "tenant_id = %s and text = 'red apple'"
    as_owner.execute(f"update memories set {of_crowd} where {crowded}", (crowd.tenant_id,))
    if of_one:
        as_owner.execute(
            f"update memories set {of_one} where tenant_id = %s and text <> 'red apple'", (crowd.tenant_id,)
        )
    for mode in _MODES:
        for collection in ("notes", None):
            found = _texts(house, crowd, "red apple", collection, mode=mode, min_score=0, **wanted)
            assert found == ["a red apple pie with cream, cherries and sugar"], (mode, collection)


@pytest.mark.parametrize("selective", [0, 10_000], ids=["filtered after", "filtered before"])
@pytest.mark.parametrize("mode", _MODES)
def test_of_thousands_that_are_equally_near_importance_then_age_then_id_decide(
    house: Services, crowd: Caller, as_owner: Connection, monkeypatch: pytest.MonkeyPatch, mode: str, selective: int
) -> None:
    monkeypatch.setattr(allowed, "FEW", selective)
    as_owner.execute(
        "update memories set archived = false, expires_at = null, is_latest = true, container_tag = 't', "
        "importance = 0.5, created_at = '2026-01-01', pinned = false where tenant_id = %s and text = 'red apple'",
        (crowd.tenant_id,),
    )
    ids = [
        row[0]
        for row in as_owner.execute(
            "select id from memories where tenant_id = %s and text = 'red apple'", (crowd.tenant_id,)
        ).fetchall()
    ]
    chosen = random.Random(7).sample(ids, 4)
    as_owner.execute("update memories set importance = 0.9 where id = %s", (chosen[0],))
    as_owner.execute("update memories set importance = 0.8, created_at = '2026-03-01' where id = %s", (chosen[1],))
    as_owner.execute("update memories set importance = 0.8, created_at = '2026-02-01' where id = %s", (chosen[2],))
    # A pin changes the listing, not the ranking.
    as_owner.execute("update memories set importance = 0.4, pinned = true where id = %s", (chosen[3],))
    rest = sorted(set(ids) - set(chosen), reverse=True)
    for limit in (1, 2, 6):
        hits = _hits(house, crowd, "red apple", mode=mode, limit=limit, container_tag="t")
        assert [hit.id for hit in hits] == [*chosen[:3], *rest][:limit]


# Modes, and all collections


def test_modes_are_what_they_say(house: Services, tenant: Tenant) -> None:
    _remember(house, tenant.caller, "teas and biscuits", "tea pot")
    for hit in _hits(house, tenant.caller, "tea", mode="text"):
        assert hit.vector_score is None
        assert hit.score == hit.text_score
    for hit in _hits(house, tenant.caller, "tea", mode="vector"):
        assert hit.text_score is None
        assert hit.score == hit.vector_score
    # The stem is found by text alone: the words share no direction.
    assert len(_hits(house, tenant.caller, "tea", mode="text")) == 2
    assert _texts(house, tenant.caller, "tea", mode="vector") == ["tea pot"]
    hybrid = {hit.text: hit for hit in _hits(house, tenant.caller, "tea")}
    assert hybrid["tea pot"].score > hybrid["teas and biscuits"].score > 0


def test_all_collections_are_ranked_as_one(house: Services, tenant: Tenant) -> None:
    texts = ["green tea", "black tea in a cup", "green leaves", "coffee", "a cup of coffee, black", "tea"] * 2
    for number, text in enumerate(texts):
        _remember(house, tenant.caller, text, collection=f"c{number % 3}")
        _remember(house, tenant.caller, text, collection="one")
    for query in ("green tea", "black cup", "coffee leaves"):
        for mode in _MODES:
            wanted: dict[str, Any] = {"mode": mode, "min_score": 0}
            spread = [hit for hit in _hits(house, tenant.caller, query, None, **wanted) if hit.collection != "one"]
            together = _hits(house, tenant.caller, query, "one", **wanted)
            # Twice the documents and twice those that hold each word: almost the same idf.
            assert [hit.text for hit in spread] == [hit.text for hit in together]
            assert [hit.score for hit in spread] == pytest.approx([hit.score for hit in together], abs=0.02)


def test_every_result_of_all_collections_names_its_own(house: Services, tenant: Tenant) -> None:
    for name in ("a", "b"):
        _remember(house, tenant.caller, "tea", collection=name)
    assert {hit.collection for hit in _hits(house, tenant.caller, "tea", None)} == {"a", "b"}
    # Rare in one collection and common in the other: one idf for both.
    _remember(house, tenant.caller, *["milk"] * 5, collection="a")
    _remember(house, tenant.caller, "milk", collection="b")
    assert {hit.text_score for hit in _hits(house, tenant.caller, "milk", None, mode="text")} == {1}


# Without the embedder


def test_without_the_embedder_hybrid_is_text_and_vector_is_unavailable(
    house: Services, tenant: Tenant, words: WordEmbedder
) -> None:
    _remember(house, tenant.caller, "green tea", "a cup of tea, in the garden", "coffee")
    by_text = [hit.model_dump() for hit in _hits(house, tenant.caller, "tea", mode="text")]
    words.down = True
    assert [hit.model_dump() for hit in _hits(house, tenant.caller, "tea")] == by_text
    assert [hit.model_dump() for hit in _hits(house, tenant.caller, "tea", mode="text")] == by_text
    with pytest.raises(Unavailable):
        _hits(house, tenant.caller, "tea", mode="vector")


# Codes


def test_every_code_puts_its_own_memory_first(services: Services, tenant: Tenant) -> None:
    generator = random.Random(5)
    numbers = generator.sample(range(10_000, 99_999), 1_000)
    kinds = ["Ticket", "Issue", "Incident"]
    systems = ["login", "billing", "the search page", "exports", "the mobile app", "mail delivery", "backups"]
    faults = ["is slow", "fails now and then", "was fixed", "needs a review", "crashes", "is waiting for parts"]
    memories = [
        f"{generator.choice(kinds)} OPS-{number}: {generator.choice(systems)} {generator.choice(faults)}"
        for number in numbers
    ]
    _remember(services, tenant.caller, *memories)
    for number, memory in list(zip(numbers, memories, strict=True))[::40]:
        for query in (f"OPS-{number}", f"what is the state of ops-{number}?"):
            assert _texts(services, tenant.caller, query, limit=1) == [memory], query
