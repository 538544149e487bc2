"""Tenants take turns: who has queued hundreds of steps does not keep another one's single step waiting for them."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from api.temporal import WorkflowClient
from tests.workflows.fake_files import FakeFiles, run
from workflows.drop import LISTINGS_A_RUN, workflow_id
from workflows.policies import fair_to

MANY, ONE = str(uuid4()), str(uuid4())
WORKFLOWS, AT_ONCE, PLACES = 40, 4, 8


@workflow.defn(sandboxed=False)
class Steps:
    """So many steps of one tenant, a few at once, as a drop has them."""

    @workflow.run
    async def run(self, tenant_id: str, count: int) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def step() -> None:
            async with slots:
                await workflow.execute_activity("step", tenant_id, start_to_close_timeout=timedelta(minutes=1))

        await asyncio.gather(*(step() for _ in range(count)))


async def _have_queued(handles: Sequence[WorkflowHandle[Any, Any]], count: int) -> None:
    """Returns once each has so many steps in the queue, or in work."""
    for handle in handles:
        while len((await handle.describe()).raw_description.pending_activities) < count:
            await asyncio.sleep(0.01)


def test_a_single_step_is_not_kept_waiting_by_another_tenants_hundreds(temporal: str) -> None:
    opened = threading.Event()
    taken: list[str] = []

    @activity.defn
    def step(tenant_id: str) -> None:
        assert opened.wait(60)
        taken.append(tenant_id)
        time.sleep(0.01)

    async def scenario() -> None:
        client = await Client.connect(temporal)
        queue = str(uuid4())

        async def start(tenant_id: str, count: int) -> WorkflowHandle[Any, Any]:
            return await client.start_workflow(
                Steps.run, args=[tenant_id, count], id=str(uuid4()), task_queue=queue, priority=fair_to(tenant_id)
            )

        with ThreadPoolExecutor(PLACES) as places:
            async with Worker(
                client,
                task_queue=queue,
                workflows=[Steps],
                activities=[step],
                activity_executor=places,
                max_concurrent_activities=PLACES,
            ):
                handles = [await start(MANY, 2 * AT_ONCE) for _ in range(WORKFLOWS)]
                try:
                    await _have_queued(handles, AT_ONCE)
                    single = await start(ONE, 1)
                    await _have_queued([single], 1)
                finally:
                    opened.set()
                for handle in (single, *handles):
                    await handle.result()

    asyncio.run(scenario())

    assert len(taken) == 2 * AT_ONCE * WORKFLOWS + 1
    # In the order of arrival it would be behind all that were in the queue.
    assert taken.index(ONE) < AT_ONCE * WORKFLOWS / 2


def test_a_drop_has_its_tenants_turn_in_its_later_runs_too(temporal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = str(uuid4())
    files = FakeFiles({batch: [[f"file {n}"] for n in range(LISTINGS_A_RUN + 1)]}, portions_a_listing=1)

    async def scenario(client: Client, task_queue: str) -> str:
        monkeypatch.setattr("api.temporal.TASK_QUEUE", task_queue)
        assert await WorkflowClient(temporal, "default").start_drop(ONE, batch)
        handle = client.get_workflow_handle(workflow_id(batch))
        await handle.result()
        described = (await client.get_workflow_handle(workflow_id(batch)).describe()).raw_description
        return described.workflow_execution_info.priority.fairness_key

    assert run(temporal, files, scenario) == ONE
    assert len(files.runs) == 2
