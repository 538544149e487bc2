"""Which indexes search uses at 20,000 memories, as the app role, whether or not the planner knows the tables yet."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from sqlalchemy import event, text

from memory.schemas import MemoryFilter
from memory.store import allowed, batches, collections, files, memories, search, statistics
from memory.store.database import Database, Session
from memory.store.search import Filters, Query
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres
from tests.memory.conftest import Connection

_NAME = "test_plans"
_COLLECTIONS, _EACH = 4, 5_000


@dataclass(frozen=True)
class Large:
    database: Database
    tenant_id: UUID
    collection_ids: list[UUID]
    analyzed: bool
    memory_ids: list[UUID]
    file_ids: list[UUID]

    def should_use(self, index: str, reads: "Reads") -> None:
        """A planner without numbers may take another index: as long as nothing is read from end to end, so be it."""
        assert index in reads.indexes or not self.analyzed
        assert reads.whole_tables == set()


_PAGE: dict[str, Any] = {"shows_duplicates": True, "limit": 10_000, "offset": 0, "status": None}


@pytest.fixture(scope="module", params=["just filled", "analyzed while small", "analyzed"])
def large(request: pytest.FixtureRequest, migrated: EmbeddedPostgres) -> Iterator[Large]:
    migrated.administer(
        f"create database {_NAME} template {DATABASE} owner {OWNER};\n\\connect {_NAME}\n"
        + "".join(f"alter table {table} set (autovacuum_enabled = off);\n" for table in _TABLES)
    )
    app_url, owner_url = (url.replace(f"/{DATABASE}?", f"/{_NAME}?") for url in (migrated.app_url, migrated.owner_url))
    analyze = f"vacuum analyze {', '.join(_TABLES)}"
    tenant_id, collection_ids = uuid4(), [uuid4() for _ in range(_COLLECTIONS)]
    with psycopg.connect(owner_url, autocommit=True) as owner:
        if request.param == "analyzed while small":
            # Many tenants with a memory each: as far as the planner knows, a tenant is one row.
            for _ in range(60):
                _fill(owner, uuid4(), uuid4(), 1)
            owner.execute(analyze)
        for collection_id in collection_ids:
            _fill(owner, tenant_id, collection_id, _EACH)
        if request.param == "analyzed":
            owner.execute(analyze)
        of_tenant = "where tenant_id = %s order by id limit 500"
        memory_ids = [row[0] for row in owner.execute(f"select id from memories {of_tenant}", (tenant_id,))]
        file_ids = [row[0] for row in owner.execute(f"select id from files {of_tenant}", (tenant_id,))]
    database = Database(app_url, pool_size=2)
    yield Large(database, tenant_id, collection_ids, request.param == "analyzed", memory_ids, file_ids)
    database.close()
    migrated.administer(f"drop database {_NAME} with (force);")


_TABLES = ("collections", "memories", "memory_vectors", "memory_terms", "batches", "files", "memory_files")


def _fill(owner: Connection, tenant_id: UUID, collection_id: UUID, count: int) -> None:
    values = {"tenant": tenant_id, "collection": collection_id, "count": count}
    owner.execute(
        "insert into collections (tenant_id, id, name) values (%(tenant)s, %(collection)s, %(collection)s)", values
    )
    # One batch with a file for every ten memories.
    owner.execute(
        "insert into batches (tenant_id, id, collection_id, collection, category, importance, source) "
        "values (%(tenant)s, %(collection)s, %(collection)s, '', 'other', 0.5, 'drop')",
        values,
    )
    owner.execute(
        "insert into files (tenant_id, id, batch_id, filename, content_type, size, sha256, key, status) select "
        "%(tenant)s, md5(%(collection)s || n::text)::uuid, %(collection)s, n, 'text/plain', 1, '\\x00', n, 'done' "
        "from generate_series(0, %(count)s / 10) as n",
        values,
    )
    owner.execute(
        """
        with made as (
            insert into memories (tenant_id, id, collection_id, text, importance, category, source, metadata,
                                  container_tag, valid_from, created_at, updated_at)
            select %(tenant)s, gen_random_uuid(), %(collection)s,
                   'common half' || n %% 2 || ' fiftieth' || n %% 50 || ' rare' || n / 10, 0.5, 'other', 'api',
                   jsonb_build_object('rare', n / 10, 'all', 1),
                   case n %% 2 when 0 then 'wide' else 'tag' || n / 10 end, now(), now(), now()
            from generate_series(1, %(count)s) as n
            returning id, text, right(id::text, 6)
        ), vectors as (
            insert into memory_vectors (tenant_id, memory_id, model_id, collection_id, embedding)
            select %(tenant)s, id, 1, %(collection)s,
                   (random()::real || array_fill(0.1::real, array[383]))::vector::halfvec
            from made
        )
        , carried as (
            insert into memory_files (tenant_id, memory_id, file_id, position)
            select %(tenant)s, id, md5(%(collection)s || substring(text from 'rare(.*)'))::uuid, 0
            from made
        )
        insert into memory_terms (tenant_id, memory_id, collection_id, tsv, lexical)
        select %(tenant)s, id, %(collection)s, terms.tsv, terms.lexical
        from made, terms_of(text, '{}', 0.5, '{}', 0.5) as terms
        """,
        values,
    )


@dataclass
class Reads:
    """Which of our tables a transaction has read from end to end, and which of our indexes it has used."""

    whole_tables: set[str]
    indexes: set[str]


@contextmanager
def _watched(session: Session) -> Iterator[Reads]:
    # The counters of a session may still hold those of transactions before this one: what counts is the difference.
    reads = Reads(set(), set())
    before = _counters(session)
    yield reads
    for (kind, name), count in _counters(session).items():
        if count > before.get((kind, name), 0):
            (reads.whole_tables if kind == "table" else reads.indexes).add(name)


def _counters(session: Session) -> dict[tuple[str, str], int]:
    rows = session.execute(
        text(
            """
            select 'table', relname, seq_scan from pg_stat_xact_user_tables
            union all
            select 'index', relname, pg_stat_get_xact_numscans(oid) from pg_class
            where relnamespace = 'public'::regnamespace and relkind = 'i'
            """
        )
    )
    return {(kind, name): count for kind, name, count in rows}


def _entries_read(session: Session, index: str) -> int:
    entries = text("select pg_stat_get_xact_tuples_returned(cast(:index as regclass))")
    return int(session.execute(entries, {"index": index}).scalar_one())


def _look(large: Large, *lexemes: str, vector: bool = False, collections: int = 1, **filters: Any) -> tuple[int, Reads]:
    """How many candidates there are, and what was read for them."""
    query = _query(large, *lexemes, vector=vector, collections=collections, **filters)
    with large.database.transaction(large.tenant_id) as session, _watched(session) as reads:
        search.prepare(session)
        found = search.candidates(session, query)
    return len(found), reads


def _query(large: Large, *lexemes: str, vector: bool = False, collections: int = 1, **filters: Any) -> Query:
    return Query(
        collection_ids=large.collection_ids[:collections],
        filters=Filters(**filters),
        vector=np.full(384, 0.05, dtype=np.float32) if vector else None,
        model_id=1 if vector else 0,
        min_score=0,
        weights=dict.fromkeys(lexemes, 1.0),
        depth=100,
    )


def test_text_is_found_by_the_index_of_lexemes(large: Large) -> None:
    for lexemes, count in (
        (["rare7"], 10),
        (["rare7", "rare8"], 20),
        (["fiftieth3"], 100),
        (["fiftieth3", "rare9"], 100),
    ):
        found, reads = _look(large, *lexemes)
        assert found == count
        large.should_use("memory_terms_tsv", reads)


@pytest.mark.parametrize("lexeme", ["rare7", "fiftieth3"])
def test_text_is_found_without_going_through_all_of_the_tenant(large: Large, lexeme: str) -> None:
    with large.database.transaction(large.tenant_id) as session:
        before = _entries_read(session, "memory_terms_pkey")
        search.prepare(session)
        found = search.candidates(session, _query(large, lexeme))
        entries = _entries_read(session, "memory_terms_pkey") - before
    # Each candidate is scored by its key.
    assert entries <= 2 * len(found)


def test_terms_are_counted_by_the_index_of_lexemes(large: Large) -> None:
    with large.database.transaction(large.tenant_id) as session, _watched(session) as reads:
        counts = statistics.count(session, large.collection_ids[:1], ["rare7", "fiftieth3", "unknown"])
    assert counts.holding == {"rare7": 10, "fiftieth3": 100, "unknown": 0}
    large.should_use("memory_terms_tsv", reads)


@pytest.mark.parametrize("arms", ["text", "vector", "both"])
def test_metadata_are_found_by_their_index(large: Large, arms: str) -> None:
    lexemes = [] if arms == "vector" else ["common"]
    found, reads = _look(large, *lexemes, vector=arms != "text", metadata={"rare": 7})
    assert found == 10
    large.should_use("memories_metadata", reads)


@pytest.mark.parametrize("arms", ["text", "vector", "both"])
def test_a_tag_is_found_by_its_index(large: Large, arms: str) -> None:
    lexemes = [] if arms == "vector" else ["common"]
    found, reads = _look(large, *lexemes, vector=arms != "text", container_tag="tag7")
    assert found == 5
    large.should_use("memories_tagged", reads)


def test_vectors_of_a_collection_are_found_by_their_index(large: Large) -> None:
    found, reads = _look(large, vector=True)
    assert found == 100
    large.should_use("memory_vectors_scanned", reads)


def test_what_memories_say_is_never_read_from_end_to_end(large: Large) -> None:
    for count in (1, _COLLECTIONS):
        for filters in ({}, {"metadata": {"all": 1}}, {"include_archived": True}, {"metadata": {"all": 1, "rare": 7}}):
            _, reads = _look(large, "half1", "rare7", vector=True, collections=count, **filters)
            assert "memories" not in reads.whole_tables, filters


# What is looked at: joined row by row, or looked up by what thousands share, it would be millions.


def _looked_at(database: Database, session: Session, act: Callable[[], object]) -> int:
    """How many rows and blocks the statements of `act` look at, which is run twice."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_more: object) -> None:
        if not statement.startswith("explain"):
            statements.append((statement, values))

    event.listen(database._engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        event.remove(database._engine, "before_cursor_execute", note)
    assert statements
    return sum(_explained(session, statement, values) for statement, values in statements)


def _explained(session: Session, statement: str, values: Any) -> int:
    explain = f"explain (analyze, buffers, format json) {statement}"
    [explained] = session.connection().exec_driver_sql(explain, values).scalar_one()
    plan = explained["Plan"]
    rows = sum(
        step["Actual Loops"]
        * (step["Actual Rows"] + step.get("Rows Removed by Join Filter", 0) + step.get("Rows Removed by Filter", 0))
        for step in _steps(plan)
    )
    return int(rows) + int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def _steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from _steps(inner)


@pytest.mark.parametrize("selective", [0, 10_000], ids=["filtered after", "filtered before"])
@pytest.mark.parametrize("filters", [{}, {"container_tag": "wide"}, {"category": "other"}, {"metadata": {"all": 1}}])
def test_search_looks_at_each_row_a_few_times(
    large: Large, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any], selective: int
) -> None:
    monkeypatch.setattr(allowed, "FEW", selective)
    query = _query(large, "common", vector=True, **filters)
    with large.database.transaction(large.tenant_id) as session:
        search.prepare(session)
        looked_at = _looked_at(large.database, session, lambda: search.candidates(session, query))
    assert looked_at < 40 * _EACH


def test_reading_and_deleting_look_at_each_row_a_few_times(large: Large) -> None:
    collection_id = large.collection_ids[0]
    acts: list[tuple[Callable[[Session], object], int]] = [
        (lambda session: files.hold_of_memories(session, large.memory_ids[:20]), 1_000),
        (lambda session: files.hold_of_collection(session, collection_id), 40 * _EACH),
        (lambda session: files.release(session, large.file_ids), 20 * _EACH),
        (lambda session: memories.find_many(session, large.memory_ids[:200]), 10_000),
        (lambda session: memories.listed(session, collection_id, MemoryFilter(limit=200)), 20 * _EACH),
        (lambda session: memories.find(session, str(collection_id), large.memory_ids[0], for_update=True), 100),
        (lambda session: collections.find(session, str(collection_id)), 20 * _EACH),
        (lambda session: batches.find(session, collection_id), 20 * _EACH),
        (lambda session: batches.count_pending(session, collection_id), 2 * _EACH),
        (lambda session: batches.files(session, collection_id, **_PAGE), 20 * _EACH),
        (
            lambda session: batches.results(session, collection_id, shows_duplicates=True, preview_characters=9),
            40 * _EACH,
        ),
    ]
    for number, (act, most) in enumerate(acts):
        with large.database.transaction(large.tenant_id) as session:
            looked_at = _looked_at(large.database, session, functools.partial(act, session))
            session.rollback()
        assert looked_at < most, number
