"""Ranking: what the scores of both arms and of the neighbours make of a candidate. Numbers only, no database."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from memory.schemas import Explanation
from memory.store.neighbours import Neighbour, Scores
from memory.store.search import Candidate
from memory.store.statistics import TermCounts

# Scores are fused, not ranks: rank fusion throws away how good each arm is.
TEXT_SHARE = 0.7
# What a memory gains of the fused score of each neighbour one step and two steps away: the answer often stands in the
# message after the one that holds the words.
NEIGHBOUR_SHARES = (0.2, 0.1)
# So many memories are enough to choose from; the words that are left out are those that most of them hold.
_ENOUGH = 5_000
_MOST = 6_000
_TOO_FEW = 1_000

Mode = Literal["hybrid", "vector", "text"]


class Scored(NamedTuple):
    """A candidate with its scores; `neighbour` is what its neighbours add to `fused`."""

    memory_id: UUID
    fused: float
    cosine: float
    bm25: float
    text: float
    vector_rank: int | None
    text_rank: int | None
    neighbour: float = 0.0

    @property
    def score(self) -> float:
        """What decides the order, not clamped."""
        return self.fused + self.neighbour


def weights(counts: TermCounts) -> dict[str, float]:
    """Inverse document frequency of each lexeme of the query; one that no statistics know is as rare as can be."""
    return {
        lexeme: math.log(1 + (max(counts.documents - holding, 0) + 0.5) / (holding + 0.5))
        for lexeme, holding in counts.holding.items()
    }


def rarest(counts: TermCounts) -> list[list[str]]:
    """What is enough to find by: memories that hold all the lexemes of one of these.

    One lexeme after the other, rarest first, until some 5,000 memories hold one of them. One that more of them hold is
    looked for together with others, as long as enough are left: the best hold several of the words anyway.
    """
    found: list[list[str]] = []
    holding = 0.0
    by_rarity = sorted(counts.holding, key=lambda lexeme: counts.holding[lexeme])
    for number, lexeme in enumerate(by_rarity):
        if holding >= _ENOUGH:
            break
        found += _together(lexeme, by_rarity[number + 1 :], counts, _MOST - holding)
        holding += counts.holding[lexeme]
    return found


def _together(lexeme: str, others: Sequence[str], counts: TermCounts, most: float) -> list[list[str]]:
    """The lexeme with any of the others; with the next ones for certain where that leaves too many."""
    together, expected = [lexeme], counts.holding[lexeme]
    for number, other in enumerate(others):
        if expected <= most:
            break
        shares = [counts.holding[one] / counts.documents for one in others[number:]]
        with_any = expected * (1 - math.prod(1 - share for share in shares))
        if with_any < _TOO_FEW:
            break
        if with_any <= most:
            return [[*together, one] for one in others[number:]]
        if expected * shares[0] < _TOO_FEW:
            break
        together.append(other)
        expected *= shares[0]
    return [together]


def ranked(candidates: Sequence[Candidate], mode: Mode) -> list[Scored]:
    """Each by its own merit, best first."""
    best = max((candidate.bm25 for candidate in candidates), default=0.0)
    result = []
    for candidate in candidates:
        memory_id, vector_rank, text_rank, _, cosine, bm25 = candidate
        text = share_of_best(bm25, best)
        merit = {"hybrid": fused(cosine, text), "text": text, "vector": cosine}[mode]
        result.append(Scored(memory_id, merit, cosine, bm25, text, vector_rank, text_rank))
    return best_first(result)


def with_neighbours(
    hits: Sequence[Scored], neighbours: Sequence[Neighbour], strangers: Mapping[UUID, Scores]
) -> list[Scored]:
    """With what neighbours add, best first. `strangers`: the scores of neighbours that are no candidates."""
    best = max((hit.bm25 for hit in hits), default=0.0)
    own = {hit.memory_id: hit.fused for hit in hits}
    own |= {
        memory_id: fused(scores.cosine, share_of_best(scores.bm25, best)) for memory_id, scores in strangers.items()
    }
    gains: dict[UUID, list[float]] = {}
    for neighbour in neighbours:
        share = NEIGHBOUR_SHARES[abs(neighbour.step) - 1]
        gains.setdefault(neighbour.of, []).append(share * own[neighbour.memory_id])
    # In whatever order they come, the sum is the same to the last digit: ties stay ties.
    return best_first([hit._replace(neighbour=math.fsum(gains.get(hit.memory_id, ()))) for hit in hits])


def fused(cosine: float, text: float) -> float:
    return (cosine + TEXT_SHARE * text) / (1 + TEXT_SHARE)


def share_of_best(bm25: float, best: float) -> float:
    return bm25 / best if best > 0 else 0.0


def best_first(hits: Sequence[Scored]) -> list[Scored]:
    return sorted(hits, key=lambda hit: hit.score, reverse=True)


def with_ties(hits: Sequence[Scored], limit: int) -> list[Scored]:
    """The first `limit`, and those that score as much as the last of them."""
    end = limit
    while end < len(hits) and hits[end].score == hits[limit - 1].score:
        end += 1
    return list(hits[:end])


def explanation(hit: Scored, mode: Mode) -> Explanation:
    """How a hit came to its score; an arm that was not asked has nothing to say."""
    origin: Literal["vector", "text", "both"] = "both"
    if hit.vector_rank is None or hit.text_rank is None:
        origin = "text" if hit.vector_rank is None else "vector"
    return Explanation(
        origin=origin,
        cosine=None if mode == "text" else hit.cosine,
        bm25=None if mode == "vector" else hit.bm25,
        text_score=None if mode == "vector" else hit.text,
        neighbour=hit.neighbour,
        fused=hit.fused,
        vector_rank=hit.vector_rank,
        text_rank=hit.text_rank,
    )
