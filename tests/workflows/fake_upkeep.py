"""What upkeep finds to do, in memory: which tenant has how many batches of expired memories, and who makes trouble."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID, uuid4

from temporalio.client import Client

import worker
from activities.upkeep import UpkeepActivities
from memory.errors import AppError, Unavailable

Result = TypeVar("Result")


class FakeIndexes:
    """`pieces`: how much there is to do; `troubles`: what the next pieces raise, first to last."""

    def __init__(self, pieces: int = 0, troubles: list[AppError] | None = None) -> None:
        self.pieces = pieces
        self.troubles = troubles or []
        self.built = 0
        self.stopped = threading.Event()
        self.entered = threading.Event()
        self.waits_until_stopped = False

    def advance(self, stopping: Callable[[], bool]) -> bool:
        if self.troubles:
            raise self.troubles.pop(0)
        if self.waits_until_stopped:
            self.entered.set()
            # Asked from another thread, as whoever has a statement ended does.
            with ThreadPoolExecutor(1) as watching:
                watching.submit(self._watch, stopping).result()
            raise Unavailable("stopped")
        self.built += self.pieces > 0
        self.pieces -= self.pieces > 0
        return self.pieces > 0

    def _watch(self, stopping: Callable[[], bool]) -> None:
        while not stopping():
            self.stopped.wait(0.01)
        self.stopped.set()


class FakeExpiry:
    """`batches`: how many each tenant has; `troubles`: what a tenant's next sweeps raise, first to last."""

    def __init__(self, batches: dict[UUID, int], troubles: dict[UUID, list[AppError]] | None = None) -> None:
        self.batches = batches
        self.troubles = troubles or {}
        self.swept: list[UUID] = []

    def due(self) -> list[UUID]:
        return [tenant_id for tenant_id, count in self.batches.items() if count]

    def sweep(self, tenant_id: UUID) -> bool:
        if self.troubles.get(tenant_id):
            raise self.troubles[tenant_id].pop(0)
        self.swept.append(tenant_id)
        self.batches[tenant_id] -= 1
        return self.batches[tenant_id] > 0


class FakeCleaning:
    """`pages`: which tenants there are, page by page; `troubles`: what the cleaning of a tenant raises, each time."""

    def __init__(self, pages: list[list[UUID]] | None = None, troubles: dict[UUID, AppError] | None = None) -> None:
        self.pages = pages or []
        self.troubles = troubles or {}
        self.cleaned: list[UUID] = []

    def tenants(self, after: UUID | None) -> list[UUID]:
        following = {page[-1]: later for page, later in pairwise([*self.pages, []])}
        return following[after] if after is not None else next(iter(self.pages), [])

    def clean(self, tenant_id: UUID) -> None:
        if tenant_id in self.troubles:
            raise self.troubles[tenant_id]
        self.cleaned.append(tenant_id)


def run(
    address: str,
    expiry: FakeExpiry,
    scenario: Callable[[Client, str], Coroutine[Any, Any, Result]],
    indexes: FakeIndexes | None = None,
    cleaning: "FakeCleaning | None" = None,
) -> Result:
    """Runs `scenario(client, task queue)` while a worker with these activities polls that queue."""

    async def serve() -> Result:
        client = await Client.connect(address, identity="test")
        task_queue = str(uuid4())
        upkeep = UpkeepActivities(expiry, indexes or FakeIndexes(), cleaning or FakeCleaning())
        registered: list[Callable[..., Any]] = [
            upkeep.list_tenants_with_expired,
            upkeep.sweep_expired,
            upkeep.build_index,
            upkeep.list_tenants,
            upkeep.clean_tenant,
        ]
        with ThreadPoolExecutor(worker.threads()) as executor:
            async with worker.build_worker(client, registered, executor, task_queue=task_queue):
                return await scenario(client, task_queue)

    return asyncio.run(serve())
