"""What the product costs on top of its database: one search over HTTP against embedding plus the same SQL by hand."""

import argparse
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import quantiles
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from sqlalchemy import Engine, event

from bench.client import Api
from bench.instance import Instance, instance, parser, write
from bench.texts import chunks, sentences
from memory.ports import Embedder
from memory.schemas import SearchRequest
from memory.services import Services, build
from memory.settings import Settings

Statements = list[tuple[str, Any]]
_TOKENS = 40
_REST_SECONDS = 6


class ByHand:
    """The product's own statements of one search, sent over a bare connection."""

    def __init__(self, services: Services, key: str, database_url: str) -> None:
        self._services = services
        self._caller = services.accounts.authenticate(key)
        self._connection = psycopg.connect(database_url, options="-c plan_cache_mode=force_custom_plan -c timezone=UTC")
        register_vector(self._connection)
        self._connection.commit()

    @property
    def embedder(self) -> Embedder:
        return self._services.embedder

    def statements(self, collection: str, query: str, limit: int) -> Statements:
        """What the product sends for this search, its tenant included, seen by running it once."""
        with _recorded() as seen:
            self._services.search.search(self._caller, collection, SearchRequest(query=query, limit=limit))
        return seen

    def send(self, statements: Statements) -> int:
        """One transaction; gives the number of rows."""
        rows = 0
        with self._connection.cursor() as cursor:
            for statement, parameters in statements:
                cursor.execute(statement, parameters)
                rows += len(cursor.fetchall())
        self._connection.commit()
        return rows


def fill(api: Api, collection: str, texts: Sequence[str]) -> None:
    """Stores the texts by two clients, then lets the background work come to rest."""
    memories = [{"text": text} for text in texts]
    with api.again() as first, api.again() as second, ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda client, part: client.store(collection, part), (first, second), (memories[::2], memories[1::2])
            )
        )
    time.sleep(_REST_SECONDS)


def questions(number: int) -> list[str]:
    """Different queries of three to nine words."""
    generator = random.Random(7)
    words = [sentence.split() for sentence in sentences()]
    found: dict[str, None] = {}
    while len(found) < number:
        sentence = generator.choice(words)
        length = generator.randint(3, 9)
        start = generator.randrange(max(1, len(sentence) - length))
        found[" ".join(sentence[start : start + length])] = None
    return list(found)


def timed(running: Instance, by_hand: ByHand, collection: str, number: int, limit: int) -> dict[str, list[float]]:
    """Milliseconds by way, one figure per query; each query is new to the API."""
    times: dict[str, list[float]] = {"HTTP": [], "embedding": [], "SQL": []}
    asked = questions(number + 20)
    prepared = [by_hand.statements(collection, query, limit) for query in asked]
    for turn, (query, statements) in enumerate(zip(asked, prepared, strict=True)):
        taken = {"HTTP": 0.0, "embedding": 0.0, "SQL": 0.0}
        ways: list[tuple[str, Callable[[], object]]] = [
            ("HTTP", lambda: running.api.search(collection, query, limit=limit)),  # noqa: B023 - called at once
            ("embedding", lambda: by_hand.embedder.embed([query])),  # noqa: B023
            ("SQL", lambda: by_hand.send(statements)),  # noqa: B023
        ]
        for name, way in ways if turn % 2 else reversed(ways):
            started = time.perf_counter()
            way()
            taken[name] = (time.perf_counter() - started) * 1000
        if turn >= 20:
            for name, value in taken.items():
                times[name].append(value)
    return times


@contextmanager
def _recorded() -> Iterator[Statements]:
    seen: Statements = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@contextmanager
def _opened(running: Instance) -> Iterator[ByHand]:
    if running.folder is None:
        raise SystemExit("the same SQL by hand needs the database: give --data of a running `up`, or nothing at all")
    url = running.runtime["database_url"]
    services = build(Settings(_env_file=None, rememberos_data=running.folder, database_url=url))
    try:
        yield ByHand(services, running.api.key, url)
    finally:
        services.close()


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--memories", type=int, default=10_000)
    commands.add_argument("--queries", type=int, default=300)
    commands.add_argument("--limit", type=int, default=10)
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    collection = f"bench-{uuid.uuid4().hex[:8]}"
    with instance(arguments) as running, _opened(running) as by_hand:
        count_tokens = by_hand.embedder.count_tokens
        fill(running.api, collection, chunks(arguments.memories, tokens=_TOKENS, count_tokens=count_tokens))
        try:
            times = timed(running, by_hand, collection, arguments.queries, arguments.limit)
        finally:
            running.api.forget(collection)
    times["by hand"] = [embedding + sql for embedding, sql in zip(times["embedding"], times["SQL"], strict=True)]
    figures = {name: dict(zip(("p50", "p95"), _p50_p95(values), strict=True)) for name, values in times.items()}
    ratio = figures["HTTP"]["p50"] / figures["by hand"]["p50"]
    print(f"{arguments.memories} memories, {arguments.queries} uncached searches, limit {arguments.limit}")
    for name in ("HTTP", "by hand", "embedding", "SQL"):
        print(f"{name:<10} p50 {figures[name]['p50']:>7.2f} ms   p95 {figures[name]['p95']:>7.2f} ms")
    print(f"HTTP is {ratio:.2f} of embedding plus the same SQL by hand (p50)")
    write(arguments, {"milliseconds": figures, "ratio": ratio})


def _p50_p95(values: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(values, n=20)
    return cuts[9], cuts[18]


if __name__ == "__main__":
    main()
