"""Runs each workflow once and keeps its history: `python -m tests.workflows.keep_history ADDRESS VERSION [NAME…]`.

For a new version of a workflow's code. The histories of older versions stay: their runs may still be under way.
"""

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from temporalio.client import Client, WorkflowHandle

from activities.curation import Run, RunToStart
from activities.files import Batch
from memory.errors import BadRequest
from tests.workflows import fake_curation, fake_upkeep
from tests.workflows.fake_curation import FakeCuration
from tests.workflows.fake_files import TENANT, FakeFiles, run
from tests.workflows.fake_upkeep import FakeCleaning, FakeExpiry, FakeIndexes
from workflows import curation
from workflows.archive_stale import ArchiveStaleWorkflow
from workflows.cleaning import CleaningWorkflow
from workflows.curation import CurationWorkflow
from workflows.curation_run import STEPS_A_RUN
from workflows.dedup import DedupWorkflow
from workflows.drop import LISTINGS_A_RUN, DropWorkflow, workflow_id
from workflows.expiry import ExpiryWorkflow
from workflows.index import IndexWorkflow
from workflows.sweep import SweepWorkflow

HISTORIES = Path(__file__).parent / "histories"


def refuse() -> None:
    raise BadRequest("never")


def main(address: str, version: str, *only: str) -> None:
    """Keeps the histories of all workflows, or of those named."""
    kept = {**_drops(address), **_curation(address), **_expiry(address), **_index(address), **_cleaning(address)}
    for name in only or kept:
        path = HISTORIES / f"{name}-{version}.json"
        path.write_text(json.dumps(kept[name], indent=1) + "\n")


def _drops(address: str) -> dict[str, dict[str, Any]]:
    # More listings than one run takes, a portion spoilt by a file, which is given up, a recording, a picture.
    batch_id, running = str(uuid4()), str(uuid4())
    names = {name: str(uuid4()) for name in ("good", "bad", *(f"later {n}" for n in range(LISTINGS_A_RUN)))}
    good, bad, *later = names.values()
    files = FakeFiles(
        {batch_id: [[good, bad], *([file_id] for file_id in later)], running: []},
        {("read", bad): refuse},
        portions_a_listing=1,
        awaiting={later[0]: "transcript", later[1]: "caption"},
        stalled=[Batch(TENANT, running), Batch(TENANT, batch_id)],
    )

    async def scenario(client: Client, task_queue: str) -> dict[str, dict[str, Any]]:
        drop = await client.start_workflow(
            DropWorkflow.run, Batch(TENANT, batch_id), id=workflow_id(batch_id), task_queue=task_queue
        )
        sweep = await client.start_workflow(SweepWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await sweep.result()
        await drop.result()
        first_run = client.get_workflow_handle(drop.id, run_id=drop.first_execution_run_id)
        return {"drop": await _history(first_run), "sweep": await _history(sweep)}

    return run(address, files, scenario)


def _curation(address: str) -> dict[str, dict[str, Any]]:
    # More steps than one run takes, one that is given up, one that is under way when its turn to be started comes.
    long, bad, waiting = (str(uuid4()) for _ in range(3))
    fake = FakeCuration(
        {long: STEPS_A_RUN + 1, bad: 1, waiting: 1},
        {bad: refuse},
        waiting=[RunToStart(TENANT, long, "dedup"), RunToStart(TENANT, waiting, "archive_stale")],
    )

    async def scenario(client: Client, task_queue: str) -> dict[str, dict[str, Any]]:
        dedup = await client.start_workflow(
            DedupWorkflow.run, Run(TENANT, long), id=curation.workflow_id("dedup", long), task_queue=task_queue
        )
        failing = await client.start_workflow(
            ArchiveStaleWorkflow.run, Run(TENANT, bad), id=str(uuid4()), task_queue=task_queue
        )
        one_round = await client.start_workflow(CurationWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        for handle in (one_round, failing, dedup):
            await handle.result()
        first_run = client.get_workflow_handle(dedup.id, run_id=dedup.first_execution_run_id)
        return {
            "dedup": await _history(first_run),
            "archive-stale": await _history(failing),
            "curation": await _history(one_round),
        }

    return fake_curation.run(address, fake, scenario)


def _expiry(address: str) -> dict[str, dict[str, Any]]:
    # One tenant with several batches, one that is given up, one with a single batch.
    several, bad, single = (UUID(int=number) for number in range(1, 4))
    fake = FakeExpiry({several: 3, bad: 1, single: 1}, {bad: [BadRequest("never")]})

    async def scenario(client: Client, task_queue: str) -> dict[str, dict[str, Any]]:
        handle = await client.start_workflow(ExpiryWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await handle.result()
        return {"expiry": await _history(handle)}

    return fake_upkeep.run(address, fake, scenario)


def _index(address: str) -> dict[str, dict[str, Any]]:
    async def scenario(client: Client, task_queue: str) -> dict[str, dict[str, Any]]:
        handle = await client.start_workflow(IndexWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await handle.result()
        return {"index": await _history(handle)}

    return fake_upkeep.run(address, FakeExpiry({}), scenario, FakeIndexes(3))


def _cleaning(address: str) -> dict[str, dict[str, Any]]:
    # One tenant that is given up.
    good, bad = (UUID(int=number) for number in range(1, 3))
    fake = FakeCleaning([[good, bad]], {bad: BadRequest("never")})

    async def scenario(client: Client, task_queue: str) -> dict[str, dict[str, Any]]:
        handle = await client.start_workflow(CleaningWorkflow.run, id=str(uuid4()), task_queue=task_queue)
        await handle.result()
        first_run = client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
        return {"cleaning": await _history(first_run)}

    return fake_upkeep.run(address, FakeExpiry({}), scenario, cleaning=fake)


async def _history(handle: WorkflowHandle[Any, None]) -> dict[str, Any]:
    history: dict[str, Any] = _without_traces(json.loads((await handle.fetch_history()).to_json()))
    return history


def _without_traces(node: Any) -> Any:
    """Traces name the folders of the machine that made them."""
    if isinstance(node, dict):
        return {key: _without_traces(value) for key, value in node.items() if key != "stackTrace"}
    return [_without_traces(child) for child in node] if isinstance(node, list) else node


if __name__ == "__main__":
    HISTORIES.mkdir(exist_ok=True)
    main(*sys.argv[1:])
