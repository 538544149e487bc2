"""Whatever is malformed, the refusal says so in plain words: no pattern, no name of a class, none of a library."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import batches, drop, events, memories
from tests.api.conftest import Tenant
from tests.api.routes import ABSENT_ID

_WORDS = ["x", "-1", "", "x" * 600, "{", "2026-13-01", "a/b"]
_VALUES: list[Any] = [
    None,
    "x",
    "x" * 20_000,
    "\ud800",
    "a/b",
    "2026-13-01",
    -7,
    5.5,
    True,
    [],
    ["x"],
    [{}],
    {},
    {"x": 1},
]
_OF_THE_CODE = re.compile(r"[\^\\$]|[a-z][A-Z]|<class|unicode string|dictionary|[a-z]+_[a-z]+\(|None|pydantic")
# What we ourselves call things.
_OUR_NAMES = re.compile(r"`?Content-Type`?|If-Match|Idempotency-Key|`ETag`")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads files here, and nobody waits for that."""
    for routes in (drop, batches, memories):
        monkeypatch.setattr(routes, "wait_until", lambda *_: False)
    monkeypatch.setattr(events, "LASTS_SECONDS", 0.0)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        address = re.sub(r"\{\w*id\}", ABSENT_ID, path).replace("{index}", "0")
        for method, operation in operations.items():
            if "rotate-key" not in path:
                yield method, re.sub(r"\{\w+\}", "harbour", address), operation


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *([schema["items"]] if "items" in schema else [])]
    return set(schema.get("properties", ())).union(*(_fields(document, one) for one in inner))


def _requests(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything wrong at once, each time in another way: a refusal lists all that is wrong."""
    for place, known_as in (("query", "params"), ("header", "headers")):
        names = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == place]
        yield from ({known_as: dict.fromkeys(names, word)} for word in _WORDS if names)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        fields = _fields(document, content["schema"])
        if kind == "application/json":
            for body in [*_VALUES, *(dict.fromkeys(fields, value) for value in _VALUES)]:
                many = content["schema"].get("type") == "array" and isinstance(body, dict)
                yield {
                    "headers": {"Content-Type": "application/json"},
                    "content": json.dumps([body] if many else body),
                }
        else:
            yield from ({"data": dict.fromkeys(fields, word)} for word in _WORDS)
            yield from ({"data": dict.fromkeys(fields - {"file", "files"}, word), "files": _FILE} for word in _WORDS)


_FILE = [("files", ("a.txt", b"hello"))]


@pytest.mark.usefixtures("impatient")
def test_a_refusal_speaks_to_the_user(app: FastAPI, client: TestClient, tenant: Tenant) -> None:
    document = app.openapi()
    said: dict[str, str] = {}
    for method, address, operation in _operations(document):
        for sent in _requests(document, operation):
            headers = {**tenant.headers, **sent.pop("headers", {})}
            answer = client.request(method, address, headers=headers, **sent)
            if answer.status_code == 422:
                refusal = answer.json()
                for words in (refusal["detail"], *(error["msg"] for error in refusal["errors"])):
                    said.setdefault(words, f"{method} {address} {sent}"[:200])

    assert len(said) > 100
    assert {words: sent for words, sent in said.items() if _OF_THE_CODE.search(_OUR_NAMES.sub("", words))} == {}
