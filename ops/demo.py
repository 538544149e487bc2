"""The demonstration: the example documents dropped as one batch over the public API, watched, and searched."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from memory.errors import Misconfigured, Unavailable
from ops.client import Client
from ops.local import Serving

COLLECTION = "examples"
QUESTIONS = (
    "How tight should the seatpost clamp be?",
    "Why are the carbon forks late?",
    "Until when is spray booth 2 closed?",
)

_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
_HITS_SHOWN = 3
_TEXT_SHOWN = 160
_NO_PROGRESS_SECONDS = 300.0


def run(serving: Serving, console: Console) -> None:
    """Drops, waits and searches. Raises Misconfigured, Unavailable."""
    if serving.admin_key is None:
        raise Misconfigured("the demonstration needs the first tenant's key: set BOOTSTRAP_KEY to it")
    files = sorted(file for file in _EXAMPLES.iterdir() if file.name != "questions.json")
    client = Client(serving.runtime.api_url, serving.admin_key)
    console.print(f"\nDropping {len(files)} files of {_EXAMPLES.name}/ as one batch")
    accepted = client.drop(f"/v1/memory/collections/{COLLECTION}/drop?async_ingest=true", files)
    _report(_follow(client, accepted["batch_id"], console), accepted["errors"], console)
    for question in QUESTIONS:
        _search(client, question, console)


def _follow(client: Client, batch_id: str, console: Console) -> dict[str, Any]:
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    moved, seen = time.monotonic(), -1
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("reading", total=None)
        while True:
            batch: dict[str, Any] = client.get(f"/v1/memory/ingest/batch/{batch_id}")
            ended = batch["done"] + batch["failed"]
            progress.update(bar, total=batch["total"], completed=ended)
            if batch["complete"]:
                return batch
            if ended != seen:
                moved, seen = time.monotonic(), ended
            if time.monotonic() - moved > _NO_PROGRESS_SECONDS:
                raise Unavailable(f"the batch stands still at {ended} of {batch['total']}: see the worker's log")
            time.sleep(0.2)


def _report(batch: dict[str, Any], refused: list[dict[str, Any]], console: Console) -> None:
    chunks = sum(file["chunks"] for file in batch["files"])
    console.print(f"  {batch['done']} files done, {batch['failed']} failed, {chunks} memories")
    for file in batch["files"]:
        if file["error"]:
            console.print(f"  failed: {file['filename']}: {file['error']}")
        elif file["note"]:
            console.print(f"  {file['filename']}: {file['note']}")
    for file in refused:
        console.print(f"  refused: {file['filename']}: {file['reason']}")


def _search(client: Client, question: str, console: Console) -> None:
    answer = client.post(f"/v1/memory/collections/{COLLECTION}/search", {"query": question, "limit": _HITS_SHOWN})
    console.print(f"\n? {question}   ({answer['search_ms']:.0f} ms)")
    for hit in answer["results"]:
        text = " ".join(hit["text"].split())
        shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}…"
        console.print(f"  {hit['score']:.2f}  {hit['metadata']['filename']}: {shown}")
