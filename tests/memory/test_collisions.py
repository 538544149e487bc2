"""Two different acts on the same memories at the same moment: one of them counts, and nothing is left half-done."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from memory.errors import AppError, NotFound
from memory.schemas import MemoryCreate, MemoryFilter, MemoryPatch
from memory.services import Services
from tests.conftest import Tenant
from tests.memory.curating import carry_out

_ROUNDS = 12


def _at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each of them answers or is refused with."""
    together = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        together.wait()
        try:
            return act()
        except AppError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def _texts(house: Services, tenant: Tenant, collection: str) -> list[str]:
    return [memory.text for memory in house.memories.page(tenant.caller, collection, MemoryFilter(limit=200))[0]]


def test_moved_and_deleted_at_once_it_is_one_of_both(house: Services, tenant: Tenant) -> None:
    for number in range(_ROUNDS):
        made = house.memories.create(tenant.caller, "from", MemoryCreate(text=f"tea {number}"))

        moved, deleted = _at_once(
            partial(house.fates.move, tenant.caller, "from", made.id, "to"),
            partial(house.memories.delete, tenant.caller, "from", made.id),
        )

        assert isinstance(moved, NotFound) != isinstance(deleted, NotFound)
        assert (made.text in _texts(house, tenant, "to")) is not isinstance(moved, NotFound)
    assert _texts(house, tenant, "from") == []
    counts = {found.name: found.memory_count for found in house.collections.page(tenant.caller, limit=9, offset=0)[0]}
    assert (counts["from"], counts.get("to", 0)) == (0, len(_texts(house, tenant, "to")))


def test_a_duplicate_that_is_changed_during_a_dedup_is_not_lost(house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    for _ in range(_ROUNDS):
        _, duplicate = house.memories.create_many(
            caller, "notes", [MemoryCreate(text="tea", importance=0.9), MemoryCreate(text="tea")]
        )
        opened = house.curation.open_dedup(caller, "notes", 0.99)

        report, patched = _at_once(
            partial(carry_out, house, caller, opened),
            partial(house.memories.patch, caller, "notes", duplicate.id, MemoryPatch(text="coffee")),
        )

        lost = isinstance(patched, NotFound)
        assert report.deleted == int(lost)
        assert sorted(_texts(house, tenant, "notes")) == (["tea"] if lost else ["coffee", "tea"])
        house.collections.delete(caller, "notes")


@pytest.mark.parametrize("act", ["pin", "archive"])
def test_what_is_marked_and_changed_at_once_is_both(house: Services, tenant: Tenant, act: str) -> None:
    mark = {"pin": house.fates.pin, "archive": house.fates.archive}[act]
    for _ in range(_ROUNDS):
        made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))

        answers = _at_once(
            partial(mark, tenant.caller, "notes", made.id, True),
            partial(house.memories.patch, tenant.caller, "notes", made.id, MemoryPatch(category="drink")),
        )

        after = house.memories.get(tenant.caller, "notes", made.id)
        assert sorted(answer.version for answer in answers) == [2, 3]
        assert (after.version, after.category, after.pinned or after.archived) == (3, "drink", True)
