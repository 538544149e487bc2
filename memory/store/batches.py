"""Batches as a whole: how far their files are, what came of each, which lie untouched."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import BatchFile, BatchProgress, DropResult

# A file is one of these until it has ended.
PENDING = "('queued', 'processing')"

# The memories of a file in the order of its chunks.
_MEMORY_IDS = """
    array(select m.id from memory_files mf join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
          where mf.tenant_id = f.tenant_id and mf.file_id = f.id order by m.position, m.id) as memory_ids
"""


def count_pending(session: Session, batch_id: UUID) -> int:
    counted: int = session.execute(
        text(f"select count(*) from files where batch_id = :batch_id and status in {PENDING}"), {"batch_id": batch_id}
    ).scalar_one()
    return counted


def close(session: Session, batch_id: UUID) -> bool:
    """Completes a batch of which nothing is pending; false while something is. An unknown one counts as complete."""
    if count_pending(session, batch_id):
        return False
    session.execute(
        text("update batches set completed_at = now(), touched_at = now() where id = :id and completed_at is null"),
        {"id": batch_id},
    )
    return True


def stalled(session: Session, untouched_since: datetime, most: int) -> list[tuple[UUID, UUID]]:
    """(tenant id, batch id) across all tenants, longest untouched first."""
    rows = session.execute(
        text("select tenant_id, batch_id from stalled_batches(:since, :most)"),
        {"since": untouched_since, "most": most},
    )
    return [(row.tenant_id, row.batch_id) for row in rows]


def collection_of(session: Session, batch_id: UUID) -> UUID | None:
    """The collection that a batch fills; None when it is gone, or the batch is unknown."""
    found: UUID | None = session.execute(
        text("select collection_id from batches where id = :id"), {"id": batch_id}
    ).scalar_one_or_none()
    return found


def progress(session: Session, batch_id: UUID) -> BatchProgress | None:
    batch = session.execute(
        text("select collection, created_at from batches where id = :id"), {"id": batch_id}
    ).one_or_none()
    if batch is None:
        return None
    rows = session.execute(
        text(
            f"""
            select f.filename, f.path, f.status, f.chunks, f.note, f.error, {_MEMORY_IDS}
            from files f where f.batch_id = :batch_id order by f.ordinal, f.id
            """
        ),
        {"batch_id": batch_id},
    )
    files = [BatchFile.model_validate(dict(row)) for row in rows.mappings()]
    done = sum(file.status == "done" for file in files)
    failed = sum(file.status == "failed" for file in files)
    waiting = len(files) - done - failed
    return BatchProgress(
        batch_id=batch_id,
        collection=batch.collection,
        total=len(files),
        done=done,
        failed=failed,
        pending=waiting,
        complete=waiting == 0,
        created_at=batch.created_at,
        files=files,
    )


def results(session: Session, batch_id: UUID, *, preview_characters: int) -> list[DropResult] | None:
    """What came of each file that has ended; None for an unknown batch."""
    known = session.execute(text("select id from batches where id = :id"), {"id": batch_id}).one_or_none()
    if known is None:
        return None
    rows = session.execute(
        text(
            f"""
            select f.filename, case f.status when 'done' then 'ok' else 'failed' end as status, f.chunks, f.note,
                   f.error, {_MEMORY_IDS},
                   (select left(m.text, :characters) from memory_files mf
                    join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
                    where mf.tenant_id = f.tenant_id and mf.file_id = f.id
                    order by m.position, m.id limit 1) as preview
            from files f where f.batch_id = :batch_id and f.status in ('done', 'failed')
            order by f.ordinal, f.id
            """
        ),
        {"batch_id": batch_id, "characters": preview_characters},
    )
    values: list[dict[str, Any]] = [dict(row) for row in rows.mappings()]
    return [DropResult.model_validate(value) for value in values]
