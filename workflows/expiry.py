"""Every few minutes: removes the memories whose time is over, which nobody sees any more, tenant after tenant."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.upkeep import UpkeepActivities
    from workflows.policies import DATABASE

SCHEDULE_ID = "expiry"
# One run's history stays below a thousand events; what is left waits for the next.
BATCHES_A_RUN = 100


@workflow.defn
class ExpiryWorkflow:
    @workflow.run
    async def run(self) -> None:
        waiting = await workflow.execute_activity_method(UpkeepActivities.list_tenants_with_expired, **DATABASE)
        for _ in range(BATCHES_A_RUN):
            if not waiting:
                return
            tenant_id = waiting.pop(0)
            if await self._has_more(tenant_id):
                # Behind the others: a tenant with very many must not keep them waiting.
                waiting.append(tenant_id)

    async def _has_more(self, tenant_id: str) -> bool:
        try:
            return await workflow.execute_activity_method(UpkeepActivities.sweep_expired, tenant_id, **DATABASE)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            # The worker's log has it; the others are not to suffer from it.
            return False
