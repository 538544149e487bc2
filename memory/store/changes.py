"""What every change leaves behind, in its own transaction: a raised version of its collections, and an audit entry."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlmodel import Session

from memory.account_schemas import AuditEntry
from memory.schemas import Author, Caller
from memory.store import requests

# As many writers of one collection can commit at once without waiting for each other's version.
_SHARDS = 16


def record(session: Session, caller: Caller, action: str, resource: str, collection_ids: Sequence[UUID] = ()) -> None:
    """Call it last in the transaction: from here to the commit other writers may wait.

    `action` is a word such as `memory.create`; `resource` names what was changed and never quotes it. A request that
    may be repeated is marked here at the latest, so that no change can be made twice. Raises Repeated.
    """
    requests.mark(session, caller)
    requests.describe(session, caller, resource)
    session.execute(
        text(
            """
            insert into audit (tenant_id, id, actor_id, actor_label, action, resource, ip_hash)
            values (:tenant_id, :id, :actor_id, :label, :action, :resource, :ip_hash)
            """
        ),
        {
            "tenant_id": caller.tenant_id,
            "id": uuid4(),
            "actor_id": caller.key_id,
            "label": caller.label,
            "action": action,
            "resource": resource,
            "ip_hash": caller.ip_hash,
        },
    )
    raise_versions(session, caller.tenant_id, collection_ids)


def entries(session: Session, *, days: int, limit: int) -> tuple[list[AuditEntry], int]:
    """The audit log of so many days, newest first, and how many entries that is."""
    since = "created_at > now() - make_interval(days => :days)"
    rows = session.execute(
        text(
            f"""
            select id, created_at, actor_id, actor_label, action, resource, ip_hash from audit
            where {since} order by created_at desc, id desc limit :limit
            """
        ),
        {"days": days, "limit": limit},
    )
    total: int = session.execute(text(f"select count(*) from audit where {since}"), {"days": days}).scalar_one()
    return [
        AuditEntry(
            id=row.id,
            created_at=row.created_at,
            actor=Author(id=row.actor_id, label=row.actor_label),
            action=row.action,
            resource=row.resource,
            ip_hash=row.ip_hash,
        )
        for row in rows
    ], total


def raise_versions(session: Session, tenant_id: UUID, collection_ids: Sequence[UUID]) -> None:
    """Says that answers about these collections may have changed."""
    if collection_ids:
        session.execute(
            text(
                f"""
                insert into collection_versions (tenant_id, collection_id, shard, version)
                select :tenant_id, id, pg_backend_pid() % {_SHARDS}, 1
                from unnest(cast(:ids as uuid[])) as given (id) order by id
                on conflict (tenant_id, collection_id, shard) do update set version = collection_versions.version + 1
                """
            ),
            {"tenant_id": tenant_id, "ids": sorted(set(collection_ids))},
        )


def versions(session: Session, collection_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The versions of these collections as this transaction sees them; 0 where nothing was ever written."""
    rows = session.execute(
        text(
            """
            select collection_id, sum(version)::bigint as version from collection_versions
            where collection_id = any (:ids) group by collection_id
            """
        ),
        {"ids": list(collection_ids)},
    )
    found = {row.collection_id: row.version for row in rows}
    return {collection_id: found.get(collection_id, 0) for collection_id in collection_ids}
