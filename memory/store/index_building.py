"""Building and dropping indexes over vectors: the owner's work, one at a time, each statement its own transaction."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from memory.errors import Misconfigured, Unavailable
from memory.store.database import WITHOUT_SCHEMA
from memory.store.vector_indexes import VectorIndex, condition, index_of

_LOCK = 0x7665_6374  # any constant of our own: two that build at once would undo each other's work
_PREFIX = "memory_vectors_near_"
_LOOK_WHETHER_TO_STOP_SECONDS = 0.5
# Whoever is killed leaves a server process that notices so; the graph has to fit into memory, or building it takes ten
# times as long; one process alone, because the others answer searches.
_OPTIONS = "-c client_connection_check_interval=1000 -c max_parallel_maintenance_workers=0 -c timezone=UTC"
_MEMORY = "2GB"


@dataclass(frozen=True)
class Tally:
    """How many vectors of a model a collection has in one segment."""

    tenant_id: UUID
    model_id: int
    collection_id: UUID
    segment: int
    memories: int


@dataclass(frozen=True)
class Wanted:
    """An index to build over what is not written any more, in place of those that it `replaces`.

    Without collections: those are only dropped.
    """

    tenant_id: UUID
    model_id: int
    collection_ids: Sequence[UUID]
    first: int
    replaces: Sequence[int]


@contextmanager
def building(url: str, stopping: Callable[[], bool]) -> Iterator["Builder | None"]:
    """The only one that builds now; None while another does. Raises Unavailable, also when asked to stop."""
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5, options=_OPTIONS) as connection:
            _refuse_strangers(connection)
            row = connection.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
            if row != (True,):
                yield None
                return
            with _cancelled(connection, stopping):
                yield Builder(connection)
    except psycopg.errors.QueryCanceled as error:
        raise Unavailable("building an index was stopped; it begins again later") from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise Misconfigured(WITHOUT_SCHEMA) from error
    except psycopg.OperationalError as error:
        if error.sqlstate is not None:
            raise Unavailable(f"an index cannot be built now: {type(error).__name__}") from error
        raise Unavailable("the database does not answer or refuses the owner: see DATABASE_OWNER_URL") from error


def _refuse_strangers(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute(
        "select pg_has_role(relowner, 'usage') from pg_class where oid = 'memory_vectors'::regclass"
    ).fetchone()
    if row != (True,):
        raise Misconfigured("DATABASE_OWNER_URL does not log in as the owner of the tables")


@contextmanager
def _cancelled(connection: psycopg.Connection[Any], stopping: Callable[[], bool]) -> Iterator[None]:
    """Ends the statement that runs when it is time to stop: one alone may take many minutes."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_WHETHER_TO_STOP_SECONDS):
            if stopping():
                connection.cancel_safe(timeout=5)

    watching = threading.Thread(target=watch, name="index building", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


class Builder:
    """What is there, and what can be done about it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def clean(self) -> None:
        """Removes what was begun and not finished, and what was replaced and not dropped."""
        self._connection.execute("delete from vector_indexes where not is_ready")
        rows = self._connection.execute(
            """
            select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
            where i.indrelid = 'memory_vectors'::regclass and starts_with(c.relname, %(prefix)s)
              and (not i.indisvalid or not exists (
                  select from vector_indexes v where c.relname = %(prefix)s || v.id
              ))
            """,
            {"prefix": _PREFIX},
        ).fetchall()
        for (name,) in rows:
            self._drop(name)
        # An index that somebody has dropped by hand, or that a repair has left invalid.
        self._connection.execute(
            """
            delete from vector_indexes v where not exists (
                select from pg_class c where c.relname = %(prefix)s || v.id and c.relkind = 'i'
                  and c.relnamespace = (select relnamespace from pg_class where oid = 'memory_vectors'::regclass)
            )
            """,
            {"prefix": _PREFIX},
        )

    def tallies(self) -> list[Tally]:
        """All vectors, by collection and segment."""
        rows = self._connection.execute(
            """
            select c.tenant_id, v.model_id, v.collection_id, v.segment, v.memories
            from (select collection_id, model_id, segment, count(*) as memories from memory_vectors group by 1, 2, 3) v
            join collections c on c.id = v.collection_id
            """
        )
        return [Tally(*row) for row in rows]

    def indexes(self) -> list[VectorIndex]:
        rows = self._connection.execute(
            """
            select id, tenant_id, model_id, collections, memories, first_segment, last_segment from vector_indexes
            where is_ready order by id
            """
        )
        return [index_of(*row) for row in rows]

    def build(self, wanted: Wanted) -> None:
        """Builds it while all go on reading and writing; searches use it as soon as it is whole."""
        replaced = list(wanted.replaces)
        if wanted.collection_ids:
            index_id, last = self._begin(wanted)
            over = condition(wanted.model_id, wanted.collection_ids, wanted.first, last)
            self._create(index_id, wanted.model_id, over)
            self._connection.execute("analyze memory_vectors")
            self._switch(index_id, over, wanted.collection_ids, replaced)
        else:
            self._connection.execute("delete from vector_indexes where id = any (%s)", (replaced,))
        for index_id in replaced:
            self._drop(f"{_PREFIX}{index_id}")

    def _begin(self, wanted: Wanted) -> tuple[int, int]:
        """Closes the segment that was open: what is written from now on is not of this index."""
        row = self._connection.execute(
            """
            with closed as (update open_segment set number = number + 1 returning number - 1 as number)
            insert into vector_indexes (tenant_id, model_id, collections, memories, first_segment, last_segment)
            select %s, %s, %s::uuid[], array_fill(0, array[%s]), %s, number from closed
            returning id, last_segment
            """,
            (
                wanted.tenant_id,
                wanted.model_id,
                list(wanted.collection_ids),
                len(wanted.collection_ids),
                wanted.first,
            ),
        ).fetchone()
        if row is None:
            raise Misconfigured(WITHOUT_SCHEMA)
        index_id, last = row
        return index_id, last

    def _create(self, index_id: int, model_id: int, over: str) -> None:
        dimensions = self._connection.execute(
            "select dimensions from embedding_models where id = %s", (model_id,)
        ).fetchone()
        if dimensions is None:
            raise Misconfigured(WITHOUT_SCHEMA)
        self._connection.execute(
            "select set_config('maintenance_work_mem', %(wanted)s, false) where pg_size_bytes(%(wanted)s) > "
            "pg_size_bytes(current_setting('maintenance_work_mem'))",
            {"wanted": _MEMORY},
        )
        name = f"{_PREFIX}{index_id}"
        self._connection.execute(
            f"create index concurrently {name} on memory_vectors "
            f"using hnsw ((embedding::halfvec({dimensions[0]:d})) halfvec_cosine_ops) where {over}"
        )
        # Nobody asks how vectors are distributed; to find out would take seconds at every analyze.
        self._connection.execute(f"alter index {name} alter column 1 set statistics 0")

    def _switch(self, index_id: int, over: str, collection_ids: Sequence[UUID], replaced: list[int]) -> None:
        counted = dict(
            self._connection.execute(
                f"select collection_id, count(*) from memory_vectors where {over} group by 1"
            ).fetchall()
        )
        with self._connection.transaction():
            self._connection.execute("delete from vector_indexes where id = any (%s)", (replaced,))
            self._connection.execute(
                "update vector_indexes set is_ready = true, memories = %s where id = %s",
                ([counted.get(one, 0) for one in collection_ids], index_id),
            )

    def _drop(self, name: str) -> None:
        self._connection.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(name)))
