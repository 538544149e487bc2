"""Policies of curation: what is set, when it is due, what it opens, and under whose name."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from memory.curation import plan_dedup
from memory.curation_runs import WaitingRun
from memory.curation_schemas import CurationPolicy, CurationPolicyUpdate
from memory.errors import BadRequest, Forbidden, NotFound
from memory.schemas import Caller, CollectionCreate, MemoryCreate
from memory.services import Services
from tests.memory.conftest import Connection, Tenant

NAME = "garden"


@pytest.fixture
def caller(house: Services, tenant: Tenant) -> Caller:
    house.collections.create(tenant.caller, CollectionCreate(name=NAME))
    return tenant.caller


def put(house: Services, caller: Caller, **fields: object) -> CurationPolicy:
    return house.policies.put(caller, NAME, CurationPolicyUpdate.model_validate(fields))


def due(house: Services, caller: Caller) -> list[WaitingRun]:
    """What the next round opens for this tenant."""
    return [run for run in house.policies.open_due() if run.tenant_id == caller.tenant_id]


def carry_out(house: Services, run: WaitingRun) -> None:
    step = house.curation_runs.merge_clusters if run.kind == "dedup" else house.curation_runs.archive_stale
    while step(run.tenant_id, run.run_id):
        pass


def later(as_owner: Connection, caller: Caller, hours: float) -> None:
    """Lets time pass for the tenant's policies."""
    as_owner.execute(
        "update curation_policies set next_run_at = next_run_at - %s where tenant_id = %s",
        (timedelta(hours=hours), caller.tenant_id),
    )


def test_everything_is_off_at_first(house: Services, caller: Caller) -> None:
    assert house.policies.show(caller, NAME) == CurationPolicy()
    assert due(house, caller) == []


def test_fields_are_set_one_by_one_and_null_turns_off(house: Services, caller: Caller) -> None:
    put(house, caller, dedup_threshold=0.9, stale_days=30)
    shown = put(house, caller, interval_hours=24, stale_days=None)

    assert (shown.dedup_threshold, shown.stale_days, shown.interval_hours) == (0.9, None, 24)
    assert house.policies.show(caller, NAME) == shown
    with pytest.raises(BadRequest):
        put(house, caller)


@pytest.mark.parametrize(
    "fields", [{"interval_hours": 1}, {"dedup_threshold": 0.9, "stale_days": 3}, {"interval_hours": None}]
)
def test_nothing_is_due_without_an_interval_and_something_to_do(
    house: Services, caller: Caller, fields: dict[str, object]
) -> None:
    assert put(house, caller, **fields).next_run_at is None
    assert due(house, caller) == []


def test_a_policy_runs_at_once_and_then_at_its_interval(house: Services, caller: Caller, as_owner: Connection) -> None:
    stored = house.memories.create_many(caller, NAME, [MemoryCreate(text="the same")] * 3)
    as_owner.execute(
        "update memories set updated_at = now() - interval '40 days' where tenant_id = %s", (caller.tenant_id,)
    )
    put(house, caller, dedup_threshold=0.9, stale_days=30, interval_hours=6)

    runs = due(house, caller)
    assert [run.kind for run in runs] == ["dedup", "archive_stale"]
    assert due(house, caller) == []
    for run in runs:
        carry_out(house, run)

    left = as_owner.execute("select id, archived from memories where tenant_id = %s", (caller.tenant_id,)).fetchall()
    assert left == [(stored[2].id, True)]
    shown = house.policies.show(caller, NAME)
    assert shown.last_run is not None
    assert shown.last_run.dedup is not None
    assert shown.last_run.archive_stale is not None
    assert (shown.last_run.dedup.state, shown.last_run.dedup.deleted) == ("done", 2)
    assert (shown.last_run.archive_stale.state, shown.last_run.archive_stale.archived) == ("done", 1)
    assert shown.last_run.dedup.scheduled
    assert shown.last_run.at == shown.last_run.dedup.created_at
    assert shown.next_run_at is not None
    assert timedelta(hours=5.9) < shown.next_run_at - datetime.now(UTC) < timedelta(hours=6)
    entries = as_owner.execute(
        "select actor_id, actor_label, action from audit where tenant_id = %s and actor_id is null order by created_at",
        (caller.tenant_id,),
    ).fetchall()
    assert entries == [(None, "curation", "curation.dedup"), (None, "curation", "curation.archive_stale")]

    later(as_owner, caller, 6)
    # Nothing is left to do, and yet it is seen that it was looked for.
    assert due(house, caller) == []
    again = house.policies.show(caller, NAME).last_run
    assert again is not None
    assert again.at > shown.last_run.at
    assert again.dedup is not None
    assert (again.dedup.state, again.dedup.scanned, again.dedup.deleted) == ("done", 0, 0)


def test_two_rounds_at_once_open_a_policy_once(house: Services, caller: Caller) -> None:
    house.memories.create_many(caller, NAME, [MemoryCreate(text="the same")] * 2)
    put(house, caller, dedup_threshold=0.9, interval_hours=6)

    with ThreadPoolExecutor(4) as pool:
        opened = [run for found in pool.map(lambda _: due(house, caller), range(4)) for run in found]

    assert len(opened) == 1


def test_a_shorter_interval_brings_the_next_run_nearer_and_a_longer_one_leaves_it(
    house: Services, caller: Caller
) -> None:
    put(house, caller, stale_days=30, interval_hours=24)
    due(house, caller)
    first = house.policies.show(caller, NAME).next_run_at
    longer = put(house, caller, interval_hours=100).next_run_at
    shorter = put(house, caller, interval_hours=1).next_run_at

    assert first is not None
    assert longer == first
    assert shorter is not None
    assert first - shorter > timedelta(hours=22)
    assert put(house, caller, interval_hours=None).next_run_at is None


def test_what_is_asked_for_by_hand_is_not_the_policys_last_run(house: Services, caller: Caller) -> None:
    house.memories.create_many(caller, NAME, [MemoryCreate(text="the same")] * 2)
    house.curation.open_dedup(caller, NAME, 0.9)
    assert house.policies.show(caller, NAME).last_run is None


def test_a_fault_over_one_collection_does_not_end_it_for_all(
    house: Services, new_tenant: Callable[..., Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = [new_tenant().caller for _ in range(2)]
    for caller in callers:
        house.memories.create_many(caller, NAME, [MemoryCreate(text="the same")] * 2)
        put(house, caller, dedup_threshold=0.9, interval_hours=6)

    broken = house.collections.get(callers[0], NAME).id

    def plan(session: object, model_id: int, collection_id: object, *args: object, **more: object) -> object:
        if collection_id == broken:
            raise ZeroDivisionError
        return plan_dedup(session, model_id, collection_id, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("memory.policies.plan_dedup", plan)
        opened = house.policies.open_due()
    assert {run.tenant_id for run in opened} & {caller.tenant_id for caller in callers} == {callers[1].tenant_id}
    # Not forgotten: it is due again.
    assert len(due(house, callers[0])) == 1


def test_who_may_see_and_set_it(house: Services, caller: Caller, new_tenant: Callable[..., Tenant]) -> None:
    reader = replace(caller, read_only=True, is_main=False)
    assert house.policies.show(reader, NAME) == CurationPolicy()
    with pytest.raises(Forbidden):
        house.policies.put(reader, NAME, CurationPolicyUpdate(stale_days=1))
    stranger = new_tenant().caller
    with pytest.raises(NotFound):
        house.policies.show(stranger, NAME)
    with pytest.raises(NotFound):
        house.policies.put(stranger, NAME, CurationPolicyUpdate(stale_days=1))
