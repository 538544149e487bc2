"""Expiry: every tenant's batches are swept, in turns, and one that makes trouble does not keep the others waiting."""

from uuid import UUID, uuid4

from temporalio.client import Client

from memory.errors import BadRequest, Unavailable
from tests.workflows.fake_upkeep import FakeExpiry, run
from workflows import expiry as workflow
from workflows.expiry import ExpiryWorkflow

A, B, C = (UUID(int=number) for number in range(1, 4))


def _swept(temporal: str, expiry: FakeExpiry) -> list[UUID]:
    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(ExpiryWorkflow.run, id=str(uuid4()), task_queue=task_queue)

    run(temporal, expiry, scenario)
    return expiry.swept


def test_nothing_due_is_nothing_to_do(temporal: str) -> None:
    assert _swept(temporal, FakeExpiry({})) == []


def test_every_tenant_is_swept_to_the_end_in_turns(temporal: str) -> None:
    assert _swept(temporal, FakeExpiry({A: 3, B: 1, C: 2})) == [A, B, C, A, C, A]


def test_an_outage_is_waited_out_and_a_fault_left_behind(temporal: str) -> None:
    expiry = FakeExpiry({A: 1, B: 1, C: 1}, {A: [BadRequest("never")], B: [Unavailable("in a moment")]})
    assert _swept(temporal, expiry) == [B, C]


def test_what_one_run_cannot_do_waits_for_the_next(temporal: str) -> None:
    expiry = FakeExpiry({A: workflow.BATCHES_A_RUN + 2})
    assert len(_swept(temporal, expiry)) == workflow.BATCHES_A_RUN
    assert len(_swept(temporal, expiry)) == workflow.BATCHES_A_RUN + 2
