"""The client of the commands against a server that is as unkind as a network and a busy server are."""

import json
from collections import deque

import pytest

from memory.errors import Forbidden, Invalid, Unauthorized, Unavailable
from ops import client as module
from ops.client import Client
from ops.ports import free_port
from tests.fakes import Answer, LocalServer, Received

FINE = Answer(200, b'{"well": true}')


class Moody(LocalServer):
    """Answers as its script says, and well once that is empty."""

    def __init__(self, *script: Answer) -> None:
        super().__init__()
        self.script = deque(script)

    def answer(self, request: Received) -> Answer:
        return self.script.popleft() if self.script else FINE


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_heals_by_itself_is_asked_again_as_the_same_request(status: int) -> None:
    with Moody(Answer(status), Answer(status)) as server:
        assert Client(server.url, "mv_key", patience_seconds=30).post("/x", {"a": 1}) == {"well": True}

        keys = {request.headers["idempotency-key"] for request in server.received}
        assert len(server.received) == 3
        assert len(keys) == 1
        assert {request.body for request in server.received} == {b'{"a": 1}'}


def test_two_requests_are_two() -> None:
    with Moody() as server:
        client = Client(server.url, "mv_key", patience_seconds=30)
        client.post("/x", {})
        client.post("/x", {})

        assert len({request.headers["idempotency-key"] for request in server.received}) == 2


def test_it_waits_as_long_as_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with Moody(Answer(429, headers={"retry-after": "7"}), Answer(429, headers={"retry-after": "soon"})) as server:
        client = Client(server.url, "mv_key", patience_seconds=30)
        waited: list[float] = []

        def wait(seconds: float) -> bool:
            waited.append(seconds)
            return False

        monkeypatch.setattr(client._closed, "wait", wait)

        assert client.post("/x", {}) == {"well": True}

        assert waited == [7.0, 0.02]


def test_without_patience_nothing_is_asked_twice() -> None:
    with Moody(Answer(503, json.dumps({"detail": "full"}).encode())) as server:
        with pytest.raises(Unavailable, match="POST /x: 503 full"):
            Client(server.url, "mv_key").post("/x", {})

        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden), (422, Invalid), (500, Unavailable)]
)
def test_a_refusal_is_told_at_once_in_the_servers_words(status: int, error: type[Exception]) -> None:
    with Moody(Answer(status, json.dumps({"detail": "for a reason"}).encode())) as server:
        with pytest.raises(error, match="for a reason"):
            Client(server.url, "mv_key", patience_seconds=30).post("/x", {})

        assert len(server.received) == 1


def test_a_connection_that_never_comes_about_ends_with_patience() -> None:
    with pytest.raises(Unavailable, match="refused"):
        Client(f"http://127.0.0.1:{free_port()}", "mv_key", patience_seconds=0.05).get("/x")


def test_a_closed_client_waits_for_nothing() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", "mv_key", patience_seconds=3600)
    client.close()

    with pytest.raises(Unavailable):
        client.get("/x")


def test_a_form_carries_any_name_in_one_header_line() -> None:
    with Moody() as server:
        Client(server.url, "mv_key").form("/x", {"category": "märz"}, [('a"b\r\nX-Evil: 1.txt', b"1"), ("ü.txt", b"2")])

        (request,) = server.received
        assert b'filename="a%22b%0D%0AX-Evil: 1.txt"' in request.body
        assert 'name="category"\r\n\r\nmärz\r\n'.encode() in request.body
        assert 'filename="ü.txt"'.encode() in request.body


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://example.org", "", "https://"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(Invalid, match="not an address"):
        Client(url, "mv_key")


@pytest.mark.parametrize("key", ["", "mv_a\r\nX-Evil: 1", "mv_ü"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(Invalid) as refused:
        Client("https://example.org", key)

    assert not key or key not in refused.value.detail
