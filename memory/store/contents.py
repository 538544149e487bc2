"""Which contents a collection has files of, by their hashes."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import ContentsAsked, MissingContents, PendingContent
from memory.store.batches import PENDING
from memory.store.collections import CURRENT


def _remembered(file: str, collection_id: str, tag: str) -> str:
    """That of what was made of a file at least one memory is shown in the collection under the tag."""
    return f"""
        {file}.status = 'done' and {file}.chunks > 0 and exists (
            select from memory_files mf join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
            where mf.tenant_id = {file}.tenant_id and mf.file_id = {file}.id
              and m.collection_id = {collection_id} and m.container_tag is not distinct from {tag} and {CURRENT}
        )
    """


def stored_twin(session: Session, file_id: UUID) -> UUID | None:
    """A file with the same content, of which memories are shown in the same collection under the same tag."""
    found: UUID | None = session.execute(
        text(
            f"""
            select twin.id
            from files f
            join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
            join files twin on twin.sha256 = f.sha256 and twin.id <> f.id
            where f.id = :file_id and {_remembered("twin", "b.collection_id", "b.container_tag")}
            order by twin.created_at, twin.id limit 1
            """
        ),
        {"file_id": file_id},
    ).scalar_one_or_none()
    return found


def missing(session: Session, collection_id: UUID | None, asked: ContentsAsked) -> MissingContents:
    """What is neither stored nor worked on under the same tag of the collection; without one, everything."""
    wanted = dict.fromkeys(asked.sha256)
    if collection_id is None or not wanted:
        return MissingContents(missing=list(wanted), pending=[])
    rows = session.execute(
        text(
            f"""
            select encode(wanted.sha256, 'hex') as sha256, found.batch_id
            from unnest(cast(:wanted as bytea[])) as wanted (sha256)
            cross join lateral (
                select null::uuid as batch_id from files f
                where f.sha256 = wanted.sha256 and {_remembered("f", ":collection_id", ":tag")}
                union all
                select b.id from files f
                join batches b on b.tenant_id = f.tenant_id and b.id = f.batch_id
                where f.sha256 = wanted.sha256 and f.status in {PENDING} and b.collection_id = :collection_id
                  and b.container_tag is not distinct from :tag
                limit 1
            ) as found
            """
        ),
        {
            "wanted": [bytes.fromhex(digest) for digest in wanted],
            "collection_id": collection_id,
            "tag": asked.container_tag,
        },
    )
    found = {row.sha256: row.batch_id for row in rows}
    return MissingContents(
        missing=[digest for digest in wanted if digest not in found],
        pending=[PendingContent(sha256=digest, batch_id=batch) for digest, batch in found.items() if batch is not None],
    )
