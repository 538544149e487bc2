"""Cached search against an in-memory model: random operations, and agreement at every step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from memory.schemas import Memory, MemoryCreate, MemoryPatch, SearchRequest
from memory.services import Services
from tests.conftest import Tenant
from tests.memory.processes import Processes, ask

_SOON = timedelta(seconds=0.25)
_NEVER = datetime.max.replace(tzinfo=UTC)
_WORDS = st.lists(st.sampled_from(["tea", "moss", "iron", "fog"]), min_size=1, max_size=4).map(" ".join)
_COLLECTIONS = st.sampled_from(["red", "blue"])
_EXPIRIES = st.sampled_from([None, None, timedelta(hours=1), _SOON, timedelta(hours=-1)])


@dataclass
class Known:
    """A memory as the model has it."""

    memory: Memory
    collection: str

    def visible(self, now: datetime, *, archived: bool) -> bool:
        return (self.memory.expires_at or _NEVER) > now and (archived or not self.memory.archived)


class Operations(RuleBasedStateMachine):
    """What a tenant may do; after each step two processes must answer what is there."""

    def __init__(self, house: Services, processes: Processes, tenant: Tenant) -> None:
        super().__init__()
        self.house = house
        self.processes = processes
        self.caller = tenant.caller
        self.known: dict[UUID, Known] = {}

    def one(self, data: st.DataObject) -> Known | None:
        # What expires while it is being changed would be nobody's fault.
        until = datetime.now(UTC) + timedelta(minutes=1)
        lasting = [known for known in self.known.values() if known.visible(until, archived=True)]
        return data.draw(st.sampled_from(lasting)) if lasting else None

    @rule(collection=_COLLECTIONS, text=_WORDS, expires_in=_EXPIRIES)
    def create(self, collection: str, text: str, expires_in: timedelta | None) -> None:
        expires_at = None if expires_in is None else datetime.now(UTC) + expires_in
        wanted = MemoryCreate(text=text, expires_at=expires_at)
        made = self.house.memories.create(self.caller, collection, wanted)
        self.known[made.id] = Known(made, collection)

    @rule(data=st.data(), text=_WORDS)
    def rewrite(self, data: st.DataObject, text: str) -> None:
        if known := self.one(data):
            self.patch_it(known, MemoryPatch(text=text))

    @rule(data=st.data(), importance=st.sampled_from([0.1, 0.9]))
    def weigh(self, data: st.DataObject, importance: float) -> None:
        if known := self.one(data):
            self.patch_it(known, MemoryPatch(importance=importance))

    @rule(data=st.data(), expires_in=_EXPIRIES)
    def limit_life(self, data: st.DataObject, expires_in: timedelta | None) -> None:
        if known := self.one(data):
            expires_at = None if expires_in is None else datetime.now(UTC) + max(expires_in, _SOON)
            self.patch_it(known, MemoryPatch(expires_at=expires_at))

    def patch_it(self, known: Known, wanted: MemoryPatch) -> None:
        known.memory = self.house.memories.patch(self.caller, known.collection, known.memory.id, wanted)

    @rule(data=st.data(), archived=st.booleans())
    def archive(self, data: st.DataObject, archived: bool) -> None:
        if known := self.one(data):
            known.memory = self.house.fates.archive(self.caller, known.collection, known.memory.id, archived)

    @rule(data=st.data(), to=_COLLECTIONS)
    def move(self, data: st.DataObject, to: str) -> None:
        if known := self.one(data):
            known.memory = self.house.fates.move(self.caller, known.collection, known.memory.id, to)
            known.collection = to

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if known := self.one(data):
            self.house.memories.delete(self.caller, known.collection, known.memory.id)
            del self.known[known.memory.id]

    @rule(collection=_COLLECTIONS)
    def delete_collection(self, collection: str) -> None:
        if any(known.collection == collection for known in self.known.values()):
            self.house.collections.delete(self.caller, collection)
            self.known = {key: known for key, known in self.known.items() if known.collection != collection}

    @rule()
    def sweep(self) -> None:
        before = datetime.now(UTC)
        self.house.expiry.sweep(self.caller.tenant_id)
        self.known = {key: known for key, known in self.known.items() if known.visible(before, archived=True)}

    @rule()
    def wait(self) -> None:
        time.sleep(_SOON.total_seconds())

    @rule(
        word=st.sampled_from(["tea", "moss"]),
        hybrid=st.booleans(),
        collection=st.sampled_from(["red", "blue", None]),
        include_archived=st.booleans(),
    )
    def look(self, word: str, hybrid: bool, collection: str | None, include_archived: bool) -> None:
        # Nothing but itself is as near as that, so that both modes find what holds the word.
        mode = "hybrid" if hybrid else "text"
        self.check(ask(word, mode=mode, min_score=1.0, include_archived=include_archived), collection)

    @invariant()
    def agree(self) -> None:
        self.check(ask("tea", mode="text"), None)

    def check(self, asked: SearchRequest, collection: str | None) -> None:
        before, around = self.expected(asked, collection), self.unexpired()
        first, second = self.processes
        answers = [process.search(self.caller, collection, asked) for process in (first, second, first)]
        uncached = self.house.search.search(self.caller, collection, asked)
        after = self.expected(asked, collection)
        # Without it a cache that never answers would agree with everything. What expires meanwhile, found or not, makes
        # another answer.
        assert answers[-1].cached or not answers[-1].results or around != self.unexpired()
        for answer in (*answers, uncached):
            found = {hit.id: Memory.model_validate(dict(hit)) for hit in answer.results}
            # Some may expire while they are looked for.
            assert after.items() <= found.items() <= before.items()
            assert before != after or answer.results == uncached.results

    def unexpired(self) -> set[UUID]:
        now = datetime.now(UTC)
        return {memory_id for memory_id, known in self.known.items() if known.visible(now, archived=True)}

    def expected(self, asked: SearchRequest, collection: str | None) -> "dict[UUID, Memory]":
        now = datetime.now(UTC)
        return {
            memory_id: known.memory
            for memory_id, known in self.known.items()
            if collection in (None, known.collection)
            and known.visible(now, archived=asked.include_archived)
            and asked.query in known.memory.text.split()
        }


def test_cached_search_agrees_with_a_model_at_every_step(
    processes: Processes, house: Services, new_tenant: Callable[[], Tenant]
) -> None:
    class Ours(Operations):
        def __init__(self) -> None:
            super().__init__(house, processes, new_tenant())

    run_state_machine_as_test(
        Ours,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
