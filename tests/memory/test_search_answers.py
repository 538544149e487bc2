"""Search by the rules: what is visible when and to whom, neighbours, context, exact words, phrases, other scripts."""

# Other scripts are what some of it is about.
# ruff: noqa: RUF001

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from memory import ranking
from memory.agents import GrantWanted
from memory.errors import Forbidden
from memory.schemas import Caller, Memory, MemoryCreate, SearchHit, SearchRequest
from memory.services import Services
from memory.store.statistics import TermCounts
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant

NAME = "notes"


def _store(house: Services, tenant: Tenant, *texts: str, collection: str = NAME, **fields: Any) -> list[Memory]:
    return house.memories.create_many(tenant.caller, collection, [MemoryCreate(text=text, **fields) for text in texts])


def _thread(house: Services, tenant: Tenant, *texts: str, sequence: str = "thread", **fields: Any) -> list[Memory]:
    return house.memories.create_many(
        tenant.caller,
        NAME,
        [
            MemoryCreate(text=text, sequence=sequence, position=position, **fields)
            for position, text in enumerate(texts)
        ],
    )


def _hits(house: Services, tenant: Tenant, query: str, collection: str | None = NAME, **wanted: Any) -> list[SearchHit]:
    request = SearchRequest.model_validate({"query": query, "limit": 50, **wanted})
    return house.search.search(tenant.caller, collection, request).results


def _texts(hits: list[SearchHit]) -> list[str]:
    return [hit.text for hit in hits]


# Neighbours


def _fused(house: Services, tenant: Tenant, query: str, words: WordEmbedder, among: list[str]) -> list[float]:
    """Every text's own score by the plain formula, from what the text arm says of it in a search of its own."""
    bm25 = {
        hit.id: hit.explain.bm25 or 0.0 for hit in _hits(house, tenant, query, mode="text", explain=True) if hit.explain
    }
    by_text = {hit.text: bm25[hit.id] for hit in _hits(house, tenant, query, mode="text")}
    best = max(by_text.values())
    [vector] = words.embed([query])
    return [(float(np.dot(words.embed([text])[0], vector)) + 0.7 * by_text.get(text, 0) / best) / 1.7 for text in among]


def test_neighbours_add_their_shares(house: Services, tenant: Tenant, words: WordEmbedder) -> None:
    texts = ["walrus one", "plain two", "walrus ivory three", "plain four", "walrus five six", "plain seven", "eight"]
    _thread(house, tenant, *texts)
    own = _fused(house, tenant, "walrus ivory", words, texts)

    hits = {hit.text: hit for hit in _hits(house, tenant, "walrus ivory", min_score=0.05, explain=True)}

    assert len(hits) >= 3
    for place, text in enumerate(texts):
        if text not in hits:
            continue
        expected = sum(
            share * own[place + step]
            for step, share in ((-1, 0.2), (1, 0.2), (-2, 0.1), (2, 0.1))
            if 0 <= place + step < len(texts)
        )
        explain = hits[text].explain
        assert explain is not None
        assert explain.fused == pytest.approx(own[place], abs=2e-3)
        assert explain.neighbour == pytest.approx(expected, abs=2e-3)
        assert hits[text].score == pytest.approx(min(max(own[place] + expected, 0), 1), abs=4e-3)
    order = [(hit.explain.fused + hit.explain.neighbour) for hit in hits.values() if hit.explain]
    assert order == sorted(order, reverse=True)


def test_a_neighbour_that_is_no_candidate_counts_and_is_not_returned(house: Services, tenant: Tenant) -> None:
    _thread(house, tenant, "walrus", "nothing of the kind")
    [alone] = _hits(house, tenant, "walrus", explain=True, min_score=0.9)
    assert alone.explain is not None
    assert alone.explain.neighbour != 0


@pytest.mark.parametrize("mode", ["vector", "text"])
def test_neighbours_count_in_hybrid_mode_alone(house: Services, tenant: Tenant, mode: str) -> None:
    _thread(house, tenant, "walrus one", "walrus two")
    assert [
        hit.explain.neighbour for hit in _hits(house, tenant, "walrus", mode=mode, explain=True) if hit.explain
    ] == [0, 0]


def test_the_nearest_visible_row_is_the_neighbour(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    texts = ["alpha", "hidden", "walrus", "gone", "omega"]
    made = _thread(house, tenant, *texts, container_tag="t", category="talk")
    _thread(house, tenant, "other tag", "other tag", "other tag", container_tag="u", category="talk")
    _store(house, tenant, "other category", sequence="thread", position=2, container_tag="t", category="odd")
    house.memories.create_many(
        tenant.caller,
        "elsewhere",
        [MemoryCreate(text="other collection", sequence="thread", position=2, container_tag="t")],
    )
    as_owner.execute("update memories set archived = true where id = %s", (made[1].id,))
    as_owner.execute("update memories set is_latest = false, valid_to = now() where id = %s", (made[3].id,))

    [hit] = _hits(house, tenant, "walrus", context=3, category="talk", min_score=0.9, limit=1)
    assert hit.context is not None
    assert [memory.text for memory in hit.context.before] == ["alpha"]
    assert [memory.text for memory in hit.context.after] == ["omega"]

    [hit] = _hits(house, tenant, "walrus", context=3, min_score=0.9, limit=1, include_archived=True)
    assert hit.context is not None
    assert [memory.text for memory in hit.context.before] == ["alpha", "hidden"]
    assert [memory.text for memory in hit.context.after] == ["other category", "omega"]


def test_context_stands_in_the_order_of_the_sequence(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "late a", "late b", sequence="thread")
    _thread(house, tenant, "one", "two", "three", "walrus", "five", "six", "seven", "eight")
    for steps in range(4):
        [hit] = _hits(house, tenant, "walrus", context=steps, min_score=0.9)
        if steps == 0:
            assert hit.context is None
            assert not {"context", "before", "after"} & set(hit.model_dump())
            continue
        assert hit.context is not None
        assert [memory.text for memory in hit.context.before] == ["one", "two", "three"][3 - steps :]
        assert [memory.text for memory in hit.context.after] == ["five", "six", "seven"][:steps]
        assert (hit.before, hit.after) == (hit.context.before, hit.context.after)
    [last] = _hits(house, tenant, "eight", context=3, min_score=0.9)
    assert last.context is not None
    # Without a position they stand behind those that have one, in the order in which they came.
    assert [memory.text for memory in last.context.after] == ["late a", "late b"]


def test_a_memory_without_a_sequence_has_nobody_around_it(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "walrus one", "walrus two")
    for hit in _hits(house, tenant, "walrus", context=3, explain=True):
        assert hit.context is not None
        assert (hit.context.before, hit.context.after) == ([], [])
        assert hit.explain is not None
        assert hit.explain.neighbour == 0


def test_equal_neighbours_leave_equal_scores(house: Services, tenant: Tenant) -> None:
    for number in range(4):
        _thread(house, tenant, "tea", "walrus", "cake", sequence=f"s{number}", importance=number / 4)
    hits = [hit for hit in _hits(house, tenant, "walrus") if hit.text == "walrus"]
    assert len({hit.score for hit in hits}) == 1
    assert [hit.importance for hit in hits] == [0.75, 0.5, 0.25, 0]


# Explanations


def test_an_explanation_says_what_each_arm_found(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "walrus ivory", "walrus", "seal and fish and ice", "teapot")
    explained = {hit.text: hit.explain for hit in _hits(house, tenant, "walrus ivory", min_score=0.99, explain=True)}
    first, second = explained["walrus ivory"], explained["walrus"]
    assert first is not None
    assert second is not None
    assert (first.origin, first.vector_rank, first.text_rank, first.text_score) == ("both", 1, 1, 1)
    assert (second.origin, second.vector_rank, second.text_rank) == ("text", None, 2)
    assert second.cosine is not None
    assert 0 < second.cosine < 0.99

    [vector, *_] = _hits(house, tenant, "walrus ivory", mode="vector", explain=True)
    assert vector.explain is not None
    assert (vector.explain.origin, vector.explain.bm25, vector.explain.text_score) == ("vector", None, None)
    [text, *_] = _hits(house, tenant, "walrus ivory", mode="text", explain=True)
    assert text.explain is not None
    assert (text.explain.origin, text.explain.cosine, text.explain.text_score) == ("text", None, 1)
    assert _hits(house, tenant, "walrus")[0].explain is None


# What is visible when, to whom, and how much of it


def test_as_of_shows_what_was_current_then(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    old, new, brief, archived = _store(
        house, tenant, "walrus at Google", "walrus at Stripe", "walrus today", "walrus kept"
    )
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    days = [monday + timedelta(days=number) for number in range(5)]
    for memory, since, until, expiry in (
        (old, days[0], days[2], None),
        (new, days[2], None, None),
        (brief, days[0], None, days[1]),
        (archived, days[0], None, None),
    ):
        as_owner.execute(
            "update memories set valid_from = %s, valid_to = %s, expires_at = %s, is_latest = %s where id = %s",
            (since, until, expiry, until is None, memory.id),
        )
    as_owner.execute("update memories set archived = true where id = %s", (archived.id,))

    def at(moment: datetime | None, **wanted: Any) -> set[UUID]:
        return {hit.id for hit in _hits(house, tenant, "walrus", as_of=moment, min_score=0, **wanted)}

    for mode in ("hybrid", "vector", "text"):
        assert at(days[0] - timedelta(microseconds=1), mode=mode) == set()
        assert at(days[0], mode=mode) == {old.id, brief.id}
        assert at(days[1], mode=mode) == {old.id}
        assert at(days[2] - timedelta(microseconds=1), mode=mode) == {old.id}
        assert at(days[2], mode=mode) == {new.id}
        assert at(None, mode=mode) == {new.id}
    assert at(days[1], include_archived=True) == {old.id, archived.id}
    assert at(datetime(2100, 1, 1, tzinfo=UTC)) == {new.id}


def test_results_keep_to_a_number_of_tokens(house: Services, tenant: Tenant) -> None:
    # The embedder of these tests counts words.
    _store(house, tenant, "walrus", "walrus " + "filler " * 3, "walrus " + "filler " * 8)
    lengths = [len(hit.text.split()) for hit in _hits(house, tenant, "walrus")]
    assert lengths == [1, 4, 9]
    for budget, count in ((1, 1), (4, 1), (5, 2), (13, 2), (14, 3), (1_000, 3)):
        assert len(_hits(house, tenant, "walrus", max_tokens=budget)) == count
    assert _texts(_hits(house, tenant, "filler filler filler", max_tokens=1, limit=1)) != []


def test_a_search_of_all_leaves_out_what_the_key_may_not_read(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "walrus alone", collection="secret")
    _store(house, tenant, "walrus", "walrus and more words besides", collection="open")
    assert tenant.caller.key_id is not None
    house.grants.put(tenant.caller, "secret", GrantWanted(agent_key_id=tenant.caller.key_id, can_read=True))
    insider = dataclasses.replace(tenant.caller, has_grants=True)
    outsider = dataclasses.replace(tenant.caller, key_id=uuid4(), is_main=False, has_grants=True)
    request = SearchRequest(query="walrus", explain=True)

    def scores(caller: Caller, collection: str | None = None) -> dict[str, tuple[float | None, float | None]]:
        hits = house.search.search(caller, collection, request).results
        return {hit.text: (hit.text_score, hit.explain.bm25 if hit.explain else None) for hit in hits}

    assert set(scores(insider)) == {"walrus", "walrus alone", "walrus and more words besides"}
    # As if the other collection were not there: no document of it counts, nor is its best the measure.
    assert scores(outsider) == scores(outsider, "open") != {}
    assert scores(outsider)["walrus"] != scores(insider)["walrus"]
    with pytest.raises(Forbidden):
        house.search.search(outsider, "secret", request)


# Words as they are written


@pytest.mark.parametrize("mode", ["text", "hybrid"])
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ERR_1234", "the server said ERR_1234 again"),
        ("ops-12226", "ticket OPS-12226 is closed"),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "job 0f8fad5b-d9cb-469f-a165-70867728950e failed"),
        ("Zbigniew", "Zbigniew plays chess"),
        ("o'brien", "Miles O'Brien repairs it"),
        ("ÉCOLE", "il va à l'école"),
        ("Москва", "летом МОСКВА зелёная"),
        ("ΟΔΟΣ", "η οδός είναι κλειστή οδος"),
        ("STRASSE", "die Straße ist nass"),
        ("東京", "私は東京都に住んでいます"),
        ("猫", "黒猫が好きです"),
        ("住んで", "私は東京都に住んでいます"),
        ("手机", "新iPhone手机很贵"),
        ("iphone", "新iPhone手机很贵"),
        ("ปลา", "แมวกินปลาที่บ้าน"),
        ("학교", "나는 학교에서 공부한다"),
        ("कमल", "कमल खिलता है"),
        ("كتاب", "هذا كتاب جديد"),
    ],
)
def test_a_word_is_found_as_it_is_written(house: Services, tenant: Tenant, mode: str, query: str, found: str) -> None:
    _store(
        house,
        tenant,
        found,
        "the server said ERR_1235 again",
        "ticket OPS-12227 is open",
        "大阪の犬",
        "บ้านใหญ่",
        "дом и сад",
    )
    hits = _hits(house, tenant, query, mode=mode, min_score=0.99)
    assert hits[0].text == found
    assert hits[0].text_score == 1
    if mode == "text" and not query.lower().startswith(("err", "ops", "0f")):
        assert _texts(hits) == [found]


def test_a_name_stands_before_one_with_the_same_stem(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "called Williams today", "called William today", "called Marks today", "called Mark today")
    for name in ("Williams", "marks"):
        assert _hits(house, tenant, name, mode="text")[0].text == f"called {name.capitalize()} today"


def test_words_that_say_nothing_find_something_in_text_mode(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "The Who played in Leeds", "walrus", "it is what it is")
    assert _texts(_hits(house, tenant, "the who", mode="text")) == ["The Who played in Leeds"]
    assert _texts(_hits(house, tenant, "what is it", mode="text")) == ["it is what it is"]
    # Beside other words they change nothing.
    assert _texts(_hits(house, tenant, "who is the walrus", mode="text")) == ["walrus"]


def test_plain_words_are_not_counted_twice(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "walruses were swimming in the cold sea", "a teapot")
    [hit] = _hits(house, tenant, "the swimming walruses", mode="text", explain=True)
    idf = math.log(1 + 1.5 / 1.5)
    weight = 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4 / 50))
    assert hit.explain is not None
    assert hit.explain.bm25 == pytest.approx(2 * idf * weight, rel=1e-3)


# Phrases


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"red walrus"', {"a Red  Walrus swims", "the red walrus, again"}),
        ('walrus "the red"', {"the red walrus, again"}),
        ('"RED WALRUS" again', {"a Red  Walrus swims", "the red walrus, again"}),
        ('"red walrus" "again"', {"the red walrus, again"}),
        ('"to be or not to be"', {"walrus: to be or not to be"}),
        ('walrus "12226"', {"walrus OPS-12226"}),
        ('walrus "OPS-12"', {"walrus OPS-12226"}),
        ('walrus "100%"', {"walrus 100% sure"}),
        ('walrus "京都に"', {"walrus 東京都に住む"}),
        ('"walrus red"', set()),
        ('"walrus\'s own"', {"the walrus’s own"}),
        ('"the walrus’s own"', {"the walrus’s own"}),
        ('walrus "nowhere to be found"', set()),
    ],
)
def test_a_quoted_phrase_occurs_in_every_result(
    house: Services, tenant: Tenant, mode: str, query: str, found: set[str]
) -> None:
    _store(
        house,
        tenant,
        "a Red  Walrus swims",
        "the red walrus, again",
        "walrus, red",
        "red",
        "walrus: to be or not to be",
        "walrus OPS-12226",
        "walrus OPS-13226",
        "walrus 100% sure",
        "walrus 100 sure",
        "walrus 東京都に住む",
        "walrus 京 都 に",
        "the walrus’s own",
    )
    assert set(_texts(_hits(house, tenant, query, mode=mode, min_score=0))) == found


@pytest.mark.parametrize("query", ['walrus "', 'walrus ""', '" " walrus', '"""walrus', 'say "%s" \\ \' "_"'])
def test_quotes_that_quote_nothing_are_no_condition(house: Services, tenant: Tenant, query: str) -> None:
    _store(house, tenant, "walrus")
    for mode in ("hybrid", "vector", "text"):
        _hits(house, tenant, query, mode=mode)
    if "say" not in query:
        assert _texts(_hits(house, tenant, query, mode="text")) == ["walrus"]


# Pruning


def test_common_words_are_left_out_once_rare_ones_find_enough() -> None:
    counts = TermCounts(documents=50_000, holding={"common": 30_000, "rare": 40, "middling": 5_900, "unknown": 0})
    assert ranking.rarest(counts) == [["unknown"], ["rare"], ["middling"]]
    assert ranking.rarest(TermCounts(documents=10, holding={"a": 9, "b": 10})) == [["a"], ["b"]]
    assert ranking.rarest(TermCounts(documents=90_000, holding={"common": 80_000})) == [["common"]]
    assert ranking.rarest(TermCounts(documents=0, holding={"a": 0, "b": 0})) == [["a"], ["b"]]


def test_words_that_very_many_hold_are_looked_for_together() -> None:
    def rarest(**holding: float) -> list[list[str]]:
        return ranking.rarest(TermCounts(1_000_000, holding))

    # Any second word leaves few enough, and enough.
    assert rarest(rare=40, many=50_000, more=60_000, other=55_000) == [["rare"], ["many", "other"], ["many", "more"]]
    # Any second word leaves too many: the next has to be there for certain.
    assert rarest(many=60_000, more=100_000, most=400_000, nearly_all=900_000) == [["many", "more"]]
    assert rarest(many=200_000, more=200_000, most=60_000, other=50_000) == [["other", "most"]]
    # And then any third.
    assert rarest(many=100_000, more=120_000, most=150_000, nearly_all=160_000) == [
        ["many", "more", "most"],
        ["many", "more", "nearly_all"],
    ]
    # Together they would be too few.
    assert rarest(many=60_000, less=11_000) == [["less"]]
    assert rarest(rare=2_000, other=3_900) == [["rare"], ["other"]]


def test_all_words_find_where_the_rare_ones_alone_do_not_fill_the_arm(
    house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_ENOUGH", 1)
    _store(house, tenant, "walrus", *(f"teapot {number}" for number in range(30)))
    assert len(_hits(house, tenant, "walrus teapot", mode="text")) == 31


def test_rewrite_and_rerank_change_nothing_without_a_language_model(house: Services, tenant: Tenant) -> None:
    _store(house, tenant, "walrus one", "walrus two", "walrus three")
    plain = _hits(house, tenant, "walrus")
    assert _hits(house, tenant, "walrus", rewrite=True, rerank=True) == plain
