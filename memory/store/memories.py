"""Memories with their vectors, terms and versions: three tables of one memory, written in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgvector import HalfVector
from psycopg.types.json import Jsonb
from sqlalchemy import RowMapping, text
from sqlmodel import Session

from memory.ports import Vectors
from memory.schemas import Author, Memory, MemoryFile, MemoryFilter
from memory.store import lexemes


@dataclass(frozen=True)
class NewMemory:
    """One memory about to be stored; `vector` has the current model's dimensions, shape (d,)."""

    id: UUID
    text: str
    vector: Vectors
    importance: float = 0.7
    category: str = "other"
    source: str = "api"
    metadata: dict[str, Any] = field(default_factory=dict)
    container_tag: str | None = None
    type: str | None = None
    sequence: str | None = None
    position: int | None = None
    expires_at: datetime | None = None
    file_ids: Sequence[UUID] = ()


MEMORY = """
    m.id, c.name as collection, m.text, m.importance, m.category, m.source, m.metadata, m.container_tag, m.pinned,
    m.archived, m.created_by, m.created_by_label, m.type, m.is_latest, m.sequence, m.position, m.external_id,
    m.version, m.valid_from, m.valid_to, m.superseded_by, m.expires_at, m.created_at, m.updated_at,
    (select json_agg(json_build_array(f.key, f.filename, f.content_type, f.size) order by mf.position)
     from memory_files mf join files f on f.tenant_id = mf.tenant_id and f.id = mf.file_id
     where mf.tenant_id = m.tenant_id and mf.memory_id = m.id) as files
"""
_FROM = "from memories m join collections c on c.tenant_id = m.tenant_id and c.id = m.collection_id"


def fields(row: RowMapping) -> dict[str, Any]:
    """A row of the MEMORY columns as the fields of `schemas.Memory`, plus whatever else the row holds."""
    values = dict(row)
    values["created_by"] = Author(id=values["created_by"], label=values.pop("created_by_label"))
    values["images"] = [MemoryFile.stored(*file) for file in values.pop("files") or ()]
    return values


def insert(
    session: Session,
    tenant_id: UUID,
    collection_id: UUID,
    memories: Sequence[NewMemory],
    *,
    model_id: int,
    author: Author,
    now: datetime,
) -> None:
    """Stores all of them in all their tables. Each is a microsecond younger than the one before: lists keep order."""
    connection = session.connection()
    connection.exec_driver_sql(
        """
        insert into memories (tenant_id, id, collection_id, text, importance, category, source, metadata,
            container_tag, type, sequence, position, expires_at, created_by, created_by_label,
            valid_from, created_at, updated_at)
        values (%(tenant)s, %(id)s, %(collection)s, %(text)s, %(importance)s, %(category)s, %(source)s, %(metadata)s,
            %(container_tag)s, %(type)s, %(sequence)s, %(position)s, %(expires_at)s, %(author)s, %(label)s,
            %(at)s, %(at)s, %(at)s)
        """,
        [
            {
                "tenant": tenant_id,
                "id": memory.id,
                "collection": collection_id,
                "text": memory.text,
                "importance": memory.importance,
                "category": memory.category,
                "source": memory.source,
                "metadata": Jsonb(memory.metadata),
                "container_tag": memory.container_tag,
                "type": memory.type,
                "sequence": memory.sequence,
                "position": memory.position,
                "expires_at": memory.expires_at,
                "author": author.id,
                "label": author.label,
                "at": now + timedelta(microseconds=number),
            }
            for number, memory in enumerate(memories)
        ],
    )
    write_vectors(session, tenant_id, collection_id, [(m.id, m.vector) for m in memories], model_id=model_id)
    write_terms(session, tenant_id, collection_id, [(m.id, m.text) for m in memories])
    carried = [
        (tenant_id, memory.id, file_id, position)
        for memory in memories
        for position, file_id in enumerate(memory.file_ids)
    ]
    if carried:
        connection.exec_driver_sql(
            "insert into memory_files (tenant_id, memory_id, file_id, position) values (%s, %s, %s, %s)", carried
        )


def write_vectors(
    session: Session, tenant_id: UUID, collection_id: UUID, vectors: Sequence[tuple[UUID, Vectors]], *, model_id: int
) -> None:
    """Sets the vectors of memories; a changed one is born again outside every index."""
    session.connection().exec_driver_sql(
        """
        insert into memory_vectors (tenant_id, memory_id, model_id, collection_id, embedding)
        values (%s, %s, %s, %s, %s)
        on conflict (tenant_id, memory_id, model_id) do update set embedding = excluded.embedding, segment = null
        """,
        [(tenant_id, memory_id, model_id, collection_id, HalfVector(vector)) for memory_id, vector in vectors],
    )


def write_terms(session: Session, tenant_id: UUID, collection_id: UUID, texts: Sequence[tuple[UUID, str]]) -> None:
    """Sets the lexemes and BM25 weights of memories."""
    session.connection().exec_driver_sql(
        """
        insert into memory_terms (tenant_id, memory_id, collection_id, tsv, lexical)
        select %(tenant)s, %(id)s, %(collection)s, stemmed || array_to_tsvector(cast(%(exact)s as text[])),
               bm25_weights(stemmed, cast(%(exact)s as text[]), cast(%(exact_weight)s as double precision))
        from to_tsvector('english', %(text)s) as stemmed
        on conflict (tenant_id, memory_id) do update set tsv = excluded.tsv, lexical = excluded.lexical
        """,
        [
            {
                "tenant": tenant_id,
                "id": memory_id,
                "collection": collection_id,
                "text": lexemes.searchable(content),
                "exact": lexemes.exact_terms(content),
                "exact_weight": lexemes.EXACT_WEIGHT,
            }
            for memory_id, content in texts
        ],
    )


def find(session: Session, collection: str, memory_id: UUID, *, for_update: bool = False) -> Memory | None:
    """The memory under this collection's path, unless it has expired; superseded and archived ones are found."""
    row = session.execute(
        text(
            f"""
            select {MEMORY} {_FROM}
            where m.id = :id and c.name = :collection and (m.expires_at is null or m.expires_at > now())
            {"for update of m" if for_update else ""}
            """
        ),
        {"id": memory_id, "collection": collection},
    )
    found = row.mappings().one_or_none()
    return None if found is None else Memory.model_validate(fields(found))


def find_many(session: Session, memory_ids: Sequence[UUID]) -> list[Memory]:
    """These memories in the order in which they are asked for; a missing one is left out."""
    rows = session.execute(
        text(f"select {MEMORY} {_FROM} where m.id = any (:ids) order by array_position(:ids, m.id)"),
        {"ids": list(memory_ids)},
    )
    return [Memory.model_validate(fields(row)) for row in rows.mappings()]


def listed(session: Session, collection_id: UUID, wanted: MemoryFilter) -> tuple[list[Memory], int]:
    """A page, pinned first, then newest; and how many there are in all."""
    conditions = ["m.collection_id = :collection_id", "(m.expires_at is null or m.expires_at > now())"]
    if not wanted.include_superseded:
        conditions.append("m.is_latest")
    if not wanted.include_archived:
        conditions.append("not m.archived")
    if wanted.container_tag is not None:
        conditions.append("m.container_tag = :container_tag")
    if wanted.category is not None:
        conditions.append("m.category = :category")
    where = " and ".join(conditions)
    values = {"collection_id": collection_id, **wanted.model_dump(include={"container_tag", "category"})}
    rows = session.execute(
        text(
            f"""
            select {MEMORY} {_FROM} where {where}
            order by m.pinned desc, m.created_at desc, m.id desc limit :limit offset :offset
            """
        ),
        {**values, "limit": wanted.limit, "offset": wanted.offset},
    )
    total = session.execute(text(f"select count(*) from memories m where {where}"), values).scalar_one()
    return [Memory.model_validate(fields(row)) for row in rows.mappings()], total


def update(
    session: Session, memory_id: UUID, changes: Mapping[str, Any], *, says_something_new: bool, now: datetime
) -> None:
    """Sets the columns named in `changes` (names of `schemas.MemoryPatch`) and counts a version.

    One statement: a row that is changed twice in a transaction has its collection checked again, and whoever deletes
    that collection waits for this row.
    """
    assignments = "".join(f", {column} = %({column})s" for column in changes)
    if says_something_new:
        assignments += ", valid_from = %(now)s"
    values = {name: Jsonb(value) if name == "metadata" else value for name, value in changes.items()}
    session.connection().exec_driver_sql(
        f"update memories set version = version + 1, updated_at = %(now)s {assignments} where id = %(id)s",
        {**values, "id": memory_id, "now": now},
    )


def keep_version(session: Session, tenant_id: UUID, memory_id: UUID, *, author: Author, now: datetime) -> None:
    """Keeps what the memory says until now as history, before its text is changed."""
    session.execute(
        text(
            """
            insert into memory_versions (tenant_id, memory_id, version, text, valid_from, valid_to, reason,
                                         changed_by, changed_by_label)
            select tenant_id, id, version, text, valid_from, :now, 'edited', :changed_by, :label
            from memories where tenant_id = :tenant_id and id = :id
            """
        ),
        {"tenant_id": tenant_id, "id": memory_id, "changed_by": author.id, "label": author.label, "now": now},
    )


def delete(session: Session, memory_ids: Sequence[UUID]) -> list[UUID]:
    """Removes memories from all their tables; the ids of those that were still there.

    What their files were is asked before (`files.hold_of_memories`).
    """
    removed = session.execute(
        text("delete from memories where id = any (:ids) returning id"), {"ids": list(memory_ids)}
    )
    return list(removed.scalars())
