"""Activities of curation under the names of the real ones, with scripted answers, and a worker that runs them."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from temporalio import activity
from temporalio.client import Client

import worker
from activities.curation import Run, RunToStart

Result = TypeVar("Result")

TENANT = "6f1c3c52-6a0f-4f0a-9d67-1f7f0c0a5a01"


@dataclass
class FakeCuration:
    """Each run takes `steps[run id]` steps. `troubles[run id]` is called before each."""

    steps: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, Callable[[], None]] = field(default_factory=dict)
    waiting: list[RunToStart] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    executions: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @activity.defn
    def merge_clusters(self, run: Run) -> bool:
        return self._step("merge", run)

    @activity.defn
    def archive_stale(self, run: Run) -> bool:
        return self._step("archive", run)

    @activity.defn
    def give_up_run(self, run: Run) -> None:
        self.given_up.append(run.run_id)

    @activity.defn
    def list_runs(self) -> list[RunToStart]:
        return self.waiting

    def _step(self, kind: str, run: Run) -> bool:
        assert run.tenant_id == TENANT
        self.executions.add(str(activity.info().workflow_run_id))
        with self._lock:
            self.taken.append((kind, run.run_id))
        self.troubles.get(run.run_id, lambda: None)()
        with self._lock:
            self.steps[run.run_id] -= 1
        return self.steps[run.run_id] > 0


def run(address: str, fake: FakeCuration, scenario: Callable[[Client, str], Coroutine[Any, Any, Result]]) -> Result:
    """Runs `scenario(client, task queue)` while a worker with these activities polls that queue."""

    async def serve() -> Result:
        client = await Client.connect(address, identity="test")
        task_queue = str(uuid4())
        registered: list[Callable[..., Any]] = [
            fake.merge_clusters,
            fake.archive_stale,
            fake.give_up_run,
            fake.list_runs,
        ]
        with ThreadPoolExecutor(worker.threads()) as executor:
            async with worker.build_worker(client, registered, executor, task_queue=task_queue):
                return await scenario(client, task_queue)

    return asyncio.run(serve())
