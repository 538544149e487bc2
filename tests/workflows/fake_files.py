"""Activities under the names of the real ones, with scripted failures, and a worker that runs them."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from uuid import uuid4

from temporalio import activity
from temporalio.client import Client

import worker
from activities.files import Awaiting, Batch, Listing, LostFile, Portion, Unfinished
from workflows.policies import CAPTION_QUEUE, TRANSCRIPTION_QUEUE

Result = TypeVar("Result")

TENANT = "6f1c3c52-6a0f-4f0a-9d67-1f7f0c0a5a01"


@dataclass
class FakeFiles:
    """Batches of files in memory. `troubles[step, file id]` is called before a step touches that file."""

    batches: dict[str, list[list[str]]]
    troubles: dict[tuple[str, str], Callable[[], None]] = field(default_factory=dict)
    portions_a_listing: int = 100
    round: int = 0
    awaiting: dict[str, Literal["transcript", "caption"]] = field(default_factory=dict)
    stalled: list[Batch] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @activity.defn
    def list_unfinished(self, listing: Listing) -> Unfinished:
        self.runs.add(str(activity.info().workflow_run_id))
        gone = {*self.ended, *listing.without}
        left = [[name for name in portion if name not in gone] for portion in self.batches[listing.batch_id]]
        return Unfinished(self.round, [portion for portion in left if portion][: self.portions_a_listing])

    @activity.defn
    def read_files(self, portion: Portion) -> Awaiting:
        self._work("read", portion)
        return Awaiting(
            transcript=[name for name in portion.file_ids if self.awaiting.get(name) == "transcript"],
            caption=[name for name in portion.file_ids if self.awaiting.get(name) == "caption"],
        )

    @activity.defn
    def transcribe_files(self, portion: Portion) -> None:
        self._work("transcribe", portion)

    @activity.defn
    def caption_files(self, portion: Portion) -> None:
        self._work("caption", portion)

    @activity.defn
    def go_without_captions(self, portion: Portion) -> None:
        self._work("go without", portion)

    @activity.defn
    def store_files(self, portion: Portion) -> None:
        self._work("store", portion)

    @activity.defn
    def give_up_file(self, lost: LostFile) -> None:
        self._trouble("give_up", lost.file_id)
        self.ended[lost.file_id] = lost.reason

    @activity.defn
    def close_batch(self, batch: Batch) -> bool:
        if any(name not in self.ended for portion in self.batches[batch.batch_id] for name in portion):
            return False
        self.closed.append(batch.batch_id)
        return True

    @activity.defn
    def list_stalled(self) -> list[Batch]:
        return self.stalled

    def _work(self, step: str, portion: Portion) -> None:
        for file_id in portion.file_ids:
            if file_id in self.ended:
                continue
            self._trouble(step, file_id)
            with self._lock:
                self.steps.append((step, file_id))
                if step == "store":
                    self.ended[file_id] = "stored"

    def _trouble(self, step: str, file_id: str) -> None:
        with self._lock:
            self.attempts[step, file_id] += 1
        self.troubles.get((step, file_id), lambda: None)()


def run(address: str, files: FakeFiles, scenario: Callable[[Client, str], Coroutine[Any, Any, Result]]) -> Result:
    """Runs `scenario(client, task queue)` while a worker with these activities polls that queue."""

    async def serve() -> Result:
        client = await Client.connect(address, identity="test")
        task_queue = str(uuid4())
        registered: list[Callable[..., Any]] = [
            files.list_unfinished,
            files.read_files,
            files.go_without_captions,
            files.store_files,
            files.give_up_file,
            files.close_batch,
            files.list_stalled,
        ]
        perceiving = {TRANSCRIPTION_QUEUE: files.transcribe_files, CAPTION_QUEUE: files.caption_files}
        async with contextlib.AsyncExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(worker.threads()))
            for queue, step in perceiving.items():
                await stack.enter_async_context(worker.build_worker(client, [step], executor, task_queue=queue))
            await stack.enter_async_context(worker.build_worker(client, registered, executor, task_queue=task_queue))
            return await scenario(client, task_queue)

    return asyncio.run(serve())
