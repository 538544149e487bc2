"""Batches and their files: what was dropped, how far each file is, what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import BatchFile, BatchProgress, DropOptions, DropResult
from memory.schemas import Author

_PENDING = "('queued', 'processing')"

# The memories of a file in the order of its chunks.
_MEMORY_IDS = """
    array(select m.id from memory_files mf join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
          where mf.tenant_id = f.tenant_id and mf.file_id = f.id order by m.position, m.id) as memory_ids
"""


@dataclass(frozen=True)
class StoredFile:
    """A file whose object lies in the store and whose row is about to be written."""

    id: UUID
    filename: str
    content_type: str
    size: int
    sha256: bytes
    key: str


@dataclass(frozen=True)
class FileToRead:
    """What reading a claimed file needs; `collection_id` is None when the collection was deleted."""

    filename: str
    size: int
    key: str
    collection_id: UUID | None


@dataclass(frozen=True)
class FileToStore:
    """What the memories of a pending file get from its drop."""

    id: UUID
    filename: str
    collection_id: UUID | None
    options: DropOptions
    source: str
    author: Author


def insert_batch(
    session: Session,
    tenant_id: UUID,
    batch_id: UUID,
    *,
    collection_id: UUID | None,
    collection: str,
    options: DropOptions,
    author: Author,
    files: Sequence[StoredFile],
) -> None:
    """The batch with its queued files; without files it is complete from the start."""
    connection = session.connection()
    connection.exec_driver_sql(
        """
        insert into batches (tenant_id, id, collection_id, collection, container_tag, category, importance, source,
                             metadata, created_by, created_by_label, completed_at)
        values (%(tenant)s, %(id)s, %(collection_id)s, %(collection)s, %(container_tag)s, %(category)s, %(importance)s,
                'drop', %(metadata)s, %(author)s, %(label)s, case when %(empty)s then now() end)
        """,
        {
            "tenant": tenant_id,
            "id": batch_id,
            "collection_id": collection_id,
            "collection": collection,
            **options.model_dump(exclude={"metadata"}),
            "metadata": Jsonb(options.metadata),
            "author": author.id,
            "label": author.label,
            "empty": not files,
        },
    )
    if files:
        connection.exec_driver_sql(
            """
            insert into files (tenant_id, id, batch_id, ordinal, filename, content_type, size, sha256, key, status)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'queued')
            """,
            [
                (
                    tenant_id,
                    file.id,
                    batch_id,
                    ordinal,
                    file.filename,
                    file.content_type,
                    file.size,
                    file.sha256,
                    file.key,
                )
                for ordinal, file in enumerate(files)
            ],
        )


def unfinished(session: Session, batch_id: UUID, most: int) -> list[tuple[UUID, int]]:
    """Ids and sizes of files that have not ended, in the order of the drop; the batch counts as touched."""
    session.execute(text("update batches set touched_at = now() where id = :batch_id"), {"batch_id": batch_id})
    rows = session.execute(
        text(
            f"""
            select id, size from files where batch_id = :batch_id and status in {_PENDING}
            order by ordinal, id limit :most
            """
        ),
        {"batch_id": batch_id, "most": most},
    )
    return [(row.id, row.size) for row in rows]


def count_pending(session: Session, batch_id: UUID) -> int:
    counted: int = session.execute(
        text(f"select count(*) from files where batch_id = :batch_id and status in {_PENDING}"), {"batch_id": batch_id}
    ).scalar_one()
    return counted


def claim(session: Session, file_id: UUID) -> FileToRead | None:
    """Marks a pending file as being processed; None when it has ended or is unknown."""
    row = session.execute(
        text(
            f"""
            update files f set status = 'processing', updated_at = now()
            from batches b
            where f.id = :file_id and f.status in {_PENDING} and b.tenant_id = f.tenant_id and b.id = f.batch_id
            returning f.batch_id, f.filename, f.size, f.key, b.collection_id
            """
        ),
        {"file_id": file_id},
    ).one_or_none()
    if row is None:
        return None
    # Last, and rarely: the files of one batch are claimed side by side and share this row.
    session.execute(
        text("update batches set touched_at = now() where id = :id and touched_at < now() - interval '5 seconds'"),
        {"id": row.batch_id},
    )
    return FileToRead(row.filename, row.size, row.key, row.collection_id)


def pending(session: Session, file_ids: Sequence[UUID]) -> list[FileToStore]:
    """Those of the files that have not ended, with what their memories get."""
    rows = session.execute(
        text(
            f"""
            select f.id, f.filename, b.collection_id, b.container_tag, b.category, b.importance, b.metadata, b.source,
                   b.created_by, b.created_by_label
            from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.id = any (:file_ids) and f.status in {_PENDING}
            order by f.ordinal, f.id
            """
        ),
        {"file_ids": list(file_ids)},
    )
    return [
        FileToStore(
            row.id,
            row.filename,
            row.collection_id,
            DropOptions(
                container_tag=row.container_tag,
                category=row.category,
                importance=row.importance,
                metadata=row.metadata,
            ),
            row.source,
            Author(id=row.created_by, label=row.created_by_label),
        )
        for row in rows
    ]


def hold_pending(session: Session, file_id: UUID) -> bool:
    """Locks the file until the transaction ends; false when it has ended already."""
    held = session.execute(
        text(f"select id from files where id = :file_id and status in {_PENDING} for update"), {"file_id": file_id}
    )
    return held.one_or_none() is not None


def finish(session: Session, file_id: UUID, *, chunks: int, content_type: str, note: str | None) -> None:
    session.execute(
        text(
            """
            update files set status = 'done', chunks = :chunks, content_type = :content_type, note = :note,
                             error = null, updated_at = now()
            where id = :file_id
            """
        ),
        {"file_id": file_id, "chunks": chunks, "content_type": content_type, "note": note},
    )


def fail(session: Session, file_id: UUID, error: str) -> None:
    """Ends a pending file with its reason; one that has ended keeps what it has."""
    session.execute(
        text(
            f"""
            update files set status = 'failed', error = :error, updated_at = now()
            where id = :file_id and status in {_PENDING}
            """
        ),
        {"file_id": file_id, "error": error},
    )


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
            select f.filename, f.status, f.chunks, f.note, f.error, {_MEMORY_IDS}
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
