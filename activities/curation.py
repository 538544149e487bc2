"""The bench of curation: each method one repeatable step; what it does is said in memory/curation_runs.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from temporalio import activity

GIVEN_UP = "an internal error stopped it; the server's log says more"


@dataclass(frozen=True)
class Run:
    """One dedup or archive-stale of one tenant."""

    tenant_id: str
    run_id: str


@dataclass(frozen=True)
class RunToStart:
    """The same with its kind, which says what workflow it needs."""

    tenant_id: str
    run_id: str
    kind: str


class Waiting(Protocol):
    """A run as the rules tell of it."""

    @property
    def tenant_id(self) -> UUID: ...
    @property
    def run_id(self) -> UUID: ...
    @property
    def kind(self) -> str: ...


class CurationRuns(Protocol):
    """What this bench needs of the rules of runs."""

    def merge_clusters(self, tenant_id: UUID, run_id: UUID) -> bool: ...
    def archive_stale(self, tenant_id: UUID, run_id: UUID) -> bool: ...
    def give_up(self, tenant_id: UUID, run_id: UUID, reason: str) -> None: ...
    def stalled(self) -> Sequence[Waiting]: ...


class Policies(Protocol):
    """What this bench needs of the rules of policies."""

    def open_due(self) -> Sequence[Waiting]: ...


class CurationActivities:
    def __init__(self, runs: CurationRuns, policies: Policies) -> None:
        self._runs = runs
        self._policies = policies

    @activity.defn
    def merge_clusters(self, run: Run) -> bool:
        """Brings some clusters down to their keepers; true while more is to be done."""
        return self._runs.merge_clusters(UUID(run.tenant_id), UUID(run.run_id))

    @activity.defn
    def archive_stale(self, run: Run) -> bool:
        """Archives some stale memories; true while more is to be done."""
        return self._runs.archive_stale(UUID(run.tenant_id), UUID(run.run_id))

    @activity.defn
    def give_up_run(self, run: Run) -> None:
        """Ends a run as failed; one that has ended meanwhile stays as it is."""
        self._runs.give_up(UUID(run.tenant_id), UUID(run.run_id), GIVEN_UP)

    @activity.defn
    def list_runs(self) -> list[RunToStart]:
        """What the policies that are due have opened, and what has been left lying, of all tenants."""
        waiting = [*self._policies.open_due(), *self._runs.stalled()]
        return [RunToStart(str(run.tenant_id), str(run.run_id), run.kind) for run in waiting]
