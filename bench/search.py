"""How fast search answers and what it costs on top of its database, from ten thousand memories to a million."""

import argparse
import math
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from sqlalchemy import Engine, event

from bench.client import Api
from bench.filling import BLOCK, Blocks, fill, nearest
from bench.instance import Instance, instance, opened, parser, write
from bench.texts import Questions
from memory.embedding import Embedding
from memory.ports import Embedder
from memory.schemas import Caller, SearchRequest
from memory.search import Search
from memory.services import Services
from memory.store.database import OPTIONS

Statements = list[tuple[str, Any]]
Times = dict[str, list[float]]
SIZES = (10_000, 100_000)
MILLION = 1_000_000
CLIENTS = (1, 8, 32)
# Many: so many tenants with so many collections each.
_TENANTS, _COLLECTIONS = 10, 10
_TURNS_BEFORE = 20
_RECALL_AT = 10
# Indexes are looked after every minute.
_REST_SECONDS, _LONGEST_REST_SECONDS = 70, 3600
_NARROWED: Mapping[str, dict[str, Any]] = {
    "in a category (1/20)": {"category": "category 7"},
    "under a tag (1/100)": {"container_tag": "tag 7"},
    "by metadata (1/1000)": {"metadata_filter": {"number": 7}},
    "by a filter (1/2)": {"filter": {"field": "metadata.number", "op": "lt", "value": 500}},
}


@dataclass(frozen=True)
class Place:
    """What is searched: all the collections of this layout, by the keys of their tenants; the first stands for all."""

    owners: Sequence[tuple[Caller, str]]
    apis: Sequence[Api]


class ByHand:
    """The product's own statements of one search, sent over a bare connection."""

    def __init__(self, services: Services, database_url: str) -> None:
        self._search = Search(
            services.database, Embedding(services.database, services.embedder), services.objects, services.statistics
        )
        self._collections = services.collections
        # As the product connects: with fewer entries of an index looked at, the same statements would find less.
        self._connection = psycopg.connect(database_url, options=OPTIONS)
        register_vector(self._connection)
        self._connection.commit()

    def statements(self, caller: Caller, collection: str, query: str, limit: int) -> Statements:
        """What the product sends in the transaction of this search, its tenant included, seen by running it once."""
        # What finds the collection is not among them: the API asks for that together with the key.
        among = [self._collections.get(caller, collection).id]
        with _recorded() as seen:
            self._search.search(caller, among, SearchRequest(query=query, limit=limit))
        begins = [place for place, (statement, _) in enumerate(seen) if "set_config('app.tenant'" in statement]
        return seen[begins[-1] :]

    def send(self, statements: Statements) -> int:
        """One transaction; gives the number of rows."""
        rows = 0
        with self._connection.cursor() as cursor:
            for statement, parameters in statements:
                cursor.execute(statement, parameters)
                rows += len(cursor.fetchall())
        self._connection.commit()
        return rows


def against_by_hand(
    place: Place, by_hand: ByHand, embedder: Embedder, queries: Sequence[str], limit: int
) -> dict[str, list[float]]:
    """Milliseconds by way, one figure per query; each query is new to the API."""
    times: Times = {"HTTP": [], "embedding": [], "SQL": []}
    caller, collection = place.owners[0]
    prepared = [by_hand.statements(caller, collection, query, limit) for query in queries]
    for turn, (query, statements) in enumerate(zip(queries, prepared, strict=True)):
        ways: list[tuple[str, Callable[..., object], Sequence[Any]]] = [
            ("HTTP", partial(place.apis[0].search, limit=limit), (collection, query)),
            ("embedding", embedder.embed, ([query],)),
            ("SQL", by_hand.send, (statements,)),
        ]
        for name, way, given in ways if turn % 2 else reversed(ways):
            taken = _milliseconds(way, *given)
            if turn >= _TURNS_BEFORE:
                times[name].append(taken)
    times["by hand"] = [embedding + sql for embedding, sql in zip(times["embedding"], times["SQL"], strict=True)]
    return times


def narrowed(place: Place, questions: Questions, number: int, limit: int) -> Times:
    """Milliseconds of searches with filters, of all collections at once, and of repeated ones."""
    api, collection = place.apis[0], place.owners[0][1]
    ways: dict[str, Callable[[str], object]] = {
        name: lambda query, wanted=wanted: api.search(collection, query, limit=limit, **wanted)  # type: ignore[misc]
        for name, wanted in _NARROWED.items()
    }
    ways["in all collections"] = lambda query: api.search(None, query, limit=limit)
    times = {name: [_milliseconds(way, query) for query in questions.next(number)] for name, way in ways.items()}
    [again] = questions.next(1)
    api.search(collection, again, limit=limit)
    # In turns, so that what drifts on the machine hits both.
    for _ in range(number):
        times.setdefault("repeated", []).append(_milliseconds(api.search, collection, again, limit=limit))
        times.setdefault("health", []).append(_milliseconds(api.call, "GET", "/v1/memory/health"))
    return times


def together(place: Place, questions: Questions, clients: int, number: int, limit: int) -> tuple[Times, float]:
    """Milliseconds of searches by so many clients at once, and searches per second; spread over all collections."""
    apis = [place.apis[client % len(place.apis)].again() for client in range(clients)]
    collections = [place.owners[client % len(place.owners)][1] for client in range(clients)]
    shares = [questions.next(max(1, number // clients)) for _ in range(clients)]

    def ask(client: int) -> list[float]:
        api, collection = apis[client], collections[client]
        return [_milliseconds(api.search, collection, query, limit=limit) for query in shares[client]]

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [taken for share in pool.map(ask, range(clients)) for taken in share]
    return {f"{clients} clients": times}, len(times) / (time.perf_counter() - started)


def recall(place: Place, blocks: Blocks, numbers: Sequence[int], embedder: Embedder, queries: Sequence[str]) -> float:
    """The share of the ten truly nearest that vector search finds; one that is as near as the tenth is as good."""
    last = nearest(blocks, numbers, embedder.embed(queries), _RECALL_AT)[:, -1]
    api, collection = place.apis[0], place.owners[0][1]
    found = 0
    for query, tenth in zip(queries, last, strict=True):
        hits = api.search(collection, query, mode="vector", limit=_RECALL_AT, min_score=0)["results"]
        # Stored vectors are halves of a float wide.
        found += sum(hit["score"] >= tenth - 1e-3 for hit in hits)
    return found / (len(queries) * _RECALL_AT)


@contextmanager
def _recorded() -> Iterator[Statements]:
    seen: Statements = []
    mine = threading.get_ident()

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, _many: bool) -> None:
        # What counts terms in the background is no part of a search.
        if threading.get_ident() == mine:
            seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _places(running: Instance, services: Services, *, many: bool) -> Place:
    tenants, collections = (_TENANTS, _COLLECTIONS) if many else (1, 1)
    owners, apis = [], []
    for _ in range(tenants):
        key = services.accounts.create_tenant(email=f"{uuid.uuid4().hex}@example.org").api_key
        caller = services.accounts.authenticate(key)
        for number in range(collections):
            owners.append((caller, f"bench-{number}"))
            apis.append(Api(running.api.url, key))
    return Place(owners, apis)


def _rest(running: Instance, place: Place) -> None:
    """Until the background has nothing more to index: neither its work nor its lack is to be measured."""
    started, before = time.monotonic(), -1
    with psycopg.connect(running.runtime["database_url"], autocommit=True) as connection:
        while time.monotonic() - started < _LONGEST_REST_SECONDS:
            time.sleep(_REST_SECONDS)
            now = sum(_indexed(connection, tenant_id) for tenant_id in {caller.tenant_id for caller, _ in place.owners})
            if now == before:
                return
            before = now


def _indexed(connection: psycopg.Connection[Any], tenant_id: uuid.UUID) -> int:
    with connection.transaction():
        connection.execute("select set_config('app.tenant', %s, true)", (str(tenant_id),))
        row = connection.execute(
            "select coalesce(sum(counted), 0) from vector_indexes, unnest(memories) as counted where is_ready"
        ).fetchone()
    return int(row[0]) if row else 0


def _milliseconds(way: Callable[..., object], *given: Any, **named: Any) -> float:
    started = time.perf_counter()
    way(*given, **named)
    return (time.perf_counter() - started) * 1000


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--memories", type=int, action="append", help=f"sizes, default {SIZES}; tens of thousands")
    commands.add_argument("--million", action="store_true", help=f"go on to {MILLION}")
    commands.add_argument("--many", action="store_true", help="in 100 collections of 10 tenants instead of one")
    commands.add_argument("--queries", type=int, default=200)
    commands.add_argument("--limit", type=int, default=10)
    commands.add_argument("--keep", type=Path, help="folder where vectors are kept for the next run")
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    sizes = sorted({math.ceil(size / BLOCK) * BLOCK for size in arguments.memories or SIZES})
    sizes += [MILLION] if arguments.million else []
    figures: dict[int, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="rememberos-bench-") as folder,
        instance(arguments) as running,
        opened(running) as services,
    ):
        blocks = Blocks(services.embedder, arguments.keep or Path(folder))
        place = _places(running, services, many=arguments.many)
        stored = 0
        for size in sizes:
            fill(services, blocks, range(stored // BLOCK, size // BLOCK), place.owners)
            stored = size
            _rest(running, place)
            figures[size] = _measured(running, services, place, blocks, size, arguments)
            _say(size, figures[size])
    first, last = (figures[size]["milliseconds"]["HTTP"] for size in (sizes[0], sizes[-1]))
    growth = {name: last[name] / first[name] for name in first}
    print(f"{sizes[-1]:,} against {sizes[0]:,} memories: " + ", ".join(f"{n} {v:.2f} x" for n, v in growth.items()))
    write(arguments, {"sizes": figures, "growth": growth})


def _measured(
    running: Instance, services: Services, place: Place, blocks: Blocks, size: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    questions, number, limit = Questions(), arguments.queries, arguments.limit
    by_hand = ByHand(services, running.runtime["database_url"])
    times = against_by_hand(place, by_hand, services.embedder, questions.next(number + _TURNS_BEFORE), limit)
    times |= narrowed(place, questions, number, limit)
    rates = {}
    for clients in CLIENTS:
        taken, rates[clients] = together(place, questions, clients, number, limit)
        times |= taken
    milliseconds = {name: _percentiles(values) for name, values in times.items()}
    found = None
    if not arguments.many:
        found = recall(place, blocks, range(size // BLOCK), services.embedder, questions.next(100))
    return {
        "milliseconds": milliseconds,
        "ratio": milliseconds["HTTP"]["p50"] / milliseconds["by hand"]["p50"],
        "repeated_above_health": milliseconds["repeated"]["p50"] - milliseconds["health"]["p50"],
        "searches_per_second": rates,
        "recall": found,
    }


def _say(size: int, figures: Mapping[str, Any]) -> None:
    print(f"{size:,} memories, milliseconds")
    for name, values in figures["milliseconds"].items():
        print(f"  {name:<22}" + "".join(f"{cut:>5} {value:>8.2f}" for cut, value in values.items()))
    print(f"  HTTP is {figures['ratio']:.2f} of embedding plus the same SQL by hand (p50)")
    print(f"  a repeated search is {figures['repeated_above_health']:.2f} ms above the health route (p50)")
    rates = ", ".join(f"{clients} clients {rate:.0f}" for clients, rate in figures["searches_per_second"].items())
    print(f"  searches per second: {rates}")
    if figures["recall"] is not None:
        print(f"  recall@{_RECALL_AT} of vector search against looking at all: {figures['recall']:.3f}")


if __name__ == "__main__":
    main()
