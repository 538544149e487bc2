"""The app's own route table, and for each route one row: a valid request, and who may make it with which outcome."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi.routing import APIRoute, iter_route_contexts

from api import auth
from api.app import create_app
from api.routing import GuardedRoute
from memory.settings import Settings

ABSENT_ID = "6f1d4a52-0f5e-4c8b-9a3e-0d6c1d2e3f40"
_COLLECTION = "/v1/memory/collections/{collection}"
_NAMED = "/v1/memory/collections/{name}"
_BATCH = "/v1/memory/ingest/batch/{batch_id}"
_MEMORY = f"{_COLLECTION}/memories/{{memory_id}}"


class Route(NamedTuple):
    method: str
    path: str
    guard: auth.Guard | None
    asks_before_reading: bool

    def at(self, **names: str) -> str:
        """A concrete path; what is not named is a collection `harbour` or an id that nobody has."""
        values = {
            parameter: names.get(parameter, ABSENT_ID if parameter.endswith("_id") else "harbour")
            for parameter in ("name", "collection", "memory_id", "batch_id", "run_id", "key_id", "agent_key_id")
        } | {
            "index": "0",
        }
        return self.path.format(**values)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Outcomes(NamedTuple):
    """Status for each key on the restricted collection `harbour`. Neither the main key nor `ungranted` has a grant;
    `reader` may read, `writer` read and write; `read_only` has both rights by its grant and is a read-only key;
    `stranger` is another tenant's main key, to whom the name is free and the ids are unknown."""

    main: int
    reader: int
    writer: int
    ungranted: int
    read_only: int
    stranger: int


@dataclass(frozen=True)
class Row:
    """What a valid request holds besides its path, and what comes of it."""

    outcomes: Outcomes
    sent: dict[str, Any] = field(default_factory=dict)
    changes: bool = False


def _reads(*, stranger: int = 200) -> Outcomes:
    return Outcomes(403, 200, 200, 403, 200, stranger)


def _writes(done: int, *, stranger: int) -> Outcomes:
    return Outcomes(403, 403, done, 403, 403, stranger)


_SHOWS = Outcomes(200, 200, 200, 403, 200, 404)
_MANAGES = Outcomes(200, 403, 200, 403, 403, 404)
_FOR_ALL = Outcomes(200, 200, 200, 200, 200, 200)


def _for_writers(done: int, *, stranger: int | None = None) -> Outcomes:
    return Outcomes(done, done, done, done, 403, stranger or done)


def _json(**body: Any) -> dict[str, Any]:
    return {"json": body}


ROWS: dict[tuple[str, str], Row] = {
    ("GET", "/v1/memory/collections"): Row(_FOR_ALL),
    ("POST", "/v1/memory/collections"): Row(_for_writers(201), _json(name="quay"), changes=True),
    ("GET", _NAMED): Row(_SHOWS),
    ("PUT", _NAMED): Row(_MANAGES, _json(description="taken over"), changes=True),
    ("DELETE", _NAMED): Row(_MANAGES, changes=True),
    ("POST", f"{_COLLECTION}/memories"): Row(_writes(201, stranger=201), _json(text="mine"), changes=True),
    ("POST", f"{_COLLECTION}/memories/bulk"): Row(
        _writes(201, stranger=201), {"json": [{"text": "mine"}]}, changes=True
    ),
    ("POST", f"{_COLLECTION}/memories/upload"): Row(
        _writes(201, stranger=201), {"files": {"files": ("mine.txt", b"mine")}, "data": {"text": "mine"}}, changes=True
    ),
    ("POST", f"{_COLLECTION}/memories/folder"): Row(
        _writes(201, stranger=201), {"files": {"files": ("mine.txt", b"mine")}}, changes=True
    ),
    ("POST", f"{_MEMORY}/images"): Row(
        _writes(201, stranger=404), {"files": {"file": ("mine.txt", b"mine")}}, changes=True
    ),
    ("DELETE", f"{_MEMORY}/images/{{index}}"): Row(_writes(200, stranger=404), changes=True),
    ("GET", f"{_COLLECTION}/memories"): Row(_reads()),
    ("GET", _MEMORY): Row(_reads(stranger=404)),
    ("GET", f"{_MEMORY}/history"): Row(_reads(stranger=404)),
    ("GET", f"{_MEMORY}/related"): Row(_reads(stranger=404)),
    ("PATCH", _MEMORY): Row(_writes(200, stranger=404), _json(text="taken over"), changes=True),
    ("POST", f"{_MEMORY}/move"): Row(_writes(200, stranger=404), _json(to_collection="quay"), changes=True),
    ("POST", f"{_MEMORY}/pin"): Row(_writes(200, stranger=404), _json(pinned=True), changes=True),
    ("POST", f"{_MEMORY}/archive"): Row(_writes(200, stranger=404), _json(archived=True), changes=True),
    ("DELETE", _MEMORY): Row(_writes(200, stranger=404), changes=True),
    ("POST", f"{_COLLECTION}/forget"): Row(
        _writes(200, stranger=200), _json(query="anchor", min_score=0), changes=True
    ),
    ("POST", f"{_COLLECTION}/search"): Row(_reads(), _json(query="anchor")),
    ("POST", "/v1/memory/search"): Row(_FOR_ALL, _json(query="anchor")),
    ("POST", f"{_COLLECTION}/drop"): Row(
        _writes(202, stranger=202),
        {"files": {"files": ("mine.txt", b"mine")}, "params": {"async_ingest": "true"}},
        changes=True,
    ),
    ("POST", f"{_COLLECTION}/drop/missing"): Row(_writes(200, stranger=200), _json(sha256=["0" * 64])),
    ("GET", _BATCH): Row(_reads(stranger=404)),
    ("POST", f"{_COLLECTION}/drop/presign"): Row(
        _writes(200, stranger=200), {"json": [{"filename": "mine.txt", "size": 4}]}, changes=True
    ),
    ("POST", f"{_COLLECTION}/drop/complete"): Row(
        _writes(202, stranger=202), {"json": [{"key": "mine", "filename": "mine.txt", "size": 4}]}, changes=True
    ),
    ("GET", f"{_BATCH}/events"): Row(_reads(stranger=404)),
    ("POST", f"{_BATCH}/retry"): Row(_writes(202, stranger=404), changes=True),
    ("POST", f"{_BATCH}/cancel"): Row(_writes(200, stranger=404), changes=True),
    ("POST", f"{_COLLECTION}/dedup"): Row(_reads(), _json()),
    ("POST", f"{_COLLECTION}/archive-stale"): Row(_reads(), _json()),
    ("GET", "/v1/memory/curation/runs/{run_id}"): Row(Outcomes(*[404] * 6)),
    ("GET", f"{_COLLECTION}/contradictions"): Row(_reads()),
    ("GET", f"{_COLLECTION}/health"): Row(_reads()),
    ("GET", f"{_COLLECTION}/summary"): Row(_reads()),
    ("GET", f"{_COLLECTION}/curation"): Row(_reads(stranger=404)),
    # It deletes and archives by itself, so managing without writing is not enough.
    ("PUT", f"{_COLLECTION}/curation"): Row(_writes(200, stranger=404), _json(stale_days=90), changes=True),
    ("GET", "/v1/memory/keys"): Row(_for_writers(200)),
    ("POST", "/v1/memory/keys"): Row(_for_writers(201), _json(label="agent"), changes=True),
    ("DELETE", "/v1/memory/keys"): Row(
        _for_writers(200, stranger=404), {"params": {"id": "{spare_key_id}"}}, changes=True
    ),
    ("DELETE", "/v1/memory/keys/{key_id}"): Row(_for_writers(200, stranger=404), changes=True),
    ("POST", "/v1/memory/admin/rotate-key"): Row(_for_writers(200), changes=True),
    ("GET", "/v1/memory/agents"): Row(_FOR_ALL),
    ("GET", "/v1/memory/admin/me"): Row(_FOR_ALL),
    ("GET", "/v1/memory/admin/stats"): Row(_FOR_ALL),
    # Of an operator's account; none of these is.
    ("GET", "/v1/memory/admin/audit"): Row(Outcomes(*[403] * 6)),
    ("GET", f"{_NAMED}/grants"): Row(_SHOWS),
    ("PUT", f"{_NAMED}/grants"): Row(_MANAGES, _json(agent_key_id="{spare_key_id}"), changes=True),
    ("DELETE", f"{_NAMED}/grants/{{agent_key_id}}"): Row(_MANAGES, changes=True),
}


def routes() -> list[Route]:
    found: list[Route] = []
    for route in iter_route_contexts(create_app(Settings(_env_file=None)).routes):
        original = route.original_route
        demanded = {d.call for d in original.dependant.dependencies} if isinstance(original, APIRoute) else set()
        guard = next((guard for guard in auth.GUARDS if guard in demanded), None)
        guarded = isinstance(original, GuardedRoute)
        found += [Route(method, str(route.path), guard, guarded) for method in sorted(route.methods or {"GET"})]
    return found


GUARDED = [route for route in routes() if route.path not in auth.PUBLIC]


def request_of(route: Route, **names: str) -> dict[str, Any]:
    """What httpx sends for a valid request to this route; a route without a row fails here."""
    sent: dict[str, Any] = _filled(ROWS[route.method, route.path].sent, names)
    return {"method": route.method, "url": route.at(**names), **sent}


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if value == "{spare_key_id}":
        return names.get("key_id", ABSENT_ID)
    return value
