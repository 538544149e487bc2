"""Routes of the heading "Files & drop" that are about a batch: how far it is, taking it up again, cancelling it."""

from typing import Annotated

import anyio.from_thread
from anyio import to_thread
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import Reader, Writer
from api.deps import Id, Offset, Services
from api.events import Event, EventStream, follow
from api.routing import answer
from api.routing import router as guarded_router
from api.waiting import Wait, wait_until
from memory.batches import MOST_FILES
from memory.drop_schemas import BatchCancelled, BatchCounts, BatchProgress, BatchRetried, FileStatus

router = guarded_router("files & drop")

_BATCH = "/v1/memory/ingest/batch/{batch_id}"
_EVENTS = {
    "description": "Events `progress`, at once and after each change, and at last `complete`; `data` is JSON",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.get(_BATCH, response_model=BatchProgress)
def batch_progress(
    caller: Reader,
    services: Services,
    batch_id: Id,
    wait: Annotated[Wait, Query(description="seconds to wait until nothing is pending")] = 0.0,
    limit: Annotated[int, Query(ge=0, le=MOST_FILES, description="how many of the files to list")] = MOST_FILES,
    offset: Offset = 0,
    status: Annotated[FileStatus | None, Query(description="list only files of this status")] = None,
) -> Response:
    """How far a drop is, and what came of each of its files, in the order of the drop. Kept for a week.

    The numbers are always of all files; `limit` and `offset` page through the list. With `wait` the answer comes when
    nothing is pending any more, at the latest after so many seconds.
    """
    if wait and not services.batches.counts(caller, batch_id).complete:
        wait_until(lambda: not services.batches.pending(caller, batch_id), wait)
    return answer(services.batches.progress(caller, batch_id, limit=limit, offset=offset, status=status))


@router.get(f"{_BATCH}/events", response_class=StreamingResponse, responses={200: _EVENTS})
async def batch_events(caller: Reader, services: Services, batch_id: Id) -> EventStream:
    """How far a drop is, as server-sent events for a progress bar. Ends with the batch, or after a quarter of an hour.

    Who reads on then asks again; the first event always tells how things stand.
    """

    def look() -> BatchCounts:
        return services.batches.counts(caller, batch_id)

    def told(counts: BatchCounts) -> Event:
        return Event("complete" if counts.complete else "progress", counts.model_dump_json())

    return EventStream(follow(await to_thread.run_sync(look), look, told, lambda counts: counts.complete))


@router.post(f"{_BATCH}/retry", status_code=202, response_model=BatchRetried)
def retry_batch(request: Request, caller: Writer, services: Services, batch_id: Id) -> Response:
    """Works again on the files that failed or were cancelled, from their stored originals; the others stay as they are.

    `queued` is 0 when nothing had failed. When the collection was deleted it is 409.
    """
    retried = services.batches.retry(caller, batch_id)
    if retried.queued:
        anyio.from_thread.run(
            request.app.state.workflows.start_drop, str(caller.tenant_id), str(batch_id), retried.alone
        )
    return answer(BatchRetried(batch_id=batch_id, queued=retried.queued), 202)


@router.post(f"{_BATCH}/cancel", response_model=BatchCancelled)
def cancel_batch(caller: Writer, services: Services, batch_id: Id) -> Response:
    """Ends the files that have not ended as failed, with the error "cancelled"; what is done stays.

    Nothing of them is stored after the answer, whatever was being worked on. A batch that is complete, or cancelled
    already, stays as it is.
    """
    return answer(services.batches.cancel(caller, batch_id))
