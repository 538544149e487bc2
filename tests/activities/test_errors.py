"""What leaves an activity as an error: final or not, and nothing that should stay inside."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.errors import MAX_ATTEMPTS_OF_UNKNOWN_ERRORS, MAX_MESSAGE_CHARACTERS, ErrorInterceptor
from memory.errors import BadRequest, Misconfigured, Unavailable


class Activity(ActivityInboundInterceptor):
    """The innermost of the chain: the activity itself."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        return self._function()


def leave(function: Callable[[], Any], *, attempt: int = 1) -> Any:
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt, activity_type="store_files")
    chain = ErrorInterceptor().intercept_activity(Activity(function))
    call = ExecuteActivityInput(fn=function, args=[], executor=None, headers={})

    async def execute() -> Any:
        return await environment.run(chain.execute_activity, call)

    return asyncio.run(execute())


def failing(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def test_a_result_passes() -> None:
    assert leave(lambda: 7) == 7


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS_OF_UNKNOWN_ERRORS, 1000])
def test_what_is_unavailable_is_tried_again_without_limit(attempt: int) -> None:
    with pytest.raises(ApplicationError) as raised:
        leave(failing(Unavailable("the database does not answer")), attempt=attempt)

    assert not raised.value.non_retryable
    assert raised.value.type == "Unavailable"
    assert raised.value.message == "the database does not answer"


@pytest.mark.parametrize("error", [BadRequest("no"), Misconfigured("set S3_BUCKET")])
def test_a_refusal_that_time_cannot_heal_is_final(error: Exception) -> None:
    with pytest.raises(ApplicationError) as raised:
        leave(failing(error))

    assert raised.value.non_retryable
    assert raised.value.type == type(error).__name__


def test_an_unknown_error_is_tried_a_few_times() -> None:
    final = []
    for attempt in range(1, MAX_ATTEMPTS_OF_UNKNOWN_ERRORS + 1):
        with pytest.raises(ApplicationError) as raised:
            leave(failing(ValueError("?")), attempt=attempt)
        final.append(raised.value.non_retryable)

    assert final == [False, False, False, True]


def test_the_words_of_an_unknown_error_stay_inside(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ApplicationError) as raised:
        leave(failing(ValueError("the file says: attack at dawn")))

    assert "ValueError in store_files" in raised.value.message
    assert "dawn" not in raised.value.message
    # A cause would be written into the history beside it, and its chain into the log.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    logged = capsys.readouterr()
    assert "dawn" not in logged.out + logged.err


def test_a_long_message_is_cut() -> None:
    with pytest.raises(ApplicationError) as raised:
        leave(failing(Unavailable("x" * 10_000)))

    assert len(raised.value.message) == MAX_MESSAGE_CHARACTERS


@pytest.mark.parametrize("error", [CancelledError("stop"), ApplicationError("as it is", type="Mine")])
def test_temporals_own_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        leave(failing(error))

    assert raised.value is error
