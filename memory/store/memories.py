"""Memories with their vectors, terms and versions: three tables of one memory, written in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgvector import HalfVector
from psycopg.types.json import Jsonb
from sqlalchemy import RowMapping, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from memory.errors import Conflict
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
    external_id: str | None = None
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
    """Stores all of them in all their tables. Each is a microsecond younger than the one before: lists keep order.

    Raises Conflict when somebody else has stored one of their external ids meanwhile.
    """
    connection = session.connection()
    columns = _columns(memories, now)
    inserted = connection.exec_driver_sql(
        f"""
        insert into memories (tenant_id, collection_id, created_by, created_by_label, {", ".join(columns)},
                              created_at, updated_at)
        select %(tenant)s, %(collection)s, %(author)s, %(label)s, {", ".join(columns)}, valid_from, valid_from
        from unnest({", ".join(f"%({name})s::{kind}[]" for name, (kind, _) in columns.items())})
             as given ({", ".join(columns)})
        order by external_id, container_tag
        on conflict (tenant_id, collection_id, container_tag, external_id)
        where external_id is not null and is_latest do nothing
        """,
        {
            "tenant": tenant_id,
            "collection": collection_id,
            "author": author.id,
            "label": author.label,
            **{name: values for name, (_, values) in columns.items()},
        },
    )
    if inserted.rowcount < len(memories):
        raise Conflict("another write has stored a memory under the same external_id; try again")
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


def _columns(memories: Sequence[NewMemory], now: datetime) -> dict[str, tuple[str, list[Any]]]:
    """Type and values of each column: one statement takes them all, where one a memory takes half as long again."""
    return {
        "id": ("uuid", [memory.id for memory in memories]),
        "text": ("text", [memory.text for memory in memories]),
        "importance": ("float8", [memory.importance for memory in memories]),
        "category": ("text", [memory.category for memory in memories]),
        "source": ("text", [memory.source for memory in memories]),
        "metadata": ("jsonb", [Jsonb(memory.metadata) for memory in memories]),
        "container_tag": ("text", [memory.container_tag for memory in memories]),
        "type": ("text", [memory.type for memory in memories]),
        "sequence": ("text", [memory.sequence for memory in memories]),
        "position": ("integer", [memory.position for memory in memories]),
        "external_id": ("text", [memory.external_id for memory in memories]),
        "expires_at": ("timestamptz", [memory.expires_at for memory in memories]),
        "valid_from": ("timestamptz", [now + timedelta(microseconds=number) for number in range(len(memories))]),
    }


def write_vectors(
    session: Session, tenant_id: UUID, collection_id: UUID, vectors: Sequence[tuple[UUID, Vectors]], *, model_id: int
) -> None:
    """Sets the vectors of memories; a changed one is born again outside every index."""
    session.connection().exec_driver_sql(
        """
        insert into memory_vectors (tenant_id, memory_id, model_id, collection_id, embedding)
        select %(tenant)s, id, %(model)s, %(collection)s, vector
        from unnest(%(ids)s::uuid[], %(vectors)b::halfvec[]) as given (id, vector)
        on conflict (tenant_id, memory_id, model_id) do update
        set embedding = excluded.embedding, segment = excluded.segment
        """,
        {
            "tenant": tenant_id,
            "collection": collection_id,
            "model": model_id,
            "ids": [memory_id for memory_id, _ in vectors],
            "vectors": [HalfVector(vector) for _, vector in vectors],
        },
    )


def write_terms(session: Session, tenant_id: UUID, collection_id: UUID, texts: Sequence[tuple[UUID, str]]) -> None:
    """Sets the lexemes and BM25 weights of memories."""
    session.connection().exec_driver_sql(
        """
        insert into memory_terms (tenant_id, memory_id, collection_id, tsv, lexical)
        select %(tenant)s, id, %(collection)s, tsv, lexical
        from unnest(%(ids)s::uuid[], %(texts)s::text[], %(exact)s::jsonb[], %(names)s::jsonb[])
             as given (id, content, exact, names),
             terms_of(content, array(select jsonb_array_elements_text(exact)),
                      cast(%(exact_weight)s as double precision), array(select jsonb_array_elements_text(names)),
                      cast(%(name_weight)s as double precision))
        on conflict (tenant_id, memory_id) do update set tsv = excluded.tsv, lexical = excluded.lexical
        """,
        {
            "tenant": tenant_id,
            "collection": collection_id,
            "ids": [memory_id for memory_id, _ in texts],
            "texts": [lexemes.searchable(content) for _, content in texts],
            "exact": [Jsonb(lexemes.exact_terms(content) + lexemes.character_terms(content)) for _, content in texts],
            "exact_weight": lexemes.EXACT_WEIGHT,
            "names": [Jsonb(lexemes.names(content)) for _, content in texts],
            "name_weight": lexemes.NAME_WEIGHT,
        },
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
    session: Session, memory_id: UUID, changes: Mapping[str, Any], *, says_something_new: bool, now: datetime | None
) -> None:
    """Sets the columns named in `changes` and counts a version; `now` None leaves `updated_at` as it is.

    One statement: a row that is changed twice in a transaction has its collection checked again, and whoever deletes
    that collection waits for this row.
    """
    columns = [*changes, *(["updated_at"] if now else []), *(["valid_from"] if says_something_new else [])]
    values = {name: Jsonb(value) if name == "metadata" else value for name, value in changes.items()}
    session.connection().exec_driver_sql(
        f"""
        update memories set version = version + 1 {"".join(f", {column} = %({column})s" for column in columns)}
        where id = %(id)s
        """,
        {**values, "id": memory_id, "updated_at": now, "valid_from": now},
    )


def hold_by_external_id(
    session: Session, collection_id: UUID, keys: Sequence[tuple[str | None, str]]
) -> dict[tuple[str | None, str], Memory]:
    """Locks the current memories under these (container tag, external id), the expired ones too, and gives them."""
    return {key: memory for memory, key in _by_external_id(session, collection_id, keys, lock="for update of m")}


def texts_by_external_id(
    session: Session, collection_id: UUID, keys: Sequence[tuple[str | None, str]]
) -> dict[tuple[str | None, str], str]:
    """What these memories say now."""
    return {key: memory.text for memory, key in _by_external_id(session, collection_id, keys, lock="")}


def _by_external_id(
    session: Session, collection_id: UUID, keys: Sequence[tuple[str | None, str]], *, lock: str
) -> list[tuple[Memory, tuple[str | None, str]]]:
    # By the whole name: one id may stand under as many tags as there are users, and theirs must not be locked. Twice,
    # because no index answers `is not distinct from`.
    rows = session.execute(
        text(
            f"""
            select {MEMORY} {_FROM}
            where m.collection_id = :collection_id and m.is_latest and m.id = any (array(
                select named.id
                from unnest(cast(:tags as text[]), cast(:external_ids as text[])) as given (tag, external_id),
                     lateral (
                         select id from memories n
                         where n.collection_id = :collection_id and n.is_latest and n.external_id = given.external_id
                           and n.container_tag = given.tag
                         union all
                         select id from memories n
                         where n.collection_id = :collection_id and n.is_latest and n.external_id = given.external_id
                           and n.container_tag is null and given.tag is null
                     ) as named
            ))
            order by m.id {lock}
            """
        ),
        {
            "collection_id": collection_id,
            "tags": [tag for tag, _ in keys],
            "external_ids": [external_id for _, external_id in keys],
        },
    )
    found = [Memory.model_validate(fields(row)) for row in rows.mappings()]
    return [(one, (one.container_tag, one.external_id)) for one in found if one.external_id is not None]


def move(session: Session, memory_id: UUID, to_collection_id: UUID, *, now: datetime) -> None:
    """Takes the memory and what search knows of it to another collection of its tenant.

    Raises Conflict when the external id is taken there.
    """
    values = {"id": memory_id, "to": to_collection_id, "now": now}
    # One that has expired is no longer there for anybody; it only waits to be swept.
    session.execute(
        text(
            """
            update memories there set external_id = null from memories m
            where m.id = :id and there.collection_id = :to and there.is_latest and there.expires_at <= now()
              and there.external_id = m.external_id and there.container_tag is not distinct from m.container_tag
            """
        ),
        values,
    )
    try:
        session.execute(
            text("update memories set collection_id = :to, version = version + 1, updated_at = :now where id = :id"),
            values,
        )
    except IntegrityError as error:
        raise Conflict("the collection holds another memory with this external_id") from error
    session.execute(
        text("update memory_vectors set collection_id = :to, segment = current_segment() where memory_id = :id"), values
    )
    session.execute(text("update memory_terms set collection_id = :to where memory_id = :id"), values)


def pinned_of(session: Session, memory_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these are pinned."""
    rows = session.execute(text("select id from memories where id = any (:ids) and pinned"), {"ids": list(memory_ids)})
    return set(rows.scalars())


def delete(
    session: Session,
    memory_ids: Sequence[UUID],
    *,
    in_collection: UUID | None = None,
    unpinned: bool = False,
    expired: bool = False,
) -> list[UUID]:
    """Removes memories from all their tables; the ids of those that were still there, and still as they must be.

    What their files were is asked before (`files.hold_of_memories`).
    """
    conditions = ["id = any (:ids)"]
    if in_collection is not None:
        conditions.append("collection_id = :in_collection")
    if unpinned:
        conditions.append("not pinned")
    if expired:
        conditions.append("expires_at <= now()")
    # Locked in the order in which others lock several memories.
    removed = session.execute(
        text(
            f"""
            with held as materialized (
                select id from memories where {" and ".join(conditions)} order by id for update
            )
            delete from memories where id in (select id from held) returning id
            """
        ),
        {"ids": list(memory_ids), "in_collection": in_collection},
    )
    return list(removed.scalars())


def expired(session: Session, most: int) -> dict[UUID, UUID]:
    """The collections of the tenant's memories that expired first, by the memories' ids."""
    rows = session.execute(
        text(
            """
            select id, collection_id from memories where expires_at <= now() order by expires_at limit :most
            """
        ),
        {"most": most},
    )
    return {row.id: row.collection_id for row in rows}


def tenants_with_expired(session: Session, most: int) -> list[UUID]:
    """Across all tenants: whose memories have expired, longest overdue first."""
    return list(session.execute(text("select tenant_id from tenants_with_expired(:most)"), {"most": most}).scalars())
