"""Fates: pinned, archived, moved, forgotten; what a version guards; what happens when two act at once."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory.agents import GrantWanted
from memory.errors import AppError, Conflict, Forbidden, NotFound, PreconditionFailed, Unavailable
from memory.fate_schemas import ForgetRequest, ForgetResponse, RelatedWanted
from memory.schemas import Caller, Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.services import Services
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant


@pytest.fixture(autouse=True)
def _calm(words: WordEmbedder) -> Iterator[None]:
    yield
    words.down = False


def _make(house: Services, tenant: Tenant, text: str = "tea", collection: str = "notes", **sent: Any) -> Memory:
    return house.memories.create(tenant.caller, collection, MemoryCreate(text=text, **sent))


def _texts(house: Services, tenant: Tenant, collection: str = "notes", **wanted: Any) -> list[str]:
    found, total = house.memories.page(tenant.caller, collection, MemoryFilter(**wanted))
    assert total == len(found)
    return [memory.text for memory in found]


def _forget(house: Services, tenant: Tenant, query: str, collection: str = "notes", **wanted: Any) -> ForgetResponse:
    return house.fates.forget(tenant.caller, collection, ForgetRequest(query=query, **wanted))


def _versions(as_owner: Connection, tenant: Tenant) -> dict[str, int]:
    rows = as_owner.execute(
        "select c.name, sum(v.version)::int from collection_versions v join collections c "
        "on c.id = v.collection_id where v.tenant_id = %s group by 1",
        (tenant.id,),
    )
    return dict(rows.fetchall())


def _audit(as_owner: Connection, tenant: Tenant) -> list[tuple[Any, ...]]:
    return as_owner.execute(
        "select action, resource, actor_label from audit where tenant_id = %s order by created_at", (tenant.id,)
    ).fetchall()


# Pin and archive


def test_a_pinned_memory_comes_first_and_is_else_as_it_was(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant, "first")
    _make(house, tenant, "second")
    pinned = house.fates.pin(tenant.caller, "notes", made.id, True)
    assert pinned.model_dump() == {**made.model_dump(), "pinned": True, "version": 2}
    assert house.memories.get(tenant.caller, "notes", made.id) == pinned
    assert _texts(house, tenant) == ["first", "second"]
    unpinned = house.fates.pin(tenant.caller, "notes", made.id, False)
    assert (unpinned.pinned, unpinned.updated_at) == (False, made.updated_at)
    assert _texts(house, tenant) == ["second", "first"]


def test_an_archived_memory_leaves_listings_and_search_and_is_kept(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant, "green tea")
    archived = house.fates.archive(tenant.caller, "notes", made.id, True)
    assert archived.model_dump() == {**made.model_dump(), "archived": True, "version": 2}
    assert house.memories.get(tenant.caller, "notes", made.id) == archived
    assert (_texts(house, tenant), _texts(house, tenant, include_archived=True)) == ([], ["green tea"])
    assert house.search.search(tenant.caller, "notes", SearchRequest(query="green tea")).results == []
    assert house.collections.get(tenant.caller, "notes").memory_count == 0


def test_a_restored_memory_counts_as_fresh(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant)
    house.fates.archive(tenant.caller, "notes", made.id, True)
    before = datetime.now(UTC)
    restored = house.fates.archive(tenant.caller, "notes", made.id, False)
    assert restored.archived is False
    assert restored.updated_at >= before
    assert restored.valid_from == made.valid_from
    assert _texts(house, tenant) == ["tea"]


def test_the_same_mark_again_changes_nothing(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _make(house, tenant)
    marks: list[Callable[..., Memory]] = [house.fates.pin, house.fates.archive]
    for mark in marks:
        assert mark(tenant.caller, "notes", made.id, False) == made
    assert _versions(as_owner, tenant) == {"notes": 1}
    assert [action for action, *_ in _audit(as_owner, tenant)] == ["memory.create"]


def test_every_fate_raises_the_version_and_is_in_the_audit_log(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    made = _make(house, tenant)
    acts: list[tuple[str, Callable[[], object]]] = [
        ("memory.pin", lambda: house.fates.pin(tenant.caller, "notes", made.id, True)),
        ("memory.unpin", lambda: house.fates.pin(tenant.caller, "notes", made.id, False)),
        ("memory.archive", lambda: house.fates.archive(tenant.caller, "notes", made.id, True)),
        ("memory.restore", lambda: house.fates.archive(tenant.caller, "notes", made.id, False)),
        ("memory.forget", lambda: _forget(house, tenant, "tea")),
    ]
    for number, (action, act) in enumerate(acts, start=2):
        act()
        assert _versions(as_owner, tenant) == {"notes": number}
        last, resource, label = _audit(as_owner, tenant)[-1]
        assert (last, label) == (action, "main")
        assert "tea" not in resource


# Move


def test_a_moved_memory_is_the_same_elsewhere(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _make(house, tenant, "green tea", container_tag="t", external_id="e")
    house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="black coffee"))
    as_owner.execute("update memory_vectors set segment = 0 where memory_id = %s", (made.id,))
    before = house.memories.get(tenant.caller, "notes", made.id)
    moved = house.fates.move(tenant.caller, "notes", made.id, "drinks")
    assert moved.model_dump() == {
        **before.model_dump(),
        "collection": "drinks",
        "version": 3,
        "updated_at": moved.updated_at,
    }
    with pytest.raises(NotFound):
        house.memories.get(tenant.caller, "notes", made.id)
    assert house.memories.get(tenant.caller, "drinks", made.id) == moved
    assert (_texts(house, tenant), _texts(house, tenant, "drinks")) == ([], ["black coffee"])
    for mode in ("text", "vector"):
        wanted = SearchRequest(query="black coffee", mode=mode)
        assert house.search.search(tenant.caller, "notes", wanted).results == []
        assert [hit.id for hit in house.search.search(tenant.caller, "drinks", wanted).results] == [made.id]
    segment = "select segment from memory_vectors where memory_id = %s"
    assert as_owner.execute(segment, (made.id,)).fetchall() == [(1,)]
    assert _versions(as_owner, tenant) == {"notes": 3, "drinks": 1}
    assert _audit(as_owner, tenant)[-1][0] == "memory.move"


def test_a_move_home_is_none(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _make(house, tenant)
    assert house.fates.move(tenant.caller, "notes", made.id, "notes") == made
    assert _versions(as_owner, tenant) == {"notes": 1}


def test_a_move_that_fails_makes_no_collection(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant)
    with pytest.raises(NotFound):
        house.fates.move(tenant.caller, "notes", uuid4(), "drinks")
    with pytest.raises(PreconditionFailed):
        house.fates.move(tenant.caller, "notes", made.id, "drinks", versions=frozenset({9}))
    assert [found.name for found in house.collections.page(tenant.caller, limit=9, offset=0)[0]] == ["notes"]


def test_a_move_onto_a_taken_name_is_a_conflict(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant, external_id="e")
    taken = _make(house, tenant, "coffee", "drinks", external_id="e")
    with pytest.raises(Conflict):
        house.fates.move(tenant.caller, "notes", made.id, "drinks")
    assert house.memories.get(tenant.caller, "notes", made.id) == made
    # Archived it still has its name; under another tag it never was the same; expired it is not there.
    house.fates.archive(tenant.caller, "drinks", taken.id, True)
    with pytest.raises(Conflict):
        house.fates.move(tenant.caller, "notes", made.id, "drinks")
    tagged = _make(house, tenant, external_id="e", container_tag="t")
    assert house.fates.move(tenant.caller, "notes", tagged.id, "drinks").collection == "drinks"
    past = datetime.now(UTC) - timedelta(seconds=1)
    house.memories.patch(tenant.caller, "drinks", taken.id, MemoryPatch(expires_at=past))
    assert house.fates.move(tenant.caller, "notes", made.id, "drinks").external_id == "e"


def test_moves_at_once_lose_and_double_nothing(house: Services, tenant: Tenant) -> None:
    made = [_make(house, tenant, f"tea {number}", external_id=str(number)) for number in range(6)]
    places = ["notes", "a", "b"]
    together = threading.Barrier(6)

    def wander(number: int) -> None:
        together.wait()
        for step in range(12):
            memory = made[(number + step) % 6]
            for place in places:
                try:
                    house.fates.move(tenant.caller, place, memory.id, places[(number + step) % 3])
                except (NotFound, Conflict):
                    continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(wander, range(6)))
    assert sorted(text for place in places for text in _texts(house, tenant, place)) == [f"tea {n}" for n in range(6)]
    for place in places:
        wanted = SearchRequest(query="tea", limit=50, min_score=0)
        found = sorted(hit.text for hit in house.search.search(tenant.caller, place, wanted).results)
        assert found == sorted(_texts(house, tenant, place))


# Forget


def test_what_means_the_same_goes_and_the_rest_stays(house: Services, tenant: Tenant) -> None:
    gone = [_make(house, tenant, text) for text in ("green tea", "green tea now", "tea green")]
    _make(house, tenant, "quarterly report")
    _make(house, tenant, "green tea", "others")
    answer = _forget(house, tenant, "green tea", min_score=0.6)
    assert (answer.deleted, answer.would_delete, answer.skipped_pinned, answer.dry_run) == (3, 0, 0, False)
    # The nearest first.
    assert set(answer.ids) == {memory.id for memory in gone}
    assert answer.ids[2] == gone[1].id
    assert _texts(house, tenant) == ["quarterly report"]
    assert _texts(house, tenant, "others") == ["green tea"]
    assert _forget(house, tenant, "green tea", min_score=0.6).deleted == 0


def test_a_dry_run_shows_what_would_go(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = [_make(house, tenant, "tea " + "x" * 500), _make(house, tenant, "tea")]
    _make(house, tenant, "report")
    before = _versions(as_owner, tenant)
    answer = _forget(house, tenant, "tea", dry_run=True, min_score=0.3)
    assert (answer.dry_run, answer.deleted, answer.would_delete) == (True, 0, 2)
    assert answer.ids == [preview.id for preview in answer.memories] == [made[1].id, made[0].id]
    assert [len(preview.text) for preview in answer.memories] == [3, 200]
    assert 1 >= answer.memories[0].score > answer.memories[1].score >= 0.3
    assert len(_texts(house, tenant)) == 3
    assert _versions(as_owner, tenant) == before
    assert _forget(house, tenant, "tea", min_score=0.3).ids == answer.ids


def test_erasure_reaches_what_nobody_sees_and_not_what_is_pinned(
    house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    archived, superseded, expired, pinned, tagged = (
        _make(house, tenant, "tea", container_tag=tag) for tag in (None, None, None, None, "t")
    )
    house.fates.archive(tenant.caller, "notes", archived.id, True)
    as_owner.execute("update memories set is_latest = false where id = %s", (superseded.id,))
    house.memories.patch(
        tenant.caller, "notes", expired.id, MemoryPatch(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    )
    house.fates.pin(tenant.caller, "notes", pinned.id, True)
    assert _forget(house, tenant, "tea", container_tag="u").deleted == 0
    assert _forget(house, tenant, "tea", container_tag="t").ids == [tagged.id]
    answer = _forget(house, tenant, "tea")
    assert (set(answer.ids), answer.skipped_pinned) == ({archived.id, superseded.id}, 1)
    assert _texts(house, tenant) == ["tea"]


def test_pinned_ones_do_not_stand_in_the_way(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text="tea")] * 100)
    house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text="tea")] * 50)
    as_owner.execute("update memories set pinned = true where tenant_id = %s", (tenant.id,))
    far = _make(house, tenant, "tea with milk")
    answer = _forget(house, tenant, "tea", limit=1, min_score=0.1)
    assert (answer.ids, answer.skipped_pinned) == ([far.id], 150)


def test_no_more_go_than_the_limit(house: Services, tenant: Tenant) -> None:
    house.memories.create_many(tenant.caller, "notes", [MemoryCreate(text="tea")] * 25)
    assert _forget(house, tenant, "tea").deleted == 10
    assert _forget(house, tenant, "tea", limit=100).deleted == 15


def test_an_unknown_collection_has_nothing_to_forget_and_is_not_made(house: Services, tenant: Tenant) -> None:
    assert _forget(house, tenant, "tea") == ForgetResponse(dry_run=False)
    assert _forget(house, tenant, "tea", dry_run=True) == ForgetResponse(dry_run=True)
    assert house.collections.page(tenant.caller, limit=1, offset=0) == ([], 0)


def test_without_the_embedder_nothing_is_forgotten(house: Services, tenant: Tenant, words: WordEmbedder) -> None:
    _make(house, tenant)
    words.down = True
    with pytest.raises(Unavailable):
        _forget(house, tenant, "tea")
    assert _texts(house, tenant) == ["tea"]


# Related


def test_related_are_the_nearest_others_that_are_current(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    made = _make(house, tenant, "green tea")
    near, nearer = _make(house, tenant, "green grass over there"), _make(house, tenant, "green tea cup")
    tagged = _make(house, tenant, "tea", container_tag="t")
    hidden = [_make(house, tenant, "green tea") for _ in range(3)]
    _make(house, tenant, "green tea", "others")
    house.fates.archive(tenant.caller, "notes", hidden[0].id, True)
    as_owner.execute("update memories set is_latest = false where id = %s", (hidden[1].id,))
    house.memories.patch(
        tenant.caller, "notes", hidden[2].id, MemoryPatch(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    )

    def related(memory: Memory = made, **wanted: Any) -> list[UUID]:
        found = house.memories.related(tenant.caller, "notes", memory.id, RelatedWanted(**wanted))
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        assert all(hit.vector_score == hit.score and hit.text_score is None for hit in found)
        return [hit.id for hit in found]

    assert set(related()) == {near.id, nearer.id, tagged.id}
    assert related(limit=1) == [nearer.id]
    assert near.id not in related(min_score=0.6)
    # An archived one has neighbours too.
    assert related(hidden[0], limit=2)[0] == made.id
    for collection, memory_id in (("others", made.id), ("notes", uuid4()), ("notes", hidden[2].id)):
        with pytest.raises(NotFound):
            house.memories.related(tenant.caller, collection, memory_id, RelatedWanted())


# Versions


def test_a_version_that_has_passed_changes_nothing(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant)
    acts: list[Callable[[frozenset[int] | None], object]] = [
        lambda seen: house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(text="x"), versions=seen),
        lambda seen: house.memories.patch(tenant.caller, "notes", made.id, MemoryPatch(importance=0), versions=seen),
        lambda seen: house.fates.pin(tenant.caller, "notes", made.id, True, versions=seen),
        lambda seen: house.fates.archive(tenant.caller, "notes", made.id, True, versions=seen),
        lambda seen: house.fates.move(tenant.caller, "notes", made.id, "notes", versions=seen),
        lambda seen: house.memories.delete(tenant.caller, "notes", made.id, versions=seen),
    ]
    for act in acts:
        for passed in (frozenset({2}), frozenset[int]()):
            with pytest.raises(PreconditionFailed):
                act(passed)
    assert house.memories.get(tenant.caller, "notes", made.id) == made
    for act in acts:
        version = house.memories.get(tenant.caller, "notes", made.id).version
        act(frozenset({version, 99}))
    assert _texts(house, tenant, include_archived=True) == []


def test_of_changes_to_one_version_at_once_one_is_made(house: Services, tenant: Tenant) -> None:
    made = _make(house, tenant)
    together = threading.Barrier(8)

    def patch(number: int) -> str:
        together.wait()
        sent = MemoryPatch.model_validate({"text": f"text {number}"} if number % 2 else {"position": number})
        try:
            house.memories.patch(tenant.caller, "notes", made.id, sent, versions=frozenset({1}))
        except AppError as error:
            return type(error).__name__
        return "changed"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(patch, range(8))) == ["PreconditionFailed"] * 7 + ["changed"]
    assert house.memories.get(tenant.caller, "notes", made.id).version == 2


# Grants


@pytest.fixture
def agents(house: Services, tenant: Tenant, as_owner: Connection) -> Callable[..., Caller]:
    """Another agent of the tenant, with rights in the collection `closed`."""

    def make(*, can_read: bool, can_write: bool) -> Caller:
        key_id = uuid4()
        as_owner.execute(
            "insert into keys (tenant_id, id, hash, prefix, is_main, read_only) "
            "values (%s, %s, %s, 'mv_', false, false)",
            (tenant.id, key_id, key_id.bytes),
        )
        house.grants.put(
            tenant.caller, "closed", GrantWanted(agent_key_id=key_id, can_read=can_read, can_write=can_write)
        )
        return Caller(tenant.id, key_id, has_grants=True)

    return make


def test_both_ends_of_a_move_must_be_writable(house: Services, tenant: Tenant, agents: Callable[..., Caller]) -> None:
    made = _make(house, tenant)
    writer, reader = agents(can_read=True, can_write=True), agents(can_read=True, can_write=False)
    inside = house.memories.create(writer, "closed", MemoryCreate(text="secret"))
    with pytest.raises(Forbidden):
        house.fates.move(reader, "notes", made.id, "closed")
    with pytest.raises(Forbidden):
        house.fates.move(reader, "closed", inside.id, "notes")
    assert house.fates.move(writer, "closed", inside.id, "notes").collection == "notes"
    assert house.fates.move(writer, "notes", made.id, "closed").collection == "closed"


def test_a_reader_looks_and_changes_nothing(house: Services, tenant: Tenant, agents: Callable[..., Caller]) -> None:
    writer, reader = agents(can_read=True, can_write=True), agents(can_read=True, can_write=False)
    outsider = agents(can_read=False, can_write=False)
    made = house.memories.create(writer, "closed", MemoryCreate(text="tea", external_id="e"))
    looks: list[Callable[[Caller], object]] = [
        lambda caller: house.memories.related(caller, "closed", made.id, RelatedWanted()),
        lambda caller: house.fates.forget(caller, "closed", ForgetRequest(query="tea", dry_run=True)),
    ]
    changes: list[Callable[[Caller], object]] = [
        lambda caller: house.fates.pin(caller, "closed", made.id, True),
        lambda caller: house.fates.archive(caller, "closed", made.id, True),
        lambda caller: house.memories.create(caller, "closed", MemoryCreate(text="x", external_id="e")),
        lambda caller: house.fates.forget(caller, "closed", ForgetRequest(query="tea")),
    ]
    for look in looks:
        look(reader)
    read_only = dataclasses.replace(reader, read_only=True)
    for act, refused in [(look, [outsider]) for look in looks] + [
        (change, [outsider, reader, read_only]) for change in changes
    ]:
        for caller in refused:
            with pytest.raises(Forbidden):
                act(caller)
    assert house.memories.get(reader, "closed", made.id) == made
