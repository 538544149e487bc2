"""What upkeep finds to do, in memory: which tenant has how many batches of expired memories, and who makes trouble."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID, uuid4

from temporalio.client import Client

import worker
from activities.upkeep import UpkeepActivities
from memory.errors import AppError

Result = TypeVar("Result")


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


def run(address: str, expiry: FakeExpiry, scenario: Callable[[Client, str], Coroutine[Any, Any, Result]]) -> Result:
    """Runs `scenario(client, task queue)` while a worker with these activities polls that queue."""

    async def serve() -> Result:
        client = await Client.connect(address, identity="test")
        task_queue = str(uuid4())
        upkeep = UpkeepActivities(expiry)
        registered: list[Callable[..., Any]] = [upkeep.list_tenants_with_expired, upkeep.sweep_expired]
        with ThreadPoolExecutor(worker.threads()) as executor:
            async with worker.build_worker(client, registered, executor, task_queue=task_queue):
                return await scenario(client, task_queue)

    return asyncio.run(serve())
