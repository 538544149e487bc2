"""Runs of curation: rows that are written before any work begins, with what each plans and what it changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.curation_schemas import CurationOutcome, CurationRun, RunKind
from memory.schemas import Caller

IDS_SHOWN = 10_000
_UNENDED = "r.ended_at is null"
_RUN = """
    select r.id as run_id, r.kind, r.collection, r.state, r.scheduled, r.threshold, r.older_than_days, r.scanned,
           r.error, r.created_at, r.ended_at, r.collection_id,
           case when r.kind = 'dedup' then changed.count else 0 end as deleted,
           case when r.kind = 'archive_stale' then changed.count else 0 end as archived
    from curation_runs r,
         lateral (select count(*) as count from curation_items i
                  where i.tenant_id = r.tenant_id and i.run_id = r.id and i.state = 'done') as changed
"""


@dataclass(frozen=True)
class NewRun:
    """A run about to be opened; `planned` are (memory id, keeper id, similarity) of a dedup."""

    id: UUID
    kind: RunKind
    collection_id: UUID
    collection: str
    scheduled: bool
    nothing_to_do: bool
    scanned: int = 0
    threshold: float | None = None
    older_than_days: int | None = None
    stale_before: datetime | None = None
    planned: Sequence[tuple[UUID, UUID, float]] = ()


@dataclass(frozen=True)
class OpenRun:
    """A run that has not ended, as its steps see it; `collection_id` None: the collection is gone."""

    id: UUID
    collection_id: UUID | None
    threshold: float
    stale_before: datetime
    asked_by: Caller


def insert(session: Session, asked_by: Caller, run: NewRun) -> None:
    """The run with what it plans; with nothing to do it has ended. Runs that ended a week ago go."""
    values = {
        "tenant_id": asked_by.tenant_id,
        **{name: getattr(run, name) for name in ("id", "kind", "collection_id", "collection", "scheduled", "scanned")},
        **{name: getattr(run, name) for name in ("threshold", "older_than_days", "stale_before", "nothing_to_do")},
        "created_by": asked_by.key_id,
        "label": asked_by.label,
        "ip_hash": asked_by.ip_hash,
    }
    session.execute(
        text("delete from curation_runs where collection_id = :collection_id and ended_at < now() - interval '7 days'"),
        values,
    )
    session.execute(
        text(
            """
            insert into curation_runs (tenant_id, id, kind, state, collection_id, collection, threshold,
                older_than_days, stale_before, scanned, scheduled, created_by, created_by_label, ip_hash, ended_at)
            values (:tenant_id, :id, :kind, case when :nothing_to_do then 'done' else 'queued' end, :collection_id,
                :collection, :threshold, :older_than_days, :stale_before, :scanned, :scheduled, :created_by, :label,
                :ip_hash, case when :nothing_to_do then now() end)
            """
        ),
        values,
    )
    if run.planned:
        session.connection().exec_driver_sql(
            "insert into curation_items (tenant_id, run_id, memory_id, keeper_id, similarity, state) "
            "values (%s, %s, %s, %s, %s, 'pending')",
            [(asked_by.tenant_id, run.id, *planned) for planned in run.planned],
        )


def claim(session: Session, run_id: UUID) -> OpenRun | None:
    """Marks a run as being worked on; None when it has ended or is unknown."""
    row = session.execute(
        text(
            f"""
            update curation_runs r set state = 'running', touched_at = now() where r.id = :run_id and {_UNENDED}
            returning r.tenant_id, r.id, r.collection_id, r.threshold, r.stale_before, r.created_by,
                      r.created_by_label, r.ip_hash
            """
        ),
        {"run_id": run_id},
    ).one_or_none()
    if row is None:
        return None
    asked_by = Caller(row.tenant_id, row.created_by, row.created_by_label, ip_hash=row.ip_hash)
    return OpenRun(row.id, row.collection_id, row.threshold, row.stale_before, asked_by)


def pending_keepers(session: Session, run_id: UUID, most: int) -> list[UUID]:
    """Keepers of the clusters that a dedup has not settled."""
    rows = session.execute(
        text(
            """
            select distinct keeper_id from curation_items where run_id = :run_id and state = 'pending'
            order by keeper_id limit :most
            """
        ),
        {"run_id": run_id, "most": most},
    )
    return list(rows.scalars())


def hold_pending(session: Session, run_id: UUID, keeper_id: UUID) -> list[UUID]:
    """The planned duplicates of a keeper, unless they are settled; locked, so that two workers settle them once."""
    rows = session.execute(
        text(
            """
            select memory_id from curation_items where run_id = :run_id and keeper_id = :keeper_id
            and state = 'pending' order by memory_id for update
            """
        ),
        {"run_id": run_id, "keeper_id": keeper_id},
    )
    return list(rows.scalars())


def settle(session: Session, run_id: UUID, planned: Sequence[UUID], deleted: Sequence[UUID]) -> None:
    """Says which of the planned duplicates were deleted; the others were left."""
    session.execute(
        text(
            """
            update curation_items set state = case when memory_id = any (:deleted) then 'done' else 'skipped' end
            where run_id = :run_id and memory_id = any (:planned)
            """
        ),
        {"run_id": run_id, "planned": list(planned), "deleted": list(deleted)},
    )


def close(session: Session, run_id: UUID) -> bool:
    """Ends a run of which nothing is pending; false while something is."""
    left = session.execute(
        text("select exists (select from curation_items where run_id = :run_id and state = 'pending')"),
        {"run_id": run_id},
    ).scalar_one()
    if not left:
        _end(session, run_id, "done", None)
    return not left


def fail(session: Session, run_id: UUID, error: str) -> None:
    """Ends a run with its reason; what it did so far stays done. One that has ended stays as it is."""
    _end(session, run_id, "failed", error)


def _end(session: Session, run_id: UUID, state: str, error: str | None) -> None:
    session.execute(
        text(
            f"""
            update curation_runs r set state = :state, error = :error, touched_at = now(), ended_at = now()
            where r.id = :run_id and {_UNENDED}
            """
        ),
        {"run_id": run_id, "state": state, "error": error},
    )


def has_ended(session: Session, run_id: UUID) -> bool:
    """The cheap question for those who wait; an unknown run has ended."""
    found = session.execute(text(f"select r.id from curation_runs r where r.id = :id and {_UNENDED}"), {"id": run_id})
    return found.one_or_none() is None


def collection_of(session: Session, run_id: UUID) -> UUID | None:
    """The collection of a run; None when it is gone, or the run is unknown."""
    found: UUID | None = session.execute(
        text("select collection_id from curation_runs where id = :id"), {"id": run_id}
    ).scalar_one_or_none()
    return found


def find(session: Session, run_id: UUID) -> CurationOutcome | None:
    row = session.execute(text(f"{_RUN} where r.id = :id"), {"id": run_id}).mappings().one_or_none()
    if row is None:
        return None
    ids = session.execute(
        text(
            """
            select memory_id from curation_items where run_id = :id and state = 'done'
            order by memory_id limit :most
            """
        ),
        {"id": run_id, "most": IDS_SHOWN},
    )
    return CurationOutcome.model_validate({**row, "ids": list(ids.scalars())})


def last_scheduled(session: Session, collection_id: UUID) -> dict[RunKind, CurationRun]:
    """The last run of each kind that a policy has started."""
    rows = session.execute(
        text(
            f"""
            {_RUN} where r.id in (
                select distinct on (kind) id from curation_runs
                where collection_id = :collection_id and scheduled order by kind, created_at desc, id
            )
            """
        ),
        {"collection_id": collection_id},
    )
    runs = [CurationRun.model_validate(dict(row)) for row in rows.mappings()]
    return {run.kind: run for run in runs}


def stalled(session: Session, untouched_since: datetime, most: int) -> list[tuple[UUID, UUID, RunKind]]:
    """(tenant id, run id, kind) across all tenants, longest untouched first."""
    rows = session.execute(
        text("select tenant_id, run_id, kind from stalled_curation(:since, :most)"),
        {"since": untouched_since, "most": most},
    )
    return [(row.tenant_id, row.run_id, row.kind) for row in rows]
