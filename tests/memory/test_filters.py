"""The filter language: what is refused, and that Postgres finds by it exactly what a plain reading of it finds."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import hypothesis
import jsonschema
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from memory.filters import ISO_DATE, Filter
from memory.schemas import Caller, Memory, MemoryCreate, SearchRequest
from memory.services import Services
from memory.settings import Settings
from memory.store import memories
from memory.store.conditions import Filters, conditions, contained

_ADAPTER: TypeAdapter[Filter] = TypeAdapter(Filter)
_SCHEMA = _ADAPTER.json_schema()
_LEAF = {"field": "category", "op": "eq", "value": "habit"}

Json = dict[str, Any]


def _nested(levels: int) -> Json:
    tree: Json = _LEAF
    for _ in range(levels):
        tree = {"not": tree}
    return tree


# What is refused


@pytest.mark.parametrize(
    "tree",
    [
        _nested(6),
        _nested(5_000),
        {"and": [_LEAF] * 51},
        {"and": [{"or": [_LEAF] * 26}, {"or": [_LEAF] * 25}]},
        {"and": [{"or": []}] * 51},
        {},
        [],
        "category",
        {"and": _LEAF},
        {"not": [_LEAF]},
        {"and": [], "or": []},
        {"and": [], "field": "category"},
        {"xor": [_LEAF]},
        {"field": "category"},
        {"op": "eq", "value": 1},
        {**_LEAF, "extra": 1},
        {**_LEAF, "field": "text"},
        {**_LEAF, "field": "metadata"},
        {**_LEAF, "field": "metadata."},
        {**_LEAF, "field": "metadata.a..b"},
        {**_LEAF, "field": "m.category) or true --"},
        {**_LEAF, "field": "metadata." + "a" * 300},
        {**_LEAF, "op": "like"},
        {**_LEAF, "op": "gt"},
        {**_LEAF, "value": 1},
        {**_LEAF, "op": "in"},
        {**_LEAF, "op": "in", "value": "habit"},
        {**_LEAF, "op": "in", "value": ["a"] * 1_001},
        {**_LEAF, "op": "exists", "value": "yes"},
        {"field": "metadata.a", "op": "gt", "value": "tea"},
        {"field": "metadata.a", "op": "gt", "value": True},
        {"field": "metadata.a", "op": "gt", "value": None},
        {"field": "metadata.a", "op": "gt"},
        {"field": "metadata.a", "op": "eq"},
        {"field": "category", "op": "ne"},
        {"field": "category", "op": "in"},
        {"field": "category", "op": "contains"},
        {"field": "metadata.a", "op": "eq", "value": float("inf")},
        {"field": "metadata.a", "op": "in", "value": [1, float("nan")]},
        {"field": "metadata.a", "op": "lt", "value": float("inf")},
        {"field": "importance", "op": "lt", "value": float("inf")},
        {"field": "metadata.a", "op": "eq", "value": {"b": 1}},
        {"field": "metadata.a", "op": "eq", "value": "\ud800"},
        {"field": "importance", "op": "gt", "value": "0.5"},
        {"field": "importance", "op": "gt", "value": 10**400},
        {"field": "created_at", "op": "gt", "value": 5},
        {"field": "created_at", "op": "gt", "value": "yesterday"},
        {"field": "created_at", "op": "gt", "value": "2026-02-30"},
        {"field": "created_at", "op": "gt", "value": "2026-02-03\n"},
        {"field": "created_at", "op": "gt", "value": "0001-01-01T00:00:00+14:00"},
        {"field": "created_by.id", "op": "contains", "value": "1"},
    ],
)
def test_what_means_nothing_is_refused(tree: Any) -> None:
    with pytest.raises(ValidationError):
        _ADAPTER.validate_python(tree)


@pytest.mark.parametrize(
    "tree",
    [
        _nested(5),
        {"and": [_LEAF] * 50},
        {"and": []},
        {"or": [{"and": []}]},
        {"field": "type", "op": "exists"},
        {"field": "metadata.a", "op": "lt", "value": 10**400},
    ],
)
def test_the_bounds_themselves_are_allowed(tree: Json) -> None:
    _ADAPTER.validate_python(tree)


def test_two_filters_that_mean_different_things_are_written_differently() -> None:
    trees: list[Json] = [{"and": [_LEAF]}, {"or": [_LEAF]}, {"not": _LEAF}, _LEAF]
    dumped = [
        SearchRequest(query="tea", filter=_ADAPTER.validate_python(tree)).model_dump(mode="json") for tree in trees
    ]
    assert [one["filter"] for one in dumped] == trees


@pytest.mark.parametrize(
    ("tree", "metadata"),
    [
        ({"field": "metadata.a.b", "op": "eq", "value": 1}, {"a": {"b": 1}}),
        ({"and": [{"field": "metadata.a", "op": "eq", "value": 1}, _LEAF]}, {"a": 1}),
        ({"or": [{"field": "metadata.a", "op": "eq", "value": 1}]}, {}),
        ({"not": {"field": "metadata.a", "op": "eq", "value": 1}}, {}),
        ({"field": "metadata.a", "op": "ne", "value": 1}, {}),
        ({"field": "metadata.a.0", "op": "eq", "value": 1}, {}),
        ({"field": "metadata.0.a", "op": "eq", "value": 1}, {"0": {"a": 1}}),
    ],
)
def test_an_index_is_asked_only_for_what_no_result_gets_around(tree: Json, metadata: Json) -> None:
    assert contained(Filters(filter=_ADAPTER.validate_python(tree))) == metadata


# What is found


_MOMENTS = [
    "2026-01-31",
    "2026-01-31T12:00:00Z",
    "2026-02-01T00:30:00+01:00",
    "2025-12-31 23:59",
    "2026-01-31T11:59:59.5",
]
_STRINGS = ["tea", "tea and cake", "", "5", "2026-13-45", "a.b", "%", "'; drop table memories; --", *_MOMENTS]
_scalars = st.sampled_from([*_STRINGS, 0, 1, 5, -2, 0.5, 1.0, 7.25, True, False, None])
_inner = st.recursive(
    _scalars,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from("ab0"), deeper, max_size=3),
    max_leaves=6,
)
_metadata = st.dictionaries(st.sampled_from("ab0"), _inner, max_size=3)
_paths = st.lists(st.sampled_from("ab0"), min_size=1, max_size=3).map(lambda keys: ".".join(["metadata", *keys]))
_equal = st.sampled_from(["eq", "ne"])
_order = st.sampled_from(["gt", "gte", "lt", "lte"])
_TEXTS = ["habit", "other", "api", "books", "fact", "s1", "x-1", "b", ""]


def _leaf(field: Any, op: Any, value: Any) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({"field": field, "op": op, "value": value})


_texts = st.sampled_from(["category", "source", "container_tag", "type", "sequence", "external_id"])
_text_values = st.sampled_from([*_TEXTS, None])
_times = st.sampled_from(["created_at", "updated_at"])
_numbers = st.sampled_from([0, 0.25, 0.5, 1])
_flags = st.sampled_from([True, False, None])


@dataclass(frozen=True)
class Shelf:
    """Stored memories of all sorts, and a session that sees them."""

    caller: Caller
    collection_id: UUID
    memories: list[Memory]
    session: psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def shelf(house: Services, settings: Settings) -> Iterator[Shelf]:
    made = house.accounts.create_tenant(email=f"{uuid4()}@example.org")
    caller = house.accounts.authenticate(made.api_key)
    details = _details(60)
    stored = house.memories.create_many(
        caller,
        "shelf",
        [
            MemoryCreate(
                text=f"tea number {number}",
                importance=[0, 0.25, 0.5, 0.75, 1][number % 5],
                category=["habit", "other", "b"][number % 3],
                source=["api", "books"][number % 2],
                metadata=one,
                container_tag=[None, "books", "x-1"][number % 3],
                sequence=[None, "s1"][number % 2],
                external_id=None if number % 4 else f"x-{number}",
            )
            for number, one in enumerate(details)
        ],
    )
    assert settings.database_owner_url is not None
    assert settings.database_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value(), autocommit=True) as owner:
        for number, memory in enumerate(stored):
            owner.execute(
                "update memories set created_at = %s, updated_at = %s, type = %s, created_by = %s where id = %s",
                (
                    datetime(2026, 1, 31, 12, tzinfo=UTC) + timedelta(hours=12 * (number % 5 - 2)),
                    datetime(2026, 1, 31, tzinfo=UTC) + timedelta(minutes=number),
                    [None, "fact"][number % 2],
                    None if number % 7 == 0 else caller.key_id,
                    memory.id,
                ),
            )
    with house.database.transaction(caller.tenant_id) as session:
        found = memories.find_many(session, [memory.id for memory in stored])
        collection_id = house.collections.get(caller, "shelf").id
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as session:
        session.execute(
            "select set_config('app.tenant', %s, false), set_config('timezone', 'UTC', false)", (str(made.tenant_id),)
        )
        yield Shelf(caller, collection_id, found, session)


def _details(count: int) -> list[Json]:
    """The same every time, and of all sorts."""
    found: list[Json] = []

    @hypothesis.settings(max_examples=4 * count, database=None, derandomize=True, deadline=None)
    @given(_metadata)
    def collect(one: Json) -> None:
        if one not in found:
            found.append(one)

    collect()
    return found[:count]


def _trees(shelf_caller: UUID | None) -> st.SearchStrategy[Json]:
    ids = st.sampled_from([str(shelf_caller), str(shelf_caller).upper(), str(UUID(int=1)), "nobody", None])
    leaves = st.one_of(
        _leaf(_paths, _equal, _scalars),
        _leaf(_paths, st.just("in"), st.lists(_scalars, max_size=4)),
        _leaf(_paths | _texts | _times | st.just("importance"), st.just("exists"), _flags),
        _leaf(_paths, _order, st.sampled_from([*_MOMENTS, 0, 1, 0.5, -2, 7.25])),
        _leaf(_paths, st.just("contains"), _scalars),
        _leaf(_texts, st.sampled_from(["eq", "ne", "contains"]), _text_values),
        _leaf(_texts, st.just("in"), st.lists(_text_values, max_size=3)),
        _leaf(_times, _equal | _order, st.sampled_from(_MOMENTS)),
        _leaf(_times, st.just("in"), st.lists(st.sampled_from(_MOMENTS), max_size=3)),
        _leaf(st.just("importance"), _equal | _order, _numbers),
        _leaf(st.just("importance"), st.just("in"), st.lists(_numbers, max_size=3)),
        _leaf(st.just("created_by.id"), _equal, ids),
        _leaf(st.just("created_by.id"), st.just("in"), st.lists(ids, max_size=3)),
    )

    def grown(depth: int) -> st.SearchStrategy[Json]:
        if depth == 0:
            return leaves
        below = grown(depth - 1)
        lists = st.lists(below, max_size=3)
        return st.one_of(
            leaves,
            st.builds(lambda parts: {"and": parts}, lists),
            st.builds(lambda parts: {"or": parts}, lists),
            st.builds(lambda part: {"not": part}, below),
        )

    return grown(3)


@pytest.mark.timeout(120)
def test_postgres_finds_what_a_plain_reading_finds(shelf: Shelf) -> None:
    some: set[int] = set()

    @hypothesis.settings(
        max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(_trees(shelf.caller.key_id))
    def check(tree: Json) -> None:
        jsonschema.validate(tree, _SCHEMA)
        asked = conditions(Filters(filter=_ADAPTER.validate_python(tree)))
        rows = shelf.session.execute(
            f"select m.id from memories m where m.collection_id = %(collection)s and {asked.visible}",
            {**asked.values, "collection": shelf.collection_id},
        ).fetchall()
        expected = {memory.id for memory in shelf.memories if _holds(tree, memory)}
        assert {row[0] for row in rows} == expected
        some.add(len(expected))

    check()
    # It was not all or nothing each time.
    assert len(some) > 10


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_a_search_keeps_to_the_filter_in_every_mode(house: Services, shelf: Shelf, mode: str) -> None:
    tree: Json = {
        "and": [
            {"field": "container_tag", "op": "in", "value": ["books", "x-1"]},
            {
                "or": [
                    {"field": "importance", "op": "gte", "value": 0.75},
                    {"field": "type", "op": "eq", "value": "fact"},
                ]
            },
            {"not": {"field": "metadata.a", "op": "exists"}},
        ]
    }
    request = SearchRequest.model_validate({"query": "tea", "mode": mode, "min_score": 0, "limit": 50, "filter": tree})
    found = house.search.search(shelf.caller, "shelf", request).results
    expected = {memory.id for memory in shelf.memories if _holds(tree, memory)}
    assert {hit.id for hit in found} == expected
    assert 2 < len(expected) < 50


# The plain reading


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda one, other: one > other,
    "gte": lambda one, other: one >= other,
    "lt": lambda one, other: one < other,
    "lte": lambda one, other: one <= other,
}
_MISSING = object()


def _holds(tree: Json, memory: Memory) -> bool:
    if "and" in tree:
        return all(_holds(part, memory) for part in tree["and"])
    if "or" in tree:
        return any(_holds(part, memory) for part in tree["or"])
    if "not" in tree:
        return not _holds(tree["not"], memory)
    return _leaf_holds(_value(tree["field"], memory), tree["op"], tree.get("value"), tree["field"])


def _value(field: str, memory: Memory) -> Any:
    if field == "created_by.id":
        found: Any = memory.created_by.id
        return _MISSING if found is None else str(found)
    if not field.startswith("metadata."):
        found = getattr(memory, field)
        return _MISSING if found is None else found
    found = memory.metadata
    for key in field.split(".")[1:]:
        if isinstance(found, list):
            found = dict(zip("0123456789", found, strict=False))
        if not isinstance(found, dict) or key not in found:
            return _MISSING
        found = found[key]
    return found


def _leaf_holds(found: Any, op: str, value: Any, field: str) -> bool:
    if op == "exists":
        return (found is not _MISSING) == (value is not False)
    if op == "ne":
        return not _same(found, value, field)
    if op == "eq":
        return _same(found, value, field)
    if op == "in":
        return any(_same(found, one, field) for one in value)
    if op == "contains":
        if isinstance(found, str):
            return isinstance(value, str) and value in found
        return isinstance(found, list) and any(_same(one, value, field) for one in found)
    one, other = _comparable(found), _comparable(value)
    return one is not None and type(one) is type(other) and _COMPARED[op](one, other)


def _same(found: Any, value: Any, field: str) -> bool:
    if found is _MISSING:
        return False
    if isinstance(found, datetime):
        return found == _moment(value)
    if field == "created_by.id":
        return value is not None and found == value.lower()
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    return bool(found == value)


def _comparable(value: Any) -> float | datetime | None:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return _moment(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _moment(value: str) -> datetime | None:
    if re.fullmatch(ISO_DATE, value) is None:
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed
