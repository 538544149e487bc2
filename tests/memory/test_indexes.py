"""Indexes over vectors: what is built for whom, and that nothing is lost, doubled or shown to others meanwhile."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pydantic import SecretStr
from sqlalchemy import text

from memory.errors import Misconfigured, Unavailable
from memory.indexes import Indexes
from memory.ports import Vectors
from memory.schemas import Author
from memory.store import index_building, memories, search, vector_indexes
from memory.store.database import Database, Session
from memory.store.index_building import Builder
from memory.store.memories import NewMemory
from tests.conftest import DatabaseUrls
from tests.memory.conftest import Connection

WORTH_IT = 300
_AUTHOR = Author(id=None, label=None)


@dataclass
class House:
    """A database of its own, small enough that indexes pay early, and what was stored in it."""

    database: Database
    owner: Connection
    owner_url: str
    rng: np.random.Generator

    def advance(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Builds until there is nothing more to build; how many steps it took."""
        indexes = Indexes(SecretStr(self.owner_url), worth_it=WORTH_IT)
        steps = 0
        while indexes.advance(stopping):
            steps += 1
            assert steps < 20
        return steps

    def collection(self, tenant_id: UUID, count: int = 0) -> UUID:
        collection_id = uuid4()
        self.owner.execute(
            "insert into collections (tenant_id, id, name) values (%s, %s, %s)",
            (tenant_id, collection_id, str(collection_id)),
        )
        if count:
            self.store(tenant_id, collection_id, count)
        return collection_id

    def store(self, tenant_id: UUID, collection_id: UUID, count: int, vectors: Vectors | None = None) -> list[UUID]:
        vectors = self.vectors(count) if vectors is None else vectors
        made = [NewMemory(id=uuid4(), text="text", vector=vector) for vector in vectors]
        with self.database.transaction(tenant_id) as session:
            now = self.owner.execute("select now()").fetchone()
            assert now is not None
            memories.insert(session, tenant_id, collection_id, made, model_id=1, author=_AUTHOR, now=now[0])
        return [memory.id for memory in made]

    def vectors(self, count: int) -> Vectors:
        """In clusters, as those of texts are."""
        centres = np.random.default_rng(1).normal(size=(20, 384))
        made = centres[self.rng.integers(0, 20, count)] + self.rng.normal(size=(count, 384))
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)

    def nearest(self, tenant_id: UUID, collection_ids: Sequence[UUID], vector: Vectors, limit: int = 10) -> list[UUID]:
        with self.database.transaction(tenant_id) as session:
            search.prepare(session)
            found = search.nearest(session, collection_ids, vector, model_id=1, min_score=-1, limit=limit)
        return [memory_id for memory_id, _ in found]

    def exact(self, collection_ids: Sequence[UUID], vector: Vectors, limit: int = 10) -> list[UUID]:
        rows = self.owner.execute(
            "select memory_id from memory_vectors where collection_id = any (%s) and model_id = 1 "
            "order by (embedding::halfvec(384) <=> %s::halfvec(384)) + 0 limit %s",
            (list(collection_ids), HalfVector(vector).to_text(), limit),
        )
        return [row[0] for row in rows]

    def recall(self, tenant_id: UUID, collection_ids: Sequence[UUID]) -> float:
        found = [
            len(set(self.nearest(tenant_id, collection_ids, vector)) & set(self.exact(collection_ids, vector))) / 10
            for vector in self.vectors(20)
        ]
        return sum(found) / len(found)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.owner.execute(
            "select cardinality(collections), memories, first_segment, last_segment, is_ready "
            "from vector_indexes order by id"
        ).fetchall()

    def built(self) -> list[tuple[str, bool]]:
        return self.owner.execute(
            "select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid "
            "where c.relname like 'memory_vectors_near_%' order by 1"
        ).fetchall()

    def uses_index(self, tenant_id: UUID, collection_ids: Sequence[UUID]) -> bool:
        with self.database.transaction(tenant_id) as session:
            before = _scans(session)
            search.nearest(session, collection_ids, self.vectors(1)[0], model_id=1, min_score=-1, limit=10)
            return _scans(session) > before


def _scans(session: Session) -> int:
    count: int = session.execute(
        text(
            "select coalesce(sum(pg_stat_get_xact_numscans(oid)), 0) from pg_class "
            "where relname like 'memory_vectors_near_%'"
        )
    ).scalar_one()
    return count


@pytest.fixture
def house(database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(vector_indexes, "_ENTRY", 1)
    made = Database(database.app_url, pool_size=4)
    with psycopg.connect(database.owner_url, autocommit=True) as owner:
        # So few rows are sorted more quickly than looked up: an index that may be used has to be used here.
        owner.execute(f"alter database {owner.info.dbname} set enable_sort = off")
        yield House(made, owner, database.owner_url, np.random.default_rng(7))
    made.close()


TENANT, OTHER = UUID(int=1), UUID(int=2)


def test_what_was_just_stored_is_found_at_once_and_so_it_is_afterwards(house: House) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    assert house.advance() == 1
    assert house.rows() == [(1, [WORTH_IT], 0, 1, True)]
    assert house.uses_index(TENANT, [notes])
    new = house.vectors(5)
    ids = house.store(TENANT, notes, 5, new)
    assert [house.nearest(TENANT, [notes], vector, limit=1) for vector in new] == [[one] for one in ids]
    assert house.recall(TENANT, [notes]) == 1
    house.store(TENANT, notes, WORTH_IT)
    assert house.advance() == 1
    assert [house.nearest(TENANT, [notes], vector, limit=1) for vector in new] == [[one] for one in ids]
    assert house.recall(TENANT, [notes]) == 1
    assert house.advance() == 0


def test_a_small_collection_has_no_index(house: House) -> None:
    notes = house.collection(TENANT, WORTH_IT - 1)
    assert house.advance() == 0
    assert not house.uses_index(TENANT, [notes])


def test_many_small_collections_share_one_and_a_search_of_one_scans_it(house: House) -> None:
    many = [house.collection(TENANT, WORTH_IT // 4) for _ in range(5)]
    theirs = house.collection(OTHER, WORTH_IT // 2)
    assert house.advance() == 1
    assert [row[0] for row in house.rows()] == [5]
    assert house.uses_index(TENANT, many)
    assert not house.uses_index(TENANT, many[:1])
    assert not house.uses_index(OTHER, [theirs])
    assert house.recall(TENANT, many) == 1
    assert house.recall(TENANT, many[1:2]) == 1


def test_one_that_has_grown_leaves_those_that_share(house: House) -> None:
    many = [house.collection(TENANT, WORTH_IT // 3) for _ in range(6)]
    assert house.advance() == 1
    house.store(TENANT, many[0], 2 * WORTH_IT)
    # Its own, then the others' without it.
    house.advance()
    assert sorted(row[0] for row in house.rows()) == [1, 6]
    assert house.recall(TENANT, many) == 1
    assert house.recall(TENANT, many[:1]) == 1
    assert len(set(house.nearest(TENANT, many, house.vectors(1)[0], limit=50))) == 50


def test_what_changes_under_an_index_is_found_as_it_is_now(house: House) -> None:
    notes, elsewhere = house.collection(TENANT, WORTH_IT), house.collection(TENANT)
    [patched, moved, gone] = house.store(TENANT, notes, 3)
    house.advance()
    vector = house.vectors(1)[0]
    with house.database.transaction(TENANT) as session:
        memories.write_vectors(session, TENANT, notes, [(patched, vector)], model_id=1)
        memories.write_vectors(session, TENANT, notes, [(moved, vector)], model_id=1)
        now = house.owner.execute("select now()").fetchone()
        assert now is not None
        memories.move(session, moved, elsewhere, now=now[0])
        memories.delete(session, [gone])
    assert house.nearest(TENANT, [notes], vector, limit=1) == [patched]
    assert house.nearest(TENANT, [elsewhere], vector, limit=1) == [moved]
    assert set(house.nearest(TENANT, [notes, elsewhere], vector, limit=2)) == {patched, moved}
    assert gone not in house.nearest(TENANT, [notes], vector, limit=WORTH_IT + 10)
    assert house.recall(TENANT, [notes, elsewhere]) == 1
    # As many as there are: none twice, none lost.
    everything = house.nearest(TENANT, [notes, elsewhere], vector, limit=2 * WORTH_IT)
    assert len(everything) == len(set(everything)) == WORTH_IT + 2


def test_tenants_see_their_own_though_one_has_the_other_in_mind(house: House) -> None:
    mine, theirs = house.collection(TENANT, WORTH_IT), house.collection(OTHER, WORTH_IT)
    house.advance()
    everything = house.nearest(TENANT, [mine, theirs], house.vectors(1)[0], limit=3 * WORTH_IT)
    assert set(everything) == set(house.exact([mine], house.vectors(1)[0], limit=3 * WORTH_IT))
    with house.database.transaction(TENANT) as session:
        assert [index.memories.keys() for index in vector_indexes.ready(session, [mine, theirs], 1)] == [{mine}]


def test_few_indexes_stay_few(house: House) -> None:
    notes = house.collection(TENANT)
    for _ in range(12):
        house.store(TENANT, notes, WORTH_IT)
        house.advance()
        assert len(house.rows()) == len(house.built()) <= 4
        assert sum(row[1][0] for row in house.rows()) == len(
            house.exact([notes], house.vectors(1)[0], limit=100 * WORTH_IT)
        )
    assert house.recall(TENANT, [notes]) == 1
    everything = house.nearest(TENANT, [notes], house.vectors(1)[0], limit=20 * WORTH_IT)
    assert len(everything) == len(set(everything)) == 12 * WORTH_IT


def test_an_index_goes_with_what_it_held(house: House) -> None:
    notes, other = house.collection(TENANT, WORTH_IT), house.collection(TENANT, 2 * WORTH_IT)
    house.advance()
    assert len(house.built()) == 2
    house.owner.execute("delete from collections where id = %s", (notes,))
    house.owner.execute(
        "delete from memories where id in (select id from memories where collection_id = %s limit %s)",
        (other, WORTH_IT + 10),
    )
    house.advance()
    assert house.rows() == [(1, [WORTH_IT - 10], 0, 3, True)]
    assert len(house.built()) == 1
    assert house.recall(TENANT, [other]) == 1


def test_vectors_of_another_model_have_indexes_of_their_own(house: House) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    house.advance()
    house.owner.execute("insert into embedding_models (name, dimensions, is_current) values ('next', 3, false)")
    house.owner.execute(
        "insert into memory_vectors (tenant_id, memory_id, model_id, collection_id, embedding) "
        "select tenant_id, memory_id, 2, collection_id, array[random(), random(), 1]::real[]::halfvec "
        "from memory_vectors"
    )
    assert house.recall(TENANT, [notes]) == 1
    house.advance()
    assert len(house.built()) == 2
    with house.database.transaction(TENANT) as session:
        search.prepare(session)
        ones = np.ones(3, dtype=np.float32)
        assert len(search.nearest(session, [notes], ones, model_id=2, min_score=0, limit=10)) == 10
    house.owner.execute("delete from memory_vectors where model_id = 1")
    house.advance()
    assert len(house.built()) == 1


# What can go wrong while one is built


class _Killed(Exception):
    pass


@pytest.mark.parametrize("step", ["_begin", "_create", "_switch", "_drop"])
def test_killed_at_any_step_nothing_is_lost_and_the_next_makes_it_good(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    house.advance()
    house.store(TENANT, notes, WORTH_IT)
    done = getattr(Builder, step)

    def killed(self: Builder, *arguments: Any) -> None:
        if step != "_drop":
            done(self, *arguments)
        raise _Killed

    with monkeypatch.context() as patched:
        patched.setattr(Builder, step, killed)
        with pytest.raises(_Killed):
            house.advance()
    everything = house.nearest(TENANT, [notes], house.vectors(1)[0], limit=20 * WORTH_IT)
    assert len(everything) == len(set(everything)) == 2 * WORTH_IT
    assert house.recall(TENANT, [notes]) == 1
    house.advance()
    assert house.rows()[0][1] == [2 * WORTH_IT]
    assert [valid for _, valid in house.built()] == [True]
    assert house.advance() == 0


def test_one_that_is_invalid_is_built_anew(house: House) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    house.advance()
    [(name, _)] = house.built()
    with ExitStack() as stack:
        # A transaction that holds on makes the builder wait; asked to stop, it leaves what it has begun.
        holder = stack.enter_context(psycopg.connect(house.owner_url))
        holder.execute("update memory_vectors set segment = segment")
        house.store(TENANT, house.collection(TENANT), WORTH_IT)
        stop = threading.Event()
        with pytest.raises(Unavailable):
            house.advance(lambda: stop.is_set() or _begun(house, name, stop))
        assert (name, True) in house.built()
        assert [valid for other, valid in house.built() if other != name] == [False]
        assert house.recall(TENANT, [notes]) == 1
    house.advance()
    assert [valid for _, valid in house.built()] == [True, True]


def _begun(house: House, name: str, stop: threading.Event) -> bool:
    if any(other != name for other, _ in house.built()):
        stop.set()
    return stop.is_set()


def test_one_that_somebody_dropped_is_built_anew(house: House) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    house.advance()
    [(name, _)] = house.built()
    house.owner.execute(f"drop index {name}")
    assert house.recall(TENANT, [notes]) == 1
    assert house.advance() == 1
    assert [valid for _, valid in house.built()] == [True]


def test_two_do_not_build_at_once(house: House) -> None:
    house.collection(TENANT, WORTH_IT)
    with index_building.building(house.owner_url, lambda: False) as first:
        assert first is not None
        assert house.advance() == 0
    assert house.advance() == 1


def test_without_the_owner_nothing_is_built_and_everything_is_found(house: House, database: DatabaseUrls) -> None:
    notes = house.collection(TENANT, WORTH_IT)
    assert not Indexes(None, worth_it=1).advance(lambda: False)
    assert house.recall(TENANT, [notes]) == 1
    with pytest.raises(Misconfigured, match="owner"):
        Indexes(SecretStr(database.app_url), worth_it=1).advance(lambda: False)
    with pytest.raises(Unavailable, match="DATABASE_OWNER_URL"):
        Indexes(SecretStr("postgresql://nobody@127.0.0.1:1/none"), worth_it=1).advance(lambda: False)
