"""The statements of search: candidates of both arms, each scored on both, under the caller's filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import HalfVector
from psycopg.types.json import Jsonb
from sqlmodel import Session

from memory.ports import Vectors
from memory.store import lexemes

# Thousands of memories that say the same are looked through for the most important; beyond that any of them will do.
_MOST_FOR_TIES = 20_000
# A filter that leaves at most so many memories is resolved first; behind a wider one candidates are filtered after.
_SELECTIVE = 10_000


@dataclass(frozen=True)
class Filters:
    """What a result must be, besides unexpired and, unless asked otherwise, current."""

    category: str | None = None
    container_tag: str | None = None
    metadata: dict[str, Any] | None = None
    include_archived: bool = False
    include_superseded: bool = False
    without: Sequence[UUID] = ()

    @property
    def narrow(self) -> bool:
        """Whether anything is asked for that could leave only a few memories."""
        return self.category is not None or self.container_tag is not None or bool(self.metadata)


_CURRENT = Filters()


@dataclass(frozen=True)
class Query:
    """One search: `vector` None leaves out the vector arm, empty `weights` (lexeme to idf) the text arm."""

    collection_ids: Sequence[UUID]
    filters: Filters
    vector: Vectors | None
    model_id: int
    min_score: float
    weights: dict[str, float]
    depth: int


@dataclass(frozen=True)
class Candidate:
    """A visible memory that an arm found, scored on both arms that were asked; a missing arm counts as 0."""

    memory_id: UUID
    cosine: float
    bm25: float


@dataclass(frozen=True)
class Candidates:
    """What one look into the arms gave.

    `exhausted`: a deeper look would find no more visible memories, or none that the depth has room for.
    `tied`: some that lie deeper may be as near as the last one, and then importance and age decide.
    """

    found: list[Candidate]
    exhausted: bool
    tied: bool


def candidates(session: Session, query: Query) -> list[Candidate]:
    """Up to `depth` visible candidates of each arm, best first within each; deeper looks until that many are found."""
    if query.vector is None and not query.weights:
        return []
    values = _values(query)
    selective = query.filters.narrow and _is_selective(session, query, values)
    fetch = 2 * query.depth
    while True:
        looked = _look(session, query, {**values, "fetch": fetch}, selective=selective, fetch=fetch)
        if looked.exhausted and (not looked.tied or fetch > _MOST_FOR_TIES):
            return looked.found
        fetch *= 8


def nearest(
    session: Session,
    collection_ids: Sequence[UUID],
    vector: Vectors,
    *,
    model_id: int,
    min_score: float,
    limit: int,
    filters: Filters = _CURRENT,
) -> list[tuple[UUID, float]]:
    """The visible memories whose cosine with `vector` is at least `min_score`, nearest first, each with its cosine."""
    query = Query(
        collection_ids=collection_ids,
        filters=filters,
        vector=vector,
        model_id=model_id,
        min_score=min_score,
        weights={},
        depth=limit,
    )
    found = sorted(candidates(session, query), key=lambda candidate: -candidate.cosine)
    return [(candidate.memory_id, candidate.cosine) for candidate in found]


def vector_of(session: Session, memory_id: UUID, *, model_id: int) -> Vectors | None:
    """What the model made of a memory, shape (d,); None when it has no vector of that model."""
    row = (
        session.connection()
        .exec_driver_sql(
            "select embedding from memory_vectors where memory_id = %(id)s and model_id = %(model)s",
            {"id": memory_id, "model": model_id},
        )
        .one_or_none()
    )
    return None if row is None else np.asarray(row.embedding.to_numpy(), dtype=np.float32)


def _look(session: Session, query: Query, values: dict[str, Any], *, selective: bool, fetch: int) -> Candidates:
    rows = session.connection().exec_driver_sql(_statement(query, selective=selective), values).all()
    arms = [row for row in rows if row.memory_id is None]
    found = [row for row in rows if row.memory_id is not None]
    full = {row.arm for row in arms if row.fetched == fetch}
    filled = {row.arm for row in arms if sum(row.arm in hit.arm for hit in found) >= query.depth}
    # What ties in everything ties in the vector arm.
    deciding = "text" if query.vector is None else "vector"
    return Candidates(
        [Candidate(row.memory_id, row.cosine, row.bm25) for row in found],
        exhausted=full <= filled,
        tied=any(row.tied for row in arms if row.arm == deciding and row.arm in full),
    )


def _values(query: Query) -> dict[str, Any]:
    return {
        "collections": list(query.collection_ids),
        "category": query.filters.category,
        "tag": query.filters.container_tag,
        "metadata": Jsonb(query.filters.metadata),
        "without": list(query.filters.without),
        "vector": None if query.vector is None else HalfVector(query.vector),
        "model": query.model_id,
        "farthest": 1 - query.min_score,
        "wanted": lexemes.any_of(query.weights),
        "lexemes": list(query.weights),
        "weights": list(query.weights.values()),
        "depth": query.depth,
    }


def _visible(filters: Filters) -> str:
    conditions = ["(m.expires_at is null or m.expires_at > now())"]
    if not filters.include_superseded:
        conditions.append("m.is_latest")
    if filters.without:
        conditions.append("m.id <> all (%(without)s)")
    if not filters.include_archived:
        conditions.append("not m.archived")
    if filters.category is not None:
        conditions.append("m.category = %(category)s")
    if filters.container_tag is not None:
        conditions.append("m.container_tag = %(tag)s")
    if filters.metadata:
        conditions.append("m.metadata @> %(metadata)s")
    return " and ".join(conditions)


def _allowed(filters: Filters) -> str:
    """Ids of all visible memories; containment goes first through the function that may use its index."""
    source = "memories m"
    if filters.metadata:
        # One more than counts as selective, so that a wide one is seen to be wide.
        source = (
            f"find_by_metadata(%(collections)s, %(metadata)s, {_SELECTIVE + 1}) as contained "
            "join memories m on m.id = contained.memory_id"
        )
    return f"select m.id from {source} where m.collection_id = any (%(collections)s) and {_visible(filters)}"


def _is_selective(session: Session, query: Query, values: dict[str, Any]) -> bool:
    counted: int = (
        session.connection()
        .exec_driver_sql(f"select count(*) from ({_allowed(query.filters)} limit {_SELECTIVE + 1}) as allowed", values)
        .scalar_one()
    )
    if query.filters.metadata and counted <= _SELECTIVE:
        # The function stops at its own limit, before the other filters: then the few that are left are not all.
        contained: int = (
            session.connection()
            .exec_driver_sql(
                f"select count(*) from find_by_metadata(%(collections)s, %(metadata)s, {_SELECTIVE + 1})", values
            )
            .scalar_one()
        )
        return contained <= _SELECTIVE
    return counted <= _SELECTIVE


def _statement(query: Query, *, selective: bool) -> str:
    """One statement: the arms, their union under the filters, and how far each arm was read."""
    visible = _visible(query.filters)
    with_vector, with_text = query.vector is not None, bool(query.weights)
    parts = []
    if selective:
        parts.append(f"allowed as materialized ({_allowed(query.filters)})")
    if with_vector:
        parts.append(_vector_arm(query, visible, selective=selective))
    if with_text:
        parts.append(_text_arm(visible, selective=selective))
    arms = [name for name, asked in (("vector", with_vector), ("text", with_text)) if asked]
    union = " union all ".join(f"select memory_id, '{arm}' as arm from {arm}_seen" for arm in arms)
    parts.append(f"candidates as (select memory_id, string_agg(arm, '+') as arm from ({union}) as u group by 1)")
    return f"""
        with {", ".join(parts)}
        select c.memory_id, c.arm, {"coalesce(v.cosine, 0)" if with_vector else "0"} as cosine,
               {"coalesce(t.bm25, 0)" if with_text else "0"} as bm25, 0 as fetched, false as tied
        from candidates c {_cosine_of_candidate(query) if with_vector else ""} {_BM25_OF_CANDIDATE if with_text else ""}
        union all
        {" union all ".join(_end_of_arm(arm) for arm in arms)}
    """


def _end_of_arm(arm: str) -> str:
    """How much of an arm was fetched, and whether its last row is as near as the last that is a candidate."""
    return f"""
        select null, '{arm}', 0, 0, (select count(*) from {arm}_arm),
               coalesce((select max(distance) from {arm}_arm) = (select max(distance) from {arm}_seen), false)
    """


# Candidates are few and looked up one by one. `limit 1` keeps the planner from reading a whole table to join them,
# which it does while a table is small enough to look cheap.
_BM25_OF_CANDIDATE = """
    left join lateral (
        select -(lexical <#> lexical_weights(%(lexemes)s::text[], %(weights)s::float8[])) as bm25
        from memory_terms where memory_id = c.memory_id limit 1
    ) t on true
"""


def _cosine_of_candidate(query: Query) -> str:
    return f"""
        left join lateral (
            select 1 - {_distance(query, "embedding")} as cosine
            from memory_vectors where memory_id = c.memory_id and model_id = %(model)s limit 1
        ) v on true
    """


def _distance(query: Query, column: str) -> str:
    dimensions = 0 if query.vector is None else len(query.vector)
    return f"({column}::halfvec({dimensions}) <=> %(vector)s::halfvec({dimensions}))"


def _vector_arm(query: Query, visible: str, *, selective: bool) -> str:
    # Distances first, over the narrow table alone; only the nearest are joined with what they say.
    scanned = f"""
        select memory_id, {_distance(query, "embedding")} as distance
        from memory_vectors
        where collection_id = any (%(collections)s) and model_id = %(model)s
        {"and memory_id in (select id from allowed)" if selective else ""}
        order by distance limit %(fetch)s
    """
    return f"""
        vector_arm as materialized (select * from ({scanned}) as near where distance <= %(farthest)s),
        {_seen("vector", visible)}
    """


def _text_arm(visible: str, *, selective: bool) -> str:
    allowed = "(select array_agg(id) from allowed)" if selective else "null::uuid[]"
    return f"""
        text_arm as materialized (
            select memory_id, -bm25 as distance from search_terms(%(wanted)s::tsquery,
                lexical_weights(%(lexemes)s::text[], %(weights)s::float8[]), %(collections)s, {allowed}, %(fetch)s)
        ),
        {_seen("text", visible)}
    """


def _seen(arm: str, visible: str) -> str:
    # Among the equally near the same ones must be left out as in the final order.
    return f"""
        {arm}_seen as (
            select a.memory_id, a.distance from {arm}_arm a
            cross join lateral (
                select importance, created_at from memories m where m.id = a.memory_id and {visible} limit 1
            ) as visible
            order by a.distance, visible.importance desc, visible.created_at desc, a.memory_id desc
            limit %(depth)s
        )
    """
