"""Cached search against an in-memory model: random operations, and agreement at every step."""

import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from memory.agents import GrantWanted, KeyCreate
from memory.errors import Forbidden
from memory.schemas import Caller, Memory, MemoryCreate, MemoryPatch, SearchRequest
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

    def __init__(self, house: Services, processes: Processes, tenant: Tenant, stranger: Tenant) -> None:
        super().__init__()
        self.house = house
        self.processes = processes
        self.caller = tenant.caller
        self.stranger = stranger.caller
        self.known: dict[UUID, Known] = {}
        key = house.accounts.create_key(tenant.caller, KeyCreate(label="agent"))
        self.keys = (tenant.headers["Authorization"].removeprefix("Bearer "), key.api_key)
        self.agent_id = key.id
        # Restricted collections, and whether the agent may read them; who does all the rest always may.
        self.restricted: dict[str, bool] = {}

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
            self.restricted.pop(collection, None)

    @rule(collection=_COLLECTIONS, agent_reads=st.booleans())
    def restrict(self, collection: str, agent_reads: bool) -> None:
        assert self.caller.key_id is not None
        for key_id, reads in ((self.caller.key_id, True), (self.agent_id, agent_reads)):
            wanted = GrantWanted(agent_key_id=key_id, can_read=reads, can_write=reads)
            self.house.grants.put(self.caller, collection, wanted)
        self.restricted[collection] = agent_reads
        self.caller = self.house.accounts.authenticate(self.keys[0])

    @rule(collection=_COLLECTIONS)
    def reopen(self, collection: str) -> None:
        if collection in self.restricted:
            assert self.caller.key_id is not None
            for key_id in (self.agent_id, self.caller.key_id):
                self.house.grants.delete(self.caller, collection, key_id)
            del self.restricted[collection]

    @rule(collection=st.sampled_from(["red", "blue", None]))
    def look_as_agent(self, collection: str | None) -> None:
        agent = self.house.accounts.authenticate(self.keys[1])
        closed = {name for name, reads in self.restricted.items() if not reads}
        if collection in closed:
            for process in self.processes:
                with pytest.raises(Forbidden):
                    process.search(agent, collection, ask("tea", mode="text"))
        else:
            self.check(ask("tea", mode="text"), collection, agent, closed)

    @invariant()
    def nobody_else_sees_anything(self) -> None:
        for process in self.processes:
            assert process.search(self.stranger, None, ask("tea", mode="text")).results == []

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

    def check(
        self,
        asked: SearchRequest,
        collection: str | None,
        caller: Caller | None = None,
        closed: AbstractSet[str] = frozenset(),
    ) -> None:
        caller = caller or self.caller
        before, around = self.expected(asked, collection, closed), self.unexpired()
        first, second = self.processes
        answers = [process.search(caller, collection, asked) for process in (first, second, first)]
        uncached = self.house.search.search(caller, collection, asked)
        after = self.expected(asked, collection, closed)
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

    def expected(self, asked: SearchRequest, collection: str | None, closed: AbstractSet[str]) -> "dict[UUID, Memory]":
        now = datetime.now(UTC)
        return {
            memory_id: known.memory
            for memory_id, known in self.known.items()
            if collection in (None, known.collection)
            and known.collection not in closed
            and known.visible(now, archived=asked.include_archived)
            and asked.query in known.memory.text.split()
        }


def test_cached_search_agrees_with_a_model_at_every_step(
    processes: Processes, house: Services, new_tenant: Callable[[], Tenant]
) -> None:
    class Ours(Operations):
        def __init__(self) -> None:
            super().__init__(house, processes, new_tenant(), new_tenant())

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
