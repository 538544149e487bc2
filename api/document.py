"""The OpenAPI document: what FastAPI makes of the routes, and what every answer and refusal has besides."""

import re
from typing import Any

from fastapi import FastAPI

from api import idempotency
from memory.filters import MAX_DEPTH

_ABOUT_LIMITS = {
    "RateLimit-Limit": "Requests that you may make in a minute",
    "RateLimit-Remaining": "How many of them are left",
    "RateLimit-Reset": "When the minute is over, in unix seconds",
}
_NEVER_BY_A_READ = {"409", "412"}
# Where the names are that lead from an answer on: path parameters and what they are called in it, its own id last.
_LEADS_ON = {
    "Collection": {"collection": "name", "name": "name"},
    "Memory": {"collection": "collection", "memory_id": "id"},
    "NewKey": {"key_id": "id"},
    "DropAccepted": {"batch_id": "batch_id"},
    "CurationRun": {"run_id": "run_id"},
}

Operation = dict[str, Any]
_NAMES = re.compile(r"\{(\w+)\}")


class DescribedApi(FastAPI):
    """An application whose document names headers too, and only those refusals that an operation can give."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            _bound_filters(document["components"]["schemas"])
            paths = document["paths"]
            targets = [(path, operation) for path, item in paths.items() for operation in item.values()]
            for path, item in paths.items():
                for method, operation in item.items():
                    _complete(path, method, operation)
                    _link(operation, targets)
        return super().openapi()


def _bound_filters(schemas: dict[str, Any]) -> None:
    """Names what stands in a filter anew at each level: a schema that refers to itself cannot say where that ends."""
    nesting = {name: schemas[name] for name in ("Every", "Some", "Non")}
    for name, schema in nesting.items():
        schemas[name] = _nested(schema, 1)
        for level in range(1, MAX_DEPTH):
            schemas[f"{name}{level}"] = _nested(schema, level + 1)
    for name in ("Every", "Some"):
        [(form, parts)] = nesting[name]["properties"].items()
        empty = {"type": "array", "maxItems": 0, "title": parts["title"]}
        schemas[f"{name}{MAX_DEPTH}"] = {**nesting[name], "properties": {form: empty}}


def _nested(schema: dict[str, Any], level: int) -> dict[str, Any]:
    """The schema of `and`, `or` or `not`, whose parts are those of this level."""
    kinds = [f"Every{level}", f"Some{level}", *([f"Non{level}"] if level < MAX_DEPTH else []), "Leaf"]
    parts = {"oneOf": [{"$ref": f"#/components/schemas/{kind}"} for kind in kinds]}
    [(form, described)] = schema["properties"].items()
    described = {**described, "items": parts} if "items" in described else {**described, **parts}
    return {**schema, "properties": {form: described}}


def _complete(path: str, method: str, operation: Operation) -> None:
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        parameter["schema"] = _written(parameter["schema"])
    impossible = _impossible(path, method, operation)
    responses = {status: one for status, one in operation["responses"].items() if status not in impossible}
    replayed = any(parameter["name"] == idempotency.HEADER for parameter in parameters)
    for status, response in responses.items():
        headers = _headers(status, response, replayed=replayed and status.startswith("2"))
        response["headers"] = {**headers, **response.get("headers", {})}
    operation["responses"] = responses


def _written(schema: dict[str, Any]) -> dict[str, Any]:
    """Without null: a query or a header can be left out, and then it is not there; it cannot say null."""
    alternatives = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(alternatives) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **alternatives[0]}


def _impossible(path: str, method: str, operation: Operation) -> set[str]:
    named = "{" in path or any(parameter["in"] == "query" and parameter.get("required") for parameter in _of(operation))
    impossible = set() if named else {"404"}
    if method == "get":
        impossible |= _NEVER_BY_A_READ
    if "requestBody" not in operation:
        impossible |= {"413"} if _of(operation) else {"413", "422"}
    return impossible


def _of(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = operation.get("parameters", [])
    return parameters


def _link(operation: Operation, targets: list[tuple[str, Operation]]) -> None:
    """Says which operations take what this one's answers are about."""
    for status, response in operation["responses"].items():
        found = _LEADS_ON.get(_schema(response).get("$ref", "").rpartition("/")[2], {}) if status < "3" else {}
        links = {
            target["operationId"]: {
                "operationId": target["operationId"],
                "parameters": {name: f"$response.body#/{found[name]}" for name in _NAMES.findall(path)},
            }
            for path, target in targets
            if found and _takes(found, _NAMES.findall(path))
        }
        if links:
            response["links"] = links


def _takes(found: dict[str, str], names: list[str]) -> bool:
    own = list(found.values())[-1]
    return set(names) <= found.keys() and own in (found[name] for name in names)


def _schema(response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = response.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _headers(status: str, response: dict[str, Any], *, replayed: bool) -> dict[str, Any]:
    headers = {
        "X-Request-Id": _header("The number under which our log has this request", minLength=1),
        **{name: _header(said, required=False, pattern="^[0-9]+$") for name, said in _ABOUT_LIMITS.items()},
    }
    schema = _schema(response)
    if schema.get("$ref") == "#/components/schemas/Memory":
        headers["ETag"] = _header("The memory's version, for `If-Match`", pattern='^"[0-9]+"$')
    if schema.get("type") == "array":
        headers["X-Total-Count"] = _header("How many there are in all", pattern="^[0-9]+$")
    if replayed:
        headers[idempotency.REPLAYED] = _header("This answer was given before", required=False, const="true")
    if status == "401":
        headers["WWW-Authenticate"] = _header("How to show a key", const="Bearer")
    if status in {"429", "503"}:
        headers["Retry-After"] = _header("Seconds to wait", pattern="^[1-9][0-9]*$")
    return headers


def _header(description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": "string", **schema}}
