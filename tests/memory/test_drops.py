"""What is dropped is durable before it is answered, or not there at all."""

import hashlib
from collections.abc import Callable

import pytest

from memory.drop_schemas import ContentsAsked, DropOptions
from memory.errors import NotFound, Unavailable
from memory.quotas import MAX_FILE_BYTES
from memory.schemas import Caller, MemoryFilter
from memory.services import Services
from tests.memory.conftest import Tenant
from tests.memory.dropping import BEES, incoming, objects_of, open_one, work


def test_ten_megabytes_are_taken_and_one_byte_more_is_refused_by_name(reading_house: Services, tenant: Tenant) -> None:
    files = [incoming("full.txt", b"x" * MAX_FILE_BYTES), incoming("over.txt", b"x" * (MAX_FILE_BYTES + 1))]

    opened = reading_house.drops.open(tenant.caller, "garden", files, DropOptions())

    assert opened.queued == 1
    assert [refused.filename for refused in opened.refused] == ["over.txt"]
    assert "10 MB" in opened.refused[0].reason
    assert [file.filename for file in reading_house.batches.progress(tenant.caller, opened.batch_id).files] == [
        "full.txt"
    ]
    assert len(objects_of(reading_house, tenant.caller)) == 1


def test_a_drop_of_which_nothing_is_taken_is_complete_and_makes_no_collection(
    reading_house: Services, tenant: Tenant
) -> None:
    opened = reading_house.drops.open(
        tenant.caller, "empty", [incoming("over.txt", b"x" * (MAX_FILE_BYTES + 1))], DropOptions()
    )

    progress = reading_house.batches.progress(tenant.caller, opened.batch_id)
    assert (progress.total, progress.complete) == (0, True)
    with pytest.raises(NotFound):
        reading_house.collections.get(tenant.caller, "empty")


def test_originals_of_a_failed_transaction_do_not_stay(
    reading_house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr("memory.store.drops.insert_batch", gone)

    with pytest.raises(Unavailable):
        reading_house.drops.open(tenant.caller, "garden", [incoming("a.txt"), incoming("b.txt")], DropOptions())

    assert objects_of(reading_house, tenant.caller) == []


def test_the_path_of_a_file_goes_with_its_memories(reading_house: Services, tenant: Tenant) -> None:
    files = [incoming("notes/../2026/bees.txt"), incoming("bees.txt", b"They rest in winter.")]
    batch_id = reading_house.drops.open(tenant.caller, "garden", files, DropOptions()).batch_id

    progress = work(reading_house, tenant.caller, batch_id)

    assert [(file.filename, file.path) for file in progress.files] == [
        ("bees.txt", "notes/2026/bees.txt"),
        ("bees.txt", None),
    ]
    found, _ = reading_house.memories.page(tenant.caller, "garden", MemoryFilter())
    assert {memory.metadata.get("path") for memory in found} == {"notes/2026/bees.txt", None}


def test_what_is_stored_or_under_way_is_not_missing(reading_house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    stored, _ = open_one(reading_house, caller, "bees.txt", b"Bees dance.")
    work(reading_house, caller, stored)
    failed, _ = open_one(reading_house, caller, "void.txt", b"")
    work(reading_house, caller, failed)
    under_way, _ = open_one(reading_house, caller, "ants.txt", b"Ants follow a scent.")
    wanted = _digests(b"Ants follow a scent.", b"", b"Bees dance.", b"Nobody has this.")

    answer = reading_house.drops.missing(caller, "garden", ContentsAsked(sha256=[*wanted, wanted[1]]))

    assert answer.missing == [wanted[1], wanted[3]]
    assert [(one.sha256, one.batch_id) for one in answer.pending] == [(wanted[0], under_way)]


def test_what_lies_elsewhere_or_is_gone_is_missing(
    reading_house: Services, tenant: Tenant, new_tenant: Callable[[], Tenant]
) -> None:
    caller = tenant.caller
    batch_id, _ = open_one(reading_house, caller)
    work(reading_house, caller, batch_id)
    asked = ContentsAsked(sha256=_digests(BEES))
    everything = asked.sha256

    def missing(who: Caller, collection: str, asked: ContentsAsked) -> list[str]:
        return reading_house.drops.missing(who, collection, asked).missing

    assert missing(caller, "garden", asked) == []
    assert missing(caller, "garden", asked.model_copy(update={"container_tag": "hive"})) == everything
    assert missing(caller, "orchard", asked) == everything
    assert missing(new_tenant().caller, "garden", asked) == everything
    (memory,), _ = reading_house.memories.page(caller, "garden", MemoryFilter())
    reading_house.fates.archive(caller, "garden", memory.id, True)
    assert missing(caller, "garden", asked) == everything
    reading_house.fates.archive(caller, "garden", memory.id, False)
    assert missing(caller, "garden", asked) == []
    reading_house.memories.delete(caller, "garden", memory.id)
    assert missing(caller, "garden", asked) == everything


def _digests(*contents: bytes) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]
