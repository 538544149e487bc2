"""Changes of memories: what a PATCH sets, what it keeps as history, also when two come at once."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from memory.errors import BadRequest, Invalid, NotFound, Unavailable
from memory.schemas import Memory, MemoryCreate, MemoryPatch, SearchRequest
from memory.services import Services
from memory.store import memories as store
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant


@pytest.fixture(autouse=True)
def _calm(words: WordEmbedder) -> Iterator[None]:
    yield
    words.down = False
    words.before_answer = lambda _texts: None


def _history(as_owner: Connection, memory_id: UUID) -> list[tuple[Any, ...]]:
    return as_owner.execute(
        "select version, text, valid_from, valid_to, reason, changed_by, changed_by_label from memory_versions "
        "where memory_id = %s order by version",
        (memory_id,),
    ).fetchall()


def test_a_patch_changes_what_was_sent_and_nothing_else(house: Services, tenant: Tenant) -> None:
    made = house.memories.create(
        tenant.caller,
        "notes",
        MemoryCreate(
            text="tea", metadata={"a": 1, "b": 2}, sequence="s", position=4, expires_at=datetime(2999, 1, 1, tzinfo=UTC)
        ),
    )
    expected = made.model_dump()
    changes: list[dict[str, Any]] = [
        {"importance": 0.1},
        {"category": "x"},
        {"metadata": {"c": 3}},
        {"sequence": None},
        {"position": None},
        {"expires_at": None},
        {"sequence": "t", "position": 0, "expires_at": datetime(2998, 1, 1, tzinfo=UTC), "metadata": {}},
        {"text": "coffee"},
    ]
    for number, sent in enumerate(changes, start=2):
        patch = MemoryPatch.model_validate(sent)
        answer = house.memories.patch(tenant.caller, "notes", made.id, patch)
        assert answer.updated_at > expected["updated_at"]
        expected |= {**sent, "version": number, "updated_at": answer.updated_at}
        if "text" in sent:
            expected["valid_from"] = answer.updated_at
        assert answer.model_dump() == expected
        assert house.memories.get(tenant.caller, "notes", made.id).model_dump() == expected


@pytest.mark.parametrize("name", ["text", "importance", "category", "metadata"])
def test_what_every_memory_has_is_not_set_to_null(house: Services, tenant: Tenant, name: str) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    with pytest.raises(Invalid, match=name):
        house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch.model_validate({name: None}))
    assert house.memories.get(tenant.caller, "notes", made.id) == made


def test_an_empty_patch_is_refused(house: Services, tenant: Tenant) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    with pytest.raises(BadRequest):
        house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch())
    with pytest.raises(BadRequest):
        house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch.model_validate({"unknown": 1}))


def test_a_patch_may_let_a_memory_expire_at_once(house: Services, tenant: Tenant) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    past = datetime.now(UTC) - timedelta(days=1)
    assert house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(expires_at=past)).expires_at == past
    with pytest.raises(NotFound):
        house.memories.get(tenant.caller, "notes", made.id)


def test_an_old_text_is_kept_as_history_and_leaves_search(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="green tea"))
    first = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(importance=0.2))
    second = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="black coffee"))
    third = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="cold milk"))
    assert _history(as_owner, made.id) == [
        (2, "green tea", made.valid_from, second.valid_from, "edited", tenant.caller.key_id, "main"),
        (3, "black coffee", second.valid_from, third.valid_from, "edited", tenant.caller.key_id, "main"),
    ]
    assert (first.version, second.version, third.version) == (2, 3, 4)
    for mode in ("text", "vector", "hybrid"):
        answers = {
            query: [
                hit.text
                for hit in house.search.search(tenant.caller, "notes", SearchRequest(query=query, mode=mode)).results
            ]
            for query in ("green tea", "black coffee", "cold milk")
        }
        assert answers == {"green tea": [], "black coffee": [], "cold milk": ["cold milk"]}, mode


def test_the_same_text_again_is_no_new_text(
    house: Services, tenant: Tenant, as_owner: Connection, words: WordEmbedder
) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    words.down = True
    again = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text=" tea ", importance=0.1))
    assert (again.text, again.importance, again.valid_from) == ("tea", 0.1, made.valid_from)
    assert _history(as_owner, made.id) == []


def test_without_the_embedder_a_new_text_is_refused_and_all_else_works(
    house: Services, tenant: Tenant, words: WordEmbedder
) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    words.down = True
    with pytest.raises(Unavailable):
        house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="coffee", importance=0.1))
    assert house.memories.get(tenant.caller, "notes", made.id) == made
    assert house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(importance=0.2)).importance == 0.2


def test_a_text_that_changes_while_a_patch_looks_away_is_kept_too(
    house: Services, tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    find = store.find
    looked: list[Memory | None] = []

    def find_then_change(*arguments: Any, **named: Any) -> Memory | None:
        found: Memory | None = find(*arguments, **named)
        if not looked:
            looked.append(found)
            as_owner.execute("update memories set text = 'coffee', version = 2 where id = %s", (made.id,))
        return found

    monkeypatch.setattr(store, "find", find_then_change)
    after = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="tea"))
    assert (after.text, after.version) == ("tea", 3)
    assert [row[:2] for row in _history(as_owner, made.id)] == [(2, "coffee")]


def test_history_has_no_negative_spans_when_clocks_differ(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea"))
    ahead = datetime.now(UTC) + timedelta(hours=1)
    as_owner.execute("update memories set valid_from = %s, updated_at = %s where id = %s", (ahead, ahead, made.id))
    after = house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="coffee"))
    [(_, _, valid_from, valid_to, *_)] = _history(as_owner, made.id)
    assert valid_from == ahead < valid_to == after.valid_from == after.updated_at


def test_patches_at_once_lose_nothing(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = house.memories.create(tenant.caller, "notes", MemoryCreate(text="start"))
    together = threading.Barrier(8)

    def patch(number: int) -> Memory:
        together.wait()
        sent: dict[str, Any] = {"text": f"text {number}"} if number % 2 else {"metadata": {"by": number}}
        return house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch.model_validate(sent))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(patch, range(8)))
    assert sorted(answer.version for answer in answers) == list(range(2, 10))
    last = house.memories.get(tenant.caller, "notes", made.id)
    assert last.version == 9
    history = _history(as_owner, made.id)
    assert sorted([*(row[1] for row in history), last.text]) == ["start", "text 1", "text 3", "text 5", "text 7"]
    spans = [(made.valid_from, made.valid_from), *((row[2], row[3]) for row in history), (last.valid_from, None)]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(row[2] < row[3] for row in history)
