"""The cache in the process forgets in time, and what is least used first."""

from collections.abc import Iterator

import pytest

from memory.adapters.local_cache import LocalCache


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Iterator[LocalCache]:
    made = LocalCache(max_entries=4, max_bytes=400, clock=clock)
    yield made
    made.close()


def test_it_keeps_what_it_is_given(cache: LocalCache) -> None:
    assert cache.get("question") is None
    cache.put("question", b"answer", seconds=60)
    assert cache.get("question") == b"answer"
    cache.put("question", b"another", seconds=60)
    assert cache.get("question") == b"another"


def test_each_entry_has_its_own_end(cache: LocalCache, clock: Clock) -> None:
    cache.put("short", b"1", seconds=10)
    cache.put("long", b"2", seconds=20)
    clock.now += 9.9
    assert cache.get("short") == b"1"
    clock.now += 0.2
    assert cache.get("short") is None
    assert cache.get("long") == b"2"


def test_entries_are_bounded_and_the_least_used_goes(cache: LocalCache) -> None:
    for number in range(4):
        cache.put(str(number), b"-", seconds=60)
    assert cache.get("0") == b"-"
    cache.put("4", b"-", seconds=60)
    assert [cache.get(str(number)) for number in range(5)] == [b"-", None, b"-", b"-", b"-"]


def test_bytes_are_bounded(cache: LocalCache) -> None:
    cache.put("small", b"-", seconds=60)
    cache.put("large", b"x" * 350, seconds=60)
    assert cache.get("small") is None
    assert cache.get("large") is not None
    cache.put("too large", b"x" * 401, seconds=60)
    assert cache.get("too large") is None
    assert cache.get("large") is not None


def test_closed_it_is_empty(cache: LocalCache) -> None:
    cache.put("question", b"answer", seconds=60)
    cache.close()
    assert cache.get("question") is None
