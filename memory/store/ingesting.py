"""The files of a batch while they are worked on: claimed, held, and ended once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import DropOptions
from memory.schemas import Author
from memory.store.batches import PENDING


@dataclass(frozen=True)
class FileToRead:
    """What reading a claimed file needs; `collection_id` is None when the collection was deleted, `key` when the
    original is gone with the memory that carried it. `depth` counts the files that it lies in.
    """

    id: UUID
    filename: str
    size: int
    key: str | None
    depth: int
    collection_id: UUID | None
    force: bool
    source: str


@dataclass(frozen=True)
class FileToStore:
    """What the memories of a pending file get from its drop."""

    id: UUID
    filename: str
    path: str | None
    inherited: dict[str, Any]
    collection_id: UUID | None
    options: DropOptions
    source: str
    author: Author
    content: str


@dataclass(frozen=True)
class Unfinished:
    """Ids and sizes of files that have not ended; `round` counts how often those that failed were taken up again."""

    round: int
    files: list[tuple[UUID, int]]


def unfinished(session: Session, batch_id: UUID, most: int, without: Sequence[UUID] = ()) -> Unfinished:
    """In the order of the drop; the batch counts as touched.

    Of files with the same content the first alone, for it decides whether the others are duplicates; unless one of
    them has failed.
    """
    touched = session.execute(
        text("update batches set touched_at = now() where id = :batch_id returning round"), {"batch_id": batch_id}
    ).scalar_one_or_none()
    rows = session.execute(
        text(
            f"""
            select id, size from (
                select f.id, f.size, f.ordinal, f.depth, f.place, f.sha256, b.force,
                       row_number() over (partition by f.sha256 order by f.ordinal, f.depth, f.place, f.id) as copy
                from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
                where f.batch_id = :batch_id and f.status in {PENDING}
            ) as waiting
            where id <> all (cast(:without as uuid[])) and (
                force or copy = 1
                or sha256 in (select sha256 from files where batch_id = :batch_id and status = 'failed')
            )
            order by ordinal, depth, place, id limit :most
            """
        ),
        {"batch_id": batch_id, "most": most, "without": list(without)},
    )
    return Unfinished(touched or 0, [(row.id, row.size) for row in rows])


def claim(session: Session, file_id: UUID) -> FileToRead | None:
    """Marks a pending file as being processed; None when it has ended or is unknown."""
    row = session.execute(
        text(
            f"""
            update files f set status = 'processing', error = null, updated_at = now()
            from batches b
            where f.id = :file_id and f.status in {PENDING} and b.tenant_id = f.tenant_id and b.id = f.batch_id
            returning f.id, f.batch_id, f.filename, f.size, f.key, f.depth, b.collection_id, b.force,
                      b.source
            """
        ),
        {"file_id": file_id},
    ).one_or_none()
    if row is None:
        return None
    # Rarely, and never waited for: the files of one batch are claimed side by side and share this row, and who cancels
    # the batch holds it while waiting for its files.
    session.execute(
        text(
            """
            update batches set touched_at = now() where id = (
                select id from batches where id = :id and touched_at < now() - interval '5 seconds'
                for no key update skip locked
            )
            """
        ),
        {"id": row.batch_id},
    )
    return FileToRead(row.id, row.filename, row.size, row.key, row.depth, row.collection_id, row.force, row.source)


def pending(session: Session, file_ids: Sequence[UUID]) -> list[FileToStore]:
    """Those of the files that have not ended, with what their memories get."""
    rows = session.execute(
        text(
            f"""
            select f.id, f.filename, f.path, f.inherited, b.collection_id, b.container_tag, b.category, b.importance,
                   b.metadata, b.force, b.source, b.created_by, b.created_by_label, encode(f.sha256, 'hex') as content
            from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.id = any (:file_ids) and f.status in {PENDING}
            order by f.ordinal, f.depth, f.place, f.id
            """
        ),
        {"file_ids": list(file_ids)},
    )
    return [
        FileToStore(
            row.id,
            row.filename,
            row.path,
            row.inherited,
            row.collection_id,
            DropOptions(
                container_tag=row.container_tag,
                category=row.category,
                importance=row.importance,
                metadata=row.metadata,
                force=row.force,
            ),
            row.source,
            Author(id=row.created_by, label=row.created_by_label),
            row.content,
        )
        for row in rows
    ]


def hold_pending(session: Session, file_id: UUID) -> bool:
    """Locks the file until the transaction ends; false when it has ended already."""
    held = session.execute(
        text(f"select id from files where id = :file_id and status in {PENDING} for update"), {"file_id": file_id}
    )
    return held.one_or_none() is not None


def is_wanted(session: Session, file_id: UUID) -> bool:
    """Whether work on the file still leads anywhere."""
    found = session.execute(
        text(
            f"""
            select f.id from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where f.id = :file_id and f.status in {PENDING} and b.collection_id is not null
            """
        ),
        {"file_id": file_id},
    )
    return found.one_or_none() is not None


def hold_content(session: Session, file: FileToStore) -> None:
    """Keeps every other file with this content, collection and tag waiting until the transaction ends."""
    content = f"content {file.collection_id} {file.content} {file.options.container_tag or ''}"
    session.execute(text("select pg_advisory_xact_lock(hashtextextended(:content, 0))"), {"content": content})


def end_as_duplicate(session: Session, file_id: UUID, twin: UUID) -> list[str]:
    """Ends a pending file, whose content another one brought; the key of its object, to be removed after the commit."""
    rows = session.execute(
        text(
            f"""
            update files f set status = 'duplicate', duplicate_of = :twin, key = null, error = null, updated_at = now()
            from files was
            where f.id = :file_id and f.status in {PENDING} and was.tenant_id = f.tenant_id and was.id = f.id
            returning was.key
            """
        ),
        {"file_id": file_id, "twin": twin},
    )
    return [key for key in rows.scalars() if key is not None]


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
