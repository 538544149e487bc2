"""Memories under an external id: written again they change, whoever else writes at the same time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from memory.errors import Conflict, Invalid
from memory.fate_schemas import HistoryPage
from memory.schemas import Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.services import Services
from memory.settings import Settings
from memory.store import memories as store
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant

_ALL = MemoryFilter(include_archived=True, include_superseded=True)


@pytest.fixture(autouse=True)
def _calm(words: WordEmbedder) -> Iterator[None]:
    yield
    words.down = False
    words.before_answer = lambda _texts: None


def _put(house: Services, tenant: Tenant, text: str, external_id: str = "e", **sent: Any) -> Memory:
    return house.memories.create(tenant.caller, "notes", MemoryCreate(text=text, external_id=external_id, **sent))


def _count(house: Services, tenant: Tenant) -> int:
    return house.memories.page(tenant.caller, "notes", _ALL)[1]


def test_a_second_write_changes_what_it_sends_and_nothing_else(house: Services, tenant: Tenant) -> None:
    made = _put(
        house,
        tenant,
        "green tea",
        metadata={"a": 1},
        category="drink",
        source="crm",
        importance=0.1,
        sequence="s",
        position=3,
        expires_at=datetime(2999, 1, 1, tzinfo=UTC),
    )
    again = _put(house, tenant, "black coffee", importance=0.9, sequence=None)
    assert (made.version, again.version) == (1, 2)
    assert again.model_dump() == {
        **made.model_dump(),
        "text": "black coffee",
        "importance": 0.9,
        "sequence": None,
        "version": 2,
        "updated_at": again.updated_at,
        "valid_from": again.updated_at,
    }
    assert house.memories.get(tenant.caller, "notes", made.id) == again
    assert _count(house, tenant) == 1


def test_the_old_text_becomes_history_and_leaves_search(house: Services, tenant: Tenant) -> None:
    made = _put(house, tenant, "green tea")
    again = _put(house, tenant, "black coffee")
    versions, total = house.memories.history(tenant.caller, "notes", made.id, HistoryPage())
    assert total == 2
    assert [(one.text, one.valid_from, one.valid_to, one.reason) for one in versions] == [
        ("black coffee", again.valid_from, None, None),
        ("green tea", made.valid_from, again.valid_from, "edited"),
    ]
    for mode in ("text", "vector"):
        found = house.search.search(
            tenant.caller, "notes", SearchRequest(query="green tea", mode=mode, min_score=0.9)
        ).results
        assert found == [], mode


def test_the_name_holds_within_its_collection_and_its_tag(house: Services, new_tenant: Callable[..., Tenant]) -> None:
    tenant, other = new_tenant(), new_tenant()
    made = [
        _put(house, tenant, "one"),
        _put(house, tenant, "two", container_tag="a"),
        _put(house, tenant, "three", container_tag="b"),
        house.memories.create(tenant.caller, "others", MemoryCreate(text="four", external_id="e")),
        _put(house, other, "five"),
        _put(house, tenant, "six", external_id="E"),
    ]
    assert len({memory.id for memory in made}) == 6
    assert _put(house, tenant, "two again", container_tag="a").id == made[1].id
    assert _put(house, tenant, "one again").id == made[0].id
    assert house.memories.get(tenant.caller, "notes", made[2].id) == made[2]


def test_the_same_name_under_another_tag_is_not_waited_for(house: Services, tenant: Tenant, settings: Settings) -> None:
    others = _put(house, tenant, "theirs", container_tag="a")
    mine = [_put(house, tenant, "mine", container_tag=tag) for tag in (None, "b")]
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as holding:
        holding.execute("select from memories where id = %s for update", (others.id,))
        again = [_put(house, tenant, "again", container_tag=tag) for tag in (None, "b")]
    assert [memory.id for memory in again] == [memory.id for memory in mine]


def test_without_a_name_nothing_is_the_same(house: Services, tenant: Tenant) -> None:
    first, second = (house.memories.create(tenant.caller, "notes", MemoryCreate(text="tea")) for _ in range(2))
    assert first.id != second.id


def test_what_was_archived_or_expired_comes_back(house: Services, tenant: Tenant) -> None:
    made = _put(house, tenant, "tea")
    house.fates.archive(tenant.caller, "notes", made.id, True)
    back = _put(house, tenant, "tea")
    assert (back.id, back.archived) == (made.id, False)
    assert back.updated_at > made.updated_at
    past, later = datetime.now(UTC) - timedelta(seconds=1), datetime(2999, 1, 1, tzinfo=UTC)
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(expires_at=past))
    assert _put(house, tenant, "tea").expires_at is None
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(expires_at=past))
    assert _put(house, tenant, "tea", expires_at=later).expires_at == later
    # What has not expired keeps its time.
    assert _put(house, tenant, "tea").expires_at == later
    assert house.memories.page(tenant.caller, "notes", MemoryFilter())[0][0].id == made.id


def test_what_was_superseded_has_left_its_name(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _put(house, tenant, "tea")
    as_owner.execute("update memories set is_latest = false where id = %s", (made.id,))
    again = _put(house, tenant, "coffee")
    assert again.id != made.id
    assert house.memories.get(tenant.caller, "notes", made.id).text == "tea"


def test_a_bulk_mixes_new_and_known_in_its_order(house: Services, tenant: Tenant) -> None:
    known = [_put(house, tenant, f"old {number}", external_id=str(number)) for number in range(3)]
    wanted = [
        MemoryCreate(text="fresh"),
        MemoryCreate(text="new 2", external_id="2"),
        MemoryCreate(text="new 9", external_id="9"),
        MemoryCreate(text="new 0", external_id="0"),
        MemoryCreate(text="new 0, tagged", external_id="0", container_tag="a"),
    ]
    stored = house.memories.create_many(tenant.caller, "notes", wanted)
    assert [memory.text for memory in stored] == [item.text for item in wanted]
    assert [memory.version for memory in stored] == [1, 2, 1, 2, 1]
    assert (stored[1].id, stored[3].id) == (known[2].id, known[0].id)
    assert _count(house, tenant) == 6


def test_a_name_twice_in_one_bulk_is_refused_whole(house: Services, tenant: Tenant) -> None:
    wanted = [MemoryCreate(text="a", external_id="e"), MemoryCreate(text="b", external_id="e")]
    with pytest.raises(Invalid, match="external_id: 'e' stands twice"):
        house.memories.create_many(tenant.caller, "notes", wanted)
    assert house.collections.page(tenant.caller, limit=1, offset=0) == ([], 0)


def test_what_says_the_same_is_not_embedded_again(house: Services, tenant: Tenant, words: WordEmbedder) -> None:
    made = _put(house, tenant, "tea")
    words.down = True
    again = _put(house, tenant, "tea", importance=0.2)
    assert (again.id, again.importance, again.valid_from) == (made.id, 0.2, made.valid_from)
    words.down = False
    embedded: list[str] = []
    words.before_answer = embedded.extend
    wanted = [MemoryCreate(text="tea", external_id="e"), MemoryCreate(text="milk", external_id="m")]
    house.memories.create_many(tenant.caller, "notes", wanted)
    assert embedded == ["milk"]


def test_a_text_that_is_changed_meanwhile_is_changed_back(
    house: Services, tenant: Tenant, as_owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _put(house, tenant, "tea")
    look = store.texts_by_external_id
    looked: list[object] = []

    def look_then_change(*arguments: Any) -> Any:
        found = look(*arguments)
        if not looked:
            as_owner.execute("update memories set text = 'coffee' where id = %s", (made.id,))
        looked.append(found)
        return found

    monkeypatch.setattr(store, "texts_by_external_id", look_then_change)
    assert _put(house, tenant, "tea").text == "tea"
    assert len(looked) == 2
    assert [one.text for one in house.memories.history(tenant.caller, "notes", made.id, HistoryPage())[0]] == [
        "tea",
        "coffee",
    ]


def test_writers_of_one_name_at_once_make_one_memory(house: Services, tenant: Tenant) -> None:
    for tag in (None, "t"):
        together = threading.Barrier(8)

        def put(number: int, tag: str | None = tag, together: threading.Barrier = together) -> Memory:
            together.wait()
            return _put(house, tenant, f"text {number}", container_tag=tag, position=number)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(put, range(8)))
        assert len({answer.id for answer in answers}) == 1
        assert sorted(answer.version for answer in answers) == list(range(1, 9))
        versions, total = house.memories.history(tenant.caller, "notes", answers[0].id, HistoryPage())
        assert total == 8
        assert {one.text for one in versions} == {f"text {number}" for number in range(8)}
    assert _count(house, tenant) == 2


def test_bulks_that_share_names_in_another_order_do_not_wait_in_a_circle(house: Services, tenant: Tenant) -> None:
    names = [f"n{number}" for number in range(30)]
    together = threading.Barrier(6)

    def put(number: int) -> list[Memory]:
        order = names[number:] + names[:number]
        wanted = [MemoryCreate(text=f"{name} {number}", external_id=name) for name in order[:: (-1) ** number]]
        together.wait()
        return house.memories.create_many(tenant.caller, "notes", wanted)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(put, range(6)))
    assert len({memory.id for answer in answers for memory in answer}) == 30
    assert _count(house, tenant) == 30


def test_who_is_always_overtaken_is_told_so(house: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(house, tenant, "tea")
    monkeypatch.setattr(store, "hold_by_external_id", lambda *_arguments: {})
    with pytest.raises(Conflict):
        _put(house, tenant, "coffee")
    assert _count(house, tenant) == 1
