"""How a run of curation goes, whatever it does: steps until it has ended, or the end as failed."""

from collections.abc import Awaitable, Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.curation import CurationActivities, Run
    from memory.errors import Misconfigured
    from workflows.policies import DATABASE

# A run with more to do goes on as a new one, so that no history grows long.
STEPS_A_RUN = 50


async def work_through(step: Callable[[], Awaitable[bool]], run: Run) -> None:
    """Repeats `step` while it says that more is to be done."""
    try:
        for _ in range(STEPS_A_RUN):
            if not await step():
                return
    except ActivityError as error:
        # A wrong installation is no fault of the run: the next round starts it again until it is mended.
        if is_cancelled_exception(error) or _type(error) == Misconfigured.__name__:
            raise
        await workflow.execute_activity_method(CurationActivities.give_up_run, run, **DATABASE)
        return
    workflow.continue_as_new(run)


def _type(error: ActivityError) -> str | None:
    return error.cause.type if isinstance(error.cause, ApplicationError) else None
