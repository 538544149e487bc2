"""How an error leaves an activity: what is worth another attempt, and a message that is safe to keep."""

import traceback
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from memory.errors import AppError

MAX_ATTEMPTS_OF_UNKNOWN_ERRORS = 4
MAX_MESSAGE_CHARACTERS = 300

log = structlog.stdlib.get_logger(__name__)


class ErrorInterceptor(Interceptor):
    """Turns every exception of an activity into an ApplicationError.

    An AppError keeps its sentence and says itself whether it is retryable. Anything else is retried a few times and
    travels as its type's name alone: its message may quote content or a secret.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _Errors(next)


class _Errors(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        try:
            return await super().execute_activity(input)
        except FailureError:
            raise
        except AppError as error:
            # `from None`: a cause would be written into the workflow's history with its message.
            raise ApplicationError(
                error.detail[:MAX_MESSAGE_CHARACTERS], type=type(error).__name__, non_retryable=not error.retryable
            ) from None
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, it must not leave as it is
            info = activity.info()
            final = info.attempt >= MAX_ATTEMPTS_OF_UNKNOWN_ERRORS
            name = type(error).__name__
            log.error(
                "activity failed",
                activity=info.activity_type,
                workflow=info.workflow_id,
                attempt=info.attempt,
                final=final,
                error=name,
                # Frames only, for the same reason.
                trace="".join(traceback.format_tb(error.__traceback__)),
            )
            raise ApplicationError(
                f"{name} in {info.activity_type}; the worker's log has the trace", type=name, non_retryable=final
            ) from None
