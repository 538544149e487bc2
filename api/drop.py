"""Routes of the heading "Files & drop"."""

import time
from typing import Annotated
from uuid import UUID

import anyio.from_thread
from fastapi import Body, Depends, Form, Query, Request, Response
from pydantic import WithJsonSchema

from api.auth import Writer
from api.deps import Collection, Files, FormMetadata, Services, parsed_metadata, with_files
from api.forms import MOST_FILES, REFUSALS
from api.idempotency import answers_with_a_secret, takes_long
from api.routing import MEGABYTE, answer, body_limit
from api.routing import router as guarded_router
from api.temporal import WorkflowClient
from api.waiting import WAIT_SECONDS, Wait, wait_until
from memory.drop_schemas import (
    MOST_UPLOADS,
    ContentsAsked,
    DropAccepted,
    DropOptions,
    DropResponse,
    DropResult,
    FileRefused,
    MissingContents,
    UploadDone,
    UploadLinks,
    UploadsAccepted,
    UploadWanted,
)
from memory.drops import OpenedDrop
from memory.intake import Taken
from memory.schemas import Caller, Category, ContainerTag, Importance
from memory.services import Services as House

# A restart of Temporal takes a moment; who waits anyway may see it through.
_START_AGAIN_SECONDS = 5.0

router = guarded_router("files & drop")

# In a form a flag is a word.
_FORM_FLAG = WithJsonSchema(
    {"anyOf": [{"type": "boolean"}, {"enum": [0, 1, "on", "off", "yes", "no", "y", "n", "t", "f"]}]}
)


async def _options(
    metadata: FormMetadata,
    container_tag: Annotated[ContainerTag | None, Form()] = None,
    category: Annotated[Category, Form()] = "other",
    importance: Annotated[Importance, Form()] = 0.7,
    force_in_query: Annotated[bool, Query(alias="force")] = False,
    force_in_form: Annotated[
        bool, Form(alias="force", description="store what is there already once more"), _FORM_FLAG
    ] = False,
) -> DropOptions:
    return DropOptions(
        container_tag=container_tag,
        category=category,
        importance=importance,
        metadata=metadata,
        force=force_in_query or force_in_form,
    )


async def _patience(
    in_query: Annotated[bool, Query(alias="async_ingest")] = False,
    in_form: Annotated[
        bool, Form(alias="async_ingest", description="answer at once, work in the background"), _FORM_FLAG
    ] = False,
    wait_in_query: Annotated[Wait, Query(alias="wait")] = WAIT_SECONDS,
    wait_in_form: Annotated[Wait, Form(alias="wait", description="seconds to wait for the outcome")] = WAIT_SECONDS,
) -> float | None:
    """How many seconds the caller waits for the outcome; None for not at all."""
    return None if in_query or in_form else min(wait_in_query, wait_in_form)


def _once_more(request: Request, caller: Caller, resource: str) -> Response:
    """The answer of a drop from its batch, which remembers all but the files that were not taken in."""
    services: House = request.app.state.services
    batch = services.batches.counts(caller, UUID(resource.removeprefix("batch ")))
    if not batch.complete:
        return answer(DropAccepted(batch_id=batch.batch_id, queued=batch.pending, failed=batch.failed, errors=[]), 202)
    return answer(services.batches.results(caller, batch.batch_id), 201)


@router.post(
    "/v1/memory/collections/{collection}/drop",
    status_code=201,
    response_model=DropResponse,
    responses={202: {"model": DropAccepted, "description": "Taken in; ask for the batch"}, **REFUSALS},
    openapi_extra=with_files(MOST_FILES),
)
@takes_long(WAIT_SECONDS + 5, rebuild=_once_more)
def drop(
    request: Request,
    caller: Writer,
    services: Services,
    collection: Collection,
    files: Files,
    options: Annotated[DropOptions, Depends(_options)],
    patience: Annotated[float | None, Depends(_patience)],
) -> Response:
    """Makes memories of files. Waits for the outcome, up to 55 s, unless `async_ingest` is set.

    A file over 10 MB, or one that cannot be read, fails alone and is named with its reason. One whose bytes are there
    already, in this collection under this tag, is a `duplicate` and answered with the memories that are there; `force`
    stores it again.
    """
    opened = services.drops.open_with(caller, collection, files, options)
    ended = _carry_out(services, request.app.state.workflows, caller, opened, patience)
    if not ended or patience is None:
        accepted = DropAccepted(
            batch_id=opened.batch_id, queued=opened.queued, failed=len(opened.refused), errors=opened.refused
        )
        return answer(accepted, 202)
    return answer(_outcome(services, caller, opened, files), 201)


async def _options_in_query(
    container_tag: Annotated[ContainerTag | None, Query()] = None,
    category: Annotated[Category, Query()] = "other",
    importance: Annotated[Importance, Query()] = 0.7,
    metadata: Annotated[
        str, Query(description="a JSON object", json_schema_extra={"contentMediaType": "application/json"})
    ] = "{}",
    force: Annotated[bool, Query(description="store what is there already once more")] = False,
) -> DropOptions:
    return DropOptions(
        container_tag=container_tag,
        category=category,
        importance=importance,
        metadata=parsed_metadata(metadata),
        force=force,
    )


@router.post("/v1/memory/collections/{collection}/drop/presign", response_model=UploadLinks)
@body_limit(10 * MEGABYTE)
@answers_with_a_secret
def presign_uploads(
    caller: Writer,
    services: Services,
    collection: Collection,
    body: Annotated[list[UploadWanted], Body(min_length=1, max_length=MOST_UPLOADS)],
) -> Response:
    """Links under which files can be put into the store past this API, for an hour; name them at `…/complete` then.

    Each must be sent with the headers of its link and have exactly the announced size.
    """
    return answer(services.uploads.presign(caller, collection, body))


@router.post("/v1/memory/collections/{collection}/drop/complete", status_code=202, response_model=UploadsAccepted)
@body_limit(10 * MEGABYTE)
def complete_uploads(
    request: Request,
    caller: Writer,
    services: Services,
    collection: Collection,
    body: Annotated[list[UploadDone], Body(min_length=1, max_length=MOST_UPLOADS)],
    options: Annotated[DropOptions, Depends(_options_in_query)],
) -> Response:
    """Makes memories of what was uploaded, in the background; each key counts once."""
    accepted = services.uploads.complete(caller, collection, body, options)
    if accepted.queued:
        _start(request.app.state.workflows, caller.tenant_id, accepted.batch_id)
    return answer(accepted, 202)


@router.post("/v1/memory/collections/{collection}/drop/missing", response_model=MissingContents)
def missing(caller: Writer, services: Services, collection: Collection, asked: ContentsAsked) -> Response:
    """Says which contents are not there yet, so that a drop that was broken off need not send everything again.

    What failed counts as missing.
    """
    return answer(services.drops.missing(caller, collection, asked))


def _carry_out(
    services: House, workflows: WorkflowClient, caller: Caller, opened: OpenedDrop, patience: float | None
) -> bool:
    """Starts the workflow, and waits if that is wanted; whether every file has ended."""
    if opened.queued == 0:
        return True
    started = _start(workflows, caller.tenant_id, opened.batch_id)
    tried_at = time.monotonic()

    def ended() -> bool:
        nonlocal started, tried_at
        if not services.batches.pending(caller, opened.batch_id):
            return True
        if not started and time.monotonic() - tried_at >= _START_AGAIN_SECONDS:
            started, tried_at = _start(workflows, caller.tenant_id, opened.batch_id), time.monotonic()
        return False

    return patience is not None and wait_until(ended, patience)


def _start(workflows: WorkflowClient, tenant_id: UUID, batch_id: UUID) -> bool:
    return anyio.from_thread.run(workflows.start_drop, str(tenant_id), str(batch_id))


def _outcome(services: House, caller: Caller, opened: OpenedDrop, files: list[Taken]) -> DropResponse:
    """What came of the files in their order, each followed by what lay in it; of those too that were not taken in."""
    outcome = services.batches.results(caller, opened.batch_id)
    groups: list[list[DropResult]] = []
    for result in outcome.results:
        if result.parent is None or not groups:
            groups.append([])
        groups[-1].append(result)
    ended = iter(groups)
    in_order = [[_refused(file)] if isinstance(file, FileRefused) else next(ended, []) for file in files]
    results = [result for group in (*in_order, *ended) for result in group]
    return outcome.model_copy(update={"failed": outcome.failed + len(opened.refused), "results": results})


def _refused(file: FileRefused) -> DropResult:
    return DropResult(filename=file.filename, status="failed", memory_ids=[], chunks=0, preview=None, error=file.reason)
