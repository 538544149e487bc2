"""Tenants take turns: who has queued thousands of steps does not keep another one's single file waiting for them."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle

import worker
from activities.files import Batch
from api.temporal import WorkflowClient
from tests.workflows.fake_files import FakeFiles, run
from workflows.drop import LISTINGS_A_RUN, DropWorkflow, workflow_id
from workflows.policies import fair_to

MANY, ONE = str(uuid4()), str(uuid4())


async def _have_queued(handles: Sequence[WorkflowHandle[Any, Any]]) -> None:
    """Returns once each has a step in the queue, or in work."""
    for handle in handles:
        while not (await handle.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.01)


def test_a_single_file_is_not_kept_waiting_by_another_tenants_thousands(
    temporal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {str(uuid4()): [[str(uuid4())] for _ in range(4)] for _ in range(6 * worker.threads())}
    theirs, mine = [name for portions in many.values() for (name,) in portions], str(uuid4())
    batch = str(uuid4())
    opened = threading.Event()
    files = FakeFiles({**many, batch: [[mine]]}, {("read", name): lambda: _pass(opened) for name in theirs})

    async def scenario(client: Client, task_queue: str) -> None:
        monkeypatch.setattr("api.temporal.TASK_QUEUE", task_queue)
        door = WorkflowClient(temporal, "default")
        # Of the first ones enough to hold every place in the worker.
        for batch_id in many:
            assert await door.start_drop(MANY, batch_id)
        handles = [client.get_workflow_handle(workflow_id(batch_id)) for batch_id in many]
        single = client.get_workflow_handle(workflow_id(batch))
        try:
            await _have_queued(handles)
            assert await door.start_drop(ONE, batch)
            await _have_queued([single])
        finally:
            opened.set()
        await single.result()
        for handle in handles:
            await handle.result()

    run(temporal, files, scenario)

    before = files.steps.index(("store", mine))
    assert len(files.steps) == 2 * len(theirs) + 2
    # In the order of arrival it would be behind nearly all of them.
    assert before < len(theirs) / 2


def _pass(opened: threading.Event) -> None:
    assert opened.wait(60)


def test_a_long_drop_keeps_its_turn_in_its_later_runs(temporal: str) -> None:
    batch = str(uuid4())
    files = FakeFiles({batch: [[f"file {n}"] for n in range(LISTINGS_A_RUN + 1)]}, portions_a_listing=1)

    async def scenario(client: Client, task_queue: str) -> str | None:
        handle = await client.start_workflow(
            DropWorkflow.run,
            Batch(ONE, batch),
            id=workflow_id(batch),
            task_queue=task_queue,
            priority=fair_to(ONE),
        )
        await handle.result()
        last = await client.get_workflow_handle(workflow_id(batch)).describe()
        return last.raw_description.workflow_execution_info.priority.fairness_key

    assert run(temporal, files, scenario) == ONE
    assert len(files.runs) == 2
