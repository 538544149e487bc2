"""The front door's line to Temporal: patient with a server that is away, never in the way itself."""

import asyncio
import signal
import socket
from asyncio.subprocess import DEVNULL
from pathlib import Path
from uuid import uuid4

from temporalio.client import Client

from activities.files import Batch
from api.temporal import WorkflowClient
from ops import launch
from ops.ports import free_port
from ops.temporal import environment, find_server, server_command
from workflows.drop import workflow_id


def test_a_server_that_is_away_is_no_error() -> None:
    client = WorkflowClient(f"127.0.0.1:{free_port()}", "default")

    assert asyncio.run(client.start_drop(str(uuid4()), str(uuid4()))) is False


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = WorkflowClient(f"127.0.0.1:{silent.getsockname()[1]}", "default")

        assert asyncio.run(client.start_drop(str(uuid4()), str(uuid4()))) is False
        assert asyncio.run(client.start_curation("dedup", str(uuid4()), str(uuid4()))) is False


def test_a_server_that_comes_back_is_used(tmp_path: Path) -> None:
    port = free_port()

    async def scenario() -> list[bool]:
        client = WorkflowClient(f"127.0.0.1:{port}", "default")
        answers = [await client.start_drop(str(uuid4()), str(uuid4()))]
        command = server_command(find_server(lambda _: None), port=port, ui_port=None, database=None)
        server = await asyncio.create_subprocess_exec(
            *launch.command(command, death=signal.SIGKILL), env=environment(tmp_path), stdout=DEVNULL, stderr=DEVNULL
        )
        while not answers[-1]:
            answers.append(await client.start_drop(str(uuid4()), str(uuid4())))
        server.kill()
        await server.wait()
        return answers

    first, *_, last = asyncio.run(scenario())
    assert (first, last) == (False, True)


def test_starting_twice_finds_the_one_that_runs(temporal: str) -> None:
    tenant_id, batch_id = str(uuid4()), str(uuid4())

    async def scenario() -> tuple[list[bool], set[str], Batch]:
        client = WorkflowClient(temporal, "default")
        direct = await Client.connect(temporal)
        handle = direct.get_workflow_handle(workflow_id(batch_id))
        started, runs = [], set()
        for _ in range(2):
            started.append(await client.start_drop(tenant_id, batch_id))
            runs.add((await handle.describe()).run_id)
        first = (await handle.fetch_history()).events[0]
        payloads = first.workflow_execution_started_event_attributes.input.payloads
        (batch,) = await direct.data_converter.decode(payloads, [Batch])
        await handle.terminate()
        return started, runs, batch

    started, runs, batch = asyncio.run(scenario())
    assert started == [True, True]
    assert len(runs) == 1
    assert batch == Batch(tenant_id, batch_id)
