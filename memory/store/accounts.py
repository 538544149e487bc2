"""Tenants and keys."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.schemas import Caller


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


def insert_key(
    session: Session, *, tenant_id: UUID, key_id: UUID, key_hash: bytes, prefix: str, label: str | None, is_main: bool
) -> bool:
    """False when the key is in use already."""
    inserted = session.execute(
        text(
            """
            insert into keys (tenant_id, id, hash, prefix, label, is_main)
            values (:tenant_id, :id, :hash, :prefix, :label, :is_main)
            on conflict (hash) do nothing returning id
            """
        ),
        {
            "tenant_id": tenant_id,
            "id": key_id,
            "hash": key_hash,
            "prefix": prefix,
            "label": label,
            "is_main": is_main,
        },
    )
    return inserted.one_or_none() is not None


def find_caller(session: Session, key_hash: bytes) -> Caller | None:
    """Who holds the key with this hash, across tenants; None for an unknown, revoked or expired one."""
    row = session.execute(text("select * from find_key(:hash)"), {"hash": key_hash}).one_or_none()
    if row is None:
        return None
    return Caller(
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        label=row.label,
        read_only=row.read_only,
        is_main=row.is_main,
        is_admin=row.tenant_is_admin,
        has_grants=row.has_grants,
    )
