"""The files of a batch while they are worked on: claimed, held, and ended once."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import DropOptions
from memory.schemas import Author
from memory.store.batches import PENDING


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
    path: str | None
    collection_id: UUID | None
    options: DropOptions
    source: str
    author: Author


def unfinished(session: Session, batch_id: UUID, most: int, without: Sequence[UUID] = ()) -> list[tuple[UUID, int]]:
    """Ids and sizes of files that have not ended, in the order of the drop; the batch counts as touched."""
    session.execute(text("update batches set touched_at = now() where id = :batch_id"), {"batch_id": batch_id})
    rows = session.execute(
        text(
            f"""
            select id, size from files
            where batch_id = :batch_id and status in {PENDING} and id <> all (cast(:without as uuid[]))
            order by ordinal, id limit :most
            """
        ),
        {"batch_id": batch_id, "most": most, "without": list(without)},
    )
    return [(row.id, row.size) for row in rows]


def claim(session: Session, file_id: UUID) -> FileToRead | None:
    """Marks a pending file as being processed; None when it has ended or is unknown."""
    row = session.execute(
        text(
            f"""
            update files f set status = 'processing', updated_at = now()
            from batches b
            where f.id = :file_id and f.status in {PENDING} and b.tenant_id = f.tenant_id and b.id = f.batch_id
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
            select f.id, f.filename, f.path, b.collection_id, b.container_tag, b.category, b.importance, b.metadata,
                   b.source, b.created_by, b.created_by_label
            from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.id = any (:file_ids) and f.status in {PENDING}
            order by f.ordinal, f.id
            """
        ),
        {"file_ids": list(file_ids)},
    )
    return [
        FileToStore(
            row.id,
            row.filename,
            row.path,
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
        text(f"select id from files where id = :file_id and status in {PENDING} for update"), {"file_id": file_id}
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
            where id = :file_id and status in {PENDING}
            """
        ),
        {"file_id": file_id, "error": error},
    )
