"""One archive-stale: what was stale when it was asked for is archived, a batch at a time."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.curation import CurationActivities, Run
    from workflows.curation_run import work_through
    from workflows.policies import CURATE


@workflow.defn
class ArchiveStaleWorkflow:
    @workflow.run
    async def run(self, run: Run) -> None:
        async def step() -> bool:
            return await workflow.execute_activity_method(CurationActivities.archive_stale, run, **CURATE)

        await work_through(step, run)
