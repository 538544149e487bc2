"""Indexes are built piece by piece, through outages, and left at once when the worker is to end."""

import asyncio
from uuid import uuid4

from temporalio.client import Client

from memory.errors import Unavailable
from tests.workflows.fake_upkeep import FakeExpiry, FakeIndexes, run
from workflows.index import PIECES_A_RUN, IndexWorkflow


def _built(temporal: str, indexes: FakeIndexes) -> int:
    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(IndexWorkflow.run, id=str(uuid4()), task_queue=task_queue)

    run(temporal, FakeExpiry({}), scenario, indexes)
    return indexes.built


def test_all_is_built_and_then_it_ends(temporal: str) -> None:
    assert _built(temporal, FakeIndexes(0)) == 0
    assert _built(temporal, FakeIndexes(3)) == 3


def test_an_outage_is_waited_out(temporal: str) -> None:
    assert _built(temporal, FakeIndexes(2, [Unavailable("in a moment"), Unavailable("again")])) == 2


def test_what_one_run_cannot_do_waits_for_the_next(temporal: str) -> None:
    assert _built(temporal, FakeIndexes(PIECES_A_RUN + 5)) == PIECES_A_RUN


def test_a_worker_that_ends_does_not_wait_for_an_index(temporal: str) -> None:
    indexes = FakeIndexes()
    indexes.waits_until_stopped = True

    async def scenario(client: Client, task_queue: str) -> None:
        await client.start_workflow(IndexWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await asyncio.to_thread(indexes.entered.wait, 60)

    run(temporal, FakeExpiry({}), scenario, indexes)
    assert indexes.stopped.is_set()


def test_one_that_is_cancelled_leaves_its_index(temporal: str) -> None:
    indexes = FakeIndexes()
    indexes.waits_until_stopped = True

    async def scenario(client: Client, task_queue: str) -> None:
        handle = await client.start_workflow(IndexWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await asyncio.to_thread(indexes.entered.wait, 60)
        await handle.cancel()
        assert await asyncio.to_thread(indexes.stopped.wait, 60)

    run(temporal, FakeExpiry({}), scenario, indexes)
