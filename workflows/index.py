"""Every minute: indexes over vectors, one piece of work after the other, for as long as there is any."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.upkeep import UpkeepActivities
    from workflows.policies import BUILD

SCHEDULE_ID = "index"
# One run's history stays short; what is left waits for the next.
PIECES_A_RUN = 50


@workflow.defn
class IndexWorkflow:
    @workflow.run
    async def run(self) -> None:
        for _ in range(PIECES_A_RUN):
            if not await workflow.execute_activity_method(UpkeepActivities.build_index, **BUILD):
                return
