"""Runs each workflow once and keeps its history: `python -m tests.workflows.keep_history ADDRESS VERSION`.

For a new version of a workflow's code. The histories of older versions stay: their runs may still be under way.
"""

import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle

from activities.files import Batch
from memory.errors import BadRequest
from tests.workflows.fake_files import TENANT, FakeFiles, run
from workflows.drop import LISTINGS_A_RUN, DropWorkflow, workflow_id
from workflows.sweep import SweepWorkflow

HISTORIES = Path(__file__).parent / "histories"


def refuse() -> None:
    raise BadRequest("never")


def main(address: str, version: str) -> None:
    # More listings than one run takes, one portion that is spoilt by a file, one file that is given up.
    batch_id, running = str(uuid4()), str(uuid4())
    names = {name: str(uuid4()) for name in ("good", "bad", *(f"later {n}" for n in range(LISTINGS_A_RUN)))}
    good, bad, *later = names.values()
    files = FakeFiles(
        {batch_id: [[good, bad], *([file_id] for file_id in later)], running: []},
        {("read", bad): refuse},
        portions_a_listing=1,
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

    for name, history in run(address, files, scenario).items():
        path = HISTORIES / f"{name}-{version}.json"
        path.write_text(json.dumps(history, indent=1) + "\n")


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
    main(sys.argv[1], sys.argv[2])
