"""What a collection looks like as a whole: counts, where its truth changed, its strongest memories, their words."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from memory.curation_schemas import Contradiction, Health
from memory.schemas import Memory
from memory.store.collections import CURRENT
from memory.store.memories import find_many

_CATEGORIES_SHOWN = 1_000
# Only among so many of the newest, so that a summary costs the same in a collection of any size.
_NEWEST = 10_000
# A month makes up for about a third of the importance that there is.
_FORGETTING_DAYS = 30

_UNEXPIRED = "(m.expires_at is null or m.expires_at > now())"
_PAIRS = """
    from memories old join memories m on m.tenant_id = old.tenant_id and m.id = old.superseded_by
    where old.collection_id = :collection_id and old.superseded_by is not null and m.collection_id = :collection_id
      and (old.expires_at is null or old.expires_at > now()) and (m.expires_at is null or m.expires_at > now())
"""


def health(session: Session, collection_id: UUID, stale_before: datetime) -> Health:
    values = {"collection_id": collection_id, "stale_before": stale_before, "most": _CATEGORIES_SHOWN}
    counted = session.execute(
        text(
            f"""
            select count(*) as total,
                   count(*) filter (where {CURRENT}) as current,
                   count(*) filter (where m.archived) as archived,
                   count(*) filter (where m.pinned) as pinned,
                   count(*) filter (where {CURRENT} and not m.pinned and m.updated_at <= :stale_before) as stale,
                   count(*) filter (where not {_UNEXPIRED}) as expired,
                   count(*) filter (where not m.is_latest) as supersessions
            from memories m where m.collection_id = :collection_id
            """
        ),
        values,
    ).one()
    categories = session.execute(
        text(
            f"""
            select m.category, count(*) as count from memories m
            where m.collection_id = :collection_id and {CURRENT}
            group by m.category order by count(*) desc, m.category limit :most
            """
        ),
        values,
    )
    return Health(
        **counted._mapping,
        categories={row.category: row.count for row in categories},
        needs_attention=counted.stale + counted.expired + counted.supersessions,
    )


def contradictions(
    session: Session, collection_id: UUID, *, limit: int, offset: int
) -> tuple[list[Contradiction], int]:
    """Pairs of a superseded memory and the one that took its place, newest first, and how many there are.

    Only pairs of which both sides are there, and in this collection.
    """
    values = {"collection_id": collection_id, "limit": limit, "offset": offset}
    rows = session.execute(
        text(
            f"""
            select old.id as old_id, m.id as new_id, old.superseded_reason as reason,
                   coalesce(old.valid_to, m.created_at) as at
            {_PAIRS} order by old.valid_to desc nulls last, old.id desc limit :limit offset :offset
            """
        ),
        values,
    ).all()
    total: int = session.execute(text(f"select count(*) {_PAIRS}"), values).scalar_one()
    known = {memory.id: memory for memory in find_many(session, [*{id_ for row in rows for id_ in (row[0], row[1])}])}
    return [
        Contradiction(current=known[row.new_id], superseded=known[row.old_id], reason=row.reason, created_at=row.at)
        for row in rows
        if row.new_id in known and row.old_id in known
    ], total


def strongest(session: Session, collection_id: UUID, most: int) -> list[Memory]:
    """The current memories that weigh most, by importance and by how new they are."""
    rows = session.execute(
        text(
            f"""
            select id from (
                select m.id, m.importance, m.created_at from memories m
                where m.collection_id = :collection_id and {CURRENT}
                order by m.pinned desc, m.created_at desc, m.id desc limit :newest
            ) as newest
            order by importance + exp(least(extract(epoch from created_at - now()), 0) / 86400 / :days) desc,
                     created_at desc, id desc
            limit :most
            """
        ),
        {"collection_id": collection_id, "newest": _NEWEST, "days": _FORGETTING_DAYS, "most": most},
    )
    return find_many(session, list(rows.scalars()))


def stems(session: Session, words: Sequence[str]) -> dict[str, str]:
    """The stem of each word; one that means nothing by itself, such as "the", has none."""
    rows = session.execute(
        text(
            """
            select word, (ts_lexize('english_stem', word))[1] as stem
            from unnest(cast(:words as text[])) as given (word)
            """
        ),
        {"words": list(words)},
    )
    return {row.word: row.stem for row in rows if row.stem}
