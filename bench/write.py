"""What the product costs on top of its embedder: texts stored through the API, in bulk and singly, against the bare
embedder."""

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from bench.client import Api
from bench.filling import BLOCK, Blocks, fill
from bench.instance import Instance, instance, opened, parser, write
from bench.texts import chunks
from memory.adapters.embedder import LocalEmbedder

BULK_TOKENS, SINGLE_TOKENS = 200, 20
CLIENTS = (1, 8, 32)
_BARE = "bare embedder"

Way = Callable[[Sequence[str]], object]


def rates(ways: dict[str, Way], texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Texts per second by way, one figure per round. Each round has a share of the texts, and every way stores it."""
    share = len(texts) // rounds
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        part = texts[turn * share : (turn + 1) * share]
        # Another one goes first in each round: what drifts on the machine hits all alike.
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            ways[name](part)
            found[name].append(len(part) / (time.perf_counter() - started))
    return found


def by_clients(api: Api, clients: int, store: Callable[[Api, Sequence[str]], None]) -> Way:
    """Texts dealt out to so many clients, who store them at the same time."""
    apis = [api.again() for _ in range(clients)]

    def stored(texts: Sequence[str]) -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(store, apis, [texts[client::clients] for client in range(clients)]))

    return stored


def in_bulk(collection: str | None = None) -> Callable[[Api, Sequence[str]], None]:
    """100 a call; without a name into an empty collection."""

    def store(api: Api, texts: Sequence[str]) -> None:
        api.store(collection or f"bench-{uuid.uuid4().hex[:8]}", [{"text": text} for text in texts])

    return store


def singly(api: Api, texts: Sequence[str]) -> None:
    """One a call, all clients into the same collection."""
    for text in texts:
        api.call("POST", "/v1/memory/collections/bench-single/memories", {"text": text})


def _filled(running: Instance, rows: int, keep: Path) -> str:
    with opened(running) as services:
        caller = services.accounts.authenticate(running.api.key)
        fill(services, Blocks(services.embedder, keep), range(rows // BLOCK), [(caller, "bench-filled")])
    return "bench-filled"


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--texts", type=int, default=1500)
    commands.add_argument("--rounds", type=int, default=5)
    commands.add_argument("--memories", type=int, default=100_000, help="in the collection that is not empty")
    commands.add_argument("--keep", type=Path, help="folder where vectors are kept for the next run")
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="rememberos-bench-") as cache, instance(arguments) as running:
        embedder = LocalEmbedder(cache=Path(cache), threads=os.cpu_count() or 1)
        filled = _filled(running, arguments.memories, arguments.keep or Path(cache)) if arguments.memories else None
        api = running.api
        bulk: dict[str, Way] = {_BARE: embedder.embed}
        for clients in (1, 2):
            bulk[f"bulk, {clients} client{'s' * (clients > 1)}"] = by_clients(api, clients, in_bulk())
        if filled is not None:
            bulk[f"bulk, 1 client, into {arguments.memories:,}"] = by_clients(api, 1, in_bulk(filled))
        single: dict[str, Way] = {_BARE: embedder.embed}
        single |= {f"single, {clients} clients": by_clients(api, clients, singly) for clients in CLIENTS}
        figures = {}
        for tokens, ways in ((BULK_TOKENS, bulk), (SINGLE_TOKENS, single)):
            texts = chunks(arguments.texts, tokens=tokens, count_tokens=embedder.count_tokens)
            for way in ways.values():
                way(texts[:50])
            figures[tokens] = _said(rates(ways, texts, arguments.rounds), tokens)
        _remove(api)
    write(arguments, figures)


def _said(found: dict[str, list[float]], tokens: int) -> dict[str, dict[str, float]]:
    middle = {name: median(values) for name, values in found.items()}
    # Round by round, so that a disturbance does not fall on one side alone.
    ratios = {
        name: median(ours / bare for ours, bare in zip(values, found[_BARE], strict=True))
        for name, values in found.items()
    }
    print(f"texts of about {tokens} tokens, medians of {len(found[_BARE])} rounds")
    for name, rate in middle.items():
        print(f"  {name:<30} {rate:>7.1f} texts/s   {ratios[name]:>5.2f} of the bare embedder")
    return {"texts_per_second": middle, "ratio": ratios}


def _remove(api: Api) -> None:
    for collection in api.call("GET", "/v1/memory/collections?limit=200"):
        if collection["name"].startswith("bench-"):
            api.forget(collection["name"])


if __name__ == "__main__":
    main()
