"""One dedup: its clusters brought down to their keepers, until each is settled."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.curation import CurationActivities, Run
    from workflows.curation_run import work_through
    from workflows.policies import CURATE


@workflow.defn
class DedupWorkflow:
    @workflow.run
    async def run(self, run: Run) -> None:
        async def step() -> bool:
            return await workflow.execute_activity_method(CurationActivities.merge_clusters, run, **CURATE)

        await work_through(step, run)
