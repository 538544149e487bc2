"""Dropped files and their batch, written as one."""

from collections.abc import Sequence
from dataclasses import dataclass
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
) -> None:
    """The batch with its queued files; without files it is complete from the start."""
    connection = session.connection()
    connection.exec_driver_sql(
        """
        insert into batches (tenant_id, id, collection_id, collection, container_tag, category, importance, source,
                             metadata, force, created_by, created_by_label, completed_at)
        values (%(tenant)s, %(id)s, %(collection_id)s, %(collection)s, %(container_tag)s, %(category)s, %(importance)s,
                'drop', %(metadata)s, %(force)s, %(author)s, %(label)s, case when %(empty)s then now() end)
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
            insert into files (tenant_id, id, batch_id, ordinal, filename, path, content_type, size, sha256, key,
                               status)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'queued')
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
                )
                for ordinal, file in enumerate(files)
            ],
        )
