"""Batches as a whole: how far their files are, what came of each, which are taken up again, cancelled or untouched."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import BatchCounts, BatchFile, DropResult, FileStatus

# A file is one of these until it has ended.
PENDING = "('queued', 'processing')"
CANCELLED = "cancelled"

# The memories of a file; of a duplicate those that the same bytes brought before, for who may know of them.
# `coalesce` is not among what row-level security lets into the condition of an index.
_MEMORIES = """
    from memory_files mf join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
    where mf.tenant_id = f.tenant_id
      and mf.file_id = case when f.duplicate_of is null then f.id else f.duplicate_of end
      and (f.duplicate_of is null or (:shows_duplicates and m.collection_id = b.collection_id))
"""
_MEMORY_IDS = f"array(select m.id {_MEMORIES} order by m.position, m.id) as memory_ids"
# How many pieces the file was cut into; a duplicate has those of the file that came before it.
_CHUNKS = """
    case f.status when 'duplicate'
        then coalesce((select o.chunks from files o where o.tenant_id = f.tenant_id and o.id = f.duplicate_of), 0)
        else f.chunks end as chunks
"""


@dataclass(frozen=True)
class Batch:
    """How far a batch is; `collection_id` is None when its collection is gone, or was never made."""

    collection_id: UUID | None
    counts: BatchCounts


def count_pending(session: Session, batch_id: UUID) -> int:
    counted: int = session.execute(
        text(f"select count(*) from files where batch_id = :batch_id and status in {PENDING}"), {"batch_id": batch_id}
    ).scalar_one()
    return counted


def hold(session: Session, batch_id: UUID) -> None:
    """Locks the batch, so that it is not completed while its files change, until the transaction ends. Files may join
    it meanwhile."""
    session.execute(text("select id from batches where id = :id for no key update"), {"id": batch_id})


def close(session: Session, batch_id: UUID) -> bool:
    """Completes a batch of which nothing is pending; false while something is. An unknown one counts as complete."""
    hold(session, batch_id)
    if count_pending(session, batch_id):
        return False
    session.execute(
        text("update batches set completed_at = now(), touched_at = now() where id = :id and completed_at is null"),
        {"id": batch_id},
    )
    return True


def take_up_again(session: Session, batch_id: UUID) -> int:
    """Queues the files that failed and whose object is still there, and opens the batch; how many there were."""
    queued = session.execute(
        text(
            """
            update files set status = 'queued', error = null, updated_at = now()
            where batch_id = :id and status = 'failed' and key is not null returning id
            """
        ),
        {"id": batch_id},
    )
    count = len(queued.all())
    if count:
        session.execute(
            text(
                """
                update batches set completed_at = null, round = round + 1, touched_at = now()
                where id = :id
                """
            ),
            {"id": batch_id},
        )
    return count


def cancel(session: Session, batch_id: UUID) -> int:
    """Ends the pending files of a held batch; how many there were. One that is just being stored is waited for."""
    ended = 0
    while True:
        found = session.execute(
            text(
                f"""
                update files set status = 'failed', error = :reason, updated_at = now()
                where batch_id = :id and status in {PENDING} returning id
                """
            ),
            {"id": batch_id, "reason": CANCELLED},
        )
        number = len(found.all())
        if not number:
            return ended
        # Those that lie in a file may have joined the batch while it was waited for.
        ended += number


def stalled(session: Session, untouched_since: datetime, most: int) -> list[tuple[UUID, UUID]]:
    """(tenant id, batch id) across all tenants, longest untouched first."""
    rows = session.execute(
        text("select tenant_id, batch_id from stalled_batches(:since, :most)"),
        {"since": untouched_since, "most": most},
    )
    return [(row.tenant_id, row.batch_id) for row in rows]


def completed_before(session: Session, moment: datetime, most: int) -> list[UUID]:
    """The batches that were completed longest ago, locked until the transaction ends."""
    found = session.execute(
        text(
            """
            select id from batches where completed_at < :moment
            order by completed_at limit :most for update skip locked
            """
        ),
        {"moment": moment, "most": most},
    )
    return list(found.scalars())


def forget(session: Session, batch_ids: Sequence[UUID]) -> list[str]:
    """Removes batches with those of their files that no memory carries; the keys of these files' objects."""
    if not batch_ids:
        return []
    gone = session.execute(
        text(
            """
            delete from files f where f.batch_id = any (:ids)
              and not exists (select from memory_files mf where mf.tenant_id = f.tenant_id and mf.file_id = f.id)
            returning f.key
            """
        ),
        {"ids": list(batch_ids)},
    )
    keys = [key for key in gone.scalars() if key is not None]
    session.execute(text("delete from batches where id = any (:ids)"), {"ids": list(batch_ids)})
    return keys


def find(session: Session, batch_id: UUID) -> Batch | None:
    row = session.execute(
        text(
            f"""
            select b.collection_id, b.collection, b.created_at,
                   count(f.id) as total,
                   count(f.id) filter (where f.status in ('done', 'duplicate')) as done,
                   count(f.id) filter (where f.status = 'failed') as failed,
                   count(f.id) filter (where f.status = 'duplicate') as duplicates,
                   count(f.id) filter (where f.status in {PENDING}) as pending
            from batches b left join files f on f.tenant_id = b.tenant_id and f.batch_id = b.id
            where b.id = :batch_id group by b.tenant_id, b.id
            """
        ),
        {"batch_id": batch_id},
    ).one_or_none()
    if row is None:
        return None
    counts = BatchCounts(
        batch_id=batch_id,
        collection=row.collection,
        total=row.total,
        done=row.done,
        failed=row.failed,
        duplicates=row.duplicates,
        pending=row.pending,
        complete=row.pending == 0,
        created_at=row.created_at,
    )
    return Batch(row.collection_id, counts)


def files(
    session: Session, batch_id: UUID, *, shows_duplicates: bool, limit: int, offset: int, status: FileStatus | None
) -> list[BatchFile]:
    """A page of the batch's files in the order of the drop; of duplicates the memories only with `shows_duplicates`."""
    rows = session.execute(
        text(
            f"""
            select f.filename, f.path, f.inherited ->> 'parent' as parent, f.status, {_CHUNKS}, f.note, f.error,
                   {_MEMORY_IDS}
            from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.batch_id = :batch_id and f.status = coalesce(:status, f.status)
            order by f.ordinal, f.depth, f.place, f.id limit :limit offset :offset
            """
        ),
        {
            "batch_id": batch_id,
            "shows_duplicates": shows_duplicates,
            "limit": limit,
            "offset": offset,
            "status": status,
        },
    )
    return [BatchFile.model_validate(dict(row)) for row in rows.mappings()]


def results(session: Session, batch_id: UUID, *, shows_duplicates: bool, preview_characters: int) -> list[DropResult]:
    """What came of each file that has ended."""
    rows = session.execute(
        text(
            f"""
            select f.filename, f.inherited ->> 'parent' as parent,
                   case f.status when 'done' then 'ok' else f.status end as status, {_CHUNKS}, f.note, f.error,
                   {_MEMORY_IDS},
                   (select left(m.text, :characters) {_MEMORIES} order by m.position, m.id limit 1) as preview
            from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.batch_id = :batch_id and f.status not in {PENDING}
            order by f.ordinal, f.depth, f.place, f.id
            """
        ),
        {"batch_id": batch_id, "shows_duplicates": shows_duplicates, "characters": preview_characters},
    )
    return [DropResult.model_validate(dict(row)) for row in rows.mappings()]
