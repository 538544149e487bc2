"""Clusters against a plain restatement of the rule, and at its corners."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.clusters import clusters
from memory.store.curation import Candidate

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def candidate(
    number: int,
    vector: list[float],
    *,
    tag: str | None = None,
    pinned: bool = False,
    importance: float = 0.5,
    age_days: int = 0,
) -> Candidate:
    return Candidate(
        id=UUID(int=number),
        container_tag=tag,
        pinned=pinned,
        importance=importance,
        created_at=BEGIN - timedelta(days=age_days),
        vector=np.array(vector, dtype=np.float32),
    )


def shape(found: list[Candidate], threshold: float) -> dict[int, list[int]]:
    """Keeper to its duplicates, by number."""
    return {
        cluster.keeper.id.int: [duplicate.candidate.id.int for duplicate in cluster.duplicates]
        for cluster in clusters(found, threshold)
    }


# A few directions and few values, so that near ones, equal ones and ties are common.
_VECTORS = st.lists(st.integers(-3, 3), min_size=3, max_size=3).map(lambda vector: [float(x) for x in vector])
_CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.just(0),
        _VECTORS,
        tag=st.sampled_from([None, "a", "b"]),
        pinned=st.booleans(),
        importance=st.sampled_from([0.1, 0.5, 0.9]),
        age_days=st.integers(0, 3),
    ),
    max_size=14,
).map(lambda drawn: [replace(one, id=UUID(int=number)) for number, one in enumerate(drawn)])


def cosine(one: Candidate, other: Candidate) -> float:
    a, b = ([float(x) for x in candidate.vector] for candidate in (one, other))
    lengths = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def restated(candidates: list[Candidate], threshold: float) -> dict[int, set[int]]:
    """The rule word by word: the strongest that is left stays, and takes with it what is near to itself."""
    left = sorted(candidates, key=lambda c: (c.pinned, c.importance, c.created_at, c.id), reverse=True)
    found: dict[int, set[int]] = {}
    while left:
        keeper = left.pop(0)
        near = [
            other
            for other in left
            if not other.pinned
            and other.container_tag == keeper.container_tag
            and cosine(keeper, other) >= threshold - 5e-7
        ]
        taken = {other.id.int for other in near}
        left = [other for other in left if other.id.int not in taken]
        if taken:
            found[keeper.id.int] = taken
    return found


@given(_CANDIDATES, st.sampled_from([0.5, 0.7, 0.9, 0.95, 1.0]))
def test_clusters_are_what_the_rule_says(candidates: list[Candidate], threshold: float) -> None:
    found = {keeper: set(duplicates) for keeper, duplicates in shape(candidates, threshold).items()}
    assert found == restated(candidates, threshold)


@given(_CANDIDATES, st.sampled_from([0.5, 0.9, 1.0]), st.randoms(use_true_random=False))
def test_the_order_in_which_memories_come_changes_nothing(
    candidates: list[Candidate], threshold: float, random: Random
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert shape(shuffled, threshold) == shape(candidates, threshold)


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ({"pinned": True, "importance": 0.1, "age_days": 9}, {"importance": 0.9}),
        ({"importance": 0.6, "age_days": 9}, {"importance": 0.5}),
        ({"age_days": 1}, {"age_days": 2}),
    ],
)
def test_the_keeper_is_pinned_first_then_most_important_then_newest(
    stronger: dict[str, float], weaker: dict[str, float]
) -> None:
    found = [candidate(1, [1, 0], **weaker), candidate(2, [1, 0], **stronger)]  # type: ignore[arg-type]
    assert shape(found, 0.95) == {2: [1]}


def test_all_pinned_ones_are_kept() -> None:
    found = [candidate(number, [1, 0], pinned=number < 3) for number in range(5)]
    assert shape(found, 0.95) == {2: [4, 3]}


def test_there_are_no_chains() -> None:
    # Each is near to the next, the ends are far from one another.
    ends = [candidate(1, [1, 0], importance=0.9), candidate(2, [1, 1], importance=0.8), candidate(3, [0, 1])]
    assert shape(ends, 0.7) == {1: [2]}


def test_container_tags_are_kept_apart() -> None:
    found = [candidate(1, [1, 0]), candidate(2, [1, 0], tag="a"), candidate(3, [1, 0], tag="b")]
    assert shape(found, 0.5) == {}
    assert shape([*found, candidate(4, [1, 0], tag="")], 0.5) == {}


def test_the_most_similar_comes_first() -> None:
    found = [candidate(1, [10, 0], importance=0.9), candidate(2, [10, 2]), candidate(3, [10, 1])]
    (cluster,) = clusters(found, 0.9)
    assert [duplicate.candidate.id.int for duplicate in cluster.duplicates] == [3, 2]
    assert [duplicate.similarity for duplicate in cluster.duplicates] == pytest.approx([0.995037, 0.980581], abs=1e-6)


def test_the_same_text_reaches_a_threshold_of_one() -> None:
    vector = [float(x) for x in np.random.default_rng(1).normal(size=384).astype(np.float16)]
    assert shape([candidate(1, vector), candidate(2, vector)], 1.0) == {2: [1]}


def test_a_vector_without_direction_is_like_nothing() -> None:
    assert shape([candidate(1, [0, 0]), candidate(2, [0, 0])], 0.5) == {}


def test_nothing_has_no_clusters() -> None:
    assert clusters([], 0.5) == []
