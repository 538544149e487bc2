"""Intelligent memory over HTTP, with a real worker and a real Temporal, and without either."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from starlette.testclient import TestClient
from temporalio.client import Client

import worker
from memory.services import Services, build
from memory.settings import Settings
from tests.api.conftest import Tenant, at_work
from workflows.curation import SCHEDULE_ID, CurationWorkflow, workflow_id
from workflows.policies import TASK_QUEUE

GARDEN = "/v1/memory/collections/garden"
RUNS = "/v1/memory/curation/runs"
BEES = "Bees dance to tell the hive where the flowers are."
ROOF = "The roof was mended by a carpenter in May."


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str) -> Iterator[None]:
    """A worker on the database of these tests."""
    with at_work(build(settings), temporal):
        yield


def store(client: TestClient, tenant: Tenant, *texts: str, **fields: Any) -> list[str]:
    body = [{"text": text, **fields} for text in texts]
    answer = client.post(f"{GARDEN}/memories/bulk", headers=tenant.headers, json=body)
    assert answer.status_code == 201
    ids: list[str] = answer.json()["ids"]
    return ids


def listed(client: TestClient, tenant: Tenant) -> set[str]:
    answer = client.get(f"{GARDEN}/memories", headers=tenant.headers, params={"limit": 200})
    return {memory["id"] for memory in answer.json()}


def ended(client: TestClient, tenant: Tenant, run_id: str) -> dict[str, Any]:
    pause = threading.Event()
    while True:
        run: dict[str, Any] = client.get(f"{RUNS}/{run_id}", headers=tenant.headers).json()
        if run["ended_at"] is not None:
            return run
        pause.wait(0.05)


def one_round(temporal: str) -> None:
    async def scenario() -> None:
        client = await Client.connect(temporal)
        await client.execute_workflow(CurationWorkflow.run, id=str(uuid4()), task_queue=TASK_QUEUE)

    asyncio.run(scenario())


def owner(settings: Settings) -> psycopg.Connection[Any]:
    assert settings.database_owner_url is not None
    return psycopg.connect(settings.database_owner_url.get_secret_value(), autocommit=True)


@pytest.mark.parametrize("body", [{"dry_run": 0}, {"dry_run": "false"}, {"dry_run": None}])
@pytest.mark.parametrize("act", ["dedup", "archive-stale"])
def test_only_a_plain_false_makes_it_more_than_a_dry_run(
    client: TestClient, tenant: Tenant, act: str, body: dict[str, Any]
) -> None:
    assert client.post(f"{GARDEN}/{act}", headers=tenant.headers, json=body).status_code == 422


def test_without_a_body_dedup_is_a_dry_run(client: TestClient, tenant: Tenant) -> None:
    first, second, roof = store(client, tenant, BEES, BEES, ROOF)

    bodies: list[dict[str, Any]] = [{}, {"json": {}}, {"json": {"dry_run": True, "threshold": 0.95}}]
    for sent in bodies:
        answer = client.post(f"{GARDEN}/dedup", headers=tenant.read_only, **sent)
        assert answer.status_code == 200
        report = answer.json()
        (cluster,) = report.pop("clusters")
        assert report == {"dry_run": True, "threshold": 0.95, "scanned": 3, "duplicates": 1, "deleted": 0}
        assert cluster["keeper"]["id"] == second
        (duplicate,) = cluster["duplicates"]
        assert (duplicate["id"], duplicate["text"]) == (first, BEES)
        assert duplicate["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert listed(client, tenant) == {first, second, roof}


def test_dedup_deletes_when_it_is_told_to(live: TestClient, tenant: Tenant) -> None:
    weak, strong = store(live, tenant, BEES, importance=0.1), store(live, tenant, BEES, ROOF, importance=0.9)

    answer = live.post(f"{GARDEN}/dedup", headers=tenant.headers, json={"dry_run": False})

    assert answer.status_code == 200
    report = answer.json()
    assert (report["dry_run"], report["scanned"], report["duplicates"], report["deleted"]) == (False, 3, 1, 1)
    assert [cluster["keeper"]["id"] for cluster in report["clusters"]] == strong[:1]
    assert [memory["id"] for memory in report["clusters"][0]["duplicates"]] == weak
    assert listed(live, tenant) == set(strong)
    assert live.get(f"{GARDEN}/memories/{weak[0]}", headers=tenant.headers).status_code == 404
    again = live.post(f"{GARDEN}/dedup", headers=tenant.headers, json={"dry_run": False}).json()
    assert (again["clusters"], again["deleted"]) == ([], 0)


def test_archive_stale_archives_when_it_is_told_to(live: TestClient, tenant: Tenant, settings: Settings) -> None:
    old, fresh = store(live, tenant, BEES, ROOF)
    with owner(settings) as connection:
        connection.execute("update memories set updated_at = now() - interval '91 days' where id = %s", (old,))

    shown = live.post(f"{GARDEN}/archive-stale", headers=tenant.read_only)
    assert (shown.status_code, shown.json()) == (
        200,
        {"dry_run": True, "older_than_days": 90, "would_archive": 1, "ids": [old]},
    )
    done = live.post(f"{GARDEN}/archive-stale", headers=tenant.headers, json={"dry_run": False})
    assert (done.status_code, done.json()) == (
        200,
        {"dry_run": False, "older_than_days": 90, "archived": 1, "ids": [old]},
    )
    assert listed(live, tenant) == {fresh}
    health = live.get(f"{GARDEN}/health", headers=tenant.headers).json()
    assert (health["archived"], health["stale"], health["current"]) == (1, 0, 1)


@pytest.mark.parametrize("route", ["dedup", "archive-stale"])
def test_while_temporal_is_down_a_run_waits_for_the_next_round(
    client: TestClient, live: TestClient, tenant: Tenant, settings: Settings, temporal: str, route: str
) -> None:
    store(client, tenant, BEES, BEES)
    body = {"dry_run": False, "threshold": 0.9, "older_than_days": 0}

    answer = client.post(f"{GARDEN}/{route}", headers=tenant.headers, json=body)

    assert answer.status_code == 202
    run = answer.json()
    assert (run["kind"], run["state"], run["collection"]) == (route.replace("-", "_"), "queued", "garden")
    assert len(listed(client, tenant)) == 2
    with owner(settings) as connection:
        connection.execute(
            "update curation_runs set touched_at = now() - interval '1 day' where id = %s", (run["run_id"],)
        )
    one_round(temporal)
    run = ended(client, tenant, run["run_id"])
    assert (run["state"], run["error"]) == ("done", None)
    assert (run["deleted"], run["archived"]) == ((1, 0) if route == "dedup" else (0, 2))
    assert len(run["ids"]) == run["deleted"] + run["archived"]


def test_beside_too_many_who_wait_nobody_waits(
    live: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(live, tenant, BEES, BEES)
    full = threading.BoundedSemaphore(1)
    full.acquire()
    with monkeypatch.context() as patched:
        patched.setattr("api.waiting._waiting", full)
        answer = live.post(f"{GARDEN}/dedup", headers=tenant.headers, json={"dry_run": False})

    assert answer.status_code == 202
    assert ended(live, tenant, answer.json()["run_id"])["deleted"] == 1


def test_a_run_that_fails_says_so(live: TestClient, tenant: Tenant, services: Services) -> None:
    store(live, tenant, BEES, BEES)
    opened = services.curation.open_dedup(tenant.caller, "garden", 0.95)
    assert opened.run_id is not None
    services.curation_runs.give_up(tenant.id, opened.run_id, "the reason")

    run = live.get(f"{RUNS}/{opened.run_id}", headers=tenant.headers).json()
    assert (run["state"], run["error"]) == ("failed", "the reason")


def test_a_policy_is_carried_out(live: TestClient, tenant: Tenant, temporal: str) -> None:
    store(live, tenant, BEES, BEES, ROOF)
    off = live.get(f"{GARDEN}/curation", headers=tenant.read_only).json()
    assert off == dict.fromkeys(("dedup_threshold", "stale_days", "interval_hours", "next_run_at", "last_run"))
    wanted = {"dedup_threshold": 0.9, "stale_days": None, "interval_hours": 24}

    put = live.put(f"{GARDEN}/curation", headers=tenant.headers, json=wanted)
    assert put.status_code == 200
    assert {name: put.json()[name] for name in wanted} == wanted
    one_round(temporal)

    pause = threading.Event()
    while True:
        shown = live.get(f"{GARDEN}/curation", headers=tenant.headers).json()
        last = shown["last_run"]
        if last is not None and last["dedup"]["state"] == "done":
            break
        pause.wait(0.05)
    assert (last["dedup"]["deleted"], last["archive_stale"], last["dedup"]["scheduled"]) == (1, None, True)
    assert shown["next_run_at"] > last["at"]
    assert len(listed(live, tenant)) == 2


@pytest.mark.parametrize(
    ("method", "route", "sent"),
    [
        ("POST", "dedup", {"json": {"threshold": 0.49}}),
        ("POST", "dedup", {"json": {"threshold": 1.01}}),
        ("POST", "dedup", {"json": {"threshold": "much"}}),
        ("POST", "dedup", {"json": {"threshold": None}}),
        ("POST", "dedup", {"json": {"dry_run": None}}),
        ("POST", "dedup", {"json": {"dry_run": "perhaps"}}),
        ("POST", "dedup", {"json": []}),
        ("POST", "archive-stale", {"json": {"older_than_days": -1}}),
        ("POST", "archive-stale", {"json": {"older_than_days": 3651}}),
        ("POST", "archive-stale", {"json": {"older_than_days": 1.5}}),
        ("GET", "health", {"params": {"stale_days": -1}}),
        ("GET", "health", {"params": {"stale_days": 3651}}),
        ("GET", "summary", {"params": {"limit": 0}}),
        ("GET", "summary", {"params": {"limit": 201}}),
        ("GET", "contradictions", {"params": {"limit": 201}}),
        ("PUT", "curation", {"json": {"dedup_threshold": 0.4}}),
        ("PUT", "curation", {"json": {"stale_days": -1}}),
        ("PUT", "curation", {"json": {"interval_hours": 0}}),
        ("PUT", "curation", {}),
    ],
)
def test_what_is_out_of_range_is_422(
    client: TestClient, tenant: Tenant, method: str, route: str, sent: dict[str, Any]
) -> None:
    store(client, tenant, BEES)
    answer = client.request(method, f"{GARDEN}/{route}", headers=tenant.headers, **sent)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_the_ends_of_the_ranges_are_in_them(client: TestClient, tenant: Tenant) -> None:
    store(client, tenant, BEES)
    for method, route, sent in (
        ("POST", "dedup", {"json": {"threshold": 0.5}}),
        ("POST", "dedup", {"json": {"threshold": 1}}),
        ("POST", "archive-stale", {"json": {"older_than_days": 0}}),
        ("POST", "archive-stale", {"json": {"older_than_days": 3650}}),
        ("GET", "health", {"params": {"stale_days": 3650}}),
        ("GET", "summary", {"params": {"limit": 200}}),
        ("PUT", "curation", {"json": {"dedup_threshold": 1, "stale_days": 3650, "interval_hours": 8760}}),
    ):
        assert client.request(method, f"{GARDEN}/{route}", headers=tenant.headers, **sent).status_code == 200


def test_an_unknown_collection_is_empty_and_stays_unknown(client: TestClient, tenant: Tenant) -> None:
    def ask(method: str, route: str, **sent: Any) -> tuple[int, Any]:
        answer = client.request(method, f"{GARDEN}/{route}", headers=tenant.headers, **sent)
        return answer.status_code, answer.json()

    for dry_run in (True, False):
        status, report = ask("POST", "dedup", json={"dry_run": dry_run})
        assert (status, report["scanned"], report["clusters"], report["deleted"]) == (200, 0, [], 0)
        status, report = ask("POST", "archive-stale", json={"dry_run": dry_run})
        assert (status, report["ids"]) == (200, [])
    assert ask("GET", "contradictions") == (200, [])
    assert ask("GET", "health") == (200, {"exists": False})
    status, summary = ask("GET", "summary")
    assert (status, summary["summary"], summary["themes"], summary["based_on"]) == (200, "", [], 0)
    assert (summary["method"], summary["cached"]) == ("extractive", False)
    assert ask("GET", "curation")[0] == ask("PUT", "curation", json={"stale_days": 1})[0] == 404
    assert client.get(GARDEN, headers=tenant.headers).status_code == 404
    assert client.get(f"{RUNS}/{uuid4()}", headers=tenant.headers).status_code == 404


def test_a_read_only_key_may_look_and_no_more(client: TestClient, tenant: Tenant) -> None:
    store(client, tenant, BEES, BEES)
    for route in ("dedup", "archive-stale"):
        for collection in (GARDEN, "/v1/memory/collections/unknown"):
            answer = client.post(f"{collection}/{route}", headers=tenant.read_only, json={"dry_run": False})
            assert answer.status_code == 403
            assert "read-only" in answer.json()["detail"]
    assert len(listed(client, tenant)) == 2


def test_contradictions_are_told_in_pairs(client: TestClient, tenant: Tenant, settings: Settings) -> None:
    old, new = store(client, tenant, "Ann works at Google", "Ann works at Stripe")
    with owner(settings) as connection:
        connection.execute(
            "update memories set is_latest = false, superseded_by = %s, superseded_reason = 'moved', valid_to = now() "
            "where id = %s",
            (new, old),
        )
    answer = client.get(f"{GARDEN}/contradictions", headers=tenant.headers)
    (pair,) = answer.json()
    assert answer.headers["X-Total-Count"] == "1"
    assert (pair["current"]["id"], pair["superseded"]["id"], pair["reason"]) == (new, old, "moved")
    assert pair.keys() == {"current", "superseded", "reason", "created_at"}
    health = client.get(f"{GARDEN}/health", headers=tenant.headers).json()
    assert (health["exists"], health["supersessions"], health["needs_attention"]) == (True, 1, 1)


def test_the_worker_has_curation_on_a_schedule(live: TestClient, temporal: str) -> None:
    async def described() -> Any:
        client = await Client.connect(temporal)
        pause = 0.05
        while True:
            try:
                return await client.get_schedule_handle(SCHEDULE_ID).describe()
            except Exception:  # noqa: BLE001 - until the worker has made it
                await asyncio.sleep(pause)

    schedule = asyncio.run(described()).schedule
    assert [interval.every for interval in schedule.spec.intervals] == [worker.SCHEDULES[SCHEDULE_ID][1]]


def test_only_ids_and_words_travel_through_temporal(live: TestClient, tenant: Tenant, temporal: str) -> None:
    secret = "the harbour master keeps the spare key under the anchor"
    store(live, tenant, secret, secret)
    opened = live.post(f"{GARDEN}/dedup", headers=tenant.headers, json={"dry_run": False})
    assert opened.json()["deleted"] == 1

    async def histories() -> list[str]:
        client = await Client.connect(temporal)
        found = []
        async for execution in client.list_workflows("WorkflowType = 'DedupWorkflow'"):
            handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
            found.append((await handle.fetch_history()).to_json())
        return found

    told = asyncio.run(histories())
    assert told
    assert not [history for history in told if "harbour" in history or "garden" in history]
    assert workflow_id("archive_stale", str(UUID(int=1))).startswith("archive-stale-0")
