"""Every refusal is JSON with one readable sentence, and repeats nothing that was sent."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from api import errors
from memory.errors import AppError, BadRequest, Conflict, Invalid, Misconfigured, NotFound, Unauthorized, Unavailable


class Thing(BaseModel):
    name: str
    weight: float = Field(default=0, le=1)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(exception_handlers=errors.HANDLERS)
    refusals = {kind.__name__: kind for kind in AppError.__subclasses__()}

    @app.get("/refused/{kind}")
    def refused(kind: str) -> None:
        raise refusals[kind]("no: \ud800")

    @app.post("/things")
    def things(body: list[Thing]) -> None: ...

    return TestClient(app)


@pytest.mark.parametrize("kind", [BadRequest, Unauthorized, NotFound, Conflict, Invalid, Unavailable, Misconfigured])
def test_a_refusal_keeps_its_status_and_reason(client: TestClient, kind: type[AppError]) -> None:
    answer = client.get(f"/refused/{kind.__name__}")

    assert answer.status_code == kind.status
    assert answer.json()["detail"] == "no: ?"
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if kind is Unauthorized else None)
    if kind is Invalid:
        assert answer.json()["errors"] == [{"type": "value_error", "loc": ["body"], "msg": "no: ?"}]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([{}], "0.name: field required"),
        ([{"name": "a"}, {"name": "b", "weight": 2}], "1.weight: input should be less than or equal to 1"),
        ([{"name": 1}, {"weight": "x"}], "0.name: input should be a valid string (and 2 more)"),
        ({"name": "a"}, "body: input should be a valid list"),
        (["a"], "0: input should be a JSON object"),
    ],
)
def test_a_wrong_body_is_named_by_its_field(client: TestClient, body: Any, detail: str) -> None:
    answer = client.post("/things", json=body)

    assert answer.status_code == 422
    assert answer.json()["detail"] == detail


def test_the_list_of_errors_repeats_no_input(client: TestClient) -> None:
    errors_shown = client.post("/things", json=[{"name": {"password": "hunter2"}}]).json()["errors"]

    assert errors_shown == [
        {"type": "string_type", "loc": ["body", 0, "name"], "msg": "Input should be a valid string"}
    ]


def test_the_list_of_errors_is_bounded(client: TestClient) -> None:
    answer = client.post("/things", json=[{}] * 5000)

    assert answer.json()["detail"] == "0.name: field required (and 4999 more)"
    assert len(answer.json()["errors"]) == 100


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/things", 405)])
def test_the_frameworks_own_refusals_have_the_same_form(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
