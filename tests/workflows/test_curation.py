"""Runs of curation step by step: what ends them, what is tried again, and what starts those that were left lying."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError

from activities.curation import Run, RunToStart
from activities.errors import MAX_ATTEMPTS_OF_UNKNOWN_ERRORS
from memory.errors import Misconfigured, Unavailable
from tests.workflows.fake_curation import TENANT, FakeCuration, run
from workflows.archive_stale import ArchiveStaleWorkflow
from workflows.curation import CurationWorkflow, workflow_id
from workflows.curation_run import STEPS_A_RUN
from workflows.dedup import DedupWorkflow

kinds = pytest.mark.parametrize(
    ("workflow", "step"),
    [(DedupWorkflow.run, "merge"), (ArchiveStaleWorkflow.run, "archive")],
    ids=["dedup", "archive-stale"],
)


def carry_out(address: str, fake: FakeCuration, workflow: Any) -> str:
    """Runs the one run of `fake` to its end."""
    (run_id,) = fake.steps

    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(workflow, Run(TENANT, run_id), id=f"test-{run_id}", task_queue=task_queue)

    run(address, fake, scenario)
    return run_id


def raising(error: Exception, *, times: int = 1_000) -> Callable[[], None]:
    left = iter([error] * times)

    def trouble() -> None:
        for wanted in left:
            raise wanted

    return trouble


@kinds
def test_steps_are_taken_until_nothing_is_left(temporal: str, workflow: Any, step: str) -> None:
    fake = FakeCuration({str(uuid4()): 3})
    run_id = carry_out(temporal, fake, workflow)
    assert fake.taken == [(step, run_id)] * 3
    assert fake.given_up == []


@kinds
def test_a_long_run_goes_on_in_new_executions(temporal: str, workflow: Any, step: str) -> None:
    fake = FakeCuration({str(uuid4()): STEPS_A_RUN + 2})
    run_id = carry_out(temporal, fake, workflow)
    assert fake.taken == [(step, run_id)] * (STEPS_A_RUN + 2)
    assert len(fake.executions) == 2


def test_what_fails_for_a_while_is_tried_again(temporal: str) -> None:
    run_id = str(uuid4())
    fake = FakeCuration({run_id: 1}, {run_id: raising(Unavailable("no database"), times=2)})
    carry_out(temporal, fake, DedupWorkflow.run)
    assert fake.taken == [("merge", run_id)] * 3
    assert fake.given_up == []


@kinds
def test_what_fails_for_good_ends_the_run_as_failed(temporal: str, workflow: Any, step: str) -> None:
    run_id = str(uuid4())
    fake = FakeCuration({run_id: 1}, {run_id: raising(ZeroDivisionError("?"))})
    carry_out(temporal, fake, workflow)
    assert fake.taken == [(step, run_id)] * MAX_ATTEMPTS_OF_UNKNOWN_ERRORS
    assert fake.given_up == [run_id]


def test_a_wrong_installation_is_no_fault_of_the_run(temporal: str) -> None:
    run_id = str(uuid4())
    fake = FakeCuration({run_id: 1}, {run_id: raising(Misconfigured("set EMBEDDING_MODEL"))})
    with pytest.raises(WorkflowFailureError):
        carry_out(temporal, fake, DedupWorkflow.run)
    assert fake.given_up == []


def test_waiting_runs_are_started_under_the_ids_of_their_rows(temporal: str) -> None:
    merging, archiving = str(uuid4()), str(uuid4())
    fake = FakeCuration(
        {merging: 1, archiving: 1},
        waiting=[RunToStart(TENANT, merging, "dedup"), RunToStart(TENANT, archiving, "archive_stale")],
    )

    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(CurationWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await client.get_workflow_handle(f"dedup-{merging}").result()
        await client.get_workflow_handle(f"archive-stale-{archiving}").result()

    run(temporal, fake, scenario)

    assert sorted(fake.taken) == sorted([("merge", merging), ("archive", archiving)])


def test_a_run_that_is_under_way_is_left_alone(temporal: str) -> None:
    running, waiting = str(uuid4()), str(uuid4())
    rounds_over = threading.Event()

    def wait() -> None:
        assert rounds_over.wait(60)

    fake = FakeCuration(
        {running: 1, waiting: 1},
        {running: wait},
        waiting=[RunToStart(TENANT, running, "dedup"), RunToStart(TENANT, waiting, "dedup")],
    )

    async def scenario(client: Client, task_queue: str) -> WorkflowExecutionStatus | None:
        handle = await client.start_workflow(
            DedupWorkflow.run, Run(TENANT, running), id=workflow_id("dedup", running), task_queue=task_queue
        )
        one_round = await client.start_workflow(CurationWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await one_round.result()
        await client.get_workflow_handle(workflow_id("dedup", waiting)).result()
        rounds_over.set()
        await handle.result()
        return (await one_round.describe()).status

    assert run(temporal, fake, scenario) is WorkflowExecutionStatus.COMPLETED
    assert fake.taken.count(("merge", running)) == 1
    assert len(fake.executions) == 2
