"""Runs of curation: who may open one and see it, and how they end."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from memory.agents import GrantWanted
from memory.errors import Forbidden, NotFound
from memory.schemas import Caller
from memory.services import Services
from tests.memory.conftest import Connection, Tenant
from tests.memory.curating import BEES, NAME, carry_out, listed, store


def test_a_read_only_key_looks_and_does_not_touch(house: Services, caller: Caller) -> None:
    reader = replace(caller, key_id=None, read_only=True, is_main=False)
    for _ in range(2):
        store(house, caller, BEES)

    assert house.curation.find_duplicates(reader, NAME, 0.95).duplicates == 1
    assert house.curation.find_stale(reader, NAME, 0).would_archive == 2
    for collection in (NAME, "unknown"):
        with pytest.raises(Forbidden, match="read-only"):
            house.curation.open_dedup(reader, collection, 0.95)
        with pytest.raises(Forbidden, match="read-only"):
            house.curation.open_archiving(reader, collection, 0)


def test_grants_decide_who_looks_and_who_touches(house: Services, tenant: Tenant, as_owner: Connection) -> None:
    row = as_owner.execute(
        "insert into keys (tenant_id, id, hash, prefix, label) "
        "values (%s, gen_random_uuid(), %s, 'mv_agent', 'agent') returning id",
        (tenant.id, uuid4().bytes),
    ).fetchone()
    assert row is not None
    for _ in range(3):
        store(house, tenant.caller, BEES)
    main = replace(tenant.caller, has_grants=True)
    agent = Caller(tenant.id, row[0], "agent", has_grants=True)

    house.grants.put(main, NAME, GrantWanted(agent_key_id=row[0]))
    assert house.curation.find_duplicates(agent, NAME, 0.95).duplicates == 2
    assert house.curation.find_stale(agent, NAME, 0).would_archive == 3
    for refused in (agent, main):
        with pytest.raises(Forbidden):
            house.curation.open_dedup(refused, NAME, 0.95)
        with pytest.raises(Forbidden):
            house.curation.open_archiving(refused, NAME, 0)
    with pytest.raises(Forbidden):
        house.curation.find_duplicates(main, NAME, 0.95)
    with pytest.raises(Forbidden):
        house.curation.find_stale(main, NAME, 0)

    house.grants.put(main, NAME, GrantWanted(agent_key_id=row[0], can_read=False, can_write=True))
    opened = house.curation.open_dedup(agent, NAME, 0.95)
    assert opened.run_id is not None
    report = carry_out(house, agent, opened)
    assert (report.clusters, report.duplicates, report.deleted) == ([], 2, 2)
    assert house.curation.run(agent, opened.run_id).deleted == 2
    with pytest.raises(Forbidden):
        house.curation.run(main, opened.run_id)


def test_another_tenants_run_is_not_found(house: Services, new_tenant: Callable[..., Tenant]) -> None:
    mine, theirs = new_tenant().caller, new_tenant().caller
    for _ in range(2):
        store(house, mine, BEES)
    opened = house.curation.open_dedup(mine, NAME, 0.95)
    assert opened.run_id is not None

    for run_id in (opened.run_id, uuid4()):
        with pytest.raises(NotFound):
            house.curation.run(theirs, run_id)
    assert not house.curation_runs.merge_clusters(theirs.tenant_id, opened.run_id)
    assert len(listed(house, mine)) == 2


# Runs


def test_a_run_that_nobody_works_on_is_told_of(house: Services, caller: Caller, as_owner: Connection) -> None:
    for _ in range(2):
        store(house, caller, BEES)
    opened = house.curation.open_dedup(caller, NAME, 0.95)
    assert opened.run_id is not None
    assert opened.run_id not in {run.run_id for run in house.curation_runs.stalled()}
    as_owner.execute("update curation_runs set touched_at = now() - interval '1 day' where id = %s", (opened.run_id,))

    (told,) = [run for run in house.curation_runs.stalled() if run.run_id == opened.run_id]
    assert (told.tenant_id, told.kind) == (caller.tenant_id, "dedup")
    carry_out(house, caller, opened)
    assert opened.run_id not in {run.run_id for run in house.curation_runs.stalled()}


def test_a_run_that_is_given_up_keeps_its_reason_and_one_that_has_ended_its_end(
    house: Services, caller: Caller
) -> None:
    for _ in range(2):
        store(house, caller, BEES)
    opened = house.curation.open_dedup(caller, NAME, 0.95)
    assert opened.run_id is not None
    house.curation_runs.give_up(caller.tenant_id, opened.run_id, "?" * 10_000)
    house.curation_runs.give_up(caller.tenant_id, opened.run_id, "another")

    run = house.curation.run(caller, opened.run_id)
    assert (run.state, run.error) == ("failed", "?" * 500)
    assert not house.curation_runs.merge_clusters(caller.tenant_id, opened.run_id)
    assert len(listed(house, caller)) == 2


def test_runs_are_kept_for_a_week(house: Services, caller: Caller, as_owner: Connection) -> None:
    store(house, caller, BEES)
    for age in ("8 days", "6 days"):
        house.curation.open_dedup(caller, NAME, 0.95)
        as_owner.execute(
            "update curation_runs set ended_at = now() - %s::interval where tenant_id = %s and ended_at > now() - "
            "interval '1 minute'",
            (age, caller.tenant_id),
        )
    house.curation.open_dedup(caller, NAME, 0.95)

    kept = as_owner.execute("select count(*) from curation_runs where tenant_id = %s", (caller.tenant_id,))
    assert kept.fetchone() == (2,)
