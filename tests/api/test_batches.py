"""Batches through the front door: followed, waited for, paged through, taken up again, cancelled, recognised."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from starlette.testclient import TestClient

from memory.adapters.documents import GuardedReader
from memory.services import Services, build
from memory.settings import Settings
from tests.api.conftest import Tenant, at_work

DROP = "/v1/memory/collections/garden/drop"
BATCH = "/v1/memory/ingest/batch"
LATER = {"async_ingest": "true"}


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str) -> Iterator[None]:
    with closing(GuardedReader(ocr_engine="off")) as reader, at_work(build(settings, reader=reader), temporal):
        yield


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.txt", content)) for number, content in enumerate(contents)]


def dropped(client: TestClient, tenant: Tenant, *contents: bytes, **fields: str) -> str:
    """The id of a batch that nobody waits for."""
    answer = client.post(DROP, headers=tenant.headers, files=files(*contents), params={**LATER, **fields})
    assert answer.status_code == 202
    batch_id: str = answer.json()["batch_id"]
    return batch_id


def asked(client: TestClient, tenant: Tenant, batch_id: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"{BATCH}/{batch_id}", headers=tenant.headers, params=query)
    assert answer.status_code == 200, answer.text
    progress: dict[str, Any] = answer.json()
    return progress


def told(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream by name; heartbeats are none."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    return [(block["event"], json.loads(block["data"])) for block in blocks if "event" in block]


def test_who_waits_is_answered_when_the_batch_is_complete(live: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(live, tenant, b"bees", b"")

    progress = asked(live, tenant, batch_id, wait=55)

    assert (progress["complete"], progress["done"], progress["failed"]) == (True, 1, 1)


def test_who_waits_for_nothing_is_answered_in_time(client: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(client, tenant, b"bees")

    assert asked(client, tenant, batch_id, wait=0.1)["complete"] is False
    for wrong in ("56", "-1", "long"):
        answer = client.get(f"{BATCH}/{batch_id}", headers=tenant.headers, params={"wait": wrong})
        assert answer.status_code == 422


def test_who_may_not_ask_does_not_wait(client: TestClient, new_tenant: Callable[[], Tenant]) -> None:
    batch_id = dropped(client, new_tenant(), b"bees")
    stranger = new_tenant()

    for path in (f"{BATCH}/{batch_id}?wait=55", f"{BATCH}/{batch_id}/events", f"{BATCH}/nonsense/events"):
        assert client.get(path, headers=stranger.headers).status_code == 404
        assert client.get(path).status_code == 401


def test_files_are_listed_in_pages_and_the_numbers_are_of_all(client: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(client, tenant, *(b"%d" % number for number in range(5)))

    page = asked(client, tenant, batch_id, limit=2, offset=3)
    assert [file["filename"] for file in page["files"]] == ["3.txt", "4.txt"]
    assert (page["total"], page["pending"]) == (5, 5)
    assert asked(client, tenant, batch_id, limit=0)["files"] == []
    assert len(asked(client, tenant, batch_id, status="queued")["files"]) == 5
    assert asked(client, tenant, batch_id, status="failed")["files"] == []
    assert len(asked(client, tenant, batch_id)["files"]) == 5


def test_a_batch_is_followed_to_its_end(live: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(live, tenant, *(b"note %d" % number for number in range(12)))

    events = told(live.get(f"{BATCH}/{batch_id}/events", headers=tenant.headers).text)

    *before, (last, counts) = events
    assert last == "complete"
    assert {name for name, _ in before} <= {"progress"}
    assert counts == {key: value for key, value in asked(live, tenant, batch_id).items() if key != "files"}
    assert [counts["done"] for _, counts in events] == sorted({counts["done"] for _, counts in events})
    # Whoever comes late is told the end alone.
    assert len(told(live.get(f"{BATCH}/{batch_id}/events", headers=tenant.headers).text)) == 1


def test_what_failed_is_taken_up_again(live: TestClient, client: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(client, tenant, b"bees", b"wasps")
    cancelled = client.post(f"{BATCH}/{batch_id}/cancel", headers=tenant.headers).json()
    assert (cancelled["cancelled"], cancelled["pending"], cancelled["complete"]) == (2, 0, True)
    progress = asked(client, tenant, batch_id)
    assert [(file["status"], file["error"]) for file in progress["files"]] == [("failed", "cancelled")] * 2

    answer = live.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers)

    assert answer.status_code == 202
    assert answer.json() == {"batch_id": batch_id, "queued": 2}
    progress = asked(live, tenant, batch_id, wait=55)
    assert (progress["done"], progress["failed"], progress["files"][0]["error"]) == (2, 0, None)
    again = live.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers)
    assert (again.status_code, again.json()["queued"]) == (202, 0)
    assert live.post(f"{BATCH}/{batch_id}/cancel", headers=tenant.headers).json()["cancelled"] == 0
    assert asked(live, tenant, batch_id)["done"] == 2


def test_what_fails_again_and_again_may_be_taken_up_at_once(live: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(live, tenant, b"", b"bees")

    for _ in range(5):
        progress = asked(live, tenant, batch_id, wait=55)
        assert (progress["done"], progress["failed"]) == (1, 1)
        # At once: the run that ended the batch may not have ended itself.
        assert live.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers).json()["queued"] == 1

    assert asked(live, tenant, batch_id, wait=55)["complete"]


def test_without_its_collection_nothing_is_taken_up_again(client: TestClient, tenant: Tenant) -> None:
    batch_id = dropped(client, tenant, b"bees")
    client.post(f"{BATCH}/{batch_id}/cancel", headers=tenant.headers)
    assert client.delete("/v1/memory/collections/garden", headers=tenant.headers).status_code == 200

    answer = client.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers)

    assert answer.status_code == 409
    assert "deleted" in answer.json()["detail"]


def test_another_tenants_batch_is_neither_retried_nor_cancelled(
    client: TestClient, new_tenant: Callable[[], Tenant]
) -> None:
    mine, other = new_tenant(), new_tenant()
    batch_id = dropped(client, mine, b"bees")

    for act in ("retry", "cancel"):
        assert client.post(f"{BATCH}/{batch_id}/{act}", headers=other.headers).status_code == 404
        assert client.post(f"{BATCH}/{batch_id}/{act}", headers=mine.read_only).status_code == 403
    assert asked(client, mine, batch_id)["pending"] == 1


def test_the_same_bytes_again_are_answered_with_their_memories(live: TestClient, tenant: Tenant) -> None:
    first = live.post(DROP, headers=tenant.headers, files=files(b"bees dance")).json()

    again = live.post(DROP, headers=tenant.headers, files=files(b"bees dance", b"wasps do not", b"wasps do not")).json()

    assert (again["stored"], again["failed"], again["duplicates"]) == (1, 0, 2)
    bees, wasps, twin = again["results"]
    assert (bees["status"], bees["memory_ids"]) == ("duplicate", first["results"][0]["memory_ids"])
    assert bees["preview"] == "bees dance"
    assert (wasps["status"], twin["status"], twin["memory_ids"]) == ("ok", "duplicate", wasps["memory_ids"])


@pytest.mark.parametrize("where", ["params", "data"])
def test_what_is_forced_is_stored_again(live: TestClient, tenant: Tenant, where: str) -> None:
    sent: dict[str, Any] = {"headers": tenant.headers, "files": files(b"bees"), where: {"force": "true"}}

    outcomes = [live.post(DROP, **sent).json() for _ in range(2)]

    assert [(outcome["stored"], outcome["duplicates"]) for outcome in outcomes] == [(1, 0), (1, 0)]


def test_many_who_drop_the_same_at_once_store_it_once(live: TestClient, services: Services, tenant: Tenant) -> None:
    outcomes: list[dict[str, Any]] = []

    def drop() -> None:
        outcomes.append(live.post(DROP, headers=tenant.headers, files=files(b"bees")).json())

    threads = [threading.Thread(target=drop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(outcome["stored"] for outcome in outcomes) == 1
    assert sum(outcome["duplicates"] for outcome in outcomes) == 5
    assert len({outcome["results"][0]["memory_ids"][0] for outcome in outcomes}) == 1
