"""Policies of curation: what is done to a collection by itself, and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from memory.curation import plan_archiving, plan_dedup
from memory.curation_runs import WaitingRun
from memory.curation_schemas import CurationPolicy, CurationPolicyUpdate, LastRun
from memory.embedding import Embedding
from memory.errors import AppError, BadRequest, NotFound
from memory.grants import Grants
from memory.schemas import Caller
from memory.store import changes, collections, curation
from memory.store import curation_runs as runs
from memory.store.curation import Policy
from memory.store.database import Database, Session

OPENED_A_ROUND = 100
# Under this name the audit log shows what nobody asked for by hand.
ACTOR = "curation"

log = structlog.stdlib.get_logger(__name__)


class Policies:
    """Shows and sets the policy of a collection, and opens the runs that are due."""

    def __init__(self, database: Database, grants: Grants, embedding: Embedding) -> None:
        self._database = database
        self._grants = grants
        self._embedding = embedding

    def show(self, caller: Caller, collection: str) -> CurationPolicy:
        """Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = _known(reach.readable(session, collection), collection)
            return _shown(session, collection_id)

    def put(self, caller: Caller, collection: str, wanted: CurationPolicyUpdate) -> CurationPolicy:
        """Sets the fields that were sent; with an interval, the first runs begin at once.

        Raises BadRequest when there is none, NotFound, Forbidden.
        """
        fields = wanted.model_dump(exclude_unset=True)
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = _known(reach.changeable(session, collection), collection)
            if not fields:
                raise BadRequest("nothing to change: send `dedup_threshold`, `stale_days` or `interval_hours`")
            policy = replace(curation.find_policy(session, collection_id, for_update=True), **fields)
            curation.put_policy(session, caller.tenant_id, collection_id, _timed(policy, datetime.now(UTC)))
            shown = _shown(session, collection_id)
            changes.record(session, caller, "curation.policy", f"collection {collection_id}")
        return shown

    def open_due(self) -> list[WaitingRun]:
        """Opens the runs of every policy that is due, over all tenants, and tells which have something to do."""
        now = datetime.now(UTC)
        with self._database.across() as session:
            due = curation.due(session, now, OPENED_A_ROUND)
        opened: list[WaitingRun] = []
        for tenant_id, collection_id in due:
            try:
                opened += self._open(tenant_id, collection_id, now)
            except AppError:
                raise
            except Exception as error:  # noqa: BLE001  a fault over one collection must not end it for all
                # The kind alone: a message of Postgres may hold what a tenant wrote.
                log.error("policy not carried out", collection=str(collection_id), error=type(error).__name__)
        return opened

    def _open(self, tenant_id: UUID, collection_id: UUID, now: datetime) -> list[WaitingRun]:
        """The runs of one policy, and the time of the next ones, in one transaction: no round is opened twice."""
        model_id = self._embedding.model_id
        with self._database.transaction(tenant_id) as session:
            name = collections.keep_by_id(session, collection_id)
            policy = curation.find_policy(session, collection_id, for_update=True)
            if name is None or policy.interval_hours is None or policy.next_run_at is None or policy.next_run_at > now:
                return []
            planned = []
            if policy.dedup_threshold is not None:
                run, _ = plan_dedup(session, model_id, collection_id, name, policy.dedup_threshold, scheduled=True)
                planned.append(run)
            if policy.stale_days is not None:
                planned.append(plan_archiving(session, collection_id, name, policy.stale_days, scheduled=True))
            for run in planned:
                runs.insert(session, Caller(tenant_id, None, ACTOR), run)
            following = now + timedelta(hours=policy.interval_hours)
            curation.put_policy(session, tenant_id, collection_id, replace(policy, next_run_at=following))
        return [WaitingRun(tenant_id, run.id, run.kind) for run in planned if not run.nothing_to_do]


def _timed(policy: Policy, now: datetime) -> Policy:
    """With the time of its next runs: now for a policy that was off, no later than before for one that was on."""
    if policy.interval_hours is None or (policy.dedup_threshold is None and policy.stale_days is None):
        return replace(policy, next_run_at=None)
    latest = now + timedelta(hours=policy.interval_hours)
    return replace(policy, next_run_at=now if policy.next_run_at is None else min(policy.next_run_at, latest))


def _shown(session: Session, collection_id: UUID) -> CurationPolicy:
    policy = curation.find_policy(session, collection_id)
    last = runs.last_scheduled(session, collection_id)
    return CurationPolicy(
        **vars(policy),
        last_run=LastRun(
            at=max(run.created_at for run in last.values()),
            dedup=last.get("dedup"),
            archive_stale=last.get("archive_stale"),
        )
        if last
        else None,
    )


def _known(found: UUID | None, name: str) -> UUID:
    if found is None:
        raise NotFound(f"no collection named {name!r}")
    return found
