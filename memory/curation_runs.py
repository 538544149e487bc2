"""Runs of curation worked through in steps, each of which may be repeated: what is done twice is done once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from memory.clusters import clusters
from memory.collections import remove_objects
from memory.curation_schemas import RunKind
from memory.embedding import Embedding
from memory.ports import ObjectStore
from memory.statistics import Statistics
from memory.store import changes, collections, curation, files, memories
from memory.store import curation_runs as runs
from memory.store.curation import Candidate
from memory.store.curation_runs import OpenRun
from memory.store.database import Database

CLUSTERS_A_STEP = 25
ARCHIVED_A_STEP = 500
COLLECTION_DELETED = "collection deleted"
MAX_REASON_CHARACTERS = 500

# What Temporal missed goes on with the schedule's next round; a start too many does no harm.
STALLED_AFTER = timedelta(seconds=20)
STALLED_AT_MOST = 500


@dataclass(frozen=True)
class WaitingRun:
    """A run that nobody works on."""

    tenant_id: UUID
    run_id: UUID
    kind: RunKind


class CurationRuns:
    """What the workflows of curation do, step by step."""

    def __init__(self, database: Database, embedding: Embedding, objects: ObjectStore, statistics: Statistics) -> None:
        self._database = database
        self._embedding = embedding
        self._objects = objects
        self._statistics = statistics

    def merge_clusters(self, tenant_id: UUID, run_id: UUID) -> bool:
        """Settles some of a dedup's clusters, each in a transaction of its own; false once the run has ended."""
        model_id = self._embedding.model_id
        run = self._claim(tenant_id, run_id)
        if run is None or run.collection_id is None:
            return False
        with self._database.transaction(tenant_id) as session:
            keepers = runs.pending_keepers(session, run_id, CLUSTERS_A_STEP)
        for keeper_id in keepers:
            self._merge(run, run.collection_id, model_id, keeper_id)
        if keepers:
            self._statistics.changed(tenant_id, run.collection_id)
        return self._is_left(tenant_id, run_id)

    def archive_stale(self, tenant_id: UUID, run_id: UUID) -> bool:
        """Archives some of a run's memories in one transaction; false once the run has ended."""
        run = self._claim(tenant_id, run_id)
        if run is None or run.collection_id is None or run.stale_before is None:
            return False
        with self._database.transaction(tenant_id) as session:
            if not collections.keep(session, run.collection_id):
                return True
            picked, archived = curation.archive_stale(
                session, tenant_id, run_id, run.collection_id, run.stale_before, ARCHIVED_A_STEP
            )
            if archived:
                resource = f"{archived} in collection {run.collection_id}"
                changes.record(session, run.asked_by, "curation.archive_stale", resource, [run.collection_id])
        # What was picked and not archived was changed meanwhile, and more may be stale behind it.
        return picked > 0 or self._is_left(tenant_id, run_id)

    def give_up(self, tenant_id: UUID, run_id: UUID, reason: str) -> None:
        """Ends a run as failed; what it did so far stays done. One that has ended is left alone."""
        with self._database.transaction(tenant_id) as session:
            runs.fail(session, run_id, reason[:MAX_REASON_CHARACTERS])

    def stalled(self) -> list[WaitingRun]:
        """Runs of all tenants that have not ended and that nothing has touched for a while."""
        with self._database.across() as session:
            found = runs.stalled(session, datetime.now(UTC) - STALLED_AFTER, STALLED_AT_MOST)
        return [WaitingRun(*run) for run in found]

    def _merge(self, run: OpenRun, collection_id: UUID, model_id: int, keeper_id: UUID) -> None:
        """Deletes the duplicates of one keeper as far as they still are what was planned: all of them, or none."""
        with self._database.transaction(run.asked_by.tenant_id) as session:
            if not collections.keep(session, collection_id):
                return
            planned = runs.hold_pending(session, run.id, keeper_id)
            if not planned:
                return
            held = files.hold_of_memories(session, planned)
            candidates = curation.hold(session, collection_id, model_id, [keeper_id, *planned])
            gone = _still_duplicates(candidates, keeper_id, run.threshold)
            memories.delete(session, gone)
            keys = files.release(session, held)
            runs.settle(session, run.id, planned, gone)
            if gone:
                resource = f"{len(gone)} duplicates of memory {keeper_id} in collection {collection_id}"
                changes.record(session, run.asked_by, "curation.dedup", resource, [collection_id])
        remove_objects(self._objects, keys)

    def _claim(self, tenant_id: UUID, run_id: UUID) -> OpenRun | None:
        with self._database.transaction(tenant_id) as session:
            run = runs.claim(session, run_id)
            if run is not None and run.collection_id is None:
                runs.fail(session, run_id, COLLECTION_DELETED)
        return run

    def _is_left(self, tenant_id: UUID, run_id: UUID) -> bool:
        with self._database.transaction(tenant_id) as session:
            return not runs.close(session, run_id)


def _still_duplicates(candidates: Sequence[Candidate], keeper_id: UUID, threshold: float | None) -> list[UUID]:
    """What the planned keeper still stands for; nothing when it has gone or another would be kept in its place."""
    if threshold is None:
        return []
    return [
        duplicate.candidate.id
        for cluster in clusters(candidates, threshold)
        if cluster.keeper.id == keeper_id
        for duplicate in cluster.duplicates
    ]
