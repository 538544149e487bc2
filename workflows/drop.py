"""One drop: its files read, chunked, embedded and stored, a few at a time, until every one is done or failed."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.files import Awaiting, Batch, FileActivities, GivenUp, Listing, LostFile, Portion, Unfinished
    from activities.heartbeats import WORKER_LOST
    from memory.errors import Misconfigured, Slow, Unavailable
    from workflows.policies import CAPTION, DATABASE, EMBED, READ_FILE, TRANSCRIBE

PORTIONS_AT_ONCE = 4
# Apart from the portions: what a model takes long over holds up no text.
TRANSCRIPTIONS_AT_ONCE = 2
CAPTIONS_AT_ONCE = 4
# One run's history stays around a thousand events; ten thousand files are a chain of runs.
LISTINGS_A_RUN = 10
# What these say was written for people; other errors are known by their name alone.
_TELLING = frozenset({Misconfigured.__name__, Slow.__name__, Unavailable.__name__})


def workflow_id(batch_id: str) -> str:
    """The id comes from the row, so that starting twice is harmless."""
    return f"drop-{batch_id}"


@workflow.defn
class DropWorkflow:
    def __init__(self) -> None:
        self._perceived: dict[str, asyncio.Task[None]] = {}
        self._hearing = asyncio.Semaphore(TRANSCRIPTIONS_AT_ONCE)
        self._seeing = asyncio.Semaphore(CAPTIONS_AT_ONCE)

    @workflow.run
    async def run(self, batch: Batch) -> None:
        listed: set[tuple[int, str]] = set()
        for _ in range(LISTINGS_A_RUN):
            unfinished = await self._list(batch)
            portions = unfinished.portions
            # A file that failed and is taken up again is in another round.
            files = {(unfinished.round, file_id) for portion in portions for file_id in portion}
            if files & listed:
                # Better a failed run, which the sweep starts again later, than one that turns in circles.
                raise ApplicationError("a file is unfinished after its processing", non_retryable=True)
            listed |= files
            for _, file_id in files:
                self._perceived.pop(file_id, None)
            slots = asyncio.Semaphore(PORTIONS_AT_ONCE)
            await asyncio.gather(*(self._ingest(Portion(batch.tenant_id, ids), slots) for ids in portions))
            if not portions:
                await asyncio.gather(*self._perceived.values())
            if self._is_perceiving() and portions:
                continue
            if await workflow.execute_activity_method(FileActivities.close_batch, batch, **DATABASE):
                return
        await asyncio.gather(*self._perceived.values())
        workflow.continue_as_new(batch)

    async def _list(self, batch: Batch) -> Unfinished:
        without = [file_id for file_id, task in self._perceived.items() if not task.done()]
        listing = Listing(batch.tenant_id, batch.batch_id, without)
        return await workflow.execute_activity_method(FileActivities.list_unfinished, listing, **DATABASE)

    def _is_perceiving(self) -> bool:
        return any(not task.done() for task in self._perceived.values())

    async def _ingest(self, portion: Portion, slots: asyncio.Semaphore) -> None:
        async with slots:
            failure = await self._try(portion)
            if failure is None:
                return
            if len(portion.file_ids) == 1:
                await self._give_up(portion, _reason(failure))
                return
            # One of them spoils the portion: each by itself shows which.
            for file_id in portion.file_ids:
                if file_id in self._perceived:
                    continue
                single = Portion(portion.tenant_id, [file_id])
                failure = await self._try(single)
                if failure is not None:
                    await self._give_up(single, _reason(failure))

    async def _try(self, portion: Portion) -> ActivityError | None:
        try:
            awaiting = await workflow.execute_activity_method(FileActivities.read_files, portion, **READ_FILE)
        except ActivityError as error:
            return _for_the_file(error)
        self._perceive(portion.tenant_id, awaiting)
        ready = [file_id for file_id in portion.file_ids if file_id not in self._perceived]
        return await self._store(Portion(portion.tenant_id, ready)) if ready else None

    async def _store(self, portion: Portion) -> ActivityError | None:
        try:
            await workflow.execute_activity_method(FileActivities.store_files, portion, **EMBED)
        except ActivityError as error:
            return _for_the_file(error)
        return None

    def _perceive(self, tenant_id: str, awaiting: Awaiting) -> None:
        for file_id in awaiting.transcript:
            self._perceived[file_id] = asyncio.create_task(self._transcribe(Portion(tenant_id, [file_id])))
        for file_id in awaiting.caption:
            self._perceived[file_id] = asyncio.create_task(self._caption(Portion(tenant_id, [file_id])))

    async def _transcribe(self, single: Portion) -> None:
        async with self._hearing:
            try:
                await workflow.execute_activity_method(FileActivities.transcribe_files, single, **TRANSCRIBE)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self._go_without_transcript(single, error)
                return
        await self._store_single(single)

    async def _caption(self, single: Portion) -> None:
        async with self._seeing:
            try:
                await workflow.execute_activity_method(FileActivities.caption_files, single, **CAPTION)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await workflow.execute_activity_method(FileActivities.go_without_captions, single, **DATABASE)
        await self._store_single(single)

    async def _go_without_transcript(self, single: Portion, error: ActivityError) -> None:
        if _type(error) == WORKER_LOST:
            await self._give_up(single, "worker_lost")
        elif isinstance(error.cause, ApplicationError) and error.cause.type in _TELLING:
            await self._give_up(single, "no_transcript", error.cause.message)
        else:
            await self._give_up(single, "no_transcript")

    async def _store_single(self, single: Portion) -> None:
        failure = await self._store(single)
        if failure is not None:
            await self._give_up(single, _reason(failure))

    async def _give_up(self, single: Portion, reason: GivenUp, detail: str | None = None) -> None:
        lost = LostFile(single.tenant_id, single.file_ids[0], reason, detail)
        await workflow.execute_activity_method(FileActivities.give_up_file, lost, **DATABASE)


def _for_the_file(error: ActivityError) -> ActivityError:
    """The error, where it may be a file's fault; else it ends the run."""
    if is_cancelled_exception(error) or _is_no_fault_of_a_file(error):
        raise error
    return error


def _reason(failure: ActivityError) -> GivenUp:
    return "worker_lost" if _type(failure) == WORKER_LOST else "error"


def _type(error: ActivityError) -> str | None:
    return error.cause.type if isinstance(error.cause, ApplicationError) else None


def _is_no_fault_of_a_file(error: ActivityError) -> bool:
    # The run fails then, and the sweep starts the drop again until the installation is mended.
    return _type(error) == Misconfigured.__name__
