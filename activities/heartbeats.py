"""Signs of life: how a dead worker is noticed, and how work that keeps killing workers is stopped."""

import asyncio
import contextlib
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

MAX_LOST_ATTEMPTS = 5
WORKER_LOST = "WorkerLost"
_DELIVERY_SECONDS = 0.2


class HeartbeatInterceptor(Interceptor):
    """Beats for every activity with a heartbeat timeout, for as long as it runs.

    The beat carries how many attempts were lost, this one included until it returns by itself. Retries have no limit,
    so without the count a file that kills its worker would kill every next one.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Heartbeats(next)


class _Heartbeats(ActivityInboundInterceptor):
    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        # `activity.heartbeat` waits for the event loop once a threaded activity runs; on the loop it would hang.
        self._outbound = outbound
        super().init(outbound)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.heartbeat_timeout is None:
            return await super().execute_activity(input)
        lost = int(info.heartbeat_details[0]) if info.heartbeat_details else 0
        if lost >= MAX_LOST_ATTEMPTS:
            raise ApplicationError(f"{lost} attempts ended with their worker", type=WORKER_LOST, non_retryable=True)
        pulse = asyncio.create_task(self._beat(lost + 1, info.heartbeat_timeout.total_seconds() / 4))
        try:
            if info.attempt > 1:
                # What killed the worker may do so again at once: the count has to be out before.
                await asyncio.sleep(_DELIVERY_SECONDS)
            return await super().execute_activity(input)
        except BaseException:
            self._outbound.heartbeat(lost)
            raise
        finally:
            pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulse

    async def _beat(self, lost: int, pause_seconds: float) -> None:
        while True:
            self._outbound.heartbeat(lost)
            await asyncio.sleep(pause_seconds)
