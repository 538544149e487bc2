"""Memories to curate, and runs carried out as the workflow does it, for the tests of curation."""

from typing import Any
from uuid import UUID, uuid4

from memory.curation import OpenedDedup
from memory.curation_schemas import DedupReport, StaleArchived
from memory.schemas import Caller, Memory, MemoryCreate, MemoryFilter
from memory.services import Services
from tests.memory.conftest import Connection

NAME = "garden"
BEES = "bees dance to tell where flowers are"


def store(house: Services, caller: Caller, text: str, collection: str = NAME, **fields: Any) -> Memory:
    return house.memories.create(caller, collection, MemoryCreate(text=text, **fields))


def carry_out(house: Services, caller: Caller, opened: OpenedDedup) -> DedupReport:
    """Does what the workflow does."""
    if opened.run_id is not None:
        while house.curation_runs.merge_clusters(caller.tenant_id, opened.run_id):
            pass
    return house.curation.dedup_report(caller, opened)


def dedup(house: Services, caller: Caller, threshold: float = 0.95) -> DedupReport:
    return carry_out(house, caller, house.curation.open_dedup(caller, NAME, threshold))


def archive(house: Services, caller: Caller, days: int) -> StaleArchived:
    opened = house.curation.open_archiving(caller, NAME, days)
    if opened.run_id is not None:
        while house.curation_runs.archive_stale(caller.tenant_id, opened.run_id):
            pass
    return house.curation.archiving_report(caller, opened)


def shape(report: DedupReport) -> dict[UUID, set[UUID]]:
    return {cluster.keeper.id: {memory.id for memory in cluster.duplicates} for cluster in report.clusters}


def listed(house: Services, caller: Caller, collection: str = NAME) -> set[UUID]:
    page, _ = house.memories.page(caller, collection, MemoryFilter(limit=200))
    return {memory.id for memory in page}


def change(as_owner: Connection, memory_id: UUID, assignment: str) -> None:
    assert as_owner.execute(f"update memories set {assignment} where id = %s", (memory_id,)).rowcount == 1


def audit(as_owner: Connection, caller: Caller, action: str) -> list[tuple[Any, ...]]:
    return as_owner.execute(
        "select actor_id, actor_label, resource from audit where tenant_id = %s and action = %s order by created_at",
        (caller.tenant_id, action),
    ).fetchall()


def version(as_owner: Connection, caller: Caller) -> int:
    row = as_owner.execute(
        "select sum(version) from collection_versions where tenant_id = %s", (caller.tenant_id,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def aged(house: Services, caller: Caller, as_owner: Connection, days: int, **fields: Any) -> Memory:
    memory = store(house, caller, f"note {uuid4()}", **fields)
    change(as_owner, memory.id, f"updated_at = now() - interval '{days} days'")
    return memory
