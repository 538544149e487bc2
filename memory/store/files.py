"""Stored files as memories carry them: shared by the chunks of one file, gone with the last memory that has them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.store.batches import PENDING


def known(session: Session, file_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these files have a row."""
    return set(session.execute(text("select id from files where id = any (:ids)"), {"ids": list(file_ids)}).scalars())


def with_keys(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of the keys that a file has."""
    return set(session.execute(text("select key from files where key = any (:keys)"), {"keys": list(keys)}).scalars())


def pending(session: Session, file_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the files that have not ended."""
    found = session.execute(
        text(f"select id from files where id = any (:ids) and status in {PENDING}"), {"ids": list(file_ids)}
    )
    return set(found.scalars())


def hold_uploads(session: Session, tenant_id: UUID) -> None:
    """Keeps other completions of the tenant's uploads waiting until the transaction ends."""
    session.execute(
        text("select pg_advisory_xact_lock(hashtextextended('uploads ' || :tenant_id, 0))"),
        {"tenant_id": str(tenant_id)},
    )


def count_carried(session: Session, memory_id: UUID) -> int:
    """How many files a held memory has now; the row that was read when it was locked may tell of fewer."""
    count: int = session.execute(
        text("select count(*) from memory_files where memory_id = :memory_id"), {"memory_id": memory_id}
    ).scalar_one()
    return count


def carry(session: Session, tenant_id: UUID, memory_id: UUID, file_ids: Sequence[UUID]) -> None:
    """Lets a held memory carry more files, behind those that it has."""
    session.execute(
        text(
            """
            insert into memory_files (tenant_id, memory_id, file_id, position)
            select :tenant_id, :memory_id, file_id,
                   number + (select coalesce(max(position), -1) from memory_files where memory_id = :memory_id)
            from unnest(cast(:file_ids as uuid[])) with ordinality as given (file_id, number)
            """
        ),
        {"tenant_id": tenant_id, "memory_id": memory_id, "file_ids": list(file_ids)},
    )


def take_off(session: Session, memory_id: UUID, index: int) -> list[UUID]:
    """Lets a held memory carry one file less, the one at this place, which is held; nothing when there is none."""
    found = session.execute(
        text(
            """
            select file_id from memory_files where memory_id = :memory_id order by position limit 1 offset :index
            """
        ),
        {"memory_id": memory_id, "index": index},
    )
    held = _hold(session, found.scalars().all())
    session.execute(
        text("delete from memory_files where memory_id = :memory_id and file_id = any (:file_ids)"),
        {"memory_id": memory_id, "file_ids": held},
    )
    return held


def carrier(session: Session, file_id: UUID) -> UUID | None:
    """The memory that carries an uploaded file, held; None when there is none any more."""
    found = session.execute(
        text(
            """
            select m.id from memories m
            where m.id = (select mf.memory_id from memory_files mf where mf.file_id = :file_id limit 1) for update
            """
        ),
        {"file_id": file_id},
    )
    held: UUID | None = found.scalar_one_or_none()
    return held


def hold_of_memories(session: Session, memory_ids: Sequence[UUID]) -> list[UUID]:
    """Locks these memories, so that they carry no more files meanwhile, and then their files, so that of two deletions
    at once the later one sees that it is the last."""
    session.execute(
        text("select id from memories where id = any (:ids) order by id for update"), {"ids": list(memory_ids)}
    )
    carried = session.execute(
        text("select distinct file_id from memory_files where memory_id = any (:memory_ids)"),
        {"memory_ids": list(memory_ids)},
    )
    return _hold(session, carried.scalars().all())


def hold_of_collection(session: Session, collection_id: UUID) -> list[UUID]:
    """The same for all memories of a collection, and for what failed to become any."""
    carried = session.execute(
        text(
            """
            select mf.file_id from memory_files mf
            join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
            where m.collection_id = :collection_id
            union
            select f.id from files f join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            where b.collection_id = :collection_id and f.status = 'failed' and f.key is not null
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
    """Keys of the objects that no memory carries any more, to be removed after the commit; the rows forget them, and
    where no batch tells of them they go."""
    if not file_ids:
        return []
    keys = list(
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
    session.execute(
        text("delete from files where id = any (:file_ids) and key is null and batch_id is null"),
        {"file_ids": list(file_ids)},
    )
    return keys
