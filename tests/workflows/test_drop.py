"""The order of a drop, what is tried again, what is given up, and how a long one stays small."""

import contextlib
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from activities.errors import MAX_ATTEMPTS_OF_UNKNOWN_ERRORS
from activities.files import Batch
from memory.errors import BadRequest, Misconfigured, Unavailable
from tests.workflows.fake_files import TENANT, FakeFiles, run
from workflows.drop import LISTINGS_A_RUN, PORTIONS_AT_ONCE, DropWorkflow, workflow_id


def drop(address: str, files: FakeFiles) -> WorkflowHandle[DropWorkflow, None]:
    """Runs the one batch of `files` to its end."""
    (batch_id,) = files.batches

    async def scenario(client: Client, task_queue: str) -> WorkflowHandle[DropWorkflow, None]:
        handle = await client.start_workflow(
            DropWorkflow.run, Batch(TENANT, batch_id), id=workflow_id(batch_id), task_queue=task_queue
        )
        await handle.result()
        return handle

    return run(address, files, scenario)


def raising(error: Exception, *, times: int = 1_000) -> Callable[[], None]:
    left = iter([error] * times)

    def trouble() -> None:
        for wanted in left:
            raise wanted

    return trouble


def test_every_file_is_read_then_stored_and_the_batch_closed_last(temporal: str) -> None:
    batch_id = str(uuid4())
    files = FakeFiles({batch_id: [["a", "b"], ["c"]]})

    drop(temporal, files)

    for name in "abc":
        assert files.steps.index(("read", name)) < files.steps.index(("store", name))
    assert sorted(files.steps) == sorted((step, name) for step in ("read", "store") for name in "abc")
    assert files.closed == [batch_id]


def test_a_batch_without_files_is_closed(temporal: str) -> None:
    batch_id = str(uuid4())
    files = FakeFiles({batch_id: []})

    drop(temporal, files)

    assert files.closed == [batch_id]


def test_a_few_portions_are_worked_on_at_once_and_no_more(temporal: str) -> None:
    names = [f"file {number}" for number in range(2 * PORTIONS_AT_ONCE)]
    together = threading.Barrier(PORTIONS_AT_ONCE)
    inside = threading.Semaphore(PORTIONS_AT_ONCE)
    crowded: list[str] = []

    def meet() -> None:
        if not inside.acquire(blocking=False):
            crowded.append("more at once than allowed")
        # Passes only when as many as are allowed are here together.
        together.wait(timeout=60)
        inside.release()

    files = FakeFiles({str(uuid4()): [[name] for name in names]}, {("read", name): meet for name in names})

    drop(temporal, files)

    assert crowded == []
    assert sorted(files.ended) == sorted(names)


def test_a_long_drop_goes_on_in_new_runs(temporal: str) -> None:
    names = [f"file {number}" for number in range(LISTINGS_A_RUN + 3)]
    files = FakeFiles({str(uuid4()): [[name] for name in names]}, portions_a_listing=1)

    drop(temporal, files)

    assert len(files.runs) == 2
    assert sorted(files.ended) == sorted(names)
    assert len(files.steps) == 2 * len(names)


def test_what_fails_for_a_while_is_tried_again(temporal: str) -> None:
    files = FakeFiles(
        {str(uuid4()): [["a", "b"]]},
        {
            ("read", "b"): raising(Unavailable("no object store"), times=2),
            ("store", "a"): raising(OSError("?"), times=1),
        },
    )

    drop(temporal, files)

    assert files.ended == {"a": "stored", "b": "stored"}
    assert files.attempts["read", "b"] == 3
    assert files.attempts["store", "a"] == 2


def test_a_file_that_fails_for_good_is_given_up_alone(temporal: str) -> None:
    batch_id = str(uuid4())
    files = FakeFiles(
        {batch_id: [["a", "bad", "c"], ["d"]]},
        {("store", "bad"): raising(ZeroDivisionError("?"))},
    )

    drop(temporal, files)

    assert files.ended == {"a": "stored", "bad": "error", "c": "stored", "d": "stored"}
    assert files.attempts["store", "bad"] == 2 * MAX_ATTEMPTS_OF_UNKNOWN_ERRORS
    assert files.closed == [batch_id]


def test_what_is_said_to_be_final_is_not_tried_again(temporal: str) -> None:
    files = FakeFiles({str(uuid4()): [["bad"]]}, {("read", "bad"): raising(BadRequest("never"))})

    drop(temporal, files)

    assert files.ended == {"bad": "error"}
    assert files.attempts["read", "bad"] == 1


def test_a_wrong_installation_fails_the_run_and_no_file(temporal: str) -> None:
    files = FakeFiles({str(uuid4()): [["a"]]}, {("store", "a"): raising(Misconfigured("set EMBEDDING_MODEL"))})

    with pytest.raises(WorkflowFailureError):
        drop(temporal, files)

    assert files.ended == {}
    assert files.closed == []


def test_a_file_that_stays_unfinished_ends_the_run_instead_of_turning_it_in_circles(temporal: str) -> None:
    class Forgetful(dict[str, str]):
        def __setitem__(self, key: str, value: str) -> None:
            """Forgets that the file has ended."""

    files = FakeFiles({str(uuid4()): [["a"]]}, ended=Forgetful())

    with pytest.raises(WorkflowFailureError):
        drop(temporal, files)

    assert files.attempts["store", "a"] == 1


def test_a_drop_can_be_started_again_after_its_run_failed(temporal: str) -> None:
    batch_id = str(uuid4())
    files = FakeFiles({batch_id: [["a"]]}, {("read", "a"): raising(Misconfigured("wrong"), times=1)})

    async def scenario(client: Client, task_queue: str) -> list[WorkflowExecutionStatus | None]:
        statuses = []
        for _ in range(2):
            handle = await client.start_workflow(
                DropWorkflow.run, Batch(TENANT, batch_id), id=workflow_id(batch_id), task_queue=task_queue
            )
            with contextlib.suppress(WorkflowFailureError):
                await handle.result()
            statuses.append((await handle.describe()).status)
        return statuses

    assert run(temporal, files, scenario) == [WorkflowExecutionStatus.FAILED, WorkflowExecutionStatus.COMPLETED]
    assert files.ended == {"a": "stored"}


def test_recordings_and_pictures_are_perceived_before_they_are_stored(temporal: str) -> None:
    batch_id = str(uuid4())
    files = FakeFiles({batch_id: [["text", "memo", "photo"]]}, awaiting={"memo": "transcript", "photo": "caption"})

    drop(temporal, files)

    assert [step for step, name in files.steps if name == "memo"] == ["read", "transcribe", "store"]
    assert [step for step, name in files.steps if name == "photo"] == ["read", "caption", "store"]
    assert [step for step, name in files.steps if name == "text"] == ["read", "store"]
    assert files.closed == [batch_id]


def test_a_long_transcription_holds_up_no_text(temporal: str) -> None:
    recordings = [f"memo {number}" for number in range(3 * PORTIONS_AT_ONCE)]
    texts = [f"text {number}" for number in range(3 * PORTIONS_AT_ONCE)]
    files = FakeFiles(
        {str(uuid4()): [[name] for name in (*recordings, *texts)]},
        portions_a_listing=PORTIONS_AT_ONCE,
        awaiting=dict.fromkeys(recordings, "transcript"),
    )
    read = threading.Event()

    def wait_for_texts() -> None:
        assert read.wait(60)

    def look() -> None:
        if len([name for name in texts if name in files.ended]) == len(texts) - 1:
            read.set()

    files.troubles |= {("transcribe", name): wait_for_texts for name in recordings}
    files.troubles |= {("store", name): look for name in texts}

    drop(temporal, files)

    assert sorted(files.ended) == sorted([*recordings, *texts])
    assert set(files.ended.values()) == {"stored"}


@pytest.mark.parametrize("error", [Misconfigured("no such directory"), BadRequest("no")])
def test_a_transcription_that_cannot_be_had_ends_its_file_with_the_reason_and_no_other(
    temporal: str, error: Exception
) -> None:
    batch_id = str(uuid4())
    files = FakeFiles(
        {batch_id: [["memo", "text"]]}, {("transcribe", "memo"): raising(error)}, awaiting={"memo": "transcript"}
    )

    drop(temporal, files)

    assert files.ended == {"memo": "no_transcript", "text": "stored"}
    assert files.closed == [batch_id]


def test_a_caption_that_cannot_be_had_is_done_without(temporal: str) -> None:
    files = FakeFiles(
        {str(uuid4()): [["photo"]]}, {("caption", "photo"): raising(Misconfigured("?"))}, awaiting={"photo": "caption"}
    )

    drop(temporal, files)

    assert files.steps == [("read", "photo"), ("go without", "photo"), ("store", "photo")]
    assert files.ended == {"photo": "stored"}


def test_a_vision_model_that_is_away_for_a_while_is_asked_again(temporal: str) -> None:
    files = FakeFiles(
        {str(uuid4()): [["photo"]]},
        {("caption", "photo"): raising(Unavailable("?"), times=2)},
        awaiting={"photo": "caption"},
    )

    drop(temporal, files)

    assert files.steps == [("read", "photo"), ("caption", "photo"), ("store", "photo")]
    assert files.attempts["caption", "photo"] == 3
