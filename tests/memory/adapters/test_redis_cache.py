"""The cache in a real Redis: shared, timed, and of no consequence when Redis is away."""

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from memory.adapters.redis_cache import RedisCache
from memory.errors import Misconfigured
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def cache(server: RedisServer) -> Iterator[RedisCache]:
    made = RedisCache(server.url, wait_seconds=30)
    yield made
    made.close()


def test_what_one_process_puts_another_gets(server: RedisServer, cache: RedisCache) -> None:
    other = RedisCache(server.url, wait_seconds=30)
    value = bytes(range(256))
    assert cache.get("shared") is None
    cache.put("shared", value, seconds=60)
    assert other.get("shared") == value
    other.close()


def test_an_entry_ends_in_time(server: RedisServer, cache: RedisCache) -> None:
    cache.put("brief", b"-", seconds=0.05)
    cache.put("long", b"-", seconds=3600)
    with server.client() as client:
        assert 3_590_000 < client.pttl("rememberos:answer:long") <= 3_600_000
    deadline = time.monotonic() + 10
    while cache.get("brief") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert cache.get("long") == b"-"


def test_without_redis_nothing_is_found_and_nothing_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    with redis_server(tmp_path) as server:
        cache = RedisCache(server.url, wait_seconds=30, away_seconds=5, clock=lambda: now[0])
        cache.put("kept", b"-", seconds=60)
        assert cache.get("kept") == b"-"
        server.stop()
        with caplog.at_level(logging.WARNING):
            assert cache.get("kept") is None
            cache.put("kept", b"-", seconds=60)
        assert len(caplog.records) == 1, "once for an outage, not once for a search"
        assert "test-secret" not in caplog.text
        server.start()
        cache.put("early", b"-", seconds=60)
        assert cache.get("early") is None, "for a while nobody asks it"
        now[0] += 5
        cache.put("back", b"-", seconds=60)
        assert cache.get("back") == b"-"
        # A restart that nobody noticed: the pooled connection is dead, the server is not.
        server.stop()
        server.start()
        cache.put("again", b"-", seconds=60)
        assert cache.get("again") == b"-"
        cache.close()


def test_a_server_that_takes_calls_and_says_nothing_is_away_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = RedisCache(SecretStr(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"), away_seconds=3600)
        assert cache.get("anything") is None
        silent.close()
        assert cache.get("anything") is None
        cache.close()


def test_an_address_that_is_none_is_named_without_its_password() -> None:
    with pytest.raises(Misconfigured, match="REDIS_URL") as refused:
        RedisCache(SecretStr("http://:test-secret@127.0.0.1/0"))
    assert "test-secret" not in str(refused.value)
