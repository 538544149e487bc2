"""Server-sent events: what is told, when they end, and that a client that goes away leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.types import Message, Scope

from api import events
from api.events import Event, EventStream, follow
from memory.errors import Forbidden, Unavailable

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_PAUSE_SECONDS", "_LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(events, name, 0.0)


def followed(seen: Iterator[int | Exception]) -> list[str]:
    """What is told of these sights; 0 is the end."""

    def look() -> int:
        sight = next(seen)
        if isinstance(sight, Exception):
            raise sight
        return sight

    async def collect() -> list[str]:
        told = follow(look(), look, lambda sight: Event("count", str(sight)), lambda sight: sight == 0)
        return [event.encoded() async for event in told]

    return asyncio.run(collect())


def test_what_is_seen_is_told_at_once_and_when_it_changes_until_the_end() -> None:
    told = followed(iter([2, 2, 2, 1, 1, 0, 7]))

    assert told == [f"event: count\ndata: {number}\n\n" for number in (2, 1, 0)]


def test_what_has_ended_is_told_once() -> None:
    assert followed(iter([0])) == ["event: count\ndata: 0\n\n"]


def test_where_nothing_changes_a_heartbeat_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.0)

    assert followed(iter([1, 1, 0]))[1].startswith(":")


def test_nobody_is_told_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LASTS_SECONDS", 0.0)

    assert len(followed(iter([1]))) == 1


def test_an_outage_is_waited_out() -> None:
    assert len(followed(iter([1, Unavailable("no database"), 0]))) == 2


def test_who_may_no_longer_see_it_is_told_no_more() -> None:
    assert len(followed(iter([1, Forbidden("the grant was taken back"), 0]))) == 1


async def _endless(gone: list[str]) -> AsyncIterator[Event]:
    try:
        while True:
            yield Event("tick", "1")
            await asyncio.sleep(0)
    finally:
        gone.append("closed")


def _serve(answer: EventStream, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    async def sending(message: Message) -> None:
        send(message)

    asyncio.run(asyncio.wait_for(answer(SCOPE, receive, sending), 60))


def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    gone: list[str] = []
    heard: list[Message] = []

    async def receive() -> Message:
        while len(heard) < 3:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    _serve(EventStream(_endless(gone)), receive, heard.append)

    assert gone == ["closed"]
    assert EventStream.listening == 0


def test_the_answer_is_neither_cached_nor_collected() -> None:
    heard: list[Message] = []

    async def two() -> AsyncIterator[Event]:
        yield Event("progress", "1")
        yield Event("complete", "2")

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("nobody goes away")

    _serve(EventStream(two()), receive, heard.append)

    headers = dict(heard[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert (headers[b"cache-control"], headers[b"x-accel-buffering"]) == (b"no-store", b"no")
    assert [message["body"] for message in heard[1:]] == [
        b"event: progress\ndata: 1\n\n",
        b"event: complete\ndata: 2\n\n",
        b"",
    ]


def test_more_than_so_many_are_not_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventStream, "listening", events.AT_MOST)

    with pytest.raises(Unavailable):
        EventStream(_endless([]))
