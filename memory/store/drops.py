"""Dropped files and their batch, written as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlmodel import Session

from memory.drop_schemas import DropOptions
from memory.schemas import Author


@dataclass(frozen=True)
class StoredFile:
    """A file whose object lies in the store and whose row is about to be written."""

    id: UUID
    filename: str
    path: str | None
    content_type: str
    size: int
    sha256: bytes
    key: str


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
    source: str = "drop",
) -> None:
    """The batch with its queued files; without files it is complete from the start."""
    session.connection().exec_driver_sql(
        """
        insert into batches (tenant_id, id, collection_id, collection, container_tag, category, importance, source,
                             metadata, force, created_by, created_by_label, completed_at)
        values (%(tenant)s, %(id)s, %(collection_id)s, %(collection)s, %(container_tag)s, %(category)s, %(importance)s,
                %(source)s, %(metadata)s, %(force)s, %(author)s, %(label)s, case when %(empty)s then now() end)
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
            "source": source,
            "empty": not files,
        },
    )
    insert_files(session, tenant_id, files, batch_id=batch_id, status="queued")


def insert_files(
    session: Session,
    tenant_id: UUID,
    files: Sequence[StoredFile],
    *,
    batch_id: UUID | None,
    status: Literal["queued", "done"],
) -> None:
    """Their rows, in their order; those of no batch are only carried by memories."""
    if files:
        session.connection().exec_driver_sql(
            """
            insert into files (tenant_id, id, batch_id, ordinal, filename, path, content_type, size, sha256, key,
                               status)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    tenant_id,
                    file.id,
                    batch_id,
                    ordinal,
                    file.filename,
                    file.path,
                    file.content_type,
                    file.size,
                    file.sha256,
                    file.key,
                    status,
                )
                for ordinal, file in enumerate(files)
            ],
        )
