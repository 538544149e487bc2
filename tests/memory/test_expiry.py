"""Expiry: gone for everybody at once, and from the tables at the next sweep."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory import expiry as rules
from memory.errors import NotFound
from memory.fate_schemas import ForgetRequest, HistoryPage, RelatedWanted
from memory.schemas import Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.services import Services
from memory.store import memories as store
from memory.store.database import Session
from tests.memory.conftest import Connection, Tenant

PAST = datetime.now(UTC) - timedelta(days=1)
LATER = datetime(2999, 1, 1, tzinfo=UTC)


def _make(house: Services, tenant: Tenant, text: str = "tea", collection: str = "notes", **sent: Any) -> Memory:
    return house.memories.create(tenant.caller, collection, MemoryCreate(text=text, **sent))


def _left(as_owner: Connection, tenant: Tenant) -> set[str]:
    rows = as_owner.execute("select text from memories where tenant_id = %s", (tenant.id,)).fetchall()
    return {text for (text,) in rows}


def test_an_expired_memory_is_nowhere_before_it_is_swept(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    stays = _make(house, tenant, "tea that stays")
    gone = _make(house, tenant, "tea that goes", metadata={"a": 1})
    house.memories.patch(tenant.caller, "notes", gone.id, MemoryPatch(expires_at=PAST))
    caller = tenant.caller
    everything = MemoryFilter(include_archived=True, include_superseded=True)
    assert [memory.id for memory in house.memories.page(caller, "notes", everything)[0]] == [stays.id]
    for mode in ("hybrid", "text", "vector"):
        for filters in ({}, {"metadata_filter": {"a": 1}}, {"include_archived": True}):
            wanted = SearchRequest.model_validate({"query": "tea", "mode": mode, "min_score": 0, **filters})
            assert gone.id not in [hit.id for hit in house.search.search(caller, "notes", wanted).results]
    assert house.memories.related(caller, "notes", stays.id, RelatedWanted()) == []
    assert house.fates.forget(caller, "notes", ForgetRequest(query="tea that goes", dry_run=True)).ids == [stays.id]
    assert house.collections.get(caller, "notes").memory_count == 1
    acts: list[Callable[[], object]] = [
        lambda: house.memories.get(caller, "notes", gone.id),
        lambda: house.memories.history(caller, "notes", gone.id, HistoryPage()),
        lambda: house.memories.related(caller, "notes", gone.id, RelatedWanted()),
        lambda: house.memories.patch(caller, "notes", gone.id, MemoryPatch(expires_at=LATER)),
        lambda: house.memories.delete(caller, "notes", gone.id),
        lambda: house.fates.pin(caller, "notes", gone.id, True),
        lambda: house.fates.archive(caller, "notes", gone.id, True),
        lambda: house.fates.move(caller, "notes", gone.id, "others"),
    ]
    for act in acts:
        with pytest.raises(NotFound):
            act()
    assert _left(as_owner, tenant) == {"tea that stays", "tea that goes"}


def test_the_sweep_removes_what_has_expired_and_nothing_else(
    house: Services, new_tenant: Callable[..., Tenant], as_owner: Connection
) -> None:
    tenant, other = new_tenant(), new_tenant()
    _make(house, tenant, "stays")
    _make(house, tenant, "stays for long", expires_at=LATER)
    pinned = _make(house, tenant, "pinned")
    house.fates.pin(tenant.caller, "notes", pinned.id, True)
    house.memories.patch(tenant.caller, "notes", pinned.id, MemoryPatch(expires_at=PAST))
    _make(house, tenant, "archived", expires_at=PAST, external_id="e")
    _make(house, tenant, "elsewhere", "others", expires_at=PAST)
    _make(house, other, "other", expires_at=PAST)
    assert {tenant.id, other.id} <= set(house.expiry.due())

    assert house.expiry.sweep(tenant.id) is False

    assert _left(as_owner, tenant) == {"stays", "stays for long"}
    assert _left(as_owner, other) == {"other"}
    assert tenant.id not in house.expiry.due()
    action, resource, actor_id, label = as_owner.execute(
        "select action, resource, actor_id, actor_label from audit where tenant_id = %s order by created_at desc",
        (tenant.id,),
    ).fetchall()[0]
    assert (action, resource, actor_id, label) == ("memory.expire", "3 memories", None, "system")
    versions = as_owner.execute(
        "select sum(v.version)::int from collection_versions v join collections c on c.id = v.collection_id "
        "where v.tenant_id = %s group by c.name order by c.name",
        (tenant.id,),
    ).fetchall()
    assert versions == [(7,), (2,)]
    assert house.expiry.sweep(tenant.id) is False
    assert house.expiry.sweep(other.id) is False


def test_it_goes_in_batches(
    house: Services, tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_MEMORIES_AT_ONCE", 3)
    house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text="tea", expires_at=PAST)] * 7)
    assert [house.expiry.sweep(tenant.id) for _ in range(3)] == [True, True, False]
    assert _left(as_owner, tenant) == set()


def test_files_go_with_the_last_memory_that_carried_them(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    first, second = _make(house, tenant, "first"), _make(house, tenant, "second")
    keys = {}
    for name, carriers in (("own", [first]), ("shared", [first, second])):
        file_id = uuid4()
        keys[name] = f"{tenant.id}/files/{file_id}"
        house.objects.put(keys[name], BytesIO(b"original"), max_bytes=100)
        as_owner.execute(
            "insert into files (tenant_id, id, filename, content_type, size, sha256, key, status) "
            "values (%s, %s, 'a.txt', 'text/plain', 8, '\\x00', %s, 'done')",
            (tenant.id, file_id, keys[name]),
        )
        for memory in carriers:
            as_owner.execute("insert into memory_files values (%s, %s, %s, 0)", (tenant.id, memory.id, file_id))
    house.memories.patch(tenant.caller, "notes", first.id, MemoryPatch(expires_at=PAST))
    house.expiry.sweep(tenant.id)
    with pytest.raises(NotFound):
        house.objects.get(keys["own"])
    assert house.objects.get(keys["shared"]) == b"original"


def test_who_is_given_more_time_meanwhile_stays(
    house: Services, tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _make(house, tenant, "tea", expires_at=PAST, external_id="e")
    look = store.expired

    def look_then_restore(session: Session, most: int) -> dict[UUID, UUID]:
        found = look(session, most)
        _make(house, tenant, "tea", external_id="e")
        return found

    monkeypatch.setattr(store, "expired", look_then_restore)
    assert house.expiry.sweep(tenant.id) is False
    assert house.memories.get(tenant.caller, "notes", made.id).expires_at is None
    assert as_owner.execute(
        "select count(*) from audit where tenant_id = %s and action = 'memory.expire'", (tenant.id,)
    ).fetchone() == (0,)
