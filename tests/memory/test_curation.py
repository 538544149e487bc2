"""Dedup by the rules: what is found, what a run does, and what it leaves alone."""

import io
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from memory.errors import NotFound, Unavailable
from memory.schemas import Caller, MemoryCreate, MemoryPatch
from memory.services import Services
from memory.settings import Settings
from tests.memory.conftest import Connection
from tests.memory.curating import BEES, NAME, archive, audit, carry_out, change, dedup, listed, shape, store, version


def test_a_dry_run_shows_the_clusters_and_changes_nothing(
    house: Services, caller: Caller, as_owner: Connection
) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    twin = store(house, caller, BEES, importance=0.2)
    other = store(house, caller, "rain is due on thursday")
    before = version(as_owner, caller)

    report = house.curation.find_duplicates(caller, NAME, 0.95)

    assert (report.dry_run, report.threshold, report.scanned) == (True, 0.95, 3)
    assert (report.duplicates, report.deleted) == (1, 0)
    assert shape(report) == {keeper.id: {twin.id}}
    assert report.clusters[0].keeper == keeper
    assert report.clusters[0].duplicates[0].model_dump(exclude={"similarity"}) == twin.model_dump()
    assert report.clusters[0].duplicates[0].similarity == 1.0
    assert listed(house, caller) == {keeper.id, twin.id, other.id}
    assert version(as_owner, caller) == before


def test_a_run_deletes_the_duplicates_and_says_so(house: Services, caller: Caller, as_owner: Connection) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    twins = {store(house, caller, BEES, importance=0.2).id for _ in range(2)}
    other = store(house, caller, "rain is due on thursday")
    before = version(as_owner, caller)

    report = dedup(house, caller)

    assert (report.dry_run, report.scanned, report.duplicates, report.deleted) == (False, 4, 2, 2)
    assert shape(report) == {keeper.id: twins}
    assert listed(house, caller) == {keeper.id, other.id}
    ((actor, label, resource),) = audit(as_owner, caller, "curation.dedup")
    assert (actor, label) == (caller.key_id, caller.label)
    assert resource.startswith(f"2 duplicates of memory {keeper.id} in collection ")
    assert version(as_owner, caller) == before + 1
    for table in ("memory_vectors", "memory_terms"):
        left = as_owner.execute(f"select memory_id from {table} where memory_id = any (%s)", (list(twins),))
        assert left.fetchall() == []


def test_a_second_run_has_nothing_to_do(house: Services, caller: Caller, as_owner: Connection) -> None:
    for _ in range(3):
        store(house, caller, BEES)
    dedup(house, caller)

    opened = house.curation.open_dedup(caller, NAME, 0.95)

    assert opened.run_id is None
    report = house.curation.dedup_report(caller, opened)
    assert (report.scanned, report.clusters, report.duplicates, report.deleted) == (1, [], 0, 0)
    states = as_owner.execute("select state from curation_runs where tenant_id = %s", (caller.tenant_id,)).fetchall()
    assert states == [("done",), ("done",)]


def test_an_unknown_collection_is_empty(house: Services, caller: Caller) -> None:
    for report in (house.curation.find_duplicates(caller, NAME, 0.5), dedup(house, caller, 0.5)):
        assert (report.scanned, report.clusters, report.duplicates, report.deleted) == (0, [], 0, 0)
    assert house.curation.find_stale(caller, NAME, 0).would_archive == 0
    assert archive(house, caller, 0).archived == 0
    with pytest.raises(NotFound):
        house.collections.get(caller, NAME)


def test_only_current_memories_take_part(house: Services, caller: Caller, as_owner: Connection) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    apart = [store(house, caller, BEES) for _ in range(3)]
    for memory, assignment in zip(
        apart, ("archived = true", "is_latest = false", "expires_at = now() - interval '1 s'"), strict=True
    ):
        change(as_owner, memory.id, assignment)

    report = dedup(house, caller)

    assert (report.scanned, report.deleted) == (1, 0)
    kept = as_owner.execute("select id from memories where tenant_id = %s", (caller.tenant_id,)).fetchall()
    assert {row[0] for row in kept} == {keeper.id, *(memory.id for memory in apart)}


def test_the_newest_500_are_compared_pinned_or_not(house: Services, caller: Caller, as_owner: Connection) -> None:
    old = store(house, caller, BEES)
    change(as_owner, old.id, "created_at = now() - interval '9 days'")
    for number in range(5):
        house.memories.create_many(
            caller, NAME, [MemoryCreate(text=f"note{number}x{n} of its own") for n in range(100)]
        )
    pinned = store(house, caller, BEES)
    change(as_owner, pinned.id, "pinned = true")

    report = house.curation.find_duplicates(caller, NAME, 0.99)

    assert (report.scanned, report.clusters) == (500, [])
    change(as_owner, old.id, "created_at = now()")
    assert shape(house.curation.find_duplicates(caller, NAME, 0.99)) == {pinned.id: {old.id}}


def test_files_go_with_the_last_memory_that_carries_them(house: Services, caller: Caller, as_owner: Connection) -> None:
    keeper, shared, alone = (store(house, caller, BEES, importance=score) for score in (0.9, 0.5, 0.4))
    keys = {}
    for name, carriers in {"shared": (keeper, shared), "alone": (alone,)}.items():
        file_id, keys[name] = uuid4(), f"{caller.tenant_id}/files/{uuid4()}"
        house.objects.put(keys[name], io.BytesIO(b"bee"), max_bytes=9)
        as_owner.execute(
            "insert into files (tenant_id, id, filename, content_type, size, sha256, key, status) "
            "values (%s, %s, 'bee.txt', 'text/plain', 3, '\\x00', %s, 'done')",
            (caller.tenant_id, file_id, keys[name]),
        )
        for memory in carriers:
            as_owner.execute("insert into memory_files values (%s, %s, %s, 0)", (caller.tenant_id, memory.id, file_id))
    shown = house.curation.find_duplicates(caller, NAME, 0.95).clusters[0]
    assert all(memory.images[0].url.startswith("http") for memory in (shown.keeper, *shown.duplicates))

    assert dedup(house, caller).deleted == 2

    assert house.objects.get(keys["shared"]) == b"bee"
    with pytest.raises(NotFound):
        house.objects.get(keys["alone"])


# What was planned may have changed when its turn comes


@pytest.mark.parametrize(
    "assignment",
    [
        "pinned = true",
        "importance = 0.95",
        "container_tag = 'mine'",
        "archived = true",
        "is_latest = false",
        "expires_at = now()",
    ],
)
def test_a_duplicate_that_has_changed_is_left(
    house: Services, caller: Caller, as_owner: Connection, assignment: str
) -> None:
    store(house, caller, BEES, importance=0.9)
    twin = store(house, caller, BEES, importance=0.2)
    opened = house.curation.open_dedup(caller, NAME, 0.95)
    change(as_owner, twin.id, assignment)

    report = carry_out(house, caller, opened)

    assert (report.deleted, report.clusters) == (0, [])
    assert as_owner.execute("select count(*) from memories where id = %s", (twin.id,)).fetchone() == (1,)
    assert audit(as_owner, caller, "curation.dedup") == []


def test_a_duplicate_that_says_something_else_now_is_left(house: Services, caller: Caller) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    twin, third = (store(house, caller, BEES, importance=0.2) for _ in range(2))
    opened = house.curation.open_dedup(caller, NAME, 0.95)
    house.memories.patch(caller, NAME, twin.id, MemoryPatch(text="rain is due on thursday"))

    assert shape(carry_out(house, caller, opened)) == {keeper.id: {third.id}}
    assert listed(house, caller) == {keeper.id, twin.id}


@pytest.mark.parametrize("assignment", ["archived = true", "is_latest = false", "expires_at = now()", None])
def test_without_its_keeper_a_cluster_is_left_whole(
    house: Services, caller: Caller, as_owner: Connection, assignment: str | None
) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    twins = {store(house, caller, BEES, importance=0.2).id for _ in range(3)}
    opened = house.curation.open_dedup(caller, NAME, 0.95)
    if assignment is None:
        house.memories.delete(caller, NAME, keeper.id)
    else:
        change(as_owner, keeper.id, assignment)

    assert carry_out(house, caller, opened).deleted == 0
    assert listed(house, caller) == twins


def test_two_workers_at_once_delete_once(house: Services, caller: Caller, as_owner: Connection) -> None:
    keepers = set()
    for number in range(30):
        keepers.add(store(house, caller, f"subject{number} alone", importance=0.9).id)
        house.memories.create_many(caller, NAME, [MemoryCreate(text=f"subject{number} alone", importance=0.1)] * 2)
    opened = house.curation.open_dedup(caller, NAME, 0.99)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: carry_out(house, caller, opened), range(4)))

    assert {report.deleted for report in reports} == {60}
    assert listed(house, caller) == keepers
    assert len(audit(as_owner, caller, "curation.dedup")) == 30


def test_two_runs_at_once_leave_one_of_each(house: Services, caller: Caller) -> None:
    for number in range(20):
        house.memories.create_many(caller, NAME, [MemoryCreate(text=f"subject{number} alone")] * 4)
    opened = [house.curation.open_dedup(caller, NAME, 0.99) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda run: carry_out(house, caller, run), opened))

    assert sum(report.deleted for report in reports) == 60
    assert len(listed(house, caller)) == 20


def test_a_run_whose_collection_is_gone_ends_as_failed(house: Services, caller: Caller) -> None:
    for _ in range(2):
        store(house, caller, BEES)
    dedup_run = house.curation.open_dedup(caller, NAME, 0.95)
    archiving = house.curation.open_archiving(caller, NAME, 0)
    house.collections.delete(caller, NAME)
    assert dedup_run.run_id is not None
    assert archiving.run_id is not None

    assert not house.curation_runs.merge_clusters(caller.tenant_id, dedup_run.run_id)
    assert not house.curation_runs.archive_stale(caller.tenant_id, archiving.run_id)

    for run_id in (dedup_run.run_id, archiving.run_id):
        run = house.curation.run(caller, run_id)
        assert (run.state, run.error, run.collection) == ("failed", "collection deleted", NAME)
        assert run.ended_at is not None
    with pytest.raises(Unavailable, match="collection deleted"):
        house.curation.dedup_report(caller, dedup_run)
    with pytest.raises(Unavailable, match="collection deleted"):
        house.curation.archiving_report(caller, archiving)


def test_a_cluster_goes_whole_or_not_at_all(
    house: Services, caller: Caller, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = store(house, caller, BEES, importance=0.9)
    twins = {store(house, caller, BEES, importance=0.1).id for _ in range(3)}
    opened = house.curation.open_dedup(caller, NAME, 0.95)

    def fail(*_: object) -> None:
        raise psycopg.OperationalError

    with monkeypatch.context() as patched:
        patched.setattr("memory.store.changes.record", fail)
        with pytest.raises(Unavailable):
            carry_out(house, caller, opened)
    assert listed(house, caller) == {keeper.id, *twins}

    assert carry_out(house, caller, opened).deleted == 3
    assert listed(house, caller) == {keeper.id}
