"""The worker as a process: patient at its start, unharmed by the loss of Temporal, replaceable at any moment."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from temporalio.client import Client, ScheduleDescription, ScheduleHandle, ScheduleOverlapPolicy
from temporalio.service import RPCError

import worker
from api.temporal import WorkflowClient
from memory.drop_schemas import BatchProgress, DropOptions
from memory.embedding import Embedding
from memory.intake import IncomingFile
from memory.memories import Memories
from memory.schemas import Caller, MemoryCreate
from memory.services import Services, build
from memory.settings import Settings
from ops import launch
from ops.ports import free_port
from ops.temporal import environment, find_server, server_command
from tests import speech
from tests.conftest import DatabaseUrls
from tests.fakes import TranscriptionEndpoint, WordEmbedder

FILES = 60
PARAGRAPHS = 3
CLUSTERS = 40
DUPLICATES = 5


@dataclass
class Stage:
    """A house of one tenant, a Temporal server with its state in a file, and workers, all of them killable."""

    folder: Path
    settings: Settings
    services: Services
    caller: Caller
    temporal_port: int
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.temporal_port}"

    def start_temporal(self) -> subprocess.Popen[bytes]:
        command = server_command(
            find_server(lambda _: None), port=self.temporal_port, ui_port=None, database=self.folder / "temporal.db"
        )
        return self._start(command, environment(self.folder))

    def start_worker(self, **more: str) -> subprocess.Popen[bytes]:
        assert self.settings.database_url is not None
        settings = {
            "DATABASE_URL": self.settings.database_url.get_secret_value(),
            "REMEMBEROS_DATA": str(self.settings.rememberos_data),
            "TEMPORAL_ADDRESS": self.address,
            "OCR_ENGINE": "off",
        }
        return self._start([sys.executable, "-P", "-m", "worker"], {"PATH": os.defpath, **settings, **more})

    def drop(self) -> UUID:
        """A batch of several seconds of work, accepted and not started."""
        texts = [
            "\n\n".join(f"Paragraph {p} of file {n}. " + "Bees fly out in spring. " * 45 for p in range(PARAGRAPHS))
            for n in range(FILES)
        ]
        files = [IncomingFile(f"{n}.txt", "text/plain", io.BytesIO(text.encode())) for n, text in enumerate(texts)]
        return self.services.drops.open(self.caller, "garden", files, DropOptions()).batch_id

    def start_drop(self, batch_id: UUID) -> None:
        async def start() -> None:
            client = WorkflowClient(self.address, "default")
            while not await client.start_drop(str(self.caller.tenant_id), str(batch_id)):
                await asyncio.sleep(0.1)

        asyncio.run(start())

    def start_dedup(self, run_id: UUID) -> None:
        async def start() -> None:
            client = WorkflowClient(self.address, "default")
            while not await client.start_curation("dedup", str(self.caller.tenant_id), str(run_id)):
                await asyncio.sleep(0.1)

        asyncio.run(start())

    def wait(self, batch_id: UUID, until: Callable[[BatchProgress], bool]) -> BatchProgress:
        pause = threading.Event()
        while not until(progress := self.services.batches.progress(self.caller, batch_id)):
            pause.wait(0.05)
        return progress

    def wait_for_log(self, words: str) -> None:
        pause = threading.Event()
        while words not in (self.folder / "log").read_text():
            pause.wait(0.05)

    def _start(self, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("a") as log:
            child = subprocess.Popen(
                launch.command(command, death=signal.SIGKILL),
                env=variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.children.append(child)
        return child


@pytest.fixture
def stage(database: DatabaseUrls, tmp_path: Path) -> Iterator[Stage]:
    settings = Settings(_env_file=None, rememberos_data=tmp_path / "data", database_url=database.app_url)
    services = build(settings)
    key = services.accounts.create_tenant(email="a@example.org").api_key
    stage = Stage(tmp_path, settings, services, services.accounts.authenticate(key), free_port())
    yield stage
    for child in reversed(stage.children):
        child.kill()
        child.wait()
    services.close()


def kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def is_under_way(progress: BatchProgress) -> bool:
    return progress.done > 0


def is_complete(progress: BatchProgress) -> bool:
    return progress.complete


def assert_each_chunk_is_there_once(stage: Stage, progress: BatchProgress) -> None:
    assert (progress.total, progress.done, progress.failed) == (FILES, FILES, 0)
    ids = [memory_id for file in progress.files for memory_id in file.memory_ids]
    assert len(set(ids)) == len(ids) == sum(file.chunks for file in progress.files)
    assert stage.services.collections.get(stage.caller, "garden").memory_count == len(ids)
    first = [
        stage.services.memories.get(stage.caller, "garden", memory_id) for memory_id in progress.files[0].memory_ids
    ]
    assert [memory.metadata["chunk_index"] for memory in first] == list(range(progress.files[0].chunks))


def test_a_worker_waits_for_temporal_and_survives_its_death(stage: Stage) -> None:
    child = stage.start_worker()
    batch_id = stage.drop()
    temporal = stage.start_temporal()
    stage.start_drop(batch_id)

    assert stage.wait(batch_id, is_under_way).pending > 0
    kill(temporal)
    stage.start_temporal()

    assert_each_chunk_is_there_once(stage, stage.wait(batch_id, is_complete))
    child.terminate()
    assert child.wait() == 0


def test_what_a_killed_worker_left_is_finished_by_the_next(stage: Stage) -> None:
    stage.start_temporal()
    child = stage.start_worker()
    batch_id = stage.drop()
    stage.start_drop(batch_id)

    assert stage.wait(batch_id, is_under_way).pending > 0
    kill(child)
    stage.start_worker()

    assert_each_chunk_is_there_once(stage, stage.wait(batch_id, is_complete))


@pytest.mark.long
def test_a_recording_whose_worker_was_killed_is_heard_by_the_next_and_stored_once(stage: Stage) -> None:
    with TranscriptionEndpoint() as ear:
        hearing = {"TRANSCRIPTION_MODEL": "openai:hearer", "TRANSCRIPTION_BASE_URL": f"{ear.url}/v1"}
        stage.start_temporal()
        child = stage.start_worker(**hearing)
        memo = IncomingFile("memo.wav", "audio/wav", io.BytesIO(speech.recording("wav", speech.voice(2))))
        batch_id = stage.services.drops.open(stage.caller, "garden", [memo], DropOptions()).batch_id
        ear.gate.clear()
        stage.start_drop(batch_id)
        pause = threading.Event()
        while not ear.received:
            pause.wait(0.05)
        kill(child)
        ear.gate.set()
        stage.start_worker(**hearing)
        (file,) = stage.wait(batch_id, is_complete).files

    assert (file.status, file.chunks, len(file.memory_ids)) == ("done", 1, 1)
    assert len(ear.received) == 2
    assert stage.services.collections.get(stage.caller, "garden").memory_count == 1


def test_a_worker_killed_amid_a_dedup_loses_no_keeper_and_halves_no_cluster(
    stage: Stage, database: DatabaseUrls
) -> None:
    keepers = store_clusters(stage)
    opened = stage.services.curation.open_dedup(stage.caller, "garden", 0.99)
    assert opened.run_id is not None
    stage.start_temporal()
    child = stage.start_worker()
    with psycopg.connect(database.owner_url) as holder, psycopg.connect(database.owner_url, autocommit=True) as watcher:
        # Whoever comes to the cluster in the middle waits there, some of its duplicates locked, until it is killed.
        middle = sorted(keepers)[CLUSTERS // 2]
        holder.execute(
            "select from memories where id = (select memory_id from curation_items where keeper_id = %s "
            "order by memory_id desc limit 1) for update",
            (middle,),
        )
        stage.start_dedup(opened.run_id)
        wait_for(watcher, "select exists (select from pg_locks where not granted)")
        kill(child)
        left = clusters_left(watcher)
        assert {keeper for keeper, count in left.items() if count == 1} == set(sorted(keepers)[: CLUSTERS // 2])
        assert {count for count in left.values() if count != 1} == {1 + DUPLICATES}
        assert left.keys() == keepers
        holder.rollback()
        # What the killed one had begun there is not finished by its server process either.
        assert clusters_left(watcher) == left

        stage.start_worker()
        wait_for(watcher, "select exists (select from curation_runs where state = 'done')")

        assert clusters_left(watcher) == dict.fromkeys(keepers, 1)
        assert settled(watcher) == {("done", CLUSTERS * DUPLICATES)}
        entries = watcher.execute("select resource from audit where action = 'curation.dedup'").fetchall()
        assert sorted(resource.split()[4] for (resource,) in entries) == sorted(map(str, keepers))
    report = stage.services.curation.dedup_report(stage.caller, opened)
    assert (report.deleted, len(report.clusters)) == (CLUSTERS * DUPLICATES, CLUSTERS)


def store_clusters(stage: Stage) -> set[UUID]:
    """Clusters of the same text, told apart by category; the ids of those that are to be kept."""
    embedding = Embedding(stage.services.database, WordEmbedder())
    memories = Memories(
        stage.services.database,
        stage.services.grants,
        embedding,
        stage.services.objects,
        stage.services.statistics,
    )
    keepers = set()
    for number in range(CLUSTERS):
        text = f"subject{number} alone"
        same = [MemoryCreate(text=text, category=text, importance=score) for score in (0.9, *[0.1] * DUPLICATES)]
        keepers.add(memories.create_many(stage.caller, "garden", same)[0].id)
    return keepers


def clusters_left(connection: psycopg.Connection[Any]) -> dict[UUID, int]:
    """The strongest of each cluster, and how many of it are there."""
    rows = connection.execute(
        "select (array_agg(id order by importance desc))[1], count(*) from memories group by category"
    )
    return dict(rows.fetchall())


def settled(connection: psycopg.Connection[Any]) -> set[tuple[Any, ...]]:
    return set(connection.execute("select state, count(*) from curation_items group by state").fetchall())


def wait_for(connection: psycopg.Connection[Any], question: str) -> None:
    pause = threading.Event()
    while connection.execute(question).fetchone() != (True,):
        pause.wait(0.05)


def test_a_worker_can_be_asked_to_end_while_temporal_is_away(stage: Stage) -> None:
    child = stage.start_worker()
    stage.wait_for_log("Temporal does not answer yet")

    child.terminate()

    assert child.wait() == 0


def test_a_worker_that_cannot_work_says_so_by_its_exit_code(stage: Stage) -> None:
    stage.settings = stage.settings.model_copy(update={"database_url": SecretStr("")})

    assert stage.start_worker().wait() == 1
    stage.wait_for_log("DATABASE_URL is not set")


@pytest.mark.parametrize("schedule_id", worker.SCHEDULES)
def test_a_lost_schedule_is_made_again(temporal: str, monkeypatch: pytest.MonkeyPatch, schedule_id: str) -> None:
    monkeypatch.setattr(worker, "SCHEDULE_CHECK_SECONDS", 0.05)

    async def scenario() -> ScheduleOverlapPolicy:
        client = await Client.connect(temporal)
        handle = client.get_schedule_handle(schedule_id)
        keeping = asyncio.create_task(worker.keep_schedules(client))
        await _described(handle)
        await handle.delete()
        again = await _described(handle)
        keeping.cancel()
        await asyncio.wait([keeping])
        for kept in worker.SCHEDULES:
            with contextlib.suppress(RPCError):
                await client.get_schedule_handle(kept).delete()
        return again.schedule.policy.overlap

    assert asyncio.run(scenario()) is ScheduleOverlapPolicy.SKIP


async def _described(handle: ScheduleHandle) -> ScheduleDescription:
    while True:
        with contextlib.suppress(RPCError):
            return await handle.describe()
        await asyncio.sleep(0.02)
