"""One drop: its files read, chunked, embedded and stored, a few at a time, until every one is done or failed."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.files import Batch, FileActivities, GivenUp, LostFile, Portion
    from activities.heartbeats import WORKER_LOST
    from memory.errors import Misconfigured
    from workflows.policies import DATABASE, EMBED, READ_FILE

PORTIONS_AT_ONCE = 4
# One run's history stays around a thousand events; ten thousand files are a chain of runs.
LISTINGS_A_RUN = 10


def workflow_id(batch_id: str) -> str:
    """The id comes from the row, so that starting twice is harmless."""
    return f"drop-{batch_id}"


@workflow.defn
class DropWorkflow:
    @workflow.run
    async def run(self, batch: Batch) -> None:
        listed: set[str] = set()
        for _ in range(LISTINGS_A_RUN):
            portions = await workflow.execute_activity_method(FileActivities.list_unfinished, batch, **DATABASE)
            files = {file_id for portion in portions for file_id in portion}
            if files & listed:
                # Better a failed run, which the sweep starts again later, than one that turns in circles.
                raise ApplicationError("a file is unfinished after its processing", non_retryable=True)
            listed |= files
            slots = asyncio.Semaphore(PORTIONS_AT_ONCE)
            await asyncio.gather(*(self._ingest(Portion(batch.tenant_id, ids), slots) for ids in portions))
            if await workflow.execute_activity_method(FileActivities.close_batch, batch, **DATABASE):
                return
        workflow.continue_as_new(batch)

    async def _ingest(self, portion: Portion, slots: asyncio.Semaphore) -> None:
        async with slots:
            failure = await self._try(portion)
            if failure is None:
                return
            if len(portion.file_ids) == 1:
                await self._give_up(portion, failure)
                return
            # One of them spoils the portion: each by itself shows which.
            for file_id in portion.file_ids:
                single = Portion(portion.tenant_id, [file_id])
                failure = await self._try(single)
                if failure is not None:
                    await self._give_up(single, failure)

    async def _try(self, portion: Portion) -> ActivityError | None:
        try:
            await workflow.execute_activity_method(FileActivities.read_files, portion, **READ_FILE)
            await workflow.execute_activity_method(FileActivities.store_files, portion, **EMBED)
        except ActivityError as error:
            if is_cancelled_exception(error) or _is_no_fault_of_a_file(error):
                raise
            return error
        return None

    async def _give_up(self, single: Portion, failure: ActivityError) -> None:
        reason: GivenUp = "worker_lost" if _type(failure) == WORKER_LOST else "error"
        lost = LostFile(single.tenant_id, single.file_ids[0], reason)
        await workflow.execute_activity_method(FileActivities.give_up_file, lost, **DATABASE)


def _type(error: ActivityError) -> str | None:
    return error.cause.type if isinstance(error.cause, ApplicationError) else None


def _is_no_fault_of_a_file(error: ActivityError) -> bool:
    # The run fails then, and the sweep starts the drop again until the installation is mended.
    return _type(error) == Misconfigured.__name__
