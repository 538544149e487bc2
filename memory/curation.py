"""Curation on request: what near-duplicates and stale memories there are, and the runs that make an end of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from memory.clusters import KeptCluster, clusters
from memory.curation_schemas import (
    Cluster,
    CurationOutcome,
    DedupReport,
    Duplicate,
    StaleArchived,
    StaleFound,
)
from memory.embedding import Embedding
from memory.errors import Forbidden, NotFound, Unavailable
from memory.grants import Grants
from memory.memories import linked
from memory.ports import ObjectStore
from memory.schemas import Caller
from memory.store import curation, memories
from memory.store import curation_runs as runs
from memory.store.curation_runs import NewRun
from memory.store.database import Database, Session

COMPARED = 500


@dataclass(frozen=True)
class OpenedDedup:
    """`run_id` None: there is nothing to delete. Else `planned` is what the run deletes."""

    run_id: UUID | None
    planned: DedupReport


@dataclass(frozen=True)
class OpenedArchiving:
    """`run_id` None: there is nothing to archive."""

    run_id: UUID | None
    older_than_days: int


class Curation:
    """Shows what could go, and opens the runs that make it go; workflows work through them."""

    def __init__(self, database: Database, grants: Grants, embedding: Embedding, objects: ObjectStore) -> None:
        self._database = database
        self._grants = grants
        self._embedding = embedding
        self._objects = objects

    def find_duplicates(self, caller: Caller, collection: str, threshold: float) -> DedupReport:
        """The clusters among the newest 500 current memories; an unknown collection has none. Raises Forbidden."""
        reach = self._grants.reach(caller)
        model_id = self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            candidates = [] if collection_id is None else curation.newest(session, collection_id, model_id, COMPARED)
            found = _shown(session, clusters(candidates, threshold))
        duplicates = sum(len(cluster.duplicates) for cluster in found)
        return DedupReport(
            dry_run=True,
            threshold=threshold,
            scanned=len(candidates),
            clusters=[_with_links(cluster, self._objects) for cluster in found],
            duplicates=duplicates,
            deleted=0,
        )

    def open_dedup(self, caller: Caller, collection: str, threshold: float) -> OpenedDedup:
        """Writes down what is to be deleted, as a run. Raises Forbidden."""
        _check_writes(caller)
        reach = self._grants.reach(caller)
        model_id = self._embedding.model_id
        planned = DedupReport(dry_run=False, threshold=threshold, scanned=0, clusters=[], duplicates=0, deleted=0)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            if collection_id is None:
                return OpenedDedup(None, planned)
            run, found = plan_dedup(session, model_id, collection_id, collection, threshold)
            runs.insert(session, caller, run)
            # Who may write here but not read learns numbers alone.
            shown = _shown(session, found) if reach.can_read(collection_id) else []
        planned = planned.model_copy(update={"scanned": run.scanned, "clusters": shown})
        return OpenedDedup(None if run.nothing_to_do else run.id, planned)

    def dedup_report(self, caller: Caller, opened: OpenedDedup) -> DedupReport:
        """What an ended run came to: of the planned clusters, what was deleted. Raises NotFound, Unavailable."""
        if opened.run_id is None:
            return opened.planned
        outcome = _succeeded(self._outcome(caller, opened.run_id))
        gone = set(outcome.ids)
        shown = [
            Cluster(keeper=cluster.keeper, duplicates=duplicates)
            for cluster in opened.planned.clusters
            if (duplicates := [duplicate for duplicate in cluster.duplicates if duplicate.id in gone])
        ]
        return opened.planned.model_copy(
            update={"clusters": shown, "duplicates": outcome.deleted, "deleted": outcome.deleted}
        )

    def find_stale(self, caller: Caller, collection: str, older_than_days: int) -> StaleFound:
        """What was not changed for so long; an unknown collection has none. Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            if collection_id is None:
                return StaleFound(older_than_days=older_than_days, would_archive=0, ids=[])
            counted, ids = curation.stale(session, collection_id, stale_before(older_than_days))
        return StaleFound(older_than_days=older_than_days, would_archive=counted, ids=ids)

    def open_archiving(self, caller: Caller, collection: str, older_than_days: int) -> OpenedArchiving:
        """Opens the run that archives what is stale now. Raises Forbidden."""
        _check_writes(caller)
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            if collection_id is None:
                return OpenedArchiving(None, older_than_days)
            run = plan_archiving(session, collection_id, collection, older_than_days)
            runs.insert(session, caller, run)
        return OpenedArchiving(None if run.nothing_to_do else run.id, older_than_days)

    def archiving_report(self, caller: Caller, opened: OpenedArchiving) -> StaleArchived:
        """What an ended run came to. Raises NotFound, Unavailable."""
        if opened.run_id is None:
            return StaleArchived(older_than_days=opened.older_than_days, archived=0, ids=[])
        outcome = _succeeded(self._outcome(caller, opened.run_id))
        return StaleArchived(older_than_days=opened.older_than_days, archived=outcome.archived, ids=outcome.ids)

    def run(self, caller: Caller, run_id: UUID) -> CurationOutcome:
        """Raises NotFound for an unknown or another tenant's run, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = runs.collection_of(session, run_id)
        if collection_id is not None and not (reach.can_read(collection_id) or reach.can_write(collection_id)):
            raise Forbidden("this key may not use the collection of this run")
        return self._outcome(caller, run_id)

    def has_ended(self, caller: Caller, run_id: UUID) -> bool:
        """The cheap question for those who wait."""
        with self._database.transaction(caller.tenant_id) as session:
            return runs.has_ended(session, run_id)

    def _outcome(self, caller: Caller, run_id: UUID) -> CurationOutcome:
        with self._database.transaction(caller.tenant_id) as session:
            found = runs.find(session, run_id)
        if found is None:
            raise NotFound("no such run")
        return found


def plan_dedup(
    session: Session, model_id: int, collection_id: UUID, collection: str, threshold: float, *, scheduled: bool = False
) -> tuple[NewRun, list[KeptCluster]]:
    """A run that deletes the duplicates among the newest memories as they are now."""
    candidates = curation.newest(session, collection_id, model_id, COMPARED)
    found = clusters(candidates, threshold)
    planned = [
        (duplicate.candidate.id, cluster.keeper.id, duplicate.similarity)
        for cluster in found
        for duplicate in cluster.duplicates
    ]
    run = NewRun(
        id=uuid4(),
        kind="dedup",
        collection_id=collection_id,
        collection=collection,
        scheduled=scheduled,
        nothing_to_do=not planned,
        scanned=len(candidates),
        threshold=threshold,
        planned=planned,
    )
    return run, found


def plan_archiving(
    session: Session, collection_id: UUID, collection: str, older_than_days: int, *, scheduled: bool = False
) -> NewRun:
    """A run that archives what has been left alone for so long now; what is changed before its turn is spared."""
    before = stale_before(older_than_days)
    counted, _ = curation.stale(session, collection_id, before)
    return NewRun(
        id=uuid4(),
        kind="archive_stale",
        collection_id=collection_id,
        collection=collection,
        scheduled=scheduled,
        nothing_to_do=counted == 0,
        scanned=counted,
        older_than_days=older_than_days,
        stale_before=before,
    )


def stale_before(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _succeeded(outcome: CurationOutcome) -> CurationOutcome:
    if outcome.state == "failed":
        changed = outcome.deleted + outcome.archived
        raise Unavailable(f"run {outcome.run_id} ended early, after {changed} memories: {outcome.error}")
    return outcome


def _check_writes(caller: Caller) -> None:
    # Asked here, because the route is open to read-only keys for its dry runs.
    if caller.read_only:
        raise Forbidden("this key is read-only: it can do dry runs, search and read, not write")


def _with_links(cluster: Cluster, objects: ObjectStore) -> Cluster:
    def link(duplicate: Duplicate) -> Duplicate:
        return duplicate.model_copy(update={"images": linked(duplicate, objects).images})

    return Cluster(
        keeper=linked(cluster.keeper, objects), duplicates=[link(duplicate) for duplicate in cluster.duplicates]
    )


def _shown(session: Session, found: Sequence[KeptCluster]) -> list[Cluster]:
    """The clusters with all that is known of their memories."""
    ids = [cluster.keeper.id for cluster in found]
    ids += [duplicate.candidate.id for cluster in found for duplicate in cluster.duplicates]
    known = {memory.id: memory for memory in memories.find_many(session, ids)}
    return [
        Cluster(
            keeper=known[cluster.keeper.id],
            duplicates=[
                Duplicate(**dict(known[duplicate.candidate.id]), similarity=duplicate.similarity)
                for duplicate in cluster.duplicates
                if duplicate.candidate.id in known
            ],
        )
        for cluster in found
        if cluster.keeper.id in known
    ]
