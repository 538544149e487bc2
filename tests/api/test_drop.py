"""Files through the front door and out of search again, with a real worker and a real Temporal."""

import asyncio
import base64
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.testclient import TestClient
from temporalio.client import Client

import worker
from memory.adapters.documents import GuardedReader
from memory.quotas import MAX_FILE_BYTES
from memory.services import build
from memory.settings import Settings
from tests.api.conftest import Tenant, at_work
from workflows.drop import workflow_id
from workflows.policies import TASK_QUEUE
from workflows.sweep import SCHEDULE_ID, SweepWorkflow

DROP = "/v1/memory/collections/garden/drop"
BATCH = "/v1/memory/ingest/batch"
BEES = ("files", ("bees.txt", b"Bees dance to tell the hive where the flowers are.", "text/plain"))
VOID = ("files", ("void.txt", b"", "text/plain"))
OVER = ("files", ("over.bin", b"x" * (MAX_FILE_BYTES + 1), "application/octet-stream"))


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str) -> Iterator[None]:
    """A worker on the database of these tests."""
    reader = GuardedReader(ocr_engine="off")
    with at_work(build(settings, reader=reader), temporal):
        yield
    reader.close()


def finished(client: TestClient, tenant: Tenant, batch_id: str) -> dict[str, Any]:
    """The batch once nothing of it is pending."""
    pause = threading.Event()
    while True:
        answer = client.get(f"{BATCH}/{batch_id}", headers=tenant.headers)
        assert answer.status_code == 200
        progress: dict[str, Any] = answer.json()
        if progress["complete"]:
            return progress
        pause.wait(0.05)


def test_a_drop_that_is_waited_for_answers_with_its_memories(live: TestClient, tenant: Tenant) -> None:
    answer = live.post(DROP, headers=tenant.headers, files=[BEES, VOID, OVER])

    assert answer.status_code == 201
    outcome = answer.json()
    assert (outcome["stored"], outcome["failed"], outcome["duplicates"]) == (1, 2, 0)
    bees, void, over = outcome["results"]
    assert (bees["filename"], bees["status"], bees["chunks"], bees["error"]) == ("bees.txt", "ok", 1, None)
    assert bees["preview"] == BEES[1][1].decode()
    assert (void["filename"], void["status"], void["error"]) == ("void.txt", "failed", "empty file")
    assert (over["filename"], over["status"], over["memory_ids"]) == ("over.bin", "failed", [])
    assert "10 MB" in over["error"]
    found = live.post("/v1/memory/search", headers=tenant.headers, json={"query": "how bees talk"}).json()["results"]
    assert [hit["id"] for hit in found] == bees["memory_ids"]
    assert found[0]["collection"] == "garden"
    assert found[0]["images"][0]["filename"] == "bees.txt"


@pytest.mark.parametrize("where", ["query", "form"])
def test_an_asynchronous_drop_answers_at_once_and_is_asked_for(live: TestClient, tenant: Tenant, where: str) -> None:
    flag = {"async_ingest": "true"}

    answer = live.post(
        DROP,
        headers=tenant.headers,
        files=[BEES, VOID, OVER],
        params=flag if where == "query" else None,
        data=flag if where == "form" else None,
    )

    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["queued"], accepted["failed"]) == (2, 1)
    assert [error["filename"] for error in accepted["errors"]] == ["over.bin"]
    progress = finished(live, tenant, accepted["batch_id"])
    assert {key: progress[key] for key in ("total", "done", "failed", "pending", "complete", "collection")} == {
        "total": 2,
        "done": 1,
        "failed": 1,
        "pending": 0,
        "complete": True,
        "collection": "garden",
    }
    bees, void = progress["files"]
    assert (bees["status"], bees["chunks"], len(bees["memory_ids"])) == ("done", 1, 1)
    assert (void["status"], void["error"]) == ("failed", "empty file")


def test_form_fields_reach_the_memories(live: TestClient, tenant: Tenant) -> None:
    fields = {"container_tag": "hive", "category": "nature", "importance": "0.25", "metadata": '{"year": 2026}'}

    answer = live.post(DROP, headers=tenant.headers, files={"file": BEES[1]}, data=fields)

    (memory,) = live.get("/v1/memory/collections/garden/memories", headers=tenant.headers).json()
    assert [memory["id"]] == answer.json()["results"][0]["memory_ids"]
    assert (memory["container_tag"], memory["category"], memory["importance"]) == ("hive", "nature", 0.25)
    assert memory["metadata"]["year"] == 2026
    assert memory["source"] == "drop"
    assert memory["created_by"]["id"] == str(tenant.caller.key_id)


def test_a_name_is_cleaned_before_it_is_kept(live: TestClient, tenant: Tenant) -> None:
    answer = live.post(DROP, headers=tenant.headers, files={"files": ("..\\..\\etc\\passwd", b"text")})

    assert answer.json()["results"][0]["filename"] == "passwd"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"metadata": "{not json"}, "metadata: input should be a JSON object"),
        ({"metadata": "[1]"}, "metadata: input should be a JSON object"),
        ({"metadata": '{"a": NaN}'}, "metadata: must be plain JSON"),
        ({"importance": "1.2"}, "importance: "),
        ({"container_tag": "x" * 129}, "container_tag: "),
        ({"async_ingest": "perhaps"}, "async_ingest: "),
        ({"wait": "56"}, "wait: "),
        ({"wait": "-1"}, "wait: "),
    ],
)
def test_a_wrong_field_is_named(client: TestClient, tenant: Tenant, fields: dict[str, str], detail: str) -> None:
    answer = client.post(DROP, headers=tenant.headers, files=[BEES], data=fields)

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(detail)


def test_an_empty_list_is_refused_in_plain_words(client: TestClient, tenant: Tenant) -> None:
    answer = client.post(f"{DROP}/presign", headers=tenant.headers, json=[])

    assert answer.status_code == 422
    assert answer.json()["detail"] == "body: list should have at least 1 item, not 0"


def test_results_stand_in_the_order_of_the_files(live: TestClient, tenant: Tenant) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("in.txt", "Bees dance.")
    sent = [("files", ("a.zip", archive.getvalue(), "application/zip")), OVER, BEES]

    answer = live.post(DROP, headers=tenant.headers, files=sent).json()

    assert [result["filename"] for result in answer["results"]] == ["a.zip", "in.txt", "over.bin", BEES[1][0]]
    assert (answer["stored"], answer["failed"]) == (3, 1)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"data": {"category": "a"}},
        {"json": {"files": []}},
        {"files": {"other": BEES[1]}},
        {"data": {"files": "not a file"}},
        {"files": {"files": ("", b"")}},
    ],
)
def test_without_a_file_there_is_no_drop(client: TestClient, tenant: Tenant, sent: dict[str, Any]) -> None:
    answer = client.post(DROP, headers=tenant.headers, **sent)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_only_writers_drop(client: TestClient, tenant: Tenant) -> None:
    assert client.post(DROP, files=[BEES]).status_code == 401
    assert client.post(DROP, headers=tenant.read_only, files=[BEES]).status_code == 403


def test_while_temporal_is_down_a_drop_is_accepted(client: TestClient, tenant: Tenant) -> None:
    for flag in ({"async_ingest": "true"}, {"wait": "0.1"}, {"wait": "false"}):
        answer = client.post(DROP, headers=tenant.headers, files=[BEES], params=flag)

        assert answer.status_code == 202
        assert answer.json()["queued"] == 1
        progress = client.get(f"{BATCH}/{answer.json()['batch_id']}", headers=tenant.headers).json()
        assert (progress["pending"], progress["complete"]) == (1, False)
        assert progress["files"][0]["status"] == "queued"


def test_beside_too_many_who_wait_nobody_waits(
    live: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.BoundedSemaphore(1)
    monkeypatch.setattr("api.waiting._waiting", full)
    assert live.post(DROP, headers=tenant.headers, files=[BEES]).status_code == 201

    full.acquire()
    answer = live.post(DROP, headers=tenant.headers, files=[BEES])

    assert answer.status_code == 202
    assert finished(live, tenant, answer.json()["batch_id"])["done"] == 1


@pytest.mark.parametrize(("query", "status"), [({"async_ingest": "true"}, 202), ({}, 201)])
def test_a_drop_of_which_everything_is_refused_is_complete(
    client: TestClient, tenant: Tenant, query: dict[str, str], status: int
) -> None:
    answer = client.post(DROP, headers=tenant.headers, files=[OVER], params=query)

    assert answer.status_code == status
    body = answer.json()
    assert body["failed"] == 1
    if status == 202:
        assert body["queued"] == 0
        assert client.get(f"{BATCH}/{body['batch_id']}", headers=tenant.headers).json()["complete"]


def test_another_tenants_batch_is_not_found(client: TestClient, new_tenant: Callable[[], Tenant]) -> None:
    mine, other = new_tenant(), new_tenant()
    batch_id = client.post(DROP, headers=mine.headers, files=[BEES], params={"async_ingest": 1}).json()["batch_id"]

    assert client.get(f"{BATCH}/{batch_id}", headers=mine.read_only).status_code == 200
    for unknown in (batch_id, uuid4(), "nonsense"):
        assert client.get(f"{BATCH}/{unknown}", headers=other.headers).status_code == 404
    assert client.get(f"{BATCH}/{batch_id}").status_code == 401


def test_what_was_accepted_while_temporal_was_down_is_ingested_once_it_is_back(
    client: TestClient, live: TestClient, tenant: Tenant, settings: Settings, temporal: str
) -> None:
    accepted = client.post(DROP, headers=tenant.headers, files=[BEES], params={"async_ingest": "true"}).json()
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        owner.execute("update batches set touched_at = now() - interval '1 hour' where id = %s", [accepted["batch_id"]])

    async def sweep() -> None:
        temporal_client = await Client.connect(temporal)
        await temporal_client.execute_workflow(SweepWorkflow.run, id=str(uuid4()), task_queue=TASK_QUEUE)

    asyncio.run(sweep())

    assert finished(live, tenant, accepted["batch_id"])["done"] == 1


def test_the_worker_has_the_sweep_on_a_schedule(live: TestClient, temporal: str) -> None:
    async def ask() -> tuple[Any, bool]:
        handle = (await Client.connect(temporal)).get_schedule_handle(SCHEDULE_ID)
        described = await handle.describe()
        return described.schedule.spec.intervals[0].every, described.schedule.state.paused

    assert asyncio.run(ask()) == (worker.SCHEDULES[SCHEDULE_ID][1], False)


def test_only_ids_and_words_travel_through_temporal(live: TestClient, tenant: Tenant, temporal: str) -> None:
    secret = "the treasure lies under the old oak"
    files = [("files", (f"treasure {n}.txt", f"{secret} {n}".encode())) for n in range(20)]
    fields = {"container_tag": "treasure", "metadata": '{"map": "treasure"}'}
    accepted = live.post(
        "/v1/memory/collections/treasure/drop", headers=tenant.headers, files=files, data=fields, params={"wait": 0}
    ).json()
    finished(live, tenant, accepted["batch_id"])

    async def fetch() -> str:
        handle = (await Client.connect(temporal)).get_workflow_handle(workflow_id(accepted["batch_id"]))
        await handle.result()
        return (await handle.fetch_history()).to_json()

    history = json.loads(asyncio.run(fetch()))
    values = list(_payloads(history))

    assert values
    assert "treasure" not in json.dumps([values, history])
    for value in values:
        for leaf in _leaves(value):
            assert isinstance(leaf, bool | int) or leaf is None or UUID(leaf)


def _payloads(node: Any) -> Iterator[Any]:
    """Every payload of a history, decoded."""
    if isinstance(node, dict):
        if "data" in node and "metadata" in node:
            yield json.loads(base64.b64decode(node["data"]))
        else:
            for child in node.values():
                yield from _payloads(child)
    elif isinstance(node, list):
        for child in node:
            yield from _payloads(child)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _leaves(child)
    else:
        yield value


@pytest.mark.parametrize(
    "asked", [{}, {"sha256": ["0" * 63]}, {"sha256": ["A" * 64]}, {"sha256": ["0" * 64] * 1001}, {"sha256": "0" * 64}]
)
def test_contents_are_asked_for_by_their_hashes(client: TestClient, tenant: Tenant, asked: dict[str, Any]) -> None:
    answer = client.post(f"{DROP}/missing", headers=tenant.headers, json=asked)

    assert answer.status_code == 422
