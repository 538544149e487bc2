"""Memories against a model in memory: whatever is done in whatever order, what is read agrees with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from memory.errors import Conflict, Invalid, NotFound, PreconditionFailed
from memory.fate_schemas import HistoryPage
from memory.schemas import Memory, MemoryCreate, MemoryFilter, MemoryPatch, SearchRequest
from memory.services import Services

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


@dataclass(frozen=True)
class Known:
    """What the model knows of one memory; `order` stands for its age."""

    id: UUID
    order: int
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
    past: tuple[str, ...] = ()

    @property
    def expired(self) -> bool:
        return self.expires_at == PAST

    def changed(self, sent: dict[str, Any]) -> "Known":
        past = self.past if sent.get("text", self.text) == self.text else (*self.past, self.text)
        return replace(self, **sent, past=past, version=self.version + 1)


def _shown(memory: Memory) -> dict[str, Any]:
    names = set(Known.__dataclass_fields__) - {"order", "past"}
    return memory.model_dump(include=names)


def _expected(known: Known) -> dict[str, Any]:
    return {name: value for name, value in vars(known).items() if name not in ("order", "past")}


class Machine(RuleBasedStateMachine):
    house: Services

    @initialize()
    def begin(self) -> None:
        made = self.house.accounts.create_tenant(email=f"{uuid4()}@example.org")
        self.caller = self.house.accounts.authenticate(made.api_key)
        self.known: dict[UUID, Known] = {}
        self.order = 0

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

    # What is read

    @invariant()
    def every_memory_is_as_the_model_knows_it(self) -> None:
        for known in self.known.values():
            if known.expired:
                with pytest.raises(NotFound):
                    self.house.memories.get(self.caller, known.collection, known.id)
                continue
            assert _shown(self.house.memories.get(self.caller, known.collection, known.id)) == _expected(known)
            versions, total = self.house.memories.history(self.caller, known.collection, known.id, HistoryPage())
            assert tuple(one.text for one in reversed(versions)) == (*known.past, known.text)
            assert total == len(versions)

    @invariant()
    def listings_counts_and_search_agree(self) -> None:
        for collection in COLLECTIONS:
            current = self._listed(collection)
            self._assert_listed(collection, current)
            self._assert_listed(collection, self._listed(collection, archived=True), include_archived=True)
            self._assert_listed(collection, [one for one in current if one.container_tag == "t"], container_tag="t")
            self._assert_listed(collection, [one for one in current if one.category == "drink"], category="drink")
            mode = ("text", "vector", "hybrid")[self.order % 3]
            wanted = SearchRequest.model_validate({"query": "tea", "mode": mode, "limit": 50, "min_score": 0})
            found = self.house.search.search(self.caller, collection, wanted).results
            assert {hit.id for hit in found} == {one.id for one in current}, mode
        counts = {
            found.name: found.memory_count
            for found in self.house.collections.page(self.caller, limit=10, offset=0)[0]
            if found.memory_count
        }
        expected = {name: len(self._listed(name)) for name in COLLECTIONS}
        assert counts == {name: count for name, count in expected.items() if count}

    # The model's own

    def _store(self, collection: str, made: Memory, item: dict[str, Any]) -> None:
        before = self._named(collection, item["container_tag"], item["external_id"])
        if before is None:
            assert made.id not in self.known
            self.order += 1
            self.known[made.id] = Known(made.id, self.order, collection, **item)
        else:
            assert made.id == before.id
            sent = {name: value for name, value in item.items() if name not in ("container_tag", "external_id")}
            if before.expired:
                sent.setdefault("expires_at", None)
            self.known[made.id] = replace(before.changed(sent), archived=False)
        assert _shown(made) == _expected(self.known[made.id])

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
        known = sorted(self.known.values(), key=lambda one: one.order)
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
        return sorted(shown, key=lambda one: (one.pinned, one.order), reverse=True)

    def _assert_listed(self, collection: str, expected: Sequence[Known], **wanted: Any) -> None:
        found, total = self.house.memories.page(self.caller, collection, MemoryFilter(limit=200, **wanted))
        assert [_shown(memory) for memory in found] == [_expected(one) for one in expected]
        assert total == len(expected)


def test_memories_agree_with_their_model(house: Services) -> None:
    class OnPostgres(Machine):
        pass

    OnPostgres.house = house
    run_state_machine_as_test(
        OnPostgres,
        settings=settings(
            max_examples=10,
            stateful_step_count=15,
            # Each step talks to Postgres: a failure is shown as it came, not after minutes of making it smaller.
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
