"""What stands around memories in their sequences: scored for the ranking, or shown with a result."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session

from memory.store.arms import by_id
from memory.store.conditions import Filters, conditions
from memory.store.search import Query, arms, parameters

# Rows without a position stand behind those that have one; the index has the same expressions.
_ORDER = "coalesce(m.position, 2147483647), m.created_at, m.id"
_ORDER_BACKWARDS = "coalesce(m.position, 2147483647) desc, m.created_at desc, m.id desc"


@dataclass(frozen=True)
class Neighbour:
    """`memory_id` stands `step` visible memories before (negative) or after the memory `of`."""

    of: UUID
    memory_id: UUID
    step: int


@dataclass(frozen=True)
class Scores:
    cosine: float
    bm25: float


def around(
    session: Session, memory_ids: Sequence[UUID], collection_ids: Sequence[UUID], filters: Filters, *, steps: int
) -> list[Neighbour]:
    """Up to `steps` visible neighbours on each side of these memories, each side nearest first."""
    asked = conditions(filters)
    spot = "(s.position, s.created_at, s.id)"
    sides = " union all ".join(
        f"""
        (select m.id, {sign} row_number() over (order by {order}) as step from memories m
         where m.collection_id = s.collection_id and m.sequence = s.sequence
           and coalesce(m.container_tag, '') = s.tag and ({_ORDER}) {than} {spot} and {asked.visible}
         order by {order} limit %(steps)s)
        """
        for sign, order, than in (("-", _ORDER_BACKWARDS, "<"), ("", _ORDER, ">"))
    )
    rows = session.connection().exec_driver_sql(
        f"""
        select s.id as of, n.id, n.step
        from unnest(%(ids)s::uuid[]) as wanted (id)
        cross join lateral (
            select m.id, m.collection_id, m.sequence, coalesce(m.container_tag, '') as tag,
                   coalesce(m.position, 2147483647) as position, m.created_at
            from {by_id("wanted.id")} as m
            where m.sequence is not null and m.collection_id = any (%(collections)s)
        ) as s
        cross join lateral ({sides}) as n
        order by 1, abs(n.step)
        """,
        {**asked.values, "ids": list(memory_ids), "collections": list(collection_ids), "steps": steps},
    )
    return [Neighbour(row.of, row.id, row.step) for row in rows]


def scored(session: Session, memory_ids: Sequence[UUID], query: Query) -> dict[UUID, Scores]:
    """Both scores of memories that no arm need have found."""
    asked = arms(query, None)
    rows = session.connection().exec_driver_sql(
        f"""
        select wanted.id, {asked.scores()} from unnest(%(ids)s::uuid[]) as wanted (id) {asked.scored("wanted.id")}
        """,
        {**parameters(query), "ids": list(memory_ids)},
    )
    return {row.id: Scores(row.cosine, row.bm25) for row in rows}
