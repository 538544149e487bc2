"""Candidates of a search: both arms looked into as deep as the filters make it necessary, and no deeper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from pgvector import HalfVector
from sqlmodel import Session

from memory.ports import Vectors
from memory.store import lexemes, vector_indexes
from memory.store.allowed import allowed
from memory.store.arms import Arms
from memory.store.conditions import Conditions, Filters, conditions
from memory.store.vector_indexes import VectorIndex

__all__ = ["Candidate", "Filters", "Query", "candidates", "nearest", "prepare", "vector_of"]

# Thousands of memories that say the same are looked through for the most important; beyond that any of them will do.
_MOST_FOR_TIES = 20_000
# A phrase whose words no index knows as such (a part of an address, marks) is looked for in so many of the best.
_MOST_GUESSED = 1_000
_CURRENT = Filters()


@dataclass(frozen=True)
class Query:
    """One search: `vector` None leaves out the vector arm, empty `weights` (lexeme to idf) the text arm.

    `rarest`: what is enough to find by, when not all lexemes are needed: all those of one of these. All of them score.
    """

    collection_ids: Sequence[UUID]
    filters: Filters
    vector: Vectors | None
    model_id: int
    min_score: float
    weights: dict[str, float]
    depth: int
    rarest: Sequence[Sequence[str]] = ()


class Candidate(NamedTuple):
    """A visible memory that an arm found, scored on both arms that were asked; a missing arm counts as 0.

    `vector_rank`, `text_rank`: its place in the arm, from 1; None when that arm did not find it. The fields are the
    first columns of a look, in their order: there are hundreds in each search.
    """

    memory_id: UUID
    vector_rank: int | None
    text_rank: int | None
    in_sequence: bool
    cosine: float
    bm25: float


@dataclass(frozen=True)
class Look:
    """How one look into the arms is taken: by which lexemes, how deep, and kept to which memories.

    `wanted`: queries of lexemes, the first for this look, the others for when that finds too few.
    """

    wanted: Sequence[str]
    fetch: int
    ids: str | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Candidates:
    """What one look into the arms gave.

    `exhausted`: a deeper look would find no more visible memories, or none that the depth has room for.
    `tied`: some that lie deeper may be as near as the last one, and then importance and age decide.
    `wordless`: the text arm has room for more than its lexemes found.
    """

    found: list[Candidate]
    exhausted: bool
    tied: bool
    wordless: bool


def prepare(session: Session) -> None:
    """For the rest of the transaction: a table of all tenants is never read from end to end.

    Statistics that lag behind make it look small, and the index of one tenant's part dear.
    """
    session.connection().exec_driver_sql("select set_config('enable_seqscan', 'off', true)")


def candidates(session: Session, query: Query) -> list[Candidate]:
    """Up to `depth` visible candidates of each arm, best first within each; deeper looks until that many are found."""
    if not query.collection_ids or (query.vector is None and not query.weights):
        return []
    asked = conditions(query.filters)
    values = {**parameters(query), **asked.values}
    few = allowed(session, query.filters, asked, values)
    uncounted = query.filters.narrow
    most = math.inf
    indexes = [] if query.vector is None else vector_indexes.ready(session, query.collection_ids, query.model_id)
    wanted = _wanted(query)
    wide = Look(wanted, 2 * query.depth, None, values)
    selective = Look(wanted[-1:], 2 * query.depth, few.ids, few.values)
    look = wide
    if uncounted and few.promises_few(session):
        uncounted = False
        count = few.count(session)
        if count == 0 and query.filters.phrases and few.index is not None:
            most = _MOST_GUESSED
        elif count is not None:
            look = selective
    while True:
        seen = _look(session, query, look, asked, indexes)
        if seen.wordless and len(look.wanted) > 1:
            look = replace(look, wanted=look.wanted[1:])
        elif look.fetch > most or (seen.exhausted and (not seen.tied or look.fetch > _MOST_FOR_TIES)):
            return seen.found
        elif uncounted and not seen.exhausted:
            uncounted = False
            look = replace(look, fetch=8 * look.fetch) if few.count(session) is None else selective
        else:
            look = replace(look, fetch=8 * look.fetch)


def _wanted(query: Query) -> list[str]:
    """Queries of lexemes, each finding more than the one before and taking longer; the last finds by any of them."""
    steps = [lexemes.any_of(query.weights)]
    if query.rarest:
        wider = dict.fromkeys(alternative[0] for alternative in query.rarest)
        steps = [lexemes.any_of_all(query.rarest), lexemes.any_of(wider), *steps]
    return list(dict.fromkeys(steps))


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
    found = sorted(candidates(session, query), key=lambda candidate: candidate.vector_rank or 0)
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


def arms(query: Query, ids: str | None) -> Arms:
    """The arms that this search asks, kept to the memories that `ids` selects."""
    return Arms(0 if query.vector is None else len(query.vector), bool(query.weights), ids)


def parameters(query: Query) -> dict[str, Any]:
    """What the statements of the arms take, besides the filters."""
    return {
        "collections": list(query.collection_ids),
        "vector": None if query.vector is None else HalfVector(query.vector),
        "model": query.model_id,
        "farthest": 1 - query.min_score,
        "lexemes": list(query.weights),
        "weights": list(query.weights.values()),
        "depth": query.depth,
    }


def _look(session: Session, query: Query, look: Look, asked: Conditions, indexes: Sequence[VectorIndex]) -> Candidates:
    scans = vector_indexes.scans(indexes, query.collection_ids, query.model_id, look.fetch) if look.ids is None else []
    values = {**look.values, "wanted": look.wanted[0], "fetch": look.fetch}
    for scan in scans:
        values |= scan.values
    statement = arms(query, look.ids).statement(asked, scans)
    rows = session.connection().exec_driver_sql(statement, values).all()
    ends = [row for row in rows if row.memory_id is None]
    found = [Candidate(*row[: len(Candidate._fields)]) for row in rows if row.memory_id is not None]
    full = {row.arm for row in ends if row.fetched == look.fetch}
    filled = {
        "vector": sum(one.vector_rank is not None for one in found) >= query.depth,
        "text": sum(one.text_rank is not None for one in found) >= query.depth,
    }
    if any(scan.by_index for scan in scans):
        # An index may end before its rows do.
        full |= {row.arm for row in ends if row.arm == "vector" and row.read < look.fetch}
    # What ties in everything ties in the vector arm.
    deciding = "text" if query.vector is None else "vector"
    return Candidates(
        found,
        exhausted=all(filled[arm] for arm in full),
        tied=any(row.tied for row in ends if row.arm == deciding and row.arm in full),
        wordless=bool(query.weights) and not filled["text"] and "text" not in full,
    )
