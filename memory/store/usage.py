"""What a tenant has: counted anew each time, so that it is never wrong."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.account_schemas import Usage

_UNEXPIRED = "(expires_at is null or expires_at > now())"


def hold(session: Session, tenant_id: UUID) -> None:
    """Keeps every other transaction that asks for the same waiting until this one ends."""
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended('usage ' || :tenant_id, 0))"),
        {"tenant_id": str(tenant_id)},
    )


def collections(session: Session) -> int:
    return _counted(session, "select count(*) from collections")


def memories(session: Session) -> int:
    return _counted(session, f"select count(*) from memories where {_UNEXPIRED}")


def storage_bytes(session: Session) -> int:
    """Of the files whose object is still there."""
    return _counted(session, "select coalesce(sum(size), 0)::bigint from files where key is not null")


def of_tenant(session: Session) -> Usage:
    counted = session.execute(
        text(
            f"""
            select count(*) as memories,
                   count(*) filter (where created_at > now() - interval '7 days') as added_7d,
                   count(*) filter (where created_at > now() - interval '30 days') as added_30d
            from memories where {_UNEXPIRED}
            """
        )
    ).one()
    return Usage(collections=collections(session), storage_bytes=storage_bytes(session), **counted._mapping)


def _counted(session: Session, statement: str) -> int:
    found: int = session.execute(text(statement)).scalar_one()
    return found
