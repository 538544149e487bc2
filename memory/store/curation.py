"""Curation: the memories that it looks at, what it archives, and the policies that start it by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import text
from sqlmodel import Session

from memory.ports import Vectors
from memory.store.collections import CURRENT
from memory.store.curation_runs import IDS_SHOWN

_STALE = f"m.collection_id = :collection_id and {CURRENT} and not m.pinned and m.updated_at <= :stale_before"


@dataclass(frozen=True)
class Candidate:
    """What decides whether a memory is kept: its rank among its like, and its vector, shape (d,)."""

    id: UUID
    container_tag: str | None
    pinned: bool
    importance: float
    created_at: datetime
    vector: Vectors


@dataclass(frozen=True)
class Policy:
    """What is done to a collection by itself; None is off."""

    dedup_threshold: float | None = None
    stale_days: int | None = None
    interval_hours: int | None = None
    next_run_at: datetime | None = None


def newest(session: Session, collection_id: UUID, model_id: int, most: int) -> list[Candidate]:
    """The newest current memories. Pinned and others apart, so that the index gives each in order."""
    part = """
        (select m.tenant_id, m.id, m.container_tag, m.pinned, m.importance, m.created_at from memories m
         where m.collection_id = :collection_id and {current} and {pinned}
         order by m.created_at desc, m.id desc limit :most)
    """
    parts = " union all ".join(part.format(current=CURRENT, pinned=pinned) for pinned in ("m.pinned", "not m.pinned"))
    rows = session.execute(
        text(
            f"""
            select m.id, m.container_tag, m.pinned, m.importance, m.created_at, v.embedding
            from (select * from ({parts}) as both_kinds order by created_at desc, id desc limit :most) as m
            join memory_vectors v on v.tenant_id = m.tenant_id and v.memory_id = m.id and v.model_id = :model_id
            """
        ),
        {"collection_id": collection_id, "model_id": model_id, "most": most},
    )
    return [_candidate(row) for row in rows]


def hold(session: Session, collection_id: UUID, model_id: int, memory_ids: Sequence[UUID]) -> list[Candidate]:
    """Those of the memories that are still current in the collection, locked until the transaction ends."""
    values = {"collection_id": collection_id, "model_id": model_id, "ids": list(memory_ids)}
    # Two steps: a lock that had to be waited for shows the memory as it is now, but what is joined as it was before.
    session.execute(text("select id from memories where id = any (:ids) order by id for update"), values)
    rows = session.execute(
        text(
            f"""
            select m.id, m.container_tag, m.pinned, m.importance, m.created_at, v.embedding
            from memories m
            join memory_vectors v on v.tenant_id = m.tenant_id and v.memory_id = m.id and v.model_id = :model_id
            where m.id = any (:ids) and m.collection_id = :collection_id and {CURRENT}
            """
        ),
        values,
    )
    return [_candidate(row) for row in rows]


def stale(session: Session, collection_id: UUID, stale_before: datetime) -> tuple[int, list[UUID]]:
    """How many memories were not changed since, and the ids of the stalest."""
    values = {"collection_id": collection_id, "stale_before": stale_before, "most": IDS_SHOWN}
    counted: int = session.execute(text(f"select count(*) from memories m where {_STALE}"), values).scalar_one()
    ids = session.execute(
        text(f"select m.id from memories m where {_STALE} order by m.updated_at, m.id limit :most"), values
    )
    return counted, list(ids.scalars())


def archive_stale(
    session: Session, tenant_id: UUID, run_id: UUID, collection_id: UUID, stale_before: datetime, most: int
) -> tuple[int, int]:
    """Archives the stalest memories on behalf of a run: how many were looked at, and how many archived.

    Whoever changes one of them first wins: it is looked at again once it can be locked.
    """
    row = session.execute(
        text(
            f"""
            with picked as materialized (
                select m.id from memories m where {_STALE} order by m.updated_at, m.id limit :most
            ), held as materialized (
                select m.id from memories m
                where m.id in (select id from picked) and {_STALE} order by m.id for update
            ), archived as (
                update memories m set archived = true, version = version + 1 from held
                where m.tenant_id = :tenant_id and m.id = held.id returning m.id
            ), noted as (
                insert into curation_items (tenant_id, run_id, memory_id, state)
                select :tenant_id, :run_id, id, 'done' from archived on conflict do nothing
            )
            select (select count(*) from picked) as picked, (select count(*) from archived) as archived
            """
        ),
        {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "collection_id": collection_id,
            "stale_before": stale_before,
            "most": most,
        },
    ).one()
    return row.picked, row.archived


def _candidate(row: Any) -> Candidate:
    vector: Vectors = np.asarray(row.embedding.to_numpy(), dtype=np.float32)
    return Candidate(row.id, row.container_tag, row.pinned, row.importance, row.created_at, vector)


def find_policy(session: Session, collection_id: UUID, *, for_update: bool = False) -> Policy:
    """A collection without one has everything off."""
    row = session.execute(
        text(
            f"""
            select dedup_threshold, stale_days, interval_hours, next_run_at from curation_policies
            where collection_id = :collection_id {"for update" if for_update else ""}
            """
        ),
        {"collection_id": collection_id},
    ).one_or_none()
    return Policy() if row is None else Policy(*row)


def put_policy(session: Session, tenant_id: UUID, collection_id: UUID, policy: Policy) -> None:
    session.execute(
        text(
            """
            insert into curation_policies
                (tenant_id, collection_id, dedup_threshold, stale_days, interval_hours, next_run_at)
            values (:tenant_id, :collection_id, :dedup_threshold, :stale_days, :interval_hours, :next_run_at)
            on conflict (tenant_id, collection_id) do update
            set dedup_threshold = excluded.dedup_threshold, stale_days = excluded.stale_days,
                interval_hours = excluded.interval_hours, next_run_at = excluded.next_run_at
            """
        ),
        {"tenant_id": tenant_id, "collection_id": collection_id, **vars(policy)},
    )


def due(session: Session, at: datetime, most: int) -> list[tuple[UUID, UUID]]:
    """(tenant id, collection id) of the policies that are due, across all tenants, longest overdue first."""
    rows = session.execute(
        text("select tenant_id, collection_id from due_curation(:at, :most)"), {"at": at, "most": most}
    )
    return [(row.tenant_id, row.collection_id) for row in rows]
