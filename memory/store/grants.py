"""Grants: rows that restrict a collection to some agents."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session


@dataclass(frozen=True)
class Grant:
    """What one agent may do in one restricted collection."""

    can_read: bool
    can_write: bool


def of_key(session: Session, key_id: UUID | None) -> dict[UUID, Grant]:
    """Every restricted collection of the tenant, with what this key may do in it."""
    rows = session.execute(
        text(
            """
            select collection_id, bool_or(can_read and key_id = :key_id) as can_read,
                   bool_or(can_write and key_id = :key_id) as can_write
            from grants group by collection_id
            """
        ),
        {"key_id": key_id},
    )
    return {row.collection_id: Grant(bool(row.can_read), bool(row.can_write)) for row in rows}


def of_collection(session: Session, collection_id: UUID) -> list[tuple[UUID, str | None, Grant]]:
    """(key id, its label, what it may do), oldest grant first; a revoked key's grants stay."""
    rows = session.execute(
        text(
            """
            select g.key_id, k.label, g.can_read, g.can_write
            from grants g join keys k on k.tenant_id = g.tenant_id and k.id = g.key_id
            where g.collection_id = :collection_id order by g.created_at, g.key_id
            """
        ),
        {"collection_id": collection_id},
    )
    return [(row.key_id, row.label, Grant(row.can_read, row.can_write)) for row in rows]


def hold(session: Session, tenant_id: UUID) -> None:
    """Keeps every other change of this tenant's grants waiting until the transaction ends."""
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended('grants ' || :tenant_id, 0))"),
        {"tenant_id": str(tenant_id)},
    )


def put(session: Session, tenant_id: UUID, collection_id: UUID, key_id: UUID, grant: Grant) -> bool:
    """Sets one agent's grant; false when the tenant has no such key."""
    put = session.execute(
        text(
            """
            insert into grants (tenant_id, collection_id, key_id, can_read, can_write)
            select tenant_id, :collection_id, id, :can_read, :can_write from keys
            where tenant_id = :tenant_id and id = :key_id
            on conflict (tenant_id, collection_id, key_id) do update
            set can_read = excluded.can_read, can_write = excluded.can_write
            returning key_id
            """
        ),
        {
            "tenant_id": tenant_id,
            "collection_id": collection_id,
            "key_id": key_id,
            "can_read": grant.can_read,
            "can_write": grant.can_write,
        },
    )
    return put.one_or_none() is not None


def delete(session: Session, collection_id: UUID, key_id: UUID) -> bool:
    deleted = session.execute(
        text("delete from grants where collection_id = :collection_id and key_id = :key_id returning key_id"),
        {"collection_id": collection_id, "key_id": key_id},
    )
    return deleted.one_or_none() is not None


def delete_of_collection(session: Session, collection_id: UUID) -> None:
    session.execute(text("delete from grants where collection_id = :id"), {"id": collection_id})
