"""The key comes before the body, and the body is bounded."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message

from api import errors, limits
from api.routing import router
from memory.services import Services
from tests.api.conftest import Tenant

PEOPLE = "/v1/memory/collections/people/memories"
MEGABYTE = 1024 * 1024


def _padded(size: int, text: str) -> bytes:
    return text.encode() + b" " * (size - len(text))


def _post(client: TestClient, tenant: Tenant, path: str, body: bytes | Iterator[bytes]) -> Any:
    headers = {**tenant.headers, "Content-Type": "application/json"}
    return client.post(path, headers=headers, content=body)


@pytest.mark.parametrize(
    ("path", "body", "limit"),
    [(PEOPLE, '{"text": "a"}', MEGABYTE), (f"{PEOPLE}/bulk", '[{"text": "a"}]', 10 * MEGABYTE)],
)
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_up_to_the_limit_is_taken_and_one_byte_more_is_413(
    client: TestClient, tenant: Tenant, path: str, body: str, limit: int, declared: bool
) -> None:
    def sent(size: int) -> bytes | Iterator[bytes]:
        whole = _padded(size, body)
        return whole if declared else (whole[start : start + 65_536] for start in range(0, size, 65_536))

    assert _post(client, tenant, path, sent(limit)).status_code == 201
    refused = _post(client, tenant, path, sent(limit + 1))
    assert refused.status_code == 413
    assert refused.json() == {"detail": f"the body is over the limit of {limit // MEGABYTE} MB"}


def test_a_declared_length_is_believed_before_anything_is_read(
    app: FastAPI, client: TestClient, tenant: Tenant
) -> None:
    headers = [(b"content-length", b"99999999"), (b"authorization", tenant.headers["Authorization"].encode())]

    assert _status_without_reading(app, headers) == 413


def test_of_a_stranger_nothing_is_read(app: FastAPI, client: TestClient) -> None:
    assert _status_without_reading(app, [(b"content-length", b"13")]) == 401


def test_of_a_reader_nothing_is_read_for_a_write(app: FastAPI, client: TestClient, tenant: Tenant) -> None:
    headers = [(b"content-length", b"13"), (b"authorization", tenant.read_only["Authorization"].encode())]

    assert _status_without_reading(app, headers) == 403


def _status_without_reading(app: FastAPI, headers: list[tuple[bytes, bytes]]) -> int:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PEOPLE,
        "raw_path": PEOPLE.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers],
    }
    anyio.run(app, scope, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_is_not_declared_as_json_is_422_and_says_so(
    client: TestClient, tenant: Tenant, content_type: str | None
) -> None:
    headers = {**tenant.headers, **({"Content-Type": content_type} if content_type else {})}

    answer = client.post(PEOPLE, headers=headers, content=b'{"text": "a"}')

    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"])
def test_json_may_be_declared_in_several_ways(client: TestClient, tenant: Tenant, content_type: str) -> None:
    headers = {**tenant.headers, "Content-Type": content_type}

    assert client.post(PEOPLE, headers=headers, content=b'{"text": "a"}').status_code == 201


def test_a_client_that_goes_away_is_nobodys_failure(app: FastAPI, client: TestClient, tenant: Tenant) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": PEOPLE,
        "raw_path": PEOPLE.encode(),
        "query_string": b"",
        "headers": [(b"content-length", b"13"), (b"authorization", tenant.headers["Authorization"].encode())],
    }
    anyio.run(app, scope, receive, send)

    assert sent == []


def test_a_route_that_forgets_to_ask_is_closed_all_the_same(services: Services) -> None:
    careless = router("careless")

    @careless.get("/v1/memory/secrets")
    def secrets() -> str:
        return "hunter2"

    app = FastAPI(exception_handlers=errors.HANDLERS)
    app.include_router(careless)
    app.state.services = services
    app.state.limiter = limits.limiter(services.settings)

    answer = TestClient(app).get("/v1/memory/secrets")

    assert answer.status_code == 401
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/memory/collections", "GET, POST"),
        ("/v1/memory/collections/people", "DELETE, GET, PUT"),
        (PEOPLE, "GET, POST"),
        (f"{PEOPLE}/6f1d4a52-0f5e-4c8b-9a3e-0d6c1d2e3f40", "DELETE, GET, PATCH"),
        (f"{PEOPLE}/bulk", "POST"),
        ("/v1/memory/health", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405_and_all_right_ones_are_named(client: TestClient, path: str, methods: str) -> None:
    answer = client.request("PROPFIND", path)

    assert answer.status_code == 405
    assert isinstance(answer.json()["detail"], str)
    assert answer.headers["Allow"] == methods
