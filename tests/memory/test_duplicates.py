"""The same bytes in the same collection under the same tag are remembered once, unless they are forced."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from memory.agents import GrantWanted, KeyCreate
from memory.drop_schemas import BatchFile, ContentsAsked, DropOptions
from memory.errors import RejectedFile
from memory.ports import Document
from memory.schemas import Caller
from memory.services import Services
from memory.store import ingesting as store
from tests.memory.conftest import Making, Tenant
from tests.memory.dropping import BEES, ScriptedReader, incoming, memories_of, objects_of, paragraphs, work


@pytest.fixture
def house(make: Making) -> Services:
    return make(ScriptedReader(paragraphs("one")))


def drop(house: Services, caller: Caller, *names: str, collection: str = "garden", **options: Any) -> list[BatchFile]:
    """Files of the same content, worked through."""
    files = [incoming(name) for name in names or ("bees.txt",)]
    opened = house.drops.open(caller, collection, files, DropOptions(**options))
    return work(house, caller, opened.batch_id).files


def test_the_same_bytes_again_are_a_duplicate_with_the_memories_of_the_first(house: Services, tenant: Tenant) -> None:
    (first,) = drop(house, tenant.caller)

    opened = house.drops.open(tenant.caller, "garden", [incoming("other name.txt")], DropOptions())
    progress = work(house, tenant.caller, opened.batch_id)

    (again,) = progress.files
    assert (again.status, again.memory_ids, again.chunks, again.error) == ("duplicate", first.memory_ids, 1, None)
    assert (progress.done, progress.duplicates, progress.failed, progress.pending) == (1, 1, 0, 0)
    outcome = house.batches.results(tenant.caller, opened.batch_id)
    assert (outcome.stored, outcome.failed, outcome.duplicates) == (0, 0, 1)
    assert (outcome.results[0].status, outcome.results[0].preview) == ("duplicate", "one")
    assert memories_of(house, tenant.caller) == 1
    assert len(objects_of(house, tenant.caller)) == 1


def test_a_duplicate_is_not_read(make: Making, tenant: Tenant) -> None:
    reader = ScriptedReader(paragraphs("one"))
    house = make(reader)

    drop(house, tenant.caller, "a", "b", "c")
    drop(house, tenant.caller, "d")

    assert reader.read_files == ["a"]


def test_of_equal_files_in_one_batch_the_first_is_stored(house: Services, tenant: Tenant) -> None:
    first, second, third = drop(house, tenant.caller, "a.txt", "b.txt", "c.txt")

    assert [file.status for file in (first, second, third)] == ["done", "duplicate", "duplicate"]
    assert first.memory_ids == second.memory_ids == third.memory_ids
    assert memories_of(house, tenant.caller) == 1


def test_what_is_forced_is_stored_again(house: Services, tenant: Tenant) -> None:
    drop(house, tenant.caller)

    forced = drop(house, tenant.caller, "a.txt", "b.txt", force=True)

    assert [file.status for file in forced] == ["done", "done"]
    assert memories_of(house, tenant.caller) == 3
    assert len(objects_of(house, tenant.caller)) == 3


@pytest.mark.parametrize("elsewhere", [{"collection": "hive"}, {"container_tag": "hive"}])
def test_elsewhere_the_same_bytes_are_no_duplicate(house: Services, tenant: Tenant, elsewhere: dict[str, str]) -> None:
    drop(house, tenant.caller)

    (file,) = drop(house, tenant.caller, **elsewhere)

    assert file.status == "done"


def test_a_file_of_which_nothing_is_remembered_any_more_is_no_duplicate_of(house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    (deleted,) = drop(house, caller)
    for memory_id in deleted.memory_ids:
        house.memories.delete(caller, "garden", memory_id)
    (archived,) = drop(house, caller)
    for memory_id in archived.memory_ids:
        house.fates.archive(caller, "garden", memory_id, archived=True)
    (moved,) = drop(house, caller)
    for memory_id in moved.memory_ids:
        house.fates.move(caller, "garden", memory_id, "attic")

    (file,) = drop(house, caller)

    assert {one.status for one in (deleted, archived, moved, file)} == {"done"}


@pytest.mark.parametrize("lost", ["deleted", "archived", "moved"])
def test_a_file_of_which_only_a_part_is_remembered_is_not_stored_beside_it(
    make: Making, tenant: Tenant, lost: str
) -> None:
    house = make(ScriptedReader(paragraphs("one " * 300, "two " * 300)))
    caller, asked = tenant.caller, ContentsAsked(sha256=[hashlib.sha256(BEES).hexdigest()])
    (whole,) = drop(house, caller)
    assert len(whole.memory_ids) == whole.chunks > 1
    assert house.drops.missing(caller, "garden", asked).missing == []
    if lost == "deleted":
        house.memories.delete(caller, "garden", whole.memory_ids[0])
    elif lost == "archived":
        house.fates.archive(caller, "garden", whole.memory_ids[0], archived=True)
    else:
        house.fates.move(caller, "garden", whole.memory_ids[0], "attic")

    assert house.drops.missing(caller, "garden", asked).missing == []
    (again,) = drop(house, caller)

    assert again.status == "duplicate"
    assert set(whole.memory_ids[1:]) <= set(again.memory_ids) <= set(whole.memory_ids)


def test_a_file_that_failed_is_no_duplicate_of(make: Making, tenant: Tenant) -> None:
    answers = iter([RejectedFile("it is encrypted"), RejectedFile("it still is")])

    def refuse_twice(name: str) -> Document:
        for refusal in answers:
            raise refusal
        return paragraphs("one")(name)

    house = make(ScriptedReader(refuse_twice))

    files = drop(house, tenant.caller, "a", "b", "c", "d")

    assert [file.status for file in files] == ["failed", "failed", "done", "duplicate"]


def test_of_equal_drops_at_once_one_is_stored(house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [house.drops.open(tenant.caller, "garden", [incoming("a")], DropOptions()).batch_id for _ in range(4)]
    # All have been read before the first is stored, so that none is known to be a duplicate by then.
    portions = [house.ingesting.unfinished(tenant.id, batch_id, 1)[1][0] for batch_id in batches]
    for (file_id,) in portions:
        house.ingesting.read(tenant.id, file_id)
    together = Barrier(4)
    hold = store.hold_content

    def meet(*of: Any) -> None:
        together.wait(60)
        hold(*of)

    monkeypatch.setattr(store, "hold_content", meet)
    with ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(house.ingesting.store, tenant.id, portion) for portion in portions]:
            done.result()

    statuses = [house.batches.progress(tenant.caller, batch_id).files[0].status for batch_id in batches]
    assert sorted(statuses) == ["done", "duplicate", "duplicate", "duplicate"]
    assert memories_of(house, tenant.caller) == 1
    assert len(objects_of(house, tenant.caller)) == 1


def test_who_may_only_write_learns_nothing_of_what_is_there(house: Services, tenant: Tenant) -> None:
    drop(house, tenant.caller)
    writer = house.accounts.create_key(tenant.caller, KeyCreate(label="scanner"))
    house.grants.put(tenant.caller, "garden", GrantWanted(agent_key_id=writer.id, can_read=False, can_write=True))
    caller = house.accounts.authenticate(writer.api_key)

    opened = house.drops.open(caller, "garden", [incoming("guess.txt")], DropOptions())
    (file,) = work(house, caller, opened.batch_id).files

    assert (file.status, file.memory_ids) == ("duplicate", [])
    (result,) = house.batches.results(caller, opened.batch_id).results
    assert (result.memory_ids, result.preview) == ([], None)


def test_another_tenants_file_is_no_duplicate(house: Services, new_tenant: Callable[[], Tenant]) -> None:
    for _ in range(2):
        (file,) = drop(house, new_tenant().caller)
        assert file.status == "done"
