"""Keys: hashes that open a tenant, with what may be said about them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.agents import Agent, Key

_KEY = "id, label, read_only, prefix, created_at, expires_at, last_used_at, revoked_at is not null as revoked"
_ACTIVE = "revoked_at is null and (expires_at is null or expires_at > now())"
_NEWEST_FIRST = "order by created_at desc, id desc limit :limit offset :offset"


def insert(
    session: Session,
    *,
    tenant_id: UUID,
    key_id: UUID,
    key_hash: bytes,
    prefix: str,
    label: str | None,
    is_main: bool = False,
    read_only: bool = False,
    expires_at: datetime | None = None,
) -> bool:
    """False when the key is in use already."""
    inserted = session.execute(
        text(
            """
            insert into keys (tenant_id, id, hash, prefix, label, is_main, read_only, expires_at)
            values (:tenant_id, :id, :hash, :prefix, :label, :is_main, :read_only, :expires_at)
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
            "read_only": read_only,
            "expires_at": expires_at,
        },
    )
    return inserted.one_or_none() is not None


def listed(session: Session, *, limit: int | None, offset: int) -> tuple[list[Key], int]:
    """A page, newest first, or all without a limit, and how many there are."""
    rows = session.execute(text(f"select {_KEY} from keys {_NEWEST_FIRST}"), {"limit": limit, "offset": offset})
    total = session.execute(text("select count(*) from keys")).scalar_one()
    return [Key.model_validate(dict(row)) for row in rows.mappings()], total


def agents(session: Session, *, limit: int | None, offset: int) -> tuple[list[Agent], int]:
    """The same of those that work, without anything about the key itself."""
    rows = session.execute(
        text(f"select id, label, read_only, created_at from keys where {_ACTIVE} {_NEWEST_FIRST}"),
        {"limit": limit, "offset": offset},
    )
    total = session.execute(text(f"select count(*) from keys where {_ACTIVE}")).scalar_one()
    return [Agent.model_validate(dict(row)) for row in rows.mappings()], total


def find(session: Session, key_id: UUID) -> Key | None:
    row = session.execute(text(f"select {_KEY} from keys where id = :id"), {"id": key_id}).mappings().one_or_none()
    return None if row is None else Key.model_validate(dict(row))


def replace_secret(session: Session, *, old_hash: bytes, new_hash: bytes, prefix: str) -> Key | None:
    """The key with another secret; None when the old one is not, or no longer, a key that works."""
    row = session.execute(
        text(
            f"""
            update keys set hash = :new_hash, prefix = :prefix where hash = :old_hash and {_ACTIVE} returning {_KEY}
            """
        ),
        {"old_hash": old_hash, "new_hash": new_hash, "prefix": prefix},
    )
    found = row.mappings().one_or_none()
    return None if found is None else Key.model_validate(dict(found))


def is_last_writer(session: Session, key_id: UUID) -> bool:
    """Whether this key can write and no other can."""
    writers = session.execute(text(f"select id from keys where not read_only and {_ACTIVE} limit 2")).scalars()
    return list(writers) == [key_id]


def revoke(session: Session, key_id: UUID) -> None:
    session.execute(text("update keys set revoked_at = now() where id = :id"), {"id": key_id})


def note_use(session: Session, key_id: UUID | None, seconds: float) -> None:
    """Notes a use, unless one was noted within `seconds` or the row is being changed: then it is not worth a wait."""
    session.execute(
        text(
            """
            update keys set last_used_at = now() where (tenant_id, id) = (
                select tenant_id, id from keys
                where id = :id and (last_used_at is null or last_used_at < now() - make_interval(secs => :seconds))
                for no key update skip locked
            )
            """
        ),
        {"id": key_id, "seconds": seconds},
    )
