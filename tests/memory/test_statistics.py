"""Term statistics: counted live while a collection is small, kept and brought up behind the writers once large."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import memory.statistics
from memory.embedding import Embedding
from memory.memories import Memories
from memory.schemas import CollectionCreate, MemoryCreate, SearchRequest
from memory.search import Search
from memory.services import Services
from memory.statistics import SMALL, Statistics
from memory.store import statistics as store
from memory.store.database import Database, Session
from memory.store.statistics import TermCounts
from tests.memory.conftest import Connection, Tenant

_LARGE = SMALL + 100


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("_LOOK_EVERY_SECONDS", 0.02),
        ("_AFTER_TROUBLE_SECONDS", 0.1),
        ("_QUIET_SECONDS", 0.2),
        ("_BETWEEN_QUIET_REFRESHES_SECONDS", 0.2),
    ):
        monkeypatch.setattr(memory.statistics, name, seconds)


@pytest.fixture
def background(house: Services) -> Iterator[Statistics]:
    made = Statistics(house.database)
    yield made
    made.close()


@pytest.fixture
def notes(house: Services, tenant: Tenant) -> UUID:
    return house.collections.create(tenant.caller, CollectionCreate(name="notes")).id


def _fill(as_owner: Connection, tenant: Tenant, collection_id: UUID, count: int, text: str = "common words") -> None:
    """So many memories of this text, each with a number, without vectors."""
    values = {"tenant": tenant.id, "collection": collection_id, "count": count, "text": text}
    as_owner.execute(
        """
        with made as (
            insert into memories (tenant_id, id, collection_id, text, importance, category, source, valid_from,
                                  created_at, updated_at)
            select %(tenant)s, gen_random_uuid(), %(collection)s, %(text)s || ' n' || number, 0.5, 'other', 'api',
                   now(), now(), now()
            from generate_series(1, %(count)s) as number
            returning id, text
        )
        insert into memory_terms (tenant_id, memory_id, collection_id, tsv, lexical)
        select %(tenant)s, id, %(collection)s, terms.tsv, terms.lexical
        from made, terms_of(text, '{}', 0.5, '{}', 0.5) as terms
        """,
        values,
    )


def _kept(as_owner: Connection, collection_id: UUID) -> tuple[Any, ...] | None:
    return as_owner.execute(
        """
        select s.documents, s.sampled, (select jsonb_object_agg(t.lexeme, t.documents) from collection_terms t
                                        where t.collection_id = s.collection_id and t.lexeme !~ '^n[0-9]')
        from collection_statistics s where s.collection_id = %s
        """,
        (collection_id,),
    ).fetchone()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_settled(background: Statistics) -> bool:
    return not background._changed_at


def _count(house: Services, tenant: Tenant, collection_ids: list[UUID], *lexemes: str) -> TermCounts:
    with house.database.transaction(tenant.id) as session:
        return store.count(session, collection_ids, lexemes)


def test_small_collections_are_counted_live(
    house: Services, tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection
) -> None:
    _fill(as_owner, tenant, notes, SMALL - 1)
    background.changed(tenant.id, notes)
    _until(lambda: _is_settled(background))
    assert _kept(as_owner, notes) is None
    counts = _count(house, tenant, [notes], "common", "n7", "unknown")
    assert counts == TermCounts(SMALL - 1, {"common": SMALL - 1, "n7": 1, "unknown": 0}, {notes: SMALL - 1})
    _fill(as_owner, tenant, notes, 5, "a rare thing")
    assert _count(house, tenant, [notes], "rare").holding == {"rare": 5}


def test_a_large_collection_gets_kept_statistics(
    house: Services, tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection
) -> None:
    _fill(as_owner, tenant, notes, _LARGE - 10)
    _fill(as_owner, tenant, notes, 10, "a rare thing")
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)
    # A stop word, of which no stem is left, counts as it is written.
    expected = {"common": _LARGE - 10, "word": _LARGE - 10, "rare": 10, "thing": 10, "=a": 10}
    assert _kept(as_owner, notes) == (_LARGE, _LARGE, expected)
    counts = _count(house, tenant, [notes], "common", "rare", "n7", "unknown")
    assert counts == TermCounts(_LARGE, {"common": _LARGE - 10, "rare": 10, "n7": 2, "unknown": 0}, {})


def test_the_larger_a_collection_the_less_often_it_is_counted(
    tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[UUID] = []
    count = store.count_documents

    def noted(session: Session, collection_id: UUID) -> int:
        counted.append(collection_id)
        return count(session, collection_id)

    monkeypatch.setattr(store, "count_documents", noted)
    monkeypatch.setattr(memory.statistics, "_SECONDS_BETWEEN_COUNTS", 1)
    _fill(as_owner, tenant, notes, _LARGE)
    for _ in range(5):
        background._bring_up(tenant.id, notes, quiet_since=0)
    assert counted == [notes]


def test_growth_by_a_fifth_refreshes_and_less_waits_for_rest(
    tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.statistics, "_QUIET_SECONDS", 1000)
    _fill(as_owner, tenant, notes, 2_500)
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)
    _fill(as_owner, tenant, notes, 499, "rare")
    background.changed(tenant.id, notes)
    looked = _looks(monkeypatch)
    _until(lambda: looked() >= 3)
    assert _kept(as_owner, notes) == (2_500, 2_500, {"common": 2_500, "word": 2_500})
    _fill(as_owner, tenant, notes, 1, "rare")
    _until(lambda: _kept(as_owner, notes) == (3_000, 3_000, {"common": 2_500, "word": 2_500, "rare": 500}))


def _looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the background has looked since."""
    count, looks = store.count_documents, []

    def counted(*arguments: Any) -> int:
        looks.append(arguments)
        return count(*arguments)

    monkeypatch.setattr(store, "count_documents", counted)
    return lambda: len(looks)


def test_at_rest_statistics_are_exact(
    tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection
) -> None:
    _fill(as_owner, tenant, notes, _LARGE)
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)
    _fill(as_owner, tenant, notes, 1, "rare")
    background.changed(tenant.id, notes)
    _until(lambda: _is_settled(background))
    assert _kept(as_owner, notes) == (_LARGE + 1, _LARGE + 1, {"common": _LARGE, "word": _LARGE, "rare": 1})


@pytest.mark.parametrize("left", [0, SMALL - 1])
def test_statistics_of_a_collection_that_has_become_small_are_forgotten(
    house: Services, tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection, left: int
) -> None:
    _fill(as_owner, tenant, notes, _LARGE)
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)
    as_owner.execute(
        "delete from memories where id in (select id from memories where collection_id = %s limit %s)",
        (notes, _LARGE - left),
    )
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is None)
    terms = as_owner.execute("select count(*) from collection_terms where collection_id = %s", (notes,)).fetchone()
    assert terms == (0,)
    assert _count(house, tenant, [notes], "common").documents == left


def test_a_collection_that_shrinks_but_stays_large_is_counted_anew(
    tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.statistics, "_QUIET_SECONDS", 1000)
    _fill(as_owner, tenant, notes, 3_000)
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)
    as_owner.execute(
        "delete from memories where id in (select id from memories where collection_id = %s limit 600)", (notes,)
    )
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) == (2_400, 2_400, {"common": 2_400, "word": 2_400}))


def test_a_deleted_collection_leaves_nothing_and_stops_nothing(
    house: Services, tenant: Tenant, background: Statistics, as_owner: Connection
) -> None:
    ids = []
    for name in ("gone", "stays"):
        ids.append(house.collections.create(tenant.caller, CollectionCreate(name=name)).id)
        _fill(as_owner, tenant, ids[-1], _LARGE)
    gone, stays = ids
    background.changed(tenant.id, gone)
    _until(lambda: _kept(as_owner, gone) is not None)
    house.collections.delete(tenant.caller, "gone")
    for collection_id in (gone, uuid4(), stays):
        background.changed(tenant.id, collection_id)
    _until(lambda: _kept(as_owner, stays) is not None)
    assert _kept(as_owner, gone) is None
    _until(lambda: _is_settled(background))


def test_deletion_of_a_collection_waits_for_its_statistics(
    house: Services, tenant: Tenant, background: Statistics, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    bring_up = Statistics._bring_up

    def watched(self: Statistics, *arguments: Any, **named: Any) -> bool:
        try:
            return bring_up(self, *arguments, **named)
        except Exception as error:
            faults.append(error)
            raise

    monkeypatch.setattr(Statistics, "_bring_up", watched)
    monkeypatch.setattr(memory.statistics, "SMALL", 5)
    for _ in range(12):
        collection_id = house.collections.create(tenant.caller, CollectionCreate(name="notes")).id
        _fill(as_owner, tenant, collection_id, 10)
        background.changed(tenant.id, collection_id)
        time.sleep(0.02)
        house.collections.delete(tenant.caller, "notes")
    _until(lambda: _is_settled(background))
    assert faults == []


def test_a_fault_over_one_collection_does_not_end_it_for_all(
    tenant: Tenant,
    background: Statistics,
    notes: UUID,
    as_owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refresh = store.refresh

    def broken(*_arguments: Any) -> None:
        monkeypatch.setattr(store, "refresh", refresh)
        raise ValueError("what a tenant wrote")

    monkeypatch.setattr(store, "refresh", broken)
    _fill(as_owner, tenant, notes, _LARGE)
    with caplog.at_level(logging.WARNING):
        background.changed(tenant.id, notes)
        _until(lambda: _is_settled(background))
    assert "ValueError" in caplog.text
    assert "wrote" not in caplog.text
    assert _kept(as_owner, notes) is None
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) is not None)


def test_a_database_that_is_down_is_tried_again_until_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    background = Statistics(Database(f"postgresql://rememberos_app:secret@/rememberos?host={tmp_path}"))
    with caplog.at_level(logging.WARNING):
        background.changed(uuid4(), uuid4())
        _until(lambda: len(caplog.records) >= 3)
    background.close()
    assert "secret" not in caplog.text
    # After its end nothing begins again.
    background.changed(uuid4(), uuid4())


def test_two_processes_refresh_one_collection(
    house: Services, tenant: Tenant, notes: UUID, as_owner: Connection
) -> None:
    _fill(as_owner, tenant, notes, _LARGE)
    both = [Statistics(house.database) for _ in range(2)]
    for background in both:
        background.changed(tenant.id, notes)
    for background in both:
        _until(lambda background=background: _is_settled(background))  # type: ignore[misc]
        background.close()
    assert _kept(as_owner, notes) == (_LARGE, _LARGE, {"common": _LARGE, "word": _LARGE})


def test_samples_are_scaled_up_and_collections_summed(
    house: Services, tenant: Tenant, notes: UUID, as_owner: Connection
) -> None:
    # As if 40,000 had been written and 10,000 of them counted.
    as_owner.execute("insert into collection_statistics values (%s, %s, 40000, 10000, now())", (tenant.id, notes))
    as_owner.execute("insert into collection_terms values (%s, %s, 'common', 2500)", (tenant.id, notes))
    small = house.collections.create(tenant.caller, CollectionCreate(name="small")).id
    _fill(as_owner, tenant, small, 10)
    empty = house.collections.create(tenant.caller, CollectionCreate(name="empty")).id
    counts = _count(house, tenant, [notes, small, empty], "common", "n3", "unknown")
    assert counts == TermCounts(40_010, {"common": 10_010, "n3": 1, "unknown": 0}, {small: 10})


def test_at_most_ten_thousand_are_counted(
    house: Services,
    tenant: Tenant,
    background: Statistics,
    notes: UUID,
    as_owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "_SAMPLE", 1_000)
    _fill(as_owner, tenant, notes, _LARGE)
    background.changed(tenant.id, notes)
    _until(lambda: _kept(as_owner, notes) == (_LARGE, 1_000, {"common": 1_000, "word": 1_000}))
    assert _count(house, tenant, [notes], "common").holding == {"common": pytest.approx(_LARGE)}


def test_ranking_right_after_a_bulk_is_sane(
    house: Services,
    tenant: Tenant,
    background: Statistics,
    notes: UUID,
    as_owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fill(as_owner, tenant, notes, _LARGE)
    background.changed(tenant.id, notes)
    _until(lambda: _is_settled(background))
    # From here on nothing is refreshed: the statistics know neither the new words nor how many they are.
    background.close()
    _fill(as_owner, tenant, notes, 300, "fresh words")
    memories = Memories(
        house.database, house.grants, Embedding(house.database, house.embedder), house.objects, background
    )
    memories.create(tenant.caller, "notes", MemoryCreate(text="a fresh kumquat and its words"))

    def best(query: str) -> list[str]:
        wanted = SearchRequest(query=query, mode="text", limit=50)
        return [hit.text for hit in house.search.search(tenant.caller, "notes", wanted).results]

    assert best("kumquat with common words")[0] == "a fresh kumquat and its words"
    assert all("fresh" in text for text in best("common fresh words"))
    assert all("fresh" in text for text in best("fresh"))


def test_a_large_collection_that_nobody_counted_is_counted_once_it_is_searched(
    house: Services, tenant: Tenant, background: Statistics, notes: UUID, as_owner: Connection
) -> None:
    _fill(as_owner, tenant, notes, _LARGE)
    search = Search(house.database, Embedding(house.database, house.embedder), house.objects, background)
    assert len(search.search(tenant.caller, [notes], SearchRequest(query="common", mode="text")).results) == 5
    _until(lambda: _kept(as_owner, notes) is not None)
