"""History: what a memory said before, and the chain of what superseded what."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory.errors import NotFound
from memory.fate_schemas import HistoryPage, MemoryVersion
from memory.schemas import Memory, MemoryCreate, MemoryPatch
from memory.services import Services
from tests.memory.conftest import Connection, Tenant


def _make(house: Services, tenant: Tenant, text: str) -> Memory:
    return house.memories.create(tenant.caller, "notes", MemoryCreate(text=text))


def _history(house: Services, tenant: Tenant, memory_id: UUID, **page: Any) -> list[MemoryVersion]:
    return house.memories.history(tenant.caller, "notes", memory_id, HistoryPage(**page))[0]


def _supersede(as_owner: Connection, old: Memory, new: Memory) -> None:
    as_owner.execute(
        "update memories set is_latest = false, superseded_by = %s, superseded_reason = %s, valid_to = %s "
        "where id = %s",
        (new.id, f"now: {new.text}", new.valid_from, old.id),
    )


def test_a_memory_that_never_changed_has_one_version(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant, "tea")
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(importance=0.1))
    assert _history(house, tenant, made.id) == [
        MemoryVersion(
            id=made.id,
            version=2,
            text="tea",
            valid_from=made.valid_from,
            valid_to=None,
            superseded_by=None,
            reason=None,
            changed_by=None,
        )
    ]


def test_versions_are_newest_first_and_leave_no_gap(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant, "0")
    for number in range(1, 5):
        house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text=str(number)))
    versions = _history(house, tenant, made.id)
    assert [(one.text, one.version) for one in versions] == [("4", 5), ("3", 4), ("2", 3), ("1", 2), ("0", 1)]
    assert all(older.valid_to == newer.valid_from for newer, older in pairwise(versions))
    assert {one.id for one in versions} == {made.id}
    assert {(one.reason, one.changed_by.id if one.changed_by else None) for one in versions[1:]} == {
        ("edited", tenant.caller.key_id)
    }
    assert _history(house, tenant, made.id, limit=2, offset=1) == versions[1:3]
    past_the_end = house.memories.history(tenant.caller, "notes", made.id, HistoryPage(offset=99))
    assert past_the_end == ([], 5)


def test_the_whole_chain_is_shown_from_each_of_its_links(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    first, branch, second, third = (_make(house, tenant, text) for text in ("first", "branch", "second", "third"))
    _make(house, tenant, "bystander")
    house.memories.patch(tenant.caller, "notes", first.id, MemoryPatch(text="first, edited"))
    for old, new in ((first, second), (branch, second), (second, third)):
        _supersede(as_owner, old, new)
    whole = _history(house, tenant, third.id)
    assert [one.text for one in whole] == ["first, edited", "third", "second", "branch", "first"]
    assert [one.reason for one in whole] == ["now: second", None, "now: third", "now: second", "edited"]
    assert [one.superseded_by for one in whole] == [second.id, None, third.id, second.id, None]
    assert [one.changed_by is None for one in whole] == [False, True, False, False, False]
    for link in (first, branch, second):
        assert _history(house, tenant, link.id) == whole


def test_a_circle_ends(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    first, second = _make(house, tenant, "first"), _make(house, tenant, "second")
    _supersede(as_owner, first, second)
    _supersede(as_owner, second, first)
    assert [one.text for one in _history(house, tenant, first.id)] == ["second", "first"]


def test_links_that_expired_or_moved_away_are_not_shown(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    first, second, third = (_make(house, tenant, text) for text in ("first", "second", "third"))
    _supersede(as_owner, first, second)
    _supersede(as_owner, second, third)
    past = datetime.now(UTC) - timedelta(seconds=1)
    house.memories.patch(tenant.caller, "notes", second.id, MemoryPatch(expires_at=past))
    assert [one.text for one in _history(house, tenant, third.id)] == ["third", "first"]
    house.fates.move(tenant.caller, "notes", first.id, "others")
    assert [one.text for one in _history(house, tenant, third.id)] == ["third"]


def test_the_past_of_a_deleted_memory_is_gone(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _make(house, tenant, "tea")
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="coffee"))
    house.memories.delete(tenant.caller, "notes", made.id)
    for memory_id in (made.id, uuid4()):
        with pytest.raises(NotFound):
            _history(house, tenant, memory_id)
    assert as_owner.execute("select count(*) from memory_versions where memory_id = %s", (made.id,)).fetchone() == (0,)
