"""What is dropped is durable before it is answered, or not there at all."""

import pytest

from memory.drop_schemas import DropOptions
from memory.errors import NotFound, Unavailable
from memory.quotas import MAX_FILE_BYTES
from memory.services import Services
from tests.memory.conftest import Tenant
from tests.memory.dropping import incoming, objects_of


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
