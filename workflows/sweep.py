"""Every minute: starts the drops that were accepted but never started, or that their workflow forgot."""

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.files import FileActivities
    from workflows.drop import DropWorkflow, workflow_id
    from workflows.policies import DATABASE, fair_to

SCHEDULE_ID = "sweep"


@workflow.defn
class SweepWorkflow:
    @workflow.run
    async def run(self) -> None:
        for batch in await workflow.execute_activity_method(FileActivities.list_stalled, **DATABASE):
            try:
                await workflow.start_child_workflow(
                    DropWorkflow.run,
                    batch,
                    id=workflow_id(batch.batch_id),
                    priority=fair_to(batch.tenant_id),
                    parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                )
            except WorkflowAlreadyStartedError:
                continue
