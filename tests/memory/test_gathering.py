"""Texts that many embed at once travel together, and none of them pays for another's fault."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from memory.embedding import Embedding
from memory.errors import AppError, Invalid, Misconfigured, Unavailable
from memory.gathering import SHORT_CHARACTERS, Gathering
from memory.ports import Vectors
from memory.services import Services
from tests.fakes import WordEmbedder


class Engine:
    """Makes a vector of a text's length, remembers what came together, and waits while `gate` is closed."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.refuse: Callable[[Sequence[str]], None] = lambda _texts: None

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.entered.release()
        assert self.gate.wait(60)
        self.refuse(texts)
        return np.array([[len(text)] for text in texts], dtype=np.float32)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.gate.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


Asked = dict[str, "Future[Vectors]"]


def _behind_one(engine: Engine, pool: ThreadPoolExecutor, texts: Sequence[str]) -> Asked:
    """All `texts` asked for while the only place is taken, so that they gather; then the place is free."""
    gathering = Gathering(engine.embed, at_once=1, seconds=60)
    engine.gate.clear()
    asked = {"first": pool.submit(gathering.embed, "first")}
    assert engine.entered.acquire(timeout=60)
    joined = threading.Semaphore(0)
    join = gathering._join

    def seen(text: str) -> object:
        place = join(text)
        joined.release()
        return place

    gathering._join = seen  # type: ignore[method-assign, assignment]
    for text in texts:
        asked[text] = pool.submit(gathering.embed, text)
        assert joined.acquire(timeout=60)
    engine.gate.set()
    return asked


def test_one_alone_goes_alone_and_at_once(engine: Engine) -> None:
    # It would wait for a minute if it waited at all.
    gathering = Gathering(engine.embed, at_once=1, seconds=60)
    assert gathering.embed("alone").tolist() == [5]
    assert gathering.embed("again!").tolist() == [6]
    assert engine.calls == [["alone"], ["again!"]]


def test_while_there_is_room_nobody_waits(engine: Engine, pool: ThreadPoolExecutor) -> None:
    gathering = Gathering(engine.embed, at_once=2, seconds=60)
    engine.gate.clear()
    asked = []
    for text in ("a", "bb"):
        asked.append(pool.submit(gathering.embed, text))
        assert engine.entered.acquire(timeout=60)
    engine.gate.set()
    assert [future.result(60).tolist() for future in asked] == [[1], [2]]
    assert engine.calls == [["a"], ["bb"]]


def test_who_comes_meanwhile_travels_together(engine: Engine, pool: ThreadPoolExecutor) -> None:
    texts = ["x" * number for number in range(1, 21)]
    asked = _behind_one(engine, pool, texts)
    assert {text: future.result(60).tolist() for text, future in asked.items()} == {
        text: [len(text)] for text in ("first", *texts)
    }
    assert engine.calls == [["first"], texts]


def test_the_wait_is_bounded(engine: Engine, pool: ThreadPoolExecutor) -> None:
    gathering = Gathering(engine.embed, at_once=1, seconds=0.01)
    engine.gate.clear()
    first = pool.submit(gathering.embed, "first")
    assert engine.entered.acquire(timeout=60)
    second = pool.submit(gathering.embed, "second")
    # The first one still holds the only place.
    assert engine.entered.acquire(timeout=60)
    engine.gate.set()
    assert (first.result(60).tolist(), second.result(60).tolist()) == ([5], [6])


def test_a_batch_has_no_more_than_pays(engine: Engine, pool: ThreadPoolExecutor) -> None:
    texts = [f"{number:0{SHORT_CHARACTERS}}" for number in range(12)]
    asked = _behind_one(engine, pool, texts)
    for future in asked.values():
        future.result(60)
    assert sorted(len(call) for call in engine.calls) == [1, 2, 5, 5]


def test_a_text_that_cannot_be_embedded_fails_alone(engine: Engine, pool: ThreadPoolExecutor) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "poison" in texts:
            raise Invalid("not this one")

    engine.refuse = refuse
    asked = _behind_one(engine, pool, ["good", "poison", "better"])
    with pytest.raises(Invalid, match="not this one"):
        asked.pop("poison").result(60)
    assert {text: future.result(60).tolist() for text, future in asked.items()} == {
        "first": [5],
        "good": [4],
        "better": [6],
    }


@pytest.mark.parametrize("error", [Unavailable("down"), Misconfigured("wrong key")])
def test_trouble_that_is_no_texts_fault_is_told_to_all_and_not_repeated(
    engine: Engine, pool: ThreadPoolExecutor, error: AppError
) -> None:
    def refuse(texts: Sequence[str]) -> None:
        if "first" not in texts:
            raise error

    engine.refuse = refuse
    asked = _behind_one(engine, pool, ["a", "b", "c"])
    assert asked.pop("first").result(60).tolist() == [5]
    raised = [future.exception(60) for future in asked.values()]
    assert [(type(one), str(one)) for one in raised] == [(type(error), str(error))] * 3
    assert len({id(one) for one in raised}) == 3
    assert engine.calls == [["first"], ["a", "b", "c"]]


def test_a_thread_that_is_ended_leaves_nobody_waiting(engine: Engine, pool: ThreadPoolExecutor) -> None:
    ended = False

    def refuse(texts: Sequence[str]) -> None:
        nonlocal ended
        if len(texts) > 1 and not ended:
            ended = True
            raise KeyboardInterrupt

    engine.refuse = refuse
    asked = _behind_one(engine, pool, ["a", "bb"])
    assert isinstance(asked.pop("a").exception(60), KeyboardInterrupt)
    assert asked["bb"].result(60).tolist() == [2]
    # And the place is free again.
    assert asked["first"].result(60).tolist() == [5]


def test_a_thread_that_is_ended_while_it_waits_leaves_nobody_waiting(engine: Engine, pool: ThreadPoolExecutor) -> None:
    class Ended(BaseException):
        pass

    def ended() -> Vectors:
        wait_for = gathering._room.wait_for

        def end(*_arguments: object) -> bool:
            # Who comes while the first one waits has joined before that one is ended.
            gathering._room.wait_for = wait_for  # type: ignore[method-assign]
            wait_for(lambda: gathering._open is not None and len(gathering._open.texts) == 2, 60)
            raise Ended

        gathering._room.wait_for = end  # type: ignore[method-assign, assignment]
        carrying.set()
        return gathering.embed("ended")

    gathering = Gathering(engine.embed, at_once=1, seconds=0.01)
    carrying = threading.Event()
    first = pool.submit(ended)
    assert carrying.wait(60)
    second = _joining(gathering, pool, "joined")
    assert isinstance(first.exception(60), Ended)
    assert second.result(60).tolist() == [6]
    assert gathering.embed("after").tolist() == [5]


def _joining(gathering: Gathering, pool: ThreadPoolExecutor, text: str) -> "Future[Vectors]":
    """Asks for a text once a batch is open, and tells those who wait that it came."""
    while gathering._open is None:
        threading.Event().wait(0.001)
    join = gathering._join

    def seen(text: str) -> object:
        place = join(text)
        gathering._room.notify_all()
        return place

    gathering._join = seen  # type: ignore[method-assign, assignment]
    return pool.submit(gathering.embed, text)


def test_under_a_storm_everyone_gets_their_own(engine: Engine, pool: ThreadPoolExecutor) -> None:
    gathering = Gathering(engine.embed, at_once=2)
    texts = ["y" * (number % 97) for number in range(3000)]
    assert [vector.tolist() for vector in pool.map(gathering.embed, texts)] == [[len(text)] for text in texts]
    assert sum(map(len, engine.calls)) == len(texts)


def test_bulk_and_long_texts_go_as_they_are(house: Services, words: WordEmbedder) -> None:
    seen: list[list[str]] = []
    words.before_answer = lambda texts: seen.append(list(texts))
    try:
        embedding = Embedding(house.database, words)
        long = "word " * SHORT_CHARACTERS
        for texts in (["a", "b"], [long], ["c"]):
            assert np.array_equal(embedding.embed(texts), words.embed(texts))
    finally:
        words.before_answer = lambda _texts: None
    assert seen == [["a", "b"], ["a", "b"], [long], [long], ["c"], ["c"]]
