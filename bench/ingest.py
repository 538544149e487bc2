"""What a drop costs on top of its readers and its embedder, by kind of file; how soon a small one is found, alone and
beside another tenant's many; and how much memory the API takes while much is sent at once."""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil

from bench.client import Api
from bench.files import KINDS
from bench.instance import Instance, instance, opened, parser, write
from bench.texts import chunks
from memory.adapters.embedder import LocalEmbedder
from memory.adapters.reading.files import read_document
from memory.adapters.reading.scans import OcrOff
from memory.chunking import chunk

TEXTS_A_FILE, TOKENS_A_TEXT = 6, 150
LARGE_BYTES = 10 * 1024 * 1024
_SENDERS = 8
# What is free is given back a little later.
_AFTER_SECONDS = 5.0
_MIB = 1024 * 1024
_SOON_SECONDS = 60.0

Named = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Rate:
    """Files and chunks a second of the product, and of the bare parts alone; `ratio` is the product's time for a file
    against reading and embedding one after the other, so below 1 where the two overlap."""

    files: float
    chunks: float
    bare_readers: float
    bare_embedder: float
    ratio: float


# By kind of file


def rate(api: Api, embedder: LocalEmbedder, kind: str, made: Named) -> Rate:
    """One drop of these files against their bare readers and the bare embedder."""
    started = time.perf_counter()
    documents = [read_document(content, name, OcrOff()) for name, content in made]
    reading = time.perf_counter() - started
    pieces = [
        piece.embedded
        for document in documents
        for piece in chunk(document, count_tokens=embedder.count_tokens, max_tokens=embedder.max_tokens)
    ]
    started = time.perf_counter()
    embedder.embed(pieces)
    embedding = time.perf_counter() - started
    seconds, stored = dropped(api, f"bench-{kind}", made)
    return Rate(
        files=len(made) / seconds,
        chunks=stored / seconds,
        bare_readers=len(made) / reading,
        bare_embedder=len(pieces) / embedding,
        ratio=seconds / (reading + embedding),
    )


def dropped(api: Api, collection: str, made: Named) -> tuple[float, int]:
    """Seconds until every file of one drop is stored, and how many chunks that were."""
    started = time.perf_counter()
    batch = api.ended(api.accepted(collection, made)["batch_id"])
    seconds = time.perf_counter() - started
    if batch["done"] != len(made):
        raise SystemExit(f"only {batch['done']} of {len(made)} files were read: {batch['files'][:3]}")
    return seconds, sum(file["chunks"] for file in batch["files"])


class Making:
    """Files that no other drop of this run holds."""

    def __init__(self, embedder: LocalEmbedder) -> None:
        self._count_tokens = embedder.count_tokens
        self._seed = int(time.time())

    def files(self, kind: str, number: int) -> Named:
        self._seed += 1
        texts = chunks(number * TEXTS_A_FILE, tokens=TOKENS_A_TEXT, count_tokens=self._count_tokens, seed=self._seed)
        return [
            (f"{kind}-{start}.{kind}", KINDS[kind](texts[start : start + TEXTS_A_FILE]))
            for start in range(0, len(texts), TEXTS_A_FILE)
        ]

    def mixed(self, number: int) -> Named:
        return [file for kind in KINDS for file in self.files(kind, max(1, number // len(KINDS)))]


# One small file


def until_found(api: Api) -> float:
    """Seconds from the start of a drop of one small file until a search shows it."""
    code = f"zq{uuid.uuid4().hex}"
    started = time.perf_counter()
    api.accepted("bench-small", [(f"{code}.txt", f"The parcel {code} lies at the harbour office.".encode())])
    while time.perf_counter() - started < _SOON_SECONDS:
        found = api.search("bench-small", code, mode="text", limit=1)["results"]
        if found and code in found[0]["text"]:
            return time.perf_counter() - started
        time.sleep(0.01)
    raise SystemExit(f"a small file was not found within {_SOON_SECONDS:.0f} s")


def small(api: Api, number: int) -> list[float]:
    return [until_found(api) for _ in range(number)]


def beside_many(api: Api, other: Api, made: Named, number: int) -> list[float]:
    """The same for another tenant, while so many files of the first one are being worked through."""
    batch_id = api.accepted("bench-many", made)["batch_id"]
    found: list[float] = []
    while len(found) < number and not api.batch(batch_id)["complete"]:
        found.append(until_found(other))
    api.ended(batch_id)
    return found


@contextmanager
def second_worker(running: Instance) -> Iterator[None]:
    """Another worker process with the environment of the one that runs."""
    first = psutil.Process(running.runtime["pids"]["worker"])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker"], env=first.environ(), cwd=first.cwd(), stdout=log, stderr=log
        )
        try:
            while b"worker polls" not in _written(log):
                if process.poll() is not None:
                    raise SystemExit(f"the second worker did not start: {_written(log)[-2000:].decode()}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _written(log: Any) -> bytes:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), size, 0)


# Much at once


class Watch:
    """The memory of a process in MiB, sampled until the block ends: `before`, `peak`, `after`."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.before = self.peak = self.after = self._now()

    def _now(self) -> float:
        used: Any = self._process.memory_full_info()
        return float(used.uss) / _MIB

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self._now())

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        time.sleep(_AFTER_SECONDS)
        self.after = self._now()
        self.peak = max(self.peak, self.after)


def sent_at_once(api: Api, files: int, senders: int) -> float:
    """Seconds that so many clients take to send large files, no two alike, at the same time."""
    block = os.urandom(LARGE_BYTES - 16)

    def send(sender: int) -> str:
        # They share their bytes but for the first ones: what is measured is the API's memory, not ours.
        names = [f"large-{number}.bin" for number in range(sender, files, senders)]
        with api.again() as own:
            answers = [
                own.accepted("bench-large", [(name, uuid.uuid4().bytes + block) for name in names[start : start + 5]])
                for start in range(0, len(names), 5)
            ]
        return answers[-1]["batch_id"] if answers else ""

    started = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(send, range(senders)))
    return time.perf_counter() - started


# The run


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--files", type=int, default=20, help="of each kind")
    commands.add_argument("--small", type=int, default=30, help="small files, one after the other")
    commands.add_argument("--many", type=int, default=300, help="files of the tenant beside which another drops one")
    commands.add_argument("--large", type=int, default=200, help="files of 10 MB that are sent at once; 0 for none")
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rememberos-bench-") as cache, instance(arguments) as running:
        api = running.api
        embedder = LocalEmbedder(cache=Path(cache), threads=os.cpu_count() or 1)
        making = Making(embedder)
        # The first file of a kind loads its reader.
        for name, content in making.mixed(len(KINDS)):
            read_document(content, name, OcrOff())
        dropped(api, "bench-warm", making.mixed(len(KINDS)))
        figures["by_kind"] = _by_kind(api, embedder, making, arguments.files)
        figures["one_worker"] = _seconds(api, making, arguments, "one worker")
        figures["beside_many"] = _beside(running, making, arguments)
        if running.runtime:
            with second_worker(running):
                dropped(api, "bench-warm", making.mixed(6 * len(KINDS)))
                figures["two_workers"] = _seconds(api, making, arguments, "two workers")
            if arguments.large:
                for senders in (_SENDERS, arguments.large):
                    figures[f"large_from_{senders}"] = _large(running, arguments.large, senders)
        for collection in api.call("GET", "/v1/memory/collections?limit=200"):
            if collection["name"].startswith("bench-"):
                api.forget(collection["name"])
    write(arguments, figures)


def _by_kind(api: Api, embedder: LocalEmbedder, making: Making, files: int) -> dict[str, Any]:
    print(f"{files} files of each kind, {TEXTS_A_FILE} texts of about {TOKENS_A_TEXT} tokens in each; a second")
    print(f"  {'kind':<6}{'files':>8}{'chunks':>8}   bare: {'readers':>8}{'embedder':>9}   time against both in turn")
    found = {}
    for kind in KINDS:
        figures = rate(api, embedder, kind, making.files(kind, files))
        found[kind] = vars(figures)
        print(
            f"  {kind:<6}{figures.files:>8.1f}{figures.chunks:>8.1f}         {figures.bare_readers:>8.1f}"
            f"{figures.bare_embedder:>9.1f}   {figures.ratio:>5.2f}"
        )
    return found


def _seconds(api: Api, making: Making, arguments: argparse.Namespace, who: str) -> dict[str, float]:
    made = making.mixed(arguments.files * 8)
    seconds, stored = dropped(api, "bench-mixed", made)
    soon = _cuts(small(api, arguments.small))
    print(f"{who}: {len(made) / seconds:.1f} mixed files/s, {stored / seconds:.1f} chunks/s; {_said(soon)}")
    return {"files": len(made) / seconds, "chunks": stored / seconds, **soon}


def _beside(running: Instance, making: Making, arguments: argparse.Namespace) -> dict[str, float] | None:
    if running.folder is None:
        return None
    with opened(running) as services:
        made = services.accounts.create_tenant(email=f"bench-{uuid.uuid4().hex}@example.org")
    with Api(running.api.url, made.api_key) as other:
        until_found(other)
        beside = _cuts(beside_many(running.api, other, making.mixed(arguments.many), arguments.small))
        other.forget("bench-small")
    print(f"another tenant beside a batch of {arguments.many}: {_said(beside)}")
    return beside


def _large(running: Instance, files: int, senders: int) -> dict[str, float]:
    with Watch(running.runtime["pids"]["api"]) as watch:
        seconds = sent_at_once(running.api, files, senders)
    rate = files * LARGE_BYTES / _MIB / seconds
    print(
        f"{files} files of 10 MB from {senders} senders at once, {rate:.0f} MiB/s: the API has {watch.before:.0f} MiB "
        f"before, {watch.peak:.0f} at most, {watch.after:.0f} after"
    )
    return {"before": watch.before, "peak": watch.peak, "after": watch.after, "mib_per_second": rate}


def _cuts(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        raise SystemExit("too few small files were found to say how long it took: take more with --many and --small")
    cuts = quantiles(seconds, n=20, method="inclusive")
    return {"p50": cuts[9], "p95": cuts[18], "times": float(len(seconds))}


def _said(cuts: dict[str, float]) -> str:
    return f"a small file is found after {cuts['p50']:.2f} s (p50), {cuts['p95']:.2f} s (p95), of {cuts['times']:.0f}"


if __name__ == "__main__":
    main()
