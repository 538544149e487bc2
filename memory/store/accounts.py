"""Tenants, and who holds a key of one."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.schemas import Caller
from memory.store.database import Database


def insert_tenant(session: Session, *, tenant_id: UUID, name: str, email: str, tier: str, is_admin: bool) -> bool:
    """False when a tenant with this address exists."""
    inserted = session.execute(
        text(
            """
            insert into tenants (id, name, email, tier, is_admin) values (:id, :name, :email, :tier, :is_admin)
            on conflict (email) do nothing returning id
            """
        ),
        {"id": tenant_id, "name": name, "email": email, "tier": tier, "is_admin": is_admin},
    )
    return inserted.one_or_none() is not None


def find_tenant(session: Session, tenant_id: UUID) -> dict[str, Any]:
    """Its id, name, email, tier, is_admin and created_at."""
    row = session.execute(
        text("select id, name, email, tier, is_admin, created_at from tenants where id = :id"), {"id": tenant_id}
    )
    return dict(row.mappings().one())


def tenants_after(session: Session, after: UUID | None, most: int) -> list[UUID]:
    """Across all tenants, in the order of their ids."""
    found = session.execute(text("select id from tenants_after(:after, :most)"), {"after": after, "most": most})
    return list(found.scalars())


def hold(session: Session, tenant_id: UUID) -> None:
    """Keeps every other transaction that asks for the same waiting until this one ends."""
    session.execute(text("select id from tenants where id = :id for no key update"), {"id": tenant_id})


def find_caller(database: Database, key_hash: bytes) -> Caller | None:
    """Who holds the key with this hash, across tenants; None for an unknown, revoked or expired one."""
    rows = database.glance(None, "select * from find_key(%(hash)s)", {"hash": key_hash})
    return caller_of(rows[0]) if rows else None


def caller_of(row: Any) -> Caller:
    """Who holds a key, as `find_key` has it."""
    return Caller(
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        label=row.label,
        read_only=row.read_only,
        is_main=row.is_main,
        is_admin=row.tenant_is_admin,
        tier=row.tier,
        has_grants=row.has_grants,
    )
