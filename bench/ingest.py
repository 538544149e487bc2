"""What the product costs on top of its embedder: texts stored through the API against the bare embedder."""

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
from bench.instance import instance, parser, write
from bench.texts import chunks
from memory.adapters.embedder import LocalEmbedder

_TOKENS = 200


def rounds(api: Api, embedder: LocalEmbedder, texts: Sequence[str], number: int) -> dict[str, list[float]]:
    """Texts per second by way, one figure per round. Each round has a share of the texts, and every way stores it."""
    share = len(texts) // number
    rates: dict[str, list[float]] = {"bare embedder": [], "API, 1 client": [], "API, 2 clients": []}
    ways: list[tuple[str, Callable[[Sequence[str]], object]]] = [
        ("bare embedder", embedder.embed),
        ("API, 1 client", lambda part: _store(api, part)),
        ("API, 2 clients", lambda part: _store_by_two(api, part)),
    ]
    for turn in range(number):
        part = texts[turn * share : (turn + 1) * share]
        # Another one goes first in each round: what drifts on the machine hits all alike.
        for name, way in ways[turn % 3 :] + ways[: turn % 3]:
            started = time.perf_counter()
            way(part)
            rates[name].append(len(part) / (time.perf_counter() - started))
    return rates


def _store(api: Api, texts: Sequence[str]) -> None:
    collection = f"bench-{uuid.uuid4().hex[:8]}"
    api.store(collection, [{"text": text} for text in texts])


def _store_by_two(api: Api, texts: Sequence[str]) -> None:
    halves = [texts[::2], texts[1::2]]
    with api.again() as first, api.again() as second, ThreadPoolExecutor(2) as pool:
        list(pool.map(_store, (first, second), halves))


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--texts", type=int, default=2000)
    commands.add_argument("--rounds", type=int, default=5)
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="rememberos-bench-") as cache, instance(arguments) as running:
        embedder = LocalEmbedder(cache=Path(cache), threads=os.cpu_count() or 1)
        texts = chunks(arguments.texts, tokens=_TOKENS, count_tokens=embedder.count_tokens)
        embedder.embed(texts[:50])
        running.api.store("bench-warm", [{"text": text} for text in texts[:50]])
        rates = rounds(running.api, embedder, texts, arguments.rounds)
        _remove(running.api)
    middle = {name: median(values) for name, values in rates.items()}
    # Round by round, so that a disturbance does not fall on one side alone.
    ratios = {
        name: median(ours / bare for ours, bare in zip(values, rates["bare embedder"], strict=True))
        for name, values in rates.items()
    }
    tokens = sum(map(embedder.count_tokens, texts)) / len(texts)
    print(f"{len(texts)} texts of {tokens:.0f} tokens on average, {arguments.rounds} rounds, medians")
    for name, rate in middle.items():
        print(f"{name:<15} {rate:>7.1f} texts/s   {ratios[name]:>5.2f} of the bare embedder")
    write(arguments, {"texts_per_second": middle, "ratio": ratios})


def _remove(api: Api) -> None:
    for collection in api.call("GET", "/v1/memory/collections?limit=200"):
        if collection["name"].startswith("bench-"):
            api.forget(collection["name"])


if __name__ == "__main__":
    main()
