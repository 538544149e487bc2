"""Tenants take turns: who has dropped hundreds of files does not keep another one's single file waiting for them."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle

import worker
from api.temporal import WorkflowClient
from tests.workflows.fake_files import FakeFiles, run
from workflows.drop import LISTINGS_A_RUN, workflow_id

MANY, ONE = str(uuid4()), str(uuid4())


async def _have_queued(handles: Sequence[WorkflowHandle[Any, Any]]) -> None:
    """Returns once each has a step in the queue, or in work."""
    for handle in handles:
        while not (await handle.describe()).raw_description.pending_activities:
            await asyncio.sleep(0.01)


def test_a_single_file_is_not_kept_waiting_by_another_tenants_hundreds(
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

    assert len(files.steps) == 2 * len(theirs) + 2
    # In the order of arrival it would be behind nearly all of them; now behind those in work, and one turn a step.
    assert files.steps.index(("store", mine)) < len(files.steps) / 4


def _pass(opened: threading.Event) -> None:
    assert opened.wait(60)


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
