"""Stored files as memories carry them: shared by the chunks of one file, gone with the last memory that has them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session


def known(session: Session, file_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these files have a row."""
    return set(session.execute(text("select id from files where id = any (:ids)"), {"ids": list(file_ids)}).scalars())


def hold_of_memories(session: Session, memory_ids: Sequence[UUID]) -> list[UUID]:
    """Locks the files of these memories, so that of two deletions at once the later one sees that it is the last."""
    carried = session.execute(
        text("select distinct file_id from memory_files where memory_id = any (:memory_ids)"),
        {"memory_ids": list(memory_ids)},
    )
    return _hold(session, carried.scalars().all())


def hold_of_collection(session: Session, collection_id: UUID) -> list[UUID]:
    """The same for all memories of a collection."""
    carried = session.execute(
        text(
            """
            select distinct mf.file_id from memory_files mf
            join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
            where m.collection_id = :collection_id
            """
        ),
        {"collection_id": collection_id},
    )
    return _hold(session, carried.scalars().all())


def _hold(session: Session, file_ids: Sequence[UUID]) -> list[UUID]:
    # Two statements: in one, the planner may go through all files of the tenant to find these few.
    if not file_ids:
        return []
    held = session.execute(
        text("select id from files where id = any (:file_ids) order by id for update"), {"file_ids": list(file_ids)}
    )
    return list(held.scalars())


def release(session: Session, file_ids: Sequence[UUID]) -> list[str]:
    """Keys of the objects that no memory carries any more, to be removed after the commit; the rows forget them."""
    if not file_ids:
        return []
    return list(
        session.execute(
            text(
                """
                with gone as (
                    select f.tenant_id, f.id, f.key from files f
                    where f.id = any (:file_ids) and f.key is not null
                      and (select mf.file_id from memory_files mf where mf.file_id = f.id limit 1) is null
                )
                update files f set key = null, updated_at = now() from gone
                where f.tenant_id = gone.tenant_id and f.id = gone.id
                returning gone.key
                """
            ),
            {"file_ids": list(file_ids)},
        ).scalars()
    )
