"""The statement of one look into the arms: what they find, under the filters, and each of it scored on both."""

from collections.abc import Sequence
from dataclasses import dataclass

from memory.store.conditions import Conditions
from memory.store.vector_indexes import Scan


@dataclass(frozen=True)
class Arms:
    """Which arms are asked; `dimensions` 0 leaves out the vector arm. `allowed`: ids to which both keep, or None."""

    dimensions: int
    text: bool
    allowed: str | None

    def statement(self, asked: Conditions, scans: Sequence[Scan]) -> str:
        """One row per candidate, and one per arm (without a memory) that says how far it was read.

        `scans`: where vectors are looked for. Parameters: collections, depth, fetch; vector, model, farthest; wanted,
        lexemes, weights; those of the filters and of the scans.
        """
        arms = {}
        if self.dimensions:
            arms["vector"] = self._vector_arm(scans)
        if self.text:
            arms["text"] = self._text_arm()
        names = list(arms)
        parts = [] if self.allowed is None else [f"allowed as materialized ({self.allowed})"]
        parts += [f"{arm}, {_seen(name, asked.result)}" for name, arm in arms.items()]
        union = " union all ".join(
            f"select memory_id, in_sequence, '{name}' as arm, place from {name}_seen" for name in names
        )
        parts.append(
            f"""candidates as (
                select memory_id, bool_or(in_sequence) as in_sequence,
                       max(place) filter (where arm = 'vector') as vector_rank,
                       max(place) filter (where arm = 'text') as text_rank
                from ({union}) as found group by 1
            )"""
        )
        return f"""
            with {", ".join(parts)}
            select c.memory_id, c.vector_rank, c.text_rank, c.in_sequence, {self.scores()},
                   null as arm, 0 as read, 0 as fetched, false as tied
            from candidates c {self.scored("c.memory_id")}
            union all
            {" union all ".join(_end(name, "vector_read" if name == "vector" else "text_arm") for name in names)}
        """

    def scores(self) -> str:
        """The columns cosine and bm25; an arm that is not asked counts as 0."""
        return (
            f"{'coalesce(v.cosine, 0)' if self.dimensions else '0::float8'} as cosine, "
            f"{'coalesce(t.bm25, 0)' if self.text else '0::float8'} as bm25"
        )

    def scored(self, memory_id: str) -> str:
        """Joins that look up both scores of single memories.

        `limit 1` keeps the planner from reading a whole table to join them.
        """
        joins = ""
        if self.dimensions:
            joins += f"""
                left join lateral (
                    select 1 - {self._distance()} as cosine
                    from memory_vectors where memory_id = {memory_id} and model_id = %(model)s limit 1
                ) v on true
            """
        if self.text:
            joins += f"""
                left join lateral (
                    select -(lexical <#> lexical_weights(%(lexemes)s::text[], %(weights)s::float8[])) as bm25
                    from memory_terms where memory_id = {memory_id} limit 1
                ) t on true
            """
        return joins

    def _distance(self) -> str:
        return f"(embedding::halfvec({self.dimensions}) <=> %(vector)s::halfvec({self.dimensions}))"

    def _vector_arm(self, scans: Sequence[Scan]) -> str:
        # Distances first, over the narrow table alone; only the nearest are joined with what they say.
        if self.allowed is None:
            near = " union all ".join(f"({self._scanned(scan)})" for scan in scans)
        else:
            # Looked up one by one: a planner that knows nothing yet of a table just filled joins it row by row.
            near = f"""
                select v.memory_id, v.distance
                from allowed cross join lateral (
                    select memory_id, {self._distance()} as distance
                    from memory_vectors where memory_id = allowed.id and model_id = %(model)s limit 1
                ) v
            """
        # Sorted by a sum: what comes from an index is not quite in the order that the planner takes it to be in.
        return f"""
            vector_read as materialized (select * from ({near}) as near order by distance + 0 limit %(fetch)s),
            vector_arm as (select * from vector_read where distance <= %(farthest)s)
        """

    def _scanned(self, scan: Scan) -> str:
        # By a sum again where no index is to answer: none can.
        return f"""
            select memory_id, {self._distance()} as distance from memory_vectors where {scan.condition}
            order by {self._distance()} {"" if scan.by_index else "+ 0"} limit %(fetch)s
        """

    def _text_arm(self) -> str:
        allowed = "null::uuid[]" if self.allowed is None else "(select array_agg(id) from allowed)"
        return f"""
            text_arm as materialized (
                select memory_id, -bm25 as distance from search_terms(%(wanted)s::tsquery,
                    lexical_weights(%(lexemes)s::text[], %(weights)s::float8[]), %(collections)s, {allowed}, %(fetch)s)
            )
        """


def by_id(memory_id: str) -> str:
    """One memory by its primary key and nothing else.

    `limit 1` keeps the planner from reading a whole table to join a few rows, and from looking a row up by a tag that
    thousands share, both of which it does while its statistics are older than what was stored.
    """
    return f"(select * from memories where id = {memory_id} limit 1)"


def _seen(arm: str, visible: str) -> str:
    # Among the equally near the same ones must be left out as in the final order.
    return f"""
        {arm}_seen as (
            select a.memory_id, a.distance, m.sequence is not null as in_sequence,
                   row_number() over (order by a.distance, m.importance desc, m.created_at desc, a.memory_id desc)
                   as place
            from {arm}_arm a cross join lateral {by_id("a.memory_id")} as m
            where {visible}
            order by place limit %(depth)s
        )
    """


def _end(arm: str, read: str) -> str:
    """How much of an arm was read, how much of it is near enough, and whether its end ties with the last candidate."""
    return f"""
        select null, null, null, false, 0, 0, '{arm}', (select count(*) from {read}),
               (select count(*) from {arm}_arm),
               coalesce((select max(distance) from {arm}_arm) = (select max(distance) from {arm}_seen), false)
    """
