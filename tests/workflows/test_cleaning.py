"""Cleaning comes by at every tenant, page after page; one that makes trouble does not keep the others waiting."""

from uuid import UUID, uuid4

from temporalio.client import Client

from memory.errors import BadRequest
from tests.workflows.fake_upkeep import FakeCleaning, FakeExpiry, run
from workflows.cleaning import CleaningWorkflow

A, B, C = (UUID(int=number) for number in range(1, 4))


def _cleaned(temporal: str, cleaning: FakeCleaning) -> list[UUID]:
    async def scenario(client: Client, task_queue: str) -> None:
        await client.execute_workflow(CleaningWorkflow.run, id=str(uuid4()), task_queue=task_queue)

    run(temporal, FakeExpiry({}), scenario, cleaning=cleaning)
    return cleaning.cleaned


def test_without_tenants_there_is_nothing_to_do(temporal: str) -> None:
    assert _cleaned(temporal, FakeCleaning()) == []


def test_every_tenant_is_cleaned_and_a_fault_left_behind(temporal: str) -> None:
    assert _cleaned(temporal, FakeCleaning([[A, B], [C]], {B: BadRequest("never")})) == [A, C]
