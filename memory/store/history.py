"""History: what memories said before, and what was superseded by what."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.fate_schemas import MemoryVersion
from memory.schemas import Author


def keep_version(session: Session, tenant_id: UUID, memory_id: UUID, *, author: Author, now: datetime) -> None:
    """Keeps what the memory says until now as history, before its text is changed."""
    session.execute(
        text(
            """
            insert into memory_versions (tenant_id, memory_id, version, text, valid_from, valid_to, reason,
                                         changed_by, changed_by_label)
            select tenant_id, id, version, text, valid_from, :now, 'edited', :changed_by, :label
            from memories where tenant_id = :tenant_id and id = :id
            """
        ),
        {"tenant_id": tenant_id, "id": memory_id, "changed_by": author.id, "label": author.label, "now": now},
    )


def listed(session: Session, memory_id: UUID, *, limit: int, offset: int) -> tuple[list[MemoryVersion], int]:
    """A page of everything that the memory and the others of its chain ever said, newest first; how much there is.

    The chain is followed both ways. What has expired or lies in another collection is not shown.
    """
    rows = session.execute(
        text(
            """
            with recursive later as (
                select tenant_id, id, superseded_by from memories where id = :id
                union
                select m.tenant_id, m.id, m.superseded_by
                from later join memories m on m.tenant_id = later.tenant_id and m.id = later.superseded_by
            ), chain as (
                select tenant_id, id from later
                union
                select m.tenant_id, m.id
                from chain join memories m on m.tenant_id = chain.tenant_id and m.superseded_by = chain.id
            ), shown as (
                select m.* from chain join memories m on m.tenant_id = chain.tenant_id and m.id = chain.id
                where m.collection_id = (select collection_id from memories where id = :id)
                  and (m.expires_at is null or m.expires_at > now())
            ), versions as (
                select m.id, m.version, m.text, m.valid_from, m.valid_to, m.superseded_by,
                       m.superseded_reason as reason, m.superseded_by is not null as is_changed,
                       by.created_by as changed_by, by.created_by_label as changed_by_label
                from shown m left join memories by on by.tenant_id = m.tenant_id and by.id = m.superseded_by
                union all
                select v.memory_id, v.version, v.text, v.valid_from, v.valid_to, null, v.reason,
                       true, v.changed_by, v.changed_by_label
                from shown m join memory_versions v on v.tenant_id = m.tenant_id and v.memory_id = m.id
            )
            select page.*, counted.total from (select count(*) as total from versions) as counted
            left join lateral (
                select * from versions order by valid_from desc, version desc, id desc limit :limit offset :offset
            ) as page on true
            """
        ),
        {"id": memory_id, "limit": limit, "offset": offset},
    ).all()
    versions = [
        MemoryVersion(
            id=row.id,
            version=row.version,
            text=row.text,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
            superseded_by=row.superseded_by,
            reason=row.reason,
            changed_by=Author(id=row.changed_by, label=row.changed_by_label) if row.is_changed else None,
        )
        for row in rows
        if row.id is not None
    ]
    return versions, rows[0].total
