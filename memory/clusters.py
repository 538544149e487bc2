"""Near-duplicates around their keepers: which memories say the same, and which of them stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from memory.store.curation import Candidate

# Rounding in the sums must not keep two that are the same from reaching a threshold of 1.
_DIGITS = 6


@dataclass(frozen=True)
class Duplicate:
    """A memory that its keeper stands for; `similarity` is the cosine between the two."""

    candidate: Candidate
    similarity: float


@dataclass(frozen=True)
class KeptCluster:
    """A memory that stays, with its duplicates, most similar first."""

    keeper: Candidate
    duplicates: list[Duplicate]


def clusters(candidates: Sequence[Candidate], threshold: float) -> list[KeptCluster]:
    """The clusters with at least one duplicate, strongest keeper first; never across container tags.

    Going down by rank, each memory that is not yet a duplicate becomes a keeper of all that come after it and reach the
    threshold to it, itself and not through others. A pinned one is never a duplicate.
    """
    found = []
    by_tag = sorted(candidates, key=lambda candidate: _tag(candidate))
    for _, tagged in groupby(by_tag, key=_tag):
        found += _of_one_tag(sorted(tagged, key=rank, reverse=True), threshold)
    return sorted(found, key=lambda cluster: rank(cluster.keeper), reverse=True)


def rank(candidate: Candidate) -> tuple[object, ...]:
    """The higher stays: pinned before others, then the more important, then the newer."""
    return candidate.pinned, candidate.importance, candidate.created_at, candidate.id


def _of_one_tag(ranked: Sequence[Candidate], threshold: float) -> list[KeptCluster]:
    if len(ranked) < 2:
        return []
    similarities = _similarities(ranked)
    # What may still become a duplicate.
    free = np.array([not candidate.pinned for candidate in ranked])
    found = []
    taken = np.zeros(len(ranked), dtype=bool)
    for keeper, candidate in enumerate(ranked):
        if taken[keeper]:
            continue
        free[keeper] = False
        (near,) = np.nonzero(free & (similarities[keeper] >= threshold))
        if near.size:
            free[near] = False
            taken[near] = True
            duplicates = [Duplicate(ranked[index], float(similarities[keeper, index])) for index in near.tolist()]
            # The sort is stable: of equally similar ones the stronger comes first.
            duplicates.sort(key=lambda duplicate: -duplicate.similarity)
            found.append(KeptCluster(candidate, duplicates))
    return found


def _similarities(candidates: Sequence[Candidate]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    vectors = np.stack([candidate.vector for candidate in candidates]).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A vector of length nought is like nothing.
    directions = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    cosines: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.clip(directions @ directions.T, -1.0, 1.0)
    return cosines.round(_DIGITS)


def _tag(candidate: Candidate) -> tuple[bool, str]:
    return candidate.container_tag is not None, candidate.container_tag or ""
