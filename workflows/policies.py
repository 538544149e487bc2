"""How activities are called: the task queue, and one named set of timeouts and retries per kind of work."""

from datetime import timedelta

from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityConfig

from memory.errors import Slow

TASK_QUEUE = "rememberos"
# Taken by pools of their own: what takes hours, or waits for a model elsewhere, holds up nothing else.
TRANSCRIPTION_QUEUE = "rememberos-media"
CAPTION_QUEUE = "rememberos-captions"

# No attempt limit here: an outage ends when it ends. What can never succeed is made final by the
# error itself or by the interceptors in activities/, which also count attempts.
_PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=30)
)

# For what can be done without in the end, in one way or another: some ten minutes, and some two. Who was silent for as
# long as a model may take is not asked again.
_PERSISTENT = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=60),
    maximum_attempts=15,
    non_retryable_error_types=[Slow.__name__],
)
_BRIEF = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=8,
    non_retryable_error_types=[Slow.__name__],
)

# A worker that was killed is noticed after this long; a busy machine must still get a beat through.
_HEARTBEAT = timedelta(seconds=12)

DATABASE = ActivityConfig(start_to_close_timeout=timedelta(seconds=60), retry_policy=_PATIENT)
READ_FILE = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=30), heartbeat_timeout=_HEARTBEAT, retry_policy=_PATIENT
)
CURATE = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=10), heartbeat_timeout=_HEARTBEAT, retry_policy=_PATIENT
)
# An index over millions of vectors takes hours; one that is stopped begins from its start.
BUILD = ActivityConfig(start_to_close_timeout=timedelta(hours=12), heartbeat_timeout=_HEARTBEAT, retry_policy=_PATIENT)
EMBED = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=60), heartbeat_timeout=_HEARTBEAT, retry_policy=_PATIENT
)
TRANSCRIBE = ActivityConfig(
    task_queue=TRANSCRIPTION_QUEUE,
    start_to_close_timeout=timedelta(hours=12),
    heartbeat_timeout=_HEARTBEAT,
    retry_policy=_PERSISTENT,
)
CAPTION = ActivityConfig(
    task_queue=CAPTION_QUEUE,
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=_HEARTBEAT,
    retry_policy=_BRIEF,
)


def fair_to(tenant_id: str) -> Priority:
    """What a tenant's workflow is started with, so that it and its steps take turns with those of other tenants."""
    return Priority(fairness_key=tenant_id)
