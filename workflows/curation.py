"""Every minute: starts the runs of policies that are due, and those that were accepted and never started."""

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.curation import CurationActivities, Run, RunToStart
    from workflows.archive_stale import ArchiveStaleWorkflow
    from workflows.dedup import DedupWorkflow
    from workflows.policies import CURATE, fair_to

SCHEDULE_ID = "curation"
# The kinds of a run, as its row has them.
DEDUP = "dedup"


def workflow_id(kind: str, run_id: str) -> str:
    """The id comes from the row, so that starting twice is harmless."""
    return f"{kind.replace('_', '-')}-{run_id}"


@workflow.defn
class CurationWorkflow:
    @workflow.run
    async def run(self) -> None:
        for run in await workflow.execute_activity_method(CurationActivities.list_runs, **CURATE):
            try:
                await _start(run)
            except WorkflowAlreadyStartedError:
                continue


async def _start(run: RunToStart) -> None:
    await workflow.start_child_workflow(
        DedupWorkflow.run if run.kind == DEDUP else ArchiveStaleWorkflow.run,
        Run(run.tenant_id, run.run_id),
        id=workflow_id(run.kind, run.run_id),
        priority=fair_to(run.tenant_id),
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
    )
