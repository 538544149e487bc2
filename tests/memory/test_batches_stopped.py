"""A batch cancelled, or taken up again, at every moment: nothing is stored after a cancel, nothing twice by a retry."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from memory.agents import GrantWanted, KeyCreate
from memory.batches import Retried
from memory.drop_schemas import BatchCancelled, BatchProgress, DropOptions
from memory.errors import Forbidden
from memory.ports import Document, Member
from memory.services import Services
from memory.store import ingesting, members
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Making, Tenant
from tests.memory.dropping import ScriptedReader, incoming, memories_of, objects_of, paragraphs, work


@pytest.fixture
def house(make: Making) -> Services:
    return make(ScriptedReader(paragraphs("one")))


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as others:
        yield others


def opened(house: Services, tenant: Tenant, *contents: bytes) -> UUID:
    files = [incoming(f"{number}.txt", content) for number, content in enumerate(contents or (b"bees",))]
    return house.drops.open(tenant.caller, "garden", files, DropOptions()).batch_id


def outcomes(progress: BatchProgress) -> list[tuple[str, str | None]]:
    return [(file.status, file.error) for file in progress.files]


def portion(house: Services, tenant: Tenant, batch_id: UUID) -> list[UUID]:
    return [file_id for ids in house.ingesting.unfinished(tenant.id, batch_id, 100)[1] for file_id in ids]


def until_it_waits(connection: Connection) -> None:
    """Returns when somebody waits for a lock."""
    while connection.execute("select count(*) from pg_locks where not granted").fetchall() == [(0,)]:
        pass


def assert_nothing_is_left(house: Services, tenant: Tenant, batch_id: UUID) -> None:
    """Every file is cancelled, nothing is remembered, and only originals lie in the store."""
    progress = work(house, tenant.caller, batch_id)
    assert outcomes(progress) == [("failed", "cancelled")] * progress.total
    assert (progress.failed, progress.pending, progress.complete) == (progress.total, 0, True)
    assert memories_of(house, tenant.caller) == 0
    assert {key.split("/")[0] for key in objects_of(house, tenant.caller)} == {"files"}


def assert_stored_once(house: Services, tenant: Tenant, batch_id: UUID, number: int = 1) -> None:
    progress = work(house, tenant.caller, batch_id)
    assert outcomes(progress) == [("done", None)] * number
    assert memories_of(house, tenant.caller) == number


def test_before_its_start(house: Services, tenant: Tenant) -> None:
    batch_id = opened(house, tenant, b"bees", b"wasps")

    told = house.batches.cancel(tenant.caller, batch_id)

    assert told == BatchCancelled(batch_id=batch_id, cancelled=2, pending=0, complete=True)
    assert house.ingesting.unfinished(tenant.id, batch_id, 100)[1] == []
    assert_nothing_is_left(house, tenant, batch_id)
    assert house.batches.retry(tenant.caller, batch_id) == Retried(2, alone=True)
    assert_stored_once(house, tenant, batch_id, 2)


def test_while_a_file_is_read(make: Making, tenant: Tenant) -> None:
    def read(name: str) -> Document:
        assert house.batches.cancel(tenant.caller, batch_id).cancelled == 2
        return paragraphs("one")(name)

    house = make(ScriptedReader(read))
    batch_id = opened(house, tenant, b"bees", b"wasps")
    files = portion(house, tenant, batch_id)
    house.ingesting.read(tenant.id, files[0])
    house.ingesting.store(tenant.id, files)

    assert_nothing_is_left(house, tenant, batch_id)


def test_while_it_is_embedded(make: Making, tenant: Tenant) -> None:
    house, embedder = _with_embedder(make)
    batch_id = opened(house, tenant)
    embedder.before_answer = lambda _texts: _cancelled(house, tenant, batch_id, 1)
    house.ingesting.store(tenant.id, portion(house, tenant, batch_id))

    assert_nothing_is_left(house, tenant, batch_id)


def test_taken_up_again_while_the_first_attempt_still_goes_on(make: Making, tenant: Tenant) -> None:
    house, embedder = _with_embedder(make)
    batch_id = opened(house, tenant)

    def stop_and_go(_texts: Sequence[str]) -> None:
        embedder.before_answer = lambda _texts: None
        _cancelled(house, tenant, batch_id, 1)
        assert house.batches.retry(tenant.caller, batch_id).queued == 1
        house.ingesting.store(tenant.id, portion(house, tenant, batch_id))

    embedder.before_answer = stop_and_go
    house.ingesting.store(tenant.id, portion(house, tenant, batch_id))

    assert_stored_once(house, tenant, batch_id)


def test_what_is_just_being_stored_is_stored(
    house: Services,
    tenant: Tenant,
    as_owner: Connection,
    elsewhere: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch_id = opened(house, tenant)
    told: list[Future[BatchCancelled]] = []
    finish = ingesting.finish

    def finish_late(*of: Any, **more: Any) -> None:
        told.append(elsewhere.submit(house.batches.cancel, tenant.caller, batch_id))
        until_it_waits(as_owner)
        finish(*of, **more)

    monkeypatch.setattr(ingesting, "finish", finish_late)
    house.ingesting.store(tenant.id, portion(house, tenant, batch_id))

    assert told[0].result() == BatchCancelled(batch_id=batch_id, cancelled=0, pending=0, complete=True)
    assert_stored_once(house, tenant, batch_id)


def test_files_that_come_out_of_a_file_meanwhile_are_cancelled_too(
    make: Making,
    tenant: Tenant,
    as_owner: Connection,
    elsewhere: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Document(content_type="application/zip", blocks=[], members=[Member("a.txt", b"a"), Member("b.txt", b"b")])
    house = make(ScriptedReader(lambda _name: held))
    batch_id = opened(house, tenant)
    told: list[Future[BatchCancelled]] = []
    insert = members.insert

    def insert_late(*of: Any) -> None:
        told.append(elsewhere.submit(house.batches.cancel, tenant.caller, batch_id))
        until_it_waits(as_owner)
        insert(*of)

    monkeypatch.setattr(members, "insert", insert_late)
    files = portion(house, tenant, batch_id)
    house.ingesting.read(tenant.id, files[0])
    assert told[0].result().cancelled == 3
    house.ingesting.store(tenant.id, files)

    assert_nothing_is_left(house, tenant, batch_id)


def test_several_at_once(house: Services, tenant: Tenant, elsewhere: ThreadPoolExecutor) -> None:
    batch_id = opened(house, tenant, b"bees", b"wasps", b"ants")

    cancelled = list(elsewhere.map(lambda _: house.batches.cancel(tenant.caller, batch_id), range(4)))
    queued = list(elsewhere.map(lambda _: house.batches.retry(tenant.caller, batch_id), range(4)))

    assert sorted(one.cancelled for one in cancelled) == [0, 0, 0, 3]
    assert sorted(one.queued for one in queued) == [0, 0, 0, 3]
    assert house.ingesting.unfinished(tenant.id, batch_id, 100)[0] == 1
    assert_stored_once(house, tenant, batch_id, 3)


def test_a_finished_batch_stays_as_it_is(make: Making, tenant: Tenant) -> None:
    house = make(ScriptedReader(paragraphs("one")))
    batch_id = opened(house, tenant, b"bees", b"")
    before = work(house, tenant.caller, batch_id)

    assert house.batches.cancel(tenant.caller, batch_id).cancelled == 0
    assert house.batches.progress(tenant.caller, batch_id) == before
    # The empty one fails again; what is done is not done again.
    assert house.batches.retry(tenant.caller, batch_id).queued == 1
    assert outcomes(work(house, tenant.caller, batch_id)) == outcomes(before)
    assert memories_of(house, tenant.caller) == 1


def test_without_its_collection_a_batch_can_still_be_cancelled(house: Services, tenant: Tenant) -> None:
    batch_id = opened(house, tenant)
    house.collections.delete(tenant.caller, "garden")

    assert house.batches.cancel(tenant.caller, batch_id).cancelled == 1
    assert house.batches.counts(tenant.caller, batch_id).complete


def test_who_may_only_read_the_collection_changes_nothing(house: Services, tenant: Tenant) -> None:
    batch_id = opened(house, tenant)
    reader = house.accounts.create_key(tenant.caller, KeyCreate(label="reader"))
    house.grants.put(tenant.caller, "garden", GrantWanted(agent_key_id=reader.id, can_read=True, can_write=False))
    caller = house.accounts.authenticate(reader.api_key)
    changes: list[Callable[..., object]] = [house.batches.cancel, house.batches.retry]

    for change in changes:
        with pytest.raises(Forbidden):
            change(caller, batch_id)
    assert house.batches.counts(caller, batch_id).pending == 1


def _with_embedder(make: Making) -> tuple[Services, WordEmbedder]:
    embedder = WordEmbedder()
    return make(ScriptedReader(paragraphs("one")), embedder), embedder


def _cancelled(house: Services, tenant: Tenant, batch_id: UUID, number: int) -> None:
    assert house.batches.cancel(tenant.caller, batch_id).cancelled == number
