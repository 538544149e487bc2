"""Archive-stale by the rules: what is shown, and what a run archives."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from memory.schemas import Caller, MemoryPatch
from memory.services import Services
from tests.memory.conftest import Connection
from tests.memory.curating import NAME, aged, archive, audit, change, listed, store, version


def test_what_is_stale_is_shown_and_then_archived(house: Services, caller: Caller, as_owner: Connection) -> None:
    old, older = (aged(house, caller, as_owner, days) for days in (91, 100))
    fresh = aged(house, caller, as_owner, 89)
    pinned, archived, superseded = (aged(house, caller, as_owner, 200) for _ in range(3))
    change(as_owner, pinned.id, "pinned = true")
    change(as_owner, archived.id, "archived = true")
    change(as_owner, superseded.id, "is_latest = false")
    before = version(as_owner, caller)

    shown = house.curation.find_stale(caller, NAME, 90)
    assert (shown.dry_run, shown.would_archive, shown.ids) == (True, 2, [older.id, old.id])
    assert version(as_owner, caller) == before

    done = archive(house, caller, 90)
    assert (done.dry_run, done.archived, set(done.ids)) == (False, 2, {old.id, older.id})
    assert listed(house, caller) == {fresh.id, pinned.id}
    after = house.memories.get(caller, NAME, old.id)
    assert after.archived
    assert after.version == old.version + 1
    aged_for = as_owner.execute("select now() - updated_at > '90 days' from memories where id = %s", (old.id,))
    assert aged_for.fetchone() == (True,)
    ((actor, _, resource),) = audit(as_owner, caller, "curation.archive_stale")
    assert actor == caller.key_id
    assert resource.startswith("2 in collection ")
    assert version(as_owner, caller) == before + 1


def test_no_days_at_all_make_everything_stale(house: Services, caller: Caller) -> None:
    stored = {store(house, caller, f"note {number}").id for number in range(3)}

    assert set(house.curation.find_stale(caller, NAME, 0).ids) == stored
    assert archive(house, caller, 0).archived == 3
    assert archive(house, caller, 0).archived == 0


def test_many_are_archived_in_batches(
    house: Services, caller: Caller, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.curation_runs.ARCHIVED_A_STEP", 4)
    stored = {aged(house, caller, as_owner, 100).id for _ in range(10)}
    opened = house.curation.open_archiving(caller, NAME, 90)
    assert opened.run_id is not None

    assert house.curation_runs.archive_stale(caller.tenant_id, opened.run_id)
    assert house.curation.run(caller, opened.run_id).archived == 4
    assert house.curation.run(caller, opened.run_id).state == "running"
    # What is changed before its turn comes is spared.
    (spared, *_) = stored - set(house.curation.run(caller, opened.run_id).ids)
    house.memories.patch(caller, NAME, spared, MemoryPatch(category="fresh"))
    while house.curation_runs.archive_stale(caller.tenant_id, opened.run_id):
        pass

    done = house.curation.archiving_report(caller, opened)
    assert (done.archived, set(done.ids)) == (9, stored - {spared})
    assert [resource.split()[0] for _, _, resource in audit(as_owner, caller, "curation.archive_stale")] == [
        "4",
        "4",
        "1",
    ]


def test_two_workers_at_once_archive_once(
    house: Services, caller: Caller, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.curation_runs.ARCHIVED_A_STEP", 3)
    stored = {aged(house, caller, as_owner, 100).id for _ in range(20)}
    opened = house.curation.open_archiving(caller, NAME, 90)
    assert opened.run_id is not None

    def work(run_id: UUID) -> None:
        while house.curation_runs.archive_stale(caller.tenant_id, run_id):
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [opened.run_id] * 4))

    done = house.curation.archiving_report(caller, opened)
    assert (done.archived, set(done.ids)) == (20, stored)
    counted = [int(resource.split()[0]) for _, _, resource in audit(as_owner, caller, "curation.archive_stale")]
    assert sum(counted) == 20
