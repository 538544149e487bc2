"""Collections: made once, changed in part, and gone with everything in them, whoever writes meanwhile."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from uuid import UUID, uuid4

import numpy as np
import pytest

from memory.collections import Collections
from memory.errors import BadRequest, Conflict, NotFound, Unavailable
from memory.ports import ObjectStore
from memory.schemas import (
    Author,
    CollectionCreate,
    CollectionUpdate,
    MemoryCreate,
    MemoryFilter,
    MemoryPatch,
    SearchRequest,
)
from memory.services import Services
from memory.store import collections as store
from memory.store import memories
from memory.store.database import Session
from memory.store.memories import NewMemory
from tests.memory.conftest import Connection, Tenant


def _create(house: Services, tenant: Tenant, *names: str) -> None:
    for name in names:
        house.collections.create(tenant.caller, CollectionCreate(name=name))


def _names(house: Services, tenant: Tenant) -> list[str]:
    return [found.name for found in house.collections.page(tenant.caller, limit=200, offset=0)[0]]


def test_a_collection_is_what_was_sent(house: Services, tenant: Tenant) -> None:
    made = house.collections.create(
        tenant.caller, CollectionCreate(name=" Über uns :x % ' ", description="d", metadata={"a": [1]})
    )
    assert (made.name, made.description, made.metadata) == ("Über uns :x % '", "d", {"a": [1]})
    assert (made.memory_count, made.restricted) == (0, False)
    assert made.created_at == made.updated_at
    assert house.collections.get(tenant.caller, "Über uns :x % '") == made


def test_names_are_case_sensitive_and_taken_once(house: Services, tenant: Tenant) -> None:
    first = house.collections.create(tenant.caller, CollectionCreate(name="notes", description="first"))
    with pytest.raises(Conflict):
        house.collections.create(tenant.caller, CollectionCreate(name="notes", description="second"))
    assert house.collections.get(tenant.caller, "notes") == first
    _create(house, tenant, "Notes")
    assert sorted(_names(house, tenant)) == ["Notes", "notes"]


def test_tenants_do_not_see_one_another(house: Services, new_tenant: Callable[..., Tenant]) -> None:
    mine, other = new_tenant(), new_tenant()
    _create(house, mine, "notes")
    assert _names(house, other) == []
    acts: list[Callable[[], object]] = [
        lambda: house.collections.get(other.caller, "notes"),
        lambda: house.collections.update(other.caller, "notes", CollectionUpdate(description="x")),
        lambda: house.collections.delete(other.caller, "notes"),
    ]
    for act in acts:
        with pytest.raises(NotFound):
            act()
    _create(house, other, "notes")
    house.collections.delete(other.caller, "notes")
    assert _names(house, mine) == ["notes"]


def test_pages_are_by_name_with_the_total(house: Services, tenant: Tenant) -> None:
    _create(house, tenant, *(f"c{number}" for number in (3, 1, 2, 5, 4)))
    pages = [house.collections.page(tenant.caller, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[found.name for found in page] for page, _ in pages] == [["c1", "c2"], ["c3", "c4"], ["c5"], []]
    assert {total for _, total in pages} == {5}


def test_an_update_is_partial(house: Services, tenant: Tenant) -> None:
    made = house.collections.create(tenant.caller, CollectionCreate(name="n", description="d", metadata={"a": 1}))
    changed = house.collections.update(tenant.caller, "n", CollectionUpdate(metadata={"b": 2}))
    assert (changed.description, changed.metadata) == ("d", {"b": 2})
    assert changed.updated_at > made.updated_at
    assert changed.created_at == made.created_at
    cleared = house.collections.update(tenant.caller, "n", CollectionUpdate(description=None))
    assert (cleared.description, cleared.metadata) == (None, {"b": 2})
    with pytest.raises(BadRequest):
        house.collections.update(tenant.caller, "n", CollectionUpdate.model_validate({"name": "other"}))
    with pytest.raises(NotFound):
        house.collections.update(tenant.caller, "other", CollectionUpdate())


def test_what_is_counted_is_what_is_listed(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text=f"{number}") for number in range(16)])
    as_owner.execute(
        """
        update memories set archived = text::int %% 2 = 0, is_latest = text::int %% 4 < 2,
               expires_at = case when text::int < 4 then now() when text::int < 8 then now() + interval '1 day' end
        where tenant_id = %s
        """,
        (tenant.id,),
    )
    listed = house.memories.page(tenant.caller, "notes", MemoryFilter())
    assert 0 < len(listed[0]) == listed[1] == house.collections.get(tenant.caller, "notes").memory_count
    assert house.collections.page(tenant.caller, limit=1, offset=0)[0][0].memory_count == listed[1]


# Deletion


def test_a_deleted_collection_is_gone_with_everything(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    _create(house, tenant, "other")
    kept = house.memories.create(tenant.caller, "other", MemoryCreate(text="kept"))
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="coffee"))
    assert house.collections.delete(tenant.caller, "notes").name == "notes"
    for table, column in (
        ("memories", "id"),
        ("memory_vectors", "memory_id"),
        ("memory_terms", "memory_id"),
        ("memory_versions", "memory_id"),
    ):
        assert as_owner.execute(f"select count(*) from {table} where {column} = %s", (made.id,)).fetchone() == (0,)
    for act in (house.collections.get, house.collections.delete):
        with pytest.raises(NotFound):
            act(tenant.caller, "notes")
    assert house.memories.get(tenant.caller, "other", kept.id) == kept
    _create(house, tenant, "notes")
    assert house.memories.page(tenant.caller, "notes", MemoryFilter()) == ([], 0)


def _file(house: Services, tenant: Tenant, as_owner: Connection) -> tuple[UUID, str]:
    """A stored original with its row, as a drop leaves them."""
    file_id = uuid4()
    key = f"{tenant.id}/files/{file_id}"
    house.objects.put(key, BytesIO(b"original"), max_bytes=100)
    as_owner.execute(
        "insert into files (tenant_id, id, filename, content_type, size, sha256, key, status) "
        "values (%s, %s, 'a.txt', 'text/plain', 8, '\\x00', %s, 'done')",
        (tenant.id, file_id, key),
    )
    return file_id, key


def _insert(session: Session, tenant: Tenant, collection_id: UUID, *file_ids: UUID) -> UUID:
    memory = NewMemory(id=uuid4(), text="chunk", vector=np.ones(384, dtype=np.float32) / 384**0.5, file_ids=file_ids)
    memories.insert(
        session,
        tenant.id,
        collection_id,
        [memory],
        model_id=1,
        author=Author(id=None, label="test"),
        now=datetime.now(UTC),
    )
    return memory.id


def _chunks(house: Services, tenant: Tenant, collection: str, count: int, *file_ids: UUID) -> list[UUID]:
    with house.database.transaction(tenant.id) as session:
        collection_id = store.ensure(session, tenant.id, collection)
        return [_insert(session, tenant, collection_id, *file_ids) for _ in range(count)]


def _is_stored(house: Services, key: str) -> bool:
    try:
        house.objects.get(key)
    except NotFound:
        return False
    return True


def test_a_file_goes_with_the_last_memory_that_carries_it(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    file_id, key = _file(house, tenant, as_owner)
    first, second = _chunks(house, tenant, "notes", 2, file_id)
    [image] = house.memories.get(tenant.caller, "notes", first).images
    assert (image.filename, image.content_type, image.size) == ("a.txt", "text/plain", 8)
    assert str(file_id) in image.url
    house.memories.delete(tenant.caller, "notes", first)
    assert _is_stored(house, key)
    house.memories.delete(tenant.caller, "notes", second)
    assert not _is_stored(house, key)
    assert as_owner.execute("select key from files where id = %s", (file_id,)).fetchone() is None


def test_files_of_a_collection_go_with_it_unless_another_carries_them(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    (own, own_key), (shared, shared_key) = _file(house, tenant, as_owner), _file(house, tenant, as_owner)
    _chunks(house, tenant, "notes", 3, own, shared)
    _chunks(house, tenant, "other", 1, shared)
    house.collections.delete(tenant.caller, "notes")
    assert (_is_stored(house, own_key), _is_stored(house, shared_key)) == (False, True)
    house.collections.delete(tenant.caller, "other")
    assert not _is_stored(house, shared_key)


def test_last_memories_deleted_at_once_leave_no_file(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    for _ in range(5):
        files = [_file(house, tenant, as_owner) for _ in range(3)]
        ids = _chunks(house, tenant, "notes", 4, *(file_id for file_id, _ in files))
        together = threading.Barrier(len(ids))

        def delete(memory_id: UUID, together: threading.Barrier = together) -> None:
            together.wait()
            house.memories.delete(tenant.caller, "notes", memory_id)

        with ThreadPoolExecutor(len(ids)) as pool:
            list(pool.map(delete, ids))
        assert [_is_stored(house, key) for _, key in files] == [False] * 3


class _Stuck:
    """An object store that is down."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def delete(self, keys: object) -> None:
        raise Unavailable("the store does not answer")

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)


def test_an_object_store_that_is_down_stops_no_deletion(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    file_id, key = _file(house, tenant, as_owner)
    _chunks(house, tenant, "notes", 1, file_id)
    stuck: ObjectStore = _Stuck(house.objects)  # type: ignore[assignment]  # stands in by __getattr__
    Collections(house.database, house.grants, stuck).delete(tenant.caller, "notes")
    assert _names(house, tenant) == []
    house.objects.delete([key])


# Two at once


def test_a_collection_made_by_many_first_writes_is_one(house: Services, tenant: Tenant) -> None:
    for name in ("a", "b", "c"):
        together = threading.Barrier(8)

        def write(number: int, name: str = name, together: threading.Barrier = together) -> None:
            together.wait()
            house.memories.create(tenant.caller, name, MemoryCreate(text=f"number {number}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert house.collections.get(tenant.caller, name).memory_count == 8
    assert _names(house, tenant) == ["a", "b", "c"]


def test_a_collection_made_at_once_by_many_is_made_by_one(house: Services, tenant: Tenant) -> None:
    together = threading.Barrier(8)

    def make(_number: int) -> str:
        together.wait()
        try:
            _create(house, tenant, "notes")
        except Conflict:
            return "conflict"
        return "made"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == ["conflict"] * 7 + ["made"]


def _wait_until_blocked(as_owner: Connection, deletion: Future[object]) -> None:
    """Returns once it waits for a lock."""
    while as_owner.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
        assert not deletion.done()
        time.sleep(0.01)


def test_a_file_stored_while_its_collection_is_being_deleted_goes_too(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    _create(house, tenant, "notes")
    file_id, key = _file(house, tenant, as_owner)
    with ThreadPoolExecutor(1) as pool:
        with house.database.transaction(tenant.id) as session:
            collection_id = store.ensure(session, tenant.id, "notes")
            deletion: Future[object] = pool.submit(house.collections.delete, tenant.caller, "notes")
            _wait_until_blocked(as_owner, deletion)
            _insert(session, tenant, collection_id, file_id)
        deletion.result()
    assert not _is_stored(house, key)
    assert as_owner.execute("select count(*) from memories where tenant_id = %s", (tenant.id,)).fetchone() == (0,)


def test_of_two_deletions_of_a_collection_one_finds_nothing(house: Services, tenant: Tenant) -> None:
    for _ in range(5):
        house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
        together = threading.Barrier(4)

        def delete(_number: int, together: threading.Barrier = together) -> str:
            together.wait()
            try:
                return house.collections.delete(tenant.caller, "notes").name
            except NotFound:
                return "-"

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(delete, range(4))) == ["-", "-", "-", "notes"]


def test_writers_into_a_collection_that_keeps_being_deleted_see_no_errors(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    stop = threading.Event()
    counts = dict.fromkeys(("written", "patched", "removed", "searched", "deleted", "missed"), 0)

    def repeat(name: str, act: Callable[[int], object]) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                act(number)
                counts[name] += 1
            except NotFound:
                counts["missed"] += 1

    def write(number: int) -> None:
        house.memories.create_many(
            tenant.caller, "notes", [MemoryCreate(text=f"tea {number} {extra}") for extra in range(3)]
        )

    def some_id(number: int) -> UUID:
        found = house.memories.page(tenant.caller, "notes", MemoryFilter(limit=2))[0]
        if not found:
            raise NotFound("nothing there")
        return found[number % len(found)].id

    acts: list[tuple[str, Callable[[int], object]]] = [
        ("written", write),
        ("written", write),
        ("patched", lambda n: house.memories.patch(tenant.caller, "notes", some_id(n), MemoryPatch(text=f"new {n}"))),
        ("patched", lambda n: house.memories.patch(tenant.caller, "notes", some_id(n), MemoryPatch(text=f"old {n}"))),
        ("removed", lambda n: house.memories.delete(tenant.caller, "notes", some_id(n))),
        ("searched", lambda _: house.search.search(tenant.caller, "notes", SearchRequest(query="tea"))),
        ("deleted", lambda _: stop.wait(0.02) or house.collections.delete(tenant.caller, "notes")),
    ]
    with ThreadPoolExecutor(len(acts)) as pool:
        running = [pool.submit(repeat, name, act) for name, act in acts]
        stop.wait(2)
        stop.set()
        for work in running:
            work.result()
    assert all(counts[name] for name in ("written", "patched", "searched", "deleted")), counts
    assert as_owner.execute(
        """
        select count(*) from memories m where tenant_id = %s and (
            not exists (select from collections c where c.id = m.collection_id)
            or not exists (select from memory_vectors v where v.memory_id = m.id)
            or not exists (select from memory_terms t where t.memory_id = m.id))
        """,
        (tenant.id,),
    ).fetchone() == (0,)
