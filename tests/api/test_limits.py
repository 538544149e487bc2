"""Limits of requests: counted per key, per address for strangers and for public pages, told on every answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api import limits
from api.app import create_app
from memory.errors import Misconfigured
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant
from tests.redis_server import redis_server

COLLECTIONS = "/v1/memory/collections"
HEALTH = "/v1/memory/health"
PAGE = "/openapi.json"
_NAMES = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


@pytest.fixture
def serving(settings: Settings, services: Services) -> Callable[..., Any]:
    """An API of its own with other limits, over the same services."""

    @contextmanager
    def serve(per_key: int = 5, per_stranger: int = 3, **changes: Any) -> Iterator[TestClient]:
        changed = settings.model_copy(
            update={"rate_limit_per_minute": per_key, "public_rate_limit_per_minute": per_stranger, **changes}
        )
        with TestClient(create_app(changed, services)) as client:
            yield client

    return serve


def _told(answer: Any) -> tuple[int, int]:
    limit, remaining, reset = (int(answer.headers[name]) for name in _NAMES)
    assert time.time() - 1 <= reset <= time.time() + 61
    return limit, remaining


def test_a_key_has_its_minute(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=3) as client:
        answers = [client.get(COLLECTIONS, headers=tenant.headers) for _ in range(5)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [_told(answer) for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0), (3, 0)]
        refused = answers[-1]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert "3 requests in a minute" in refused.json()["detail"]
        assert "Retry-After" not in answers[0].headers
        # Each key has one of its own, and it is told to pages of other origins too.
        assert client.get(COLLECTIONS, headers=tenant.read_only).status_code == 200


def test_a_refused_body_is_not_read_and_nothing_is_written(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=2) as client:
        for status in (201, 201, 429):
            answer = client.post(f"{COLLECTIONS}/people/memories", headers=tenant.headers, json={"text": "Ada"})
            assert answer.status_code == status


def test_a_rotated_key_has_no_fresh_minute(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=2) as client:
        rotated = client.post("/v1/memory/admin/rotate-key", headers=tenant.headers).json()
        headers = {"Authorization": f"Bearer {rotated['api_key']}"}

        assert [client.get(COLLECTIONS, headers=headers).status_code for _ in range(2)] == [200, 429]


def test_every_answer_tells(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=100, per_stranger=100) as client:
        answers = {
            200: client.get(COLLECTIONS, headers=tenant.headers),
            401: client.get(COLLECTIONS),
            403: client.post(COLLECTIONS, headers=tenant.read_only, json={"name": "a"}),
            404: client.get("/nowhere"),
            405: client.put(COLLECTIONS, headers=tenant.headers),
            422: client.post(COLLECTIONS, headers=tenant.headers, json={}),
        }
        assert {status: answer.status_code for status, answer in answers.items()} == {
            status: status for status in answers
        }
        public = [client.get(path) for path in (HEALTH, PAGE, "/api-explorer.html", "/api-explorer/favicon.png")]
        preflight = client.options(
            COLLECTIONS, headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        )

        assert all(_told(answer)[0] == 100 for answer in (*answers.values(), *public, preflight))
        link = client.get("/v1/memory/files/a/b")
        assert link.status_code in {403, 404}
        assert _told(link)[0] == 100


def test_pages_of_other_origins_may_read_it(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving() as client:
        answer = client.get(COLLECTIONS, headers={**tenant.headers, "Origin": "https://a.example"})

    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {*_NAMES, "Retry-After", "Idempotent-Replayed"} <= set(exposed)


def test_public_pages_count_by_address_and_apart_from_keys(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=100, per_stranger=2) as client:
        answers = [client.get(PAGE, headers={"Origin": "https://a.example"}) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["Access-Control-Allow-Origin"] == "*"
        assert answers[-1].json()["detail"]
        assert answers[-1].headers["X-Request-Id"]
        assert _told(answers[-1]) == (2, 0)
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert client.get("/api-explorer.html").status_code == 429
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 200


def test_liveness_is_never_refused(serving: Callable[..., Any]) -> None:
    with serving(per_stranger=1) as client:
        answers = [client.get(HEALTH) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert _told(answers[-1]) == (1, 0)


def test_strangers_are_counted_by_address(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=3) as client:
        sent = [{}, {"Authorization": "Bearer mv_0123456789abcdef"}, {"Authorization": "Bearer mv_fedcba9876543210"}]
        statuses = [client.get(COLLECTIONS, headers=headers).status_code for headers in (*sent, *sent)]

        assert statuses == [401, 401, 401, 429, 429, 429]
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 200


def test_zero_is_no_limit_and_no_headers(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=0, per_stranger=0) as client:
        for path, headers in ((COLLECTIONS, tenant.headers), (COLLECTIONS, {}), (PAGE, {}), (HEALTH, {})):
            answer = client.get(path, headers=headers)
            assert not set(map(str.lower, _NAMES)) & set(answer.headers)
    with serving(per_key=0, per_stranger=7) as client:
        assert _told(client.get(PAGE)) == (7, 6)
        assert "RateLimit-Limit" not in client.get(COLLECTIONS, headers=tenant.headers).headers


def test_requests_at_once_are_all_counted(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=10) as client, ThreadPoolExecutor(8) as callers:
        statuses = list(callers.map(lambda _: client.get(COLLECTIONS, headers=tenant.headers).status_code, range(30)))

    assert sorted(statuses) == [200] * 10 + [429] * 20


def test_a_window_ends(serving: Callable[..., Any], tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with serving(per_key=1) as client:
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 200
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 429

        monkeypatch.setattr("limits.aio.storage.memory.time.time", lambda: real() + 61)

        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_an_address_is_a_household(host: str | None, counted: str) -> None:
    assert limits.client_address({"client": None if host is None else (host, 1)}) == counted


# Redis


def test_two_processes_share_a_minute(serving: Callable[..., Any], tenant: Tenant, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        with serving(per_key=3, redis_url=redis.url) as one, serving(per_key=3, redis_url=redis.url) as two:
            answers = [client.get(COLLECTIONS, headers=tenant.headers) for client in (one, two, one, two, one)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [_told(answer)[1] for answer in answers] == [2, 1, 0, 0, 0]
        with redis.client() as client:
            kept = b" ".join(client.keys("*"))
        assert tenant.headers["Authorization"].removeprefix("Bearer ").encode() not in kept


def test_a_redis_that_goes_away_stops_nobody(
    serving: Callable[..., Any], tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_AFTER_TROUBLE_SECONDS", 0.0)
    with redis_server(tmp_path) as redis, serving(per_key=1, redis_url=redis.url) as client:
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 200
        assert client.get(COLLECTIONS, headers=tenant.headers).status_code == 429

        redis.stop()
        answers = [client.get(COLLECTIONS, headers=tenant.headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert [_told(answer) for answer in answers] == [(1, 1)] * 3

        redis.start()
        assert [client.get(COLLECTIONS, headers=tenant.headers).status_code for _ in range(2)] == [200, 429]


def test_a_redis_that_never_was_stops_nobody(serving: Callable[..., Any], tenant: Tenant) -> None:
    with serving(per_key=1, redis_url=SecretStr("redis://:hunter2@127.0.0.1:1/0")) as client:
        answers = [client.get(COLLECTIONS, headers=tenant.headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert all(_told(answer) == (1, 1) for answer in answers)


def test_an_address_that_is_none_of_redis_is_named_and_not_told() -> None:
    with pytest.raises(Misconfigured, match="REDIS_URL") as refused:
        limits.Limiter(per_key=1, per_stranger=1, redis_url=SecretStr("http://:hunter2@nowhere"))
    assert "hunter2" not in str(refused.value)
