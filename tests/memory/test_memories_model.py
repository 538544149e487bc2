"""Memories against a model in memory: whatever is done in whatever order, what is read agrees with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from memory.adapters.local_cache import LocalCache
from memory.cache import CachedSearch
from memory.errors import Conflict, Invalid, NotFound, PreconditionFailed
from memory.fate_schemas import HistoryPage, MemoryVersion
from memory.schemas import CollectionCreate, Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.services import Services
from tests.memory.processes import plain_search

COLLECTIONS = ("a", "b", "c")
PAST, LATER = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)

collections = st.sampled_from(COLLECTIONS)
# One word is in all of them, so that a search for it finds whatever is there.
texts = st.sampled_from(["tea", "green tea", "black tea", "tea with milk", "no tea"])
tags = st.sampled_from([None, None, "t", "u"])
external_ids = st.sampled_from([None, "x", "y"])
times = st.sampled_from([None, LATER, PAST])
changes = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "importance": st.sampled_from([0.0, 0.5, 1.0]),
        "category": st.sampled_from(["other", "drink"]),
        "metadata": st.sampled_from([{}, {"a": 1}]),
        "expires_at": times,
    },
)
picks = st.integers(0, 30)


class Clock(datetime):
    """A clock that stands still until it is moved on, so that many memories are of the same age."""

    moment: ClassVar[datetime] = datetime(2020, 1, 1, tzinfo=UTC)

    @classmethod
    def now(cls, _tz: object = None) -> datetime:  # type: ignore[override]
        return cls.moment


@dataclass(frozen=True)
class Known:
    """What the model knows of one memory; `past` are the versions in which it said something else."""

    id: UUID
    created_at: datetime
    collection: str
    text: str
    container_tag: str | None
    external_id: str | None
    importance: float = 0.7
    category: str = "other"
    metadata: dict[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    pinned: bool = False
    archived: bool = False
    version: int = 1
    past: tuple[tuple[int, str], ...] = ()

    @property
    def expired(self) -> bool:
        return self.expires_at == PAST

    def changed(self, sent: dict[str, Any]) -> "Known":
        says_the_same = sent.get("text", self.text) == self.text
        past = self.past if says_the_same else (*self.past, (self.version, self.text))
        return replace(self, **sent, past=past, version=self.version + 1)


def _shown(memory: Memory) -> dict[str, Any]:
    return memory.model_dump(include=set(Known.__dataclass_fields__) - {"past"})


def _expected(known: Known) -> dict[str, Any]:
    return {name: value for name, value in vars(known).items() if name != "past"}


class Machine(RuleBasedStateMachine):
    house: Services

    @initialize()
    def begin(self) -> None:
        made = self.house.accounts.create_tenant(email=f"{uuid4()}@example.org")
        self.caller = self.house.accounts.authenticate(made.api_key)
        self.cached = CachedSearch(
            plain_search(self.house),
            database=self.house.database,
            grants=self.house.grants,
            objects=self.house.objects,
            cache=LocalCache(),
        )
        self.known: dict[UUID, Known] = {}
        # Each with the id that it must keep until it is deleted.
        self.collections: dict[str, UUID] = {}
        self.steps = 0

    # What is done

    @rule(collection=collections, text=texts, tag=tags, external_id=external_ids, sent=changes)
    def create(
        self, collection: str, text: str, tag: str | None, external_id: str | None, sent: dict[str, Any]
    ) -> None:
        item = {**sent, "text": text, "container_tag": tag, "external_id": external_id}
        made = self.house.memories.create(self.caller, collection, MemoryCreate.model_validate(item))
        self._store(collection, made, item)

    @rule(
        collection=collections,
        items=st.lists(st.tuples(texts, tags, external_ids), min_size=1, max_size=4),
    )
    def create_many(self, collection: str, items: list[tuple[str, str | None, str | None]]) -> None:
        wanted = [dict(zip(("text", "container_tag", "external_id"), item, strict=True)) for item in items]
        named = [(tag, external_id) for _, tag, external_id in items if external_id is not None]
        new = [MemoryCreate.model_validate(item) for item in wanted]
        if len(set(named)) < len(named):
            with pytest.raises(Invalid):
                self.house.memories.create_many(self.caller, collection, new)
            return
        made = self.house.memories.create_many(self.caller, collection, new)
        for memory, item in zip(made, wanted, strict=True):
            self._store(collection, memory, item)

    @rule(pick=picks, sent=changes, behind=st.integers(0, 1))
    def patch(self, pick: int, sent: dict[str, Any], behind: int) -> None:
        before = self._pick(pick)
        if before is None or not sent:
            return
        seen = frozenset({before.version - behind})
        try:
            self.house.memories.patch(
                self.caller, before.collection, before.id, MemoryPatch.model_validate(sent), versions=seen
            )
        except NotFound:
            assert before.expired
        except PreconditionFailed:
            assert behind
            assert not before.expired
        else:
            assert not behind
            assert not before.expired
            self.known[before.id] = before.changed(sent)

    @rule(pick=picks, pinned=st.booleans())
    def pin(self, pick: int, pinned: bool) -> None:
        self._mark(pick, "pinned", pinned)

    @rule(pick=picks, archived=st.booleans())
    def archive(self, pick: int, archived: bool) -> None:
        self._mark(pick, "archived", archived)

    @rule(pick=picks, to=collections)
    def move(self, pick: int, to: str) -> None:
        before = self._pick(pick)
        if before is None:
            return
        taken = self._named(to, before.container_tag, before.external_id)
        try:
            self.house.fates.move(self.caller, before.collection, before.id, to)
        except NotFound:
            assert before.expired
            return
        except Conflict:
            assert taken is not None
            assert not taken.expired
            return
        assert not before.expired
        if to == before.collection:
            return
        if taken is not None:
            assert taken.expired
            self.known[taken.id] = replace(taken, external_id=None)
        self.known[before.id] = replace(before, collection=to, version=before.version + 1)
        self._made(to)

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        before = self._pick(pick)
        if before is None:
            return
        try:
            self.house.memories.delete(self.caller, before.collection, before.id)
        except NotFound:
            assert before.expired
        else:
            assert not before.expired
            del self.known[before.id]

    @rule()
    def sweep(self) -> None:
        self.house.expiry.sweep(self.caller.tenant_id)
        self.known = {one.id: one for one in self.known.values() if not one.expired}

    @rule(name=collections)
    def create_collection(self, name: str) -> None:
        try:
            self.house.collections.create(self.caller, CollectionCreate(name=name))
        except Conflict:
            assert name in self.collections
        else:
            assert name not in self.collections
            self._made(name)

    @rule(name=collections)
    def delete_collection(self, name: str) -> None:
        try:
            gone = self.house.collections.delete(self.caller, name)
        except NotFound:
            assert name not in self.collections
            return
        assert gone.id == self.collections.pop(name)
        self.known = {one.id: one for one in self.known.values() if one.collection != name}

    @rule()
    def time_goes_by(self) -> None:
        Clock.moment += timedelta(seconds=1)

    # What is read

    @invariant()
    def every_memory_is_as_the_model_knows_it(self) -> None:
        for known in self.known.values():
            if known.expired:
                with pytest.raises(NotFound):
                    self.house.memories.get(self.caller, known.collection, known.id)
                continue
            assert _shown(self.house.memories.get(self.caller, known.collection, known.id)) == _expected(known)
            versions = self._history(known)
            assert [(one.version, one.text) for one in versions] == [*known.past, (known.version, known.text)]
            assert [one.valid_to for one in versions] == [*(one.valid_from for one in versions[1:]), None]
            assert {one.reason for one in versions[:-1]} <= {"edited"}

    @invariant()
    def listings_and_search_agree(self) -> None:
        self.steps += 1
        for collection in COLLECTIONS:
            current = self._listed(collection)
            self._assert_listed(collection, current)
            self._assert_listed(collection, [one for one in current if one.container_tag == "t"], container_tag="t")
            self._assert_listed(collection, [one for one in current if one.category == "drink"], category="drink")
            self._assert_paged(collection, self._listed(collection, archived=True), size=1 + self.steps % 3)
            mode = ("text", "vector", "hybrid")[self.steps % 3]
            wanted = SearchRequest.model_validate({"query": "tea", "mode": mode, "limit": 50, "min_score": 0})
            for again in (False, True):
                answer = self.cached.search(self.caller, collection, wanted)
                assert {hit.id for hit in answer.results} == {one.id for one in current}, mode
                assert answer.cached or not again or collection not in self.collections

    @invariant()
    def collections_are_there_with_their_counts(self) -> None:
        found, total = self.house.collections.page(self.caller, limit=10, offset=0)
        expected = [(name, self.collections[name], len(self._listed(name))) for name in sorted(self.collections)]
        assert [(one.name, one.id, one.memory_count) for one in found] == expected
        assert total == len(expected)

    # The model's own

    def _store(self, collection: str, made: Memory, item: dict[str, Any]) -> None:
        before = self._named(collection, item["container_tag"], item["external_id"])
        if before is None:
            assert made.id not in self.known
            self.known[made.id] = Known(made.id, made.created_at, collection, **item)
        else:
            assert made.id == before.id
            sent = {name: value for name, value in item.items() if name not in ("container_tag", "external_id")}
            if before.expired:
                sent.setdefault("expires_at", None)
            self.known[made.id] = replace(before.changed(sent), archived=False)
        assert _shown(made) == _expected(self.known[made.id])
        self._made(collection)

    def _made(self, collection: str) -> None:
        if collection not in self.collections:
            self.collections[collection] = self.house.collections.get(self.caller, collection).id

    def _mark(self, pick: int, mark: str, value: bool) -> None:
        before = self._pick(pick)
        if before is None:
            return
        act = self.house.fates.pin if mark == "pinned" else self.house.fates.archive
        try:
            act(self.caller, before.collection, before.id, value)
        except NotFound:
            assert before.expired
            return
        assert not before.expired
        if getattr(before, mark) != value:
            self.known[before.id] = before.changed({mark: value})

    def _pick(self, pick: int) -> Known | None:
        known = list(self.known.values())
        return known[pick % len(known)] if known else None

    def _named(self, collection: str, tag: str | None, external_id: str | None) -> Known | None:
        if external_id is None:
            return None
        name = (collection, tag, external_id)
        found = [one for one in self.known.values() if (one.collection, one.container_tag, one.external_id) == name]
        return found[0] if found else None

    def _listed(self, collection: str, *, archived: bool = False) -> list[Known]:
        shown = [
            one
            for one in self.known.values()
            if one.collection == collection and not one.expired and (archived or not one.archived)
        ]
        return sorted(shown, key=lambda one: (one.pinned, one.created_at, one.id), reverse=True)

    def _history(self, known: Known) -> list[MemoryVersion]:
        """Oldest first, read page by page."""
        size = 1 + self.steps % 3
        versions: list[MemoryVersion] = []
        for offset in range(0, len(known.past) + 2, size):
            wanted = HistoryPage(limit=size, offset=offset)
            page, total = self.house.memories.history(self.caller, known.collection, known.id, wanted)
            assert total == len(known.past) + 1
            versions += page
        return versions[::-1]

    def _assert_listed(self, collection: str, expected: Sequence[Known], **wanted: Any) -> None:
        found, total = self.house.memories.page(self.caller, collection, MemoryFilter(limit=200, **wanted))
        assert [_shown(memory) for memory in found] == [_expected(one) for one in expected]
        assert total == len(expected)

    def _assert_paged(self, collection: str, expected: Sequence[Known], *, size: int) -> None:
        found: list[UUID] = []
        for offset in range(0, len(expected) + 1, size):
            wanted = MemoryFilter(limit=size, offset=offset, include_archived=True)
            page, total = self.house.memories.page(self.caller, collection, wanted)
            assert total == len(expected)
            found += [memory.id for memory in page]
        assert found == [one.id for one in expected]


def _run(house: Services, monkeypatch: pytest.MonkeyPatch, *, examples: int, steps: int) -> None:
    monkeypatch.setattr("memory.memories.datetime", Clock)

    class OnPostgres(Machine):
        pass

    OnPostgres.house = house
    run_state_machine_as_test(
        OnPostgres,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            # Each step talks to Postgres: a failure is shown as it came, not after minutes of making it smaller.
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_memories_agree_with_their_model(house: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(house, monkeypatch, examples=10, steps=15)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_memories_agree_with_their_model_for_long(house: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(house, monkeypatch, examples=60, steps=50)
