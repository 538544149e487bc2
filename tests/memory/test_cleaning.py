"""Cleaning: what nobody needs goes when its time is over, and nothing that anybody needs, or that is on its way."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from uuid import UUID, uuid4

import pytest

from memory import cleaning as rules
from memory.cleaning import Orphans
from memory.drop_schemas import DropOptions
from memory.errors import NotFound, RejectedFile
from memory.ports import Document
from memory.services import Services
from tests.memory.conftest import Connection, Making, Tenant
from tests.memory.dropping import ScriptedReader, incoming, memories_of, objects_of, open_one, paragraphs, work

NOW = timedelta(0)


def refusing(name: str) -> Document:
    if name.startswith("bad"):
        raise RejectedFile("it is encrypted")
    return paragraphs("one")(name)


@pytest.fixture
def house(make: Making) -> Services:
    return make(ScriptedReader(refusing))


def dropped(house: Services, tenant: Tenant, *names: str) -> UUID:
    files = [incoming(name, name.encode()) for name in names]
    batch_id = house.drops.open(tenant.caller, "garden", files, DropOptions()).batch_id
    work(house, tenant.caller, batch_id)
    return batch_id


def put(house: Services, tenant: Tenant, key: str) -> None:
    house.objects.put(f"{tenant.id}/{key}", BytesIO(b"1234"), max_bytes=4)


def test_a_batch_is_kept_for_a_week_and_goes_with_the_originals_that_nobody_needs(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    batch_id = dropped(house, tenant, "good", "bad", "deleted")
    deleted = house.batches.progress(tenant.caller, batch_id).files[2]
    house.memories.delete(tenant.caller, "garden", deleted.memory_ids[0])
    younger, (open_batch, _) = dropped(house, tenant, "bad too"), open_one(house, tenant.caller)
    for age, one in (("7 days 1 minute", batch_id), ("6 days 23 hours", younger)):
        as_owner.execute("update batches set completed_at = now() - %s::interval where id = %s", [age, one])
    as_owner.execute("update batches set created_at = now() - interval '1 year' where id = %s", [open_batch])
    assert len(objects_of(house, tenant.caller)) == 4

    house.cleaning.clean(tenant.id)

    with pytest.raises(NotFound):
        house.batches.counts(tenant.caller, batch_id)
    assert house.batches.counts(tenant.caller, younger).failed == 1
    assert house.batches.counts(tenant.caller, open_batch).pending == 1
    assert memories_of(house, tenant.caller) == 1
    assert len(objects_of(house, tenant.caller)) == 3
    left = as_owner.execute("select filename from files where tenant_id = %s", [tenant.id]).fetchall()
    assert sorted(left) == [("bad too",), ("bees.txt",), ("good",)]
    # The file that a memory carries is recognised for as long as it does.
    (again,) = house.batches.progress(tenant.caller, dropped(house, tenant, "good")).files
    assert again.status == "duplicate"


def test_batches_are_removed_a_few_at_a_time(house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        dropped(house, tenant, str(number))
    monkeypatch.setattr(rules, "_BATCHES_AT_ONCE", 2)

    assert [house.cleaning.forget_batches(tenant.id, NOW) for _ in range(2)] == [True, False]
    assert memories_of(house, tenant.caller) == 3


def test_with_a_collection_the_originals_go_that_failed_to_become_memories(house: Services, tenant: Tenant) -> None:
    dropped(house, tenant, "good", "bad")

    house.collections.delete(tenant.caller, "garden")

    assert objects_of(house, tenant.caller) == []


def test_objects_that_no_row_knows_are_counted_and_removed(house: Services, tenant: Tenant) -> None:
    dropped(house, tenant, "good", "bad")
    pending, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)
    kept = objects_of(house, tenant.caller)
    assert len(kept) == 4
    before = house.cleaning.count(NOW)
    for key in (f"files/{uuid4()}", f"documents/{uuid4()}", "documents/nonsense", "uploads/a/b"):
        put(house, tenant, key)
    # What a process left that was killed while it wrote.
    folder = house.settings.rememberos_data / "objects" / str(tenant.id)
    (folder / "files" / f"{uuid4()}#1").write_bytes(b"1234")

    assert house.cleaning.count(NOW) == before + Orphans(5, 20)
    assert house.cleaning.sweep(tenant.id, NOW) == Orphans(5, 20)

    assert objects_of(house, tenant.caller) == kept
    assert house.cleaning.count(NOW) == before
    assert work(house, tenant.caller, pending).done == 1
    assert house.cleaning.sweep(tenant.id, NOW) == Orphans(0, 0)


def test_what_may_still_be_on_its_way_is_left_alone(house: Services, tenant: Tenant) -> None:
    key = f"files/{uuid4()}"
    put(house, tenant, key)
    house.cleaning.clean(tenant.id)
    assert objects_of(house, tenant.caller) == [key]

    path = house.settings.rememberos_data / "objects" / str(tenant.id) / key
    long_ago = time.time() - rules.SAFE_AGE.total_seconds() - 60
    os.utime(path, (long_ago, long_ago))
    house.cleaning.clean(tenant.id)

    assert objects_of(house, tenant.caller) == []


def test_only_what_lies_under_the_tenants_prefix_is_looked_at(
    house: Services, new_tenant: Callable[[], Tenant]
) -> None:
    mine, other = new_tenant(), new_tenant()
    put(house, other, f"files/{uuid4()}")

    assert house.cleaning.sweep(mine.id, NOW) == Orphans(0, 0)
    assert len(objects_of(house, other.caller)) == 1


def test_tenants_are_listed_in_pages(
    house: Services, new_tenant: Callable[[], Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {new_tenant().id for _ in range(3)}
    monkeypatch.setattr(rules, "TENANTS_A_LISTING", 2)

    listed: list[UUID] = []
    while page := house.cleaning.tenants(listed[-1] if listed else None):
        listed += page

    assert made <= set(listed)
    assert len(listed) == len(set(listed))
