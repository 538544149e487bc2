"""The number, the log line and the last resort of every request."""

import re

import pytest
import structlog
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from api import errors
from api.middleware import Failures, RequestLog


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(middleware=[Middleware(RequestLog), Middleware(Failures)], exception_handlers=errors.HANDLERS)

    @app.get("/things/{name}")
    def thing(name: str) -> str:
        structlog.get_logger("inside").info("in the route's thread")
        return name

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("hunter2")

    @app.get("/broken-midway")
    def broken_midway() -> StreamingResponse:
        def pieces() -> object:
            yield b"half"
            raise RuntimeError("hunter2")

        return StreamingResponse(pieces())  # type: ignore[arg-type]

    return TestClient(app)


def test_every_answer_has_a_number_of_its_own(client: TestClient) -> None:
    numbers = [client.get(path).headers["X-Request-Id"] for path in ("/things/a", "/things/a", "/nowhere", "/broken")]

    assert len(set(numbers)) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in numbers)


def test_a_client_may_bring_its_number(client: TestClient) -> None:
    assert client.get("/things/a", headers={"X-Request-Id": "job-7.3"}).headers["X-Request-Id"] == "job-7.3"


@pytest.mark.parametrize("sent", ["a b", "a\tb", "<script>", "x" * 129, ""])
def test_a_number_that_could_disturb_a_log_is_replaced(client: TestClient, sent: str) -> None:
    answered = client.get("/things/a", headers={"X-Request-Id": sent}).headers["X-Request-Id"]

    assert re.fullmatch("[0-9a-f]{32}", answered)


def test_one_line_per_request_without_words_of_the_tenant(client: TestClient) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        client.get("/things/private?q=secret", headers={"X-Request-Id": "r1", "Authorization": "Bearer mv_x"})

    (line,) = [line for line in lines if line["event"] == "request"]
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/things/{name}",
        "status": 200,
        "request_id": "r1",
    }


def test_what_a_route_logs_carries_the_number(client: TestClient) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        client.get("/things/a", headers={"X-Request-Id": "r2"})

    assert [line["request_id"] for line in lines if line["event"] == "in the route's thread"] == ["r2"]


def test_an_unknown_path_is_logged_without_it(client: TestClient) -> None:
    with capture_logs() as lines:
        client.get("/private")

    assert [(line["route"], line["status"]) for line in lines] == [("unmatched", 404)]


def test_the_unforeseen_is_a_plain_500_and_a_logged_traceback(client: TestClient) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        answer = client.get("/broken", headers={"X-Request-Id": "r3"})

    assert answer.status_code == 500
    assert answer.json() == {"detail": "Something went wrong on our side. The log has it under request r3."}
    (failure,) = [line for line in lines if line["event"] == "request failed"]
    assert failure["exc_info"]
    assert failure["request_id"] == "r3"
    assert [line["status"] for line in lines if line["event"] == "request"] == [500]


def test_a_failure_after_the_start_of_the_answer_breaks_the_connection(client: TestClient) -> None:
    with pytest.raises(RuntimeError, match="hunter2"):
        client.get("/broken-midway")
