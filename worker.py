"""The worker: connects, builds the house with its media readers, registers everything and polls the task queue."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.curation import CurationActivities
from activities.errors import ErrorInterceptor
from activities.files import FileActivities
from activities.heartbeats import HeartbeatInterceptor
from activities.upkeep import UpkeepActivities
from memory import services
from memory.adapters import senses
from memory.adapters.documents import GuardedReader
from memory.errors import AppError
from memory.logs import configure_logging
from memory.services import Services
from memory.settings import Settings
from workflows import cleaning, curation, expiry, index, sweep
from workflows.archive_stale import ArchiveStaleWorkflow
from workflows.cleaning import CleaningWorkflow
from workflows.curation import CurationWorkflow
from workflows.dedup import DedupWorkflow
from workflows.drop import DropWorkflow
from workflows.expiry import ExpiryWorkflow
from workflows.index import IndexWorkflow
from workflows.policies import CAPTION_QUEUE, TASK_QUEUE, TRANSCRIPTION_QUEUE
from workflows.sweep import SweepWorkflow

WORKFLOWS: list[type] = [
    ArchiveStaleWorkflow,
    CleaningWorkflow,
    CurationWorkflow,
    DedupWorkflow,
    DropWorkflow,
    ExpiryWorkflow,
    IndexWorkflow,
    SweepWorkflow,
]
# What runs by itself, under which id and how often.
SCHEDULES: dict[str, tuple[Callable[..., Any], timedelta]] = {
    cleaning.SCHEDULE_ID: (CleaningWorkflow.run, timedelta(hours=6)),
    curation.SCHEDULE_ID: (CurationWorkflow.run, timedelta(minutes=1)),
    expiry.SCHEDULE_ID: (ExpiryWorkflow.run, timedelta(minutes=5)),
    index.SCHEDULE_ID: (IndexWorkflow.run, timedelta(minutes=1)),
    sweep.SCHEDULE_ID: (SweepWorkflow.run, timedelta(minutes=1)),
}
# How many recordings or pictures one worker has before its models at once.
PERCEIVED_AT_ONCE = {TRANSCRIPTION_QUEUE: 2, CAPTION_QUEUE: 4}
# Where a Temporal server of one machine listens by default.
LOCAL_TEMPORAL = "127.0.0.1:7233"
SCHEDULE_CHECK_SECONDS = 300.0
FINISH_WITHIN = timedelta(seconds=8)

log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Runs until SIGTERM or Ctrl-C; ends with an error when it cannot go on, so that whoever supervises restarts it."""
    settings = Settings()
    configure_logging(settings)
    try:
        asyncio.run(run(settings))
    except AppError as error:
        log.error("worker ends", reason=error.detail)
        raise SystemExit(1) from error


async def run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # First of all, while there is one thread: the reader forks.
    reader = GuardedReader(ocr_engine=settings.ocr_engine)
    try:
        perceiving = senses.build(settings, reader)
        senses.examine(perceiving)
        built = services.build(settings, reader=reader, senses=perceiving)
        try:
            client = await connect(settings.temporal_address or LOCAL_TEMPORAL, settings.temporal_namespace, stop)
            if client is not None:
                await serve(client, built, stop)
        finally:
            built.close()
            perceiving.close()
    finally:
        reader.close()
    log.info("worker ended")


async def connect(address: str, namespace: str, stop: asyncio.Event) -> Client | None:
    """A connection, however long the server takes to come up; None when asked to stop before."""
    pause = 0.25
    while not stop.is_set():
        try:
            return await Client.connect(address, namespace=namespace, connect_timeout=timedelta(seconds=5))
        except RuntimeError as error:
            log.warning("Temporal does not answer yet", address=address, error=str(error)[:200])
        pause = min(pause * 2, 5.0)
        await _sleep_unless(stop, pause)
    return None


async def serve(client: Client, built: Services, stop: asyncio.Event) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for task_queue, registered in activities(built).items():
            most = threads() if task_queue == TASK_QUEUE else PERCEIVED_AT_ONCE[task_queue]
            executor = stack.enter_context(ThreadPoolExecutor(max_workers=most, thread_name_prefix=task_queue))
            await stack.enter_async_context(
                build_worker(client, registered, executor, task_queue=task_queue, at_once=most)
            )
            log.info("worker polls", task_queue=task_queue, threads=most)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(keep_schedules(client))
            await stop.wait()
            keeping.cancel()


def activities(built: Services) -> dict[str, list[Callable[..., Any]]]:
    """Every activity of the house, bound to its bench, by the queue that hands it out."""
    curating = CurationActivities(built.curation_runs, built.policies)
    files = FileActivities(built.ingesting)
    upkeep = UpkeepActivities(built.expiry, built.indexes, built.cleaning)
    general: list[Callable[..., Any]] = [
        files.list_unfinished,
        files.read_files,
        files.go_without_captions,
        files.store_files,
        files.give_up_file,
        files.close_batch,
        files.list_stalled,
        upkeep.list_tenants_with_expired,
        upkeep.sweep_expired,
        upkeep.build_index,
        upkeep.list_tenants,
        upkeep.clean_tenant,
        curating.merge_clusters,
        curating.archive_stale,
        curating.give_up_run,
        curating.list_runs,
    ]
    return {
        TASK_QUEUE: general,
        TRANSCRIPTION_QUEUE: [files.transcribe_files],
        CAPTION_QUEUE: [files.caption_files],
    }


def build_worker(
    client: Client,
    registered: list[Callable[..., Any]],
    executor: Executor,
    *,
    task_queue: str = TASK_QUEUE,
    at_once: int | None = None,
) -> Worker:
    """Polls one queue; workflows run where no queue for perceiving is asked."""
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[] if task_queue in PERCEIVED_AT_ONCE else WORKFLOWS,
        activities=registered,
        activity_executor=executor,
        max_concurrent_activities=at_once or threads(),
        # Outermost first: the heartbeats see the errors as they leave.
        interceptors=[HeartbeatInterceptor(), ErrorInterceptor()],
        # The default holds beats back for up to 80 % of the timeout, which leaves a busy machine little room.
        max_heartbeat_throttle_interval=timedelta(seconds=3),
        graceful_shutdown_timeout=FINISH_WITHIN,
    )


def threads() -> int:
    """Half of them may wait for a child process or the database while the others keep the cores busy."""
    return max(8, 4 * (os.cpu_count() or 1))


async def keep_schedules(client: Client) -> None:
    """Sees to the schedules for ever: a server may be away now, or come back without its state later."""
    while True:
        pause = SCHEDULE_CHECK_SECONDS
        try:
            for schedule_id, (run, every) in SCHEDULES.items():
                await _ensure_schedule(client, schedule_id, run, every)
        except RPCError as error:
            log.warning("the schedules cannot be seen to", error=error.status.name)
            pause = min(5.0, pause)
        await asyncio.sleep(pause)


async def _ensure_schedule(client: Client, schedule_id: str, run: Callable[..., Any], every: timedelta) -> None:
    """Creates it or brings it up to date; several workers may do so at once."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(run, id=schedule_id, task_queue=TASK_QUEUE),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=every),
    )
    try:
        await client.create_schedule(schedule_id, schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(schedule_id).update(lambda _: ScheduleUpdate(schedule=schedule))


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    main()
