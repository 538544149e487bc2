"""Which contents a collection has files of, by their hashes."""

from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.drop_schemas import ContentsAsked, MissingContents, PendingContent
from memory.store.batches import PENDING
from memory.store.collections import CURRENT


def missing(session: Session, collection_id: UUID | None, asked: ContentsAsked) -> MissingContents:
    """What is neither stored nor being worked on under the same tag of the collection; without one, everything."""
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
                join memory_files mf on mf.tenant_id = f.tenant_id and mf.file_id = f.id
                join memories m on m.tenant_id = mf.tenant_id and m.id = mf.memory_id
                where f.sha256 = wanted.sha256 and f.status = 'done' and f.chunks > 0
                  and m.collection_id = :collection_id and m.container_tag is not distinct from :tag and {CURRENT}
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
