"""A dead worker is noticed, what keeps killing workers is stopped, and nothing else counts as a death."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.errors import ErrorInterceptor
from activities.heartbeats import MAX_LOST_ATTEMPTS, WORKER_LOST, HeartbeatInterceptor
from memory.errors import Unavailable
from tests.activities.dying_worker import DyingWorkflow

ROOT = Path(__file__).parents[2]


@workflow.defn
class PatientWorkflow:
    @workflow.run
    async def run(self) -> int:
        attempt: int = await workflow.execute_activity(
            "step",
            result_type=int,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), backoff_coefficient=1.0),
        )
        return attempt


async def outcome(address: str, step: Callable[[], int]) -> int:
    client = await Client.connect(address)
    queue = str(uuid4())
    with ThreadPoolExecutor() as executor:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[PatientWorkflow],
            workflow_runner=UnsandboxedWorkflowRunner(),
            activities=[step],
            activity_executor=executor,
            interceptors=[HeartbeatInterceptor(), ErrorInterceptor()],
        ):
            return await client.execute_workflow(PatientWorkflow.run, id=queue, task_queue=queue)


def test_a_living_activity_may_take_longer_than_its_heartbeat_timeout(temporal: str) -> None:
    attempts = []

    @activity.defn(name="step")
    def step() -> int:
        attempts.append(activity.info().attempt)
        activity.wait_for_worker_shutdown_sync(timeout=3)
        return 1

    assert asyncio.run(outcome(temporal, step)) == 1
    assert attempts == [1]


def test_attempts_that_fail_by_themselves_are_not_counted_as_lost(temporal: str) -> None:
    @activity.defn(name="step")
    def step() -> int:
        attempt = activity.info().attempt
        if attempt <= 2 * MAX_LOST_ATTEMPTS:
            raise Unavailable("not yet")
        return attempt

    assert asyncio.run(outcome(temporal, step)) == 2 * MAX_LOST_ATTEMPTS + 1


def test_what_kills_every_worker_is_given_up(temporal: str) -> None:
    async def scenario() -> tuple[ActivityError, list[int]]:
        client = await Client.connect(temporal)
        queue = str(uuid4())
        handle = await client.start_workflow(DyingWorkflow.run, id=queue, task_queue=queue)
        result = asyncio.create_task(handle.result())
        deaths: list[int] = []
        while not result.done():
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.activities.dying_worker", temporal, queue, cwd=ROOT
            )
            await asyncio.wait([result, ended := asyncio.create_task(child.wait())], return_when="FIRST_COMPLETED")
            if not ended.done():
                child.terminate()
            deaths.append(await ended)
        with pytest.raises(WorkflowFailureError) as raised:
            await result
        assert isinstance(raised.value.cause, ActivityError)
        return raised.value.cause, deaths

    failure, deaths = asyncio.run(scenario())

    assert isinstance(failure.cause, ApplicationError)
    assert failure.cause.type == WORKER_LOST
    # The first one may die before its beat is out; the last child is the one that refuses.
    assert len(deaths) - 1 in (MAX_LOST_ATTEMPTS, MAX_LOST_ATTEMPTS + 1)
