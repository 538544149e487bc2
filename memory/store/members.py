"""Files that lie in other files: rows of the same batch, beside the file they came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlmodel import Session


@dataclass(frozen=True)
class NewMember:
    """A file about to get its row: queued with the key of its object, or failed with its reason."""

    id: UUID
    place: int
    filename: str
    path: str | None
    content_type: str
    size: int
    sha256: bytes
    key: str | None
    error: str | None


def known(session: Session, parent_id: UUID) -> set[UUID]:
    """The members that have their rows already."""
    rows = session.execute(
        text(
            """
            select m.id from files p join files m on m.batch_id = p.batch_id and m.ordinal = p.ordinal
            where p.id = :parent_id and m.parent_id = p.id
            """
        ),
        {"parent_id": parent_id},
    )
    return set(rows.scalars())


def family(session: Session, file_id: UUID) -> tuple[int, int]:
    """How many files lie in the dropped file that this one came with, at any depth, and their bytes together."""
    row = session.execute(
        text(
            """
            select count(*) as files, coalesce(sum(m.size) filter (where m.key is not null), 0) as size
            from files f join files m on m.batch_id = f.batch_id and m.ordinal = f.ordinal and m.depth > 0
            where f.id = :file_id
            """
        ),
        {"file_id": file_id},
    ).one()
    return int(row.files), int(row.size)


def insert(
    session: Session, tenant_id: UUID, parent_id: UUID, members: Sequence[NewMember], metadata: dict[str, Any]
) -> None:
    """Beside their parent in its batch; those that are there already stay as they are. What the parent inherited goes
    on to them, with `metadata` over it.
    """
    session.connection().exec_driver_sql(
        """
        insert into files (tenant_id, id, batch_id, ordinal, parent_id, depth, place, inherited, filename, path,
                           content_type, size, sha256, key, status, error)
        select %s, %s, p.batch_id, p.ordinal, p.id, p.depth + 1, %s, p.inherited || %s, %s, %s, %s, %s, %s, %s, %s, %s
        from files p where p.id = %s
        on conflict do nothing
        """,
        [
            (
                tenant_id,
                member.id,
                member.place,
                Jsonb(metadata),
                member.filename,
                member.path,
                member.content_type,
                member.size,
                member.sha256,
                member.key,
                "queued" if member.error is None else "failed",
                member.error,
                parent_id,
            )
            for member in members
        ],
    )
