"""Indexes over vectors: for whom one is worth it, when it is built anew, and when it goes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from uuid import UUID

from pydantic import SecretStr

from memory.store.index_building import Tally, Wanted, building
from memory.store.vector_indexes import VectorIndex, answering

_log = logging.getLogger(__name__)

# So many vectors are scanned as quickly as an index would answer.
WORTH_IT = 10_000
# Each index of a collection is asked at every search.
_MOST_OF_A_GROUP = 4
# The planner looks at every one of them at every search.
_MOST = 200
# Collections that are not large for themselves share an index; every write looks through their list.
_MOST_TOGETHER = 500


class Indexes:
    """Builds, behind the writers, what searches need. Without the owner's address nothing is built."""

    def __init__(self, owner_url: SecretStr | None, *, worth_it: int = WORTH_IT) -> None:
        self._owner_url = owner_url
        self._worth_it = worth_it

    def advance(self, stopping: Callable[[], bool]) -> bool:
        """Does the most urgent piece of work; whether there may be more. Raises Unavailable, also when stopped."""
        if self._owner_url is None:
            return False
        with building(self._owner_url.get_secret_value(), stopping) as builder:
            if builder is None:
                return False
            builder.clean()
            wanted = next_work(builder.tallies(), builder.indexes(), self._worth_it)
            if wanted is None:
                return False
            builder.build(wanted)
            _log.info("index over vectors of %d collections built", len(wanted.collection_ids))
            return True


def next_work(tallies: Sequence[Tally], indexes: Sequence[VectorIndex], worth_it: int) -> Wanted | None:
    """The index to build, or to drop, next; None when all is well.

    A collection with `worth_it` vectors has indexes of its own; a tenant's others share theirs. What is not indexed yet
    gets an index as soon as it is worth one, which takes the place of older ones that are not much larger: so each
    vector is indexed a few times in all, and a search asks a few indexes at most.
    """
    answers = answering(indexes)
    waiting: list[tuple[int, Wanted]] = []
    idle = {index.id for index in indexes}
    for (tenant_id, model_id), found in _by_tenant_and_model(tallies):
        theirs = [pair for pair in answers if (pair[0].tenant_id, pair[0].model_id) == (tenant_id, model_id)]
        for group in _groups(found, theirs, worth_it):
            idle -= {index.id for index, _ in group.indexes}
            wanted = group.wanted(worth_it)
            if wanted is not None:
                waiting.append((wanted[0], Wanted(tenant_id, model_id, group.collection_ids, *wanted[1])))
    for index in indexes:
        if index.id in idle:
            return Wanted(index.tenant_id, index.model_id, (), 0, (index.id,))
    if not waiting:
        return None
    _, first = max(waiting, key=lambda one: one[0])
    if len(indexes) - len(first.replaces) >= _MOST:
        _log.warning("%d indexes over vectors are enough: more collections are scanned row by row", _MOST)
        return None
    return first


class _Group:
    """Collections that have indexes together, with the vectors of each by segment and the indexes in their order."""

    def __init__(self, vectors: dict[UUID, dict[int, int]], answers: Sequence[tuple[VectorIndex, list[UUID]]]) -> None:
        self.collection_ids = sorted(vectors)
        self.indexes = sorted(answers, key=lambda pair: pair[0].first)
        self._vectors = vectors

    def wanted(self, worth_it: int) -> tuple[int, tuple[int, tuple[int, ...]]] | None:
        """How urgent it is, from which segment on, and what is replaced."""
        live = [self._live(index, answers_for) for index, answers_for in self.indexes]
        bare = sum(sum(vectors.values()) for vectors in self._vectors.values()) - sum(live)
        everything = (0, tuple(index.id for index, _ in self.indexes))
        first = self.indexes[-1][0].last + 1 if self.indexes else 0
        new = sum(count for vectors in self._vectors.values() for segment, count in vectors.items() if segment >= first)
        if new >= worth_it:
            kept = len(self.indexes)
            size = new
            while kept and (live[kept - 1] <= 2 * size or kept >= _MOST_OF_A_GROUP):
                kept -= 1
                size += live[kept]
                first = self.indexes[kept][0].first
            return new, (first, tuple(index.id for index, _ in self.indexes[kept:]))
        # Left out when the others were indexed, or largely gone since.
        if bare - new >= worth_it:
            return bare, everything
        if any(2 * count < index.size for count, (index, _) in zip(live, self.indexes, strict=True)):
            return 0, everything
        return None

    def _live(self, index: VectorIndex, answers_for: Sequence[UUID]) -> int:
        return sum(
            count
            for one in answers_for
            for segment, count in self._vectors.get(one, {}).items()
            if index.covers(segment)
        )


def _groups(
    found: dict[UUID, dict[int, int]], answers: Sequence[tuple[VectorIndex, list[UUID]]], worth_it: int
) -> Iterator[_Group]:
    sizes = {one: sum(vectors.values()) for one, vectors in found.items()}
    has_own = {next(iter(index.memories)) for index, _ in answers if len(index.memories) == 1}
    # One that has shrunk a little keeps its index: it may grow again.
    large = {one for one, size in sizes.items() if size >= (worth_it // 2 if one in has_own else worth_it)}
    for one in large:
        own = [pair for pair in answers if list(pair[0].memories) == [one]]
        yield _Group({one: found[one]}, own)
    small = sorted(set(found) - large, key=lambda one: (-sizes[one], one))[:_MOST_TOGETHER]
    if sum(sizes[one] for one in small) >= worth_it // 2:
        shared = [pair for pair in answers if len(pair[0].memories) > 1]
        yield _Group({one: found[one] for one in small}, shared)


def _by_tenant_and_model(
    tallies: Sequence[Tally],
) -> Iterator[tuple[tuple[UUID, int], dict[UUID, dict[int, int]]]]:
    def tenant_and_model(tally: Tally) -> tuple[UUID, int]:
        return tally.tenant_id, tally.model_id

    for key, rows in groupby(sorted(tallies, key=tenant_and_model), key=tenant_and_model):
        found: dict[UUID, dict[int, int]] = {}
        for tally in rows:
            found.setdefault(tally.collection_id, {})[tally.segment] = tally.memories
        yield key, found
