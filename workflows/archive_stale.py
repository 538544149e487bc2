"""One archive-stale: what was stale when it was asked for is archived, a batch at a time."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.curation import CurationActivities, Run
    from workflows.curation_run import work_through


@workflow.defn
class ArchiveStaleWorkflow:
    @workflow.run
    async def run(self, run: Run) -> None:
        await work_through(CurationActivities.archive_stale, run)
