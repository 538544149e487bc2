"""Every few hours: removes batches whose week is over and objects that no row knows of, tenant after tenant."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.upkeep import UpkeepActivities
    from workflows.policies import CURATE, DATABASE

SCHEDULE_ID = "cleaning"


@workflow.defn
class CleaningWorkflow:
    @workflow.run
    async def run(self, after: str | None = None) -> None:
        tenants = await workflow.execute_activity_method(UpkeepActivities.list_tenants, after, **DATABASE)
        for tenant_id in tenants:
            await self._clean(tenant_id)
        if tenants:
            # One page of tenants a run: its history stays short however many there are.
            workflow.continue_as_new(tenants[-1])

    async def _clean(self, tenant_id: str) -> None:
        try:
            await workflow.execute_activity_method(UpkeepActivities.clean_tenant, tenant_id, **CURATE)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # The worker's log has it; the others are not to suffer from it.
