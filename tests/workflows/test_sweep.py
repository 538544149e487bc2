"""The sweep starts what was never started, leaves running drops alone and outlives nothing it started."""

import threading
from uuid import uuid4

from temporalio.client import Client, WorkflowExecutionStatus

from activities.files import Batch
from tests.workflows.fake_files import TENANT, FakeFiles, run
from workflows.drop import DropWorkflow, workflow_id
from workflows.sweep import SweepWorkflow


def test_stalled_drops_are_started_under_the_id_of_their_row(temporal: str) -> None:
    batches = [str(uuid4()), str(uuid4())]
    files = FakeFiles(
        {batch_id: [[f"file of {batch_id}"]] for batch_id in batches},
        stalled=[Batch(TENANT, batch_id) for batch_id in batches],
    )

    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(SweepWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        for batch_id in batches:
            await client.get_workflow_handle(workflow_id(batch_id)).result()

    run(temporal, files, scenario)

    assert sorted(files.closed) == sorted(batches)


def test_a_running_drop_is_left_alone(temporal: str) -> None:
    running, stalled = str(uuid4()), str(uuid4())
    swept = threading.Event()
    files = FakeFiles(
        {running: [["slow"]], stalled: [["quick"]]},
        {("read", "slow"): lambda: _require(swept.wait(60))},
        stalled=[Batch(TENANT, running), Batch(TENANT, stalled)],
    )

    async def scenario(client: Client, task_queue: str) -> WorkflowExecutionStatus | None:
        handle = await client.start_workflow(
            DropWorkflow.run, Batch(TENANT, running), id=workflow_id(running), task_queue=task_queue
        )
        sweep = await client.start_workflow(SweepWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await sweep.result()
        await client.get_workflow_handle(workflow_id(stalled)).result()
        swept.set()
        await handle.result()
        return (await sweep.describe()).status

    assert run(temporal, files, scenario) is WorkflowExecutionStatus.COMPLETED
    assert files.attempts["read", "slow"] == 1
    assert len(files.runs) == 2


def _require(passed: bool) -> None:
    assert passed
