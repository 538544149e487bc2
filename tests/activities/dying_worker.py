"""A worker of its own whose one activity kills it: `python -m tests.activities.dying_worker ADDRESS QUEUE`."""

import asyncio
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.heartbeats import HeartbeatInterceptor


@activity.defn
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@workflow.defn
class DyingWorkflow:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity(
            die,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=1.0),
        )


async def serve(address: str, task_queue: str) -> None:
    client = await Client.connect(address)
    with ThreadPoolExecutor() as executor:
        await Worker(
            client,
            task_queue=task_queue,
            workflows=[DyingWorkflow],
            workflow_runner=UnsandboxedWorkflowRunner(),
            # So that a dead worker's workflow does not wait for it.
            max_cached_workflows=0,
            activities=[die],
            activity_executor=executor,
            interceptors=[HeartbeatInterceptor()],
        ).run()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
