"""Collections: the rows that memories belong to."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import bindparam
from sqlmodel import Session

from memory.schemas import Collection

# What the default listing shows: latest, not archived, not expired.
CURRENT = "m.is_latest and not m.archived and (m.expires_at is null or m.expires_at > now())"

_COLLECTION = f"""
    select c.id, c.name, c.description, c.metadata, c.created_at, c.updated_at, false as restricted,
           (select count(*) from memories m
            where m.tenant_id = c.tenant_id and m.collection_id = c.id and {CURRENT}) as memory_count
    from collections c
"""


def listed(
    session: Session, *, hidden: Sequence[UUID] = (), limit: int | None, offset: int
) -> tuple[list[Collection], int]:
    """A page by name, or all without a limit, and how many there are, without the `hidden` ones."""
    shown = "c.id <> all (:hidden)"
    rows = session.execute(
        text(f"{_COLLECTION} where {shown} order by c.name, c.id limit :limit offset :offset"),
        {"hidden": list(hidden), "limit": limit, "offset": offset},
    )
    total = session.execute(
        text(f"select count(*) from collections c where {shown}"), {"hidden": list(hidden)}
    ).scalar_one()
    return [Collection.model_validate(dict(row)) for row in rows.mappings()], total


def find(session: Session, name: str) -> Collection | None:
    row = session.execute(text(f"{_COLLECTION} where c.name = :name"), {"name": name}).mappings().one_or_none()
    return None if row is None else Collection.model_validate(dict(row))


def find_id(session: Session, name: str) -> UUID | None:
    found: UUID | None = session.execute(
        text("select id from collections where name = :name"), {"name": name}
    ).scalar_one_or_none()
    return found


def hold(session: Session, name: str) -> UUID | None:
    """Locks the collection against every writer until the transaction ends. It comes before its files and memories:
    who takes locks in another order can wait in a circle."""
    held: UUID | None = session.execute(
        text("select id from collections where name = :name for update"), {"name": name}
    ).scalar_one_or_none()
    return held


def keep(session: Session, collection_id: UUID) -> bool:
    """Keeps the collection from being deleted before the transaction ends; false when it is gone."""
    kept = session.execute(text("select id from collections where id = :id for key share"), {"id": collection_id})
    return kept.one_or_none() is not None


def keep_named(session: Session, name: str) -> UUID | None:
    """The same by name: its id, or None when there is none."""
    kept: UUID | None = session.execute(
        text("select id from collections where name = :name for key share"), {"name": name}
    ).scalar_one_or_none()
    return kept


def keep_by_id(session: Session, collection_id: UUID) -> str | None:
    """The same by id: its name, or None when it is gone."""
    kept: str | None = session.execute(
        text("select name from collections where id = :id for key share"), {"id": collection_id}
    ).scalar_one_or_none()
    return kept


def insert(
    session: Session, tenant_id: UUID, name: str, *, description: str | None = None, metadata: dict[str, Any]
) -> bool:
    """False when one with this name exists; nothing is changed then."""
    inserted = session.execute(
        text(
            """
            insert into collections (tenant_id, id, name, description, metadata)
            values (:tenant_id, :id, :name, :description, :metadata)
            on conflict (tenant_id, name) do nothing returning id
            """
        ).bindparams(bindparam("metadata", type_=JSONB)),
        {"tenant_id": tenant_id, "id": uuid4(), "name": name, "description": description, "metadata": metadata},
    )
    return inserted.one_or_none() is not None


def ensure(session: Session, tenant_id: UUID, name: str) -> UUID:
    """The collection's id; made when it is missing. It cannot be deleted before the transaction ends."""
    while True:
        found = keep_named(session, name)
        if found is not None:
            return found
        insert(session, tenant_id, name, metadata={})


def update(session: Session, name: str, changes: Mapping[str, Any]) -> bool:
    """Sets `description` and `metadata` as far as they are in `changes`; False for an unknown collection."""
    assignments = "".join(f", {column} = :{column}" for column in ("description", "metadata") if column in changes)
    statement = text(f"update collections set updated_at = now() {assignments} where name = :name returning id")
    if "metadata" in changes:
        statement = statement.bindparams(bindparam("metadata", type_=JSONB))
    return session.execute(statement, {**changes, "name": name}).one_or_none() is not None


def delete(session: Session, collection_id: UUID) -> None:
    """Removes the collection with all its memories; what their files were is asked before (`files.orphans_of`)."""
    session.execute(text("delete from collections where id = :id"), {"id": collection_id})
