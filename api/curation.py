"""Routes of the heading "Intelligent memory"."""

from typing import Annotated
from uuid import UUID

import anyio.from_thread
from fastapi import Body, Query, Request, Response
from pydantic import TypeAdapter

from api.auth import Reader, Writer
from api.deps import Collection, Id, Limit, Offset, Services
from api.routing import answer, answer_list
from api.routing import router as guarded_router
from api.waiting import wait_until
from memory.curation_schemas import (
    ArchiveStaleRequest,
    Contradiction,
    CurationOutcome,
    CurationPolicy,
    CurationPolicyUpdate,
    CurationRun,
    Days,
    DedupReport,
    DedupRequest,
    Health,
    NoHealth,
    RunKind,
    StaleArchived,
    StaleFound,
    Summary,
)
from memory.schemas import Caller
from memory.services import Services as House

router = guarded_router("intelligent memory")

_pairs = TypeAdapter(list[Contradiction])
_COLLECTION = "/v1/memory/collections/{collection}"
_GOES_ON = {"model": CurationRun, "description": "Written down and not yet done; ask for the run"}
_Dedup = Annotated[DedupRequest, Body(default_factory=DedupRequest)]
_ArchiveStale = Annotated[ArchiveStaleRequest, Body(default_factory=ArchiveStaleRequest)]


@router.post(f"{_COLLECTION}/dedup", response_model=DedupReport, responses={202: _GOES_ON})
def dedup(request: Request, caller: Reader, services: Services, collection: Collection, body: _Dedup) -> Response:
    """Near-duplicates among the newest 500 memories, each cluster around the one that stays.

    `dry_run: false` deletes the duplicates for good, their files too. What takes over 55 s, or cannot begin now, is 202
    and goes on by itself.
    """
    if body.dry_run:
        return answer(services.curation.find_duplicates(caller, collection, body.threshold))
    opened = services.curation.open_dedup(caller, collection, body.threshold)
    going_on = _carry_out(request, services, caller, "dedup", opened.run_id)
    if going_on is not None:
        return going_on
    return answer(services.curation.dedup_report(caller, opened))


@router.post(f"{_COLLECTION}/archive-stale", response_model=StaleFound | StaleArchived, responses={202: _GOES_ON})
def archive_stale(
    request: Request, caller: Reader, services: Services, collection: Collection, body: _ArchiveStale
) -> Response:
    """Archives what was not changed for so many days, except what is pinned; `dry_run: false` does it.

    What takes over 55 s, or cannot begin now, is 202 and goes on by itself.
    """
    if body.dry_run:
        return answer(services.curation.find_stale(caller, collection, body.older_than_days))
    opened = services.curation.open_archiving(caller, collection, body.older_than_days)
    going_on = _carry_out(request, services, caller, "archive_stale", opened.run_id)
    if going_on is not None:
        return going_on
    return answer(services.curation.archiving_report(caller, opened))


@router.get("/v1/memory/curation/runs/{run_id}", response_model=CurationOutcome)
def curation_run(caller: Reader, services: Services, run_id: Id) -> Response:
    """How far a dedup or archive-stale is, and what it did. Kept for a week, or for longer while it is the last."""
    return answer(services.curation.run(caller, run_id))


@router.get(f"{_COLLECTION}/contradictions", response_model=list[Contradiction])
def contradictions(
    caller: Reader, services: Services, collection: Collection, limit: Limit = 50, offset: Offset = 0
) -> Response:
    """Where the truth changed, newest first; a chain gives one pair for each step. Their number in `X-Total-Count`."""
    found, total = services.overviews.contradictions(caller, collection, limit=limit, offset=offset)
    return answer_list(_pairs, found, total)


@router.get(f"{_COLLECTION}/health", response_model=Health | NoHealth)
def collection_health(
    caller: Reader, services: Services, collection: Collection, stale_days: Annotated[Days, Query()] = 90
) -> Response:
    """Counts that say whether a collection needs attention; `exists: false` for an unknown one."""
    return answer(services.overviews.health(caller, collection, stale_days))


@router.get(f"{_COLLECTION}/summary", response_model=Summary)
def summary(caller: Reader, services: Services, collection: Collection, limit: Limit = 50) -> Response:
    """A briefing made of the `limit` strongest memories."""
    return answer(services.overviews.summary(caller, collection, limit))


@router.get(f"{_COLLECTION}/curation", response_model=CurationPolicy)
def get_curation(caller: Reader, services: Services, collection: Collection) -> Response:
    """What is done to the collection by itself, and what was done last."""
    return answer(services.policies.show(caller, collection))


@router.put(f"{_COLLECTION}/curation", response_model=CurationPolicy)
def put_curation(caller: Writer, services: Services, collection: Collection, body: CurationPolicyUpdate) -> Response:
    """Changes the fields that are sent; null turns off. Nothing runs without an interval."""
    return answer(services.policies.put(caller, collection, body))


def _carry_out(
    request: Request, services: House, caller: Caller, kind: RunKind, run_id: UUID | None
) -> Response | None:
    """Starts the run's workflow and waits for its end; the answer to give instead when it does not come."""
    if run_id is None:
        return None
    opened = run_id
    started = anyio.from_thread.run(
        request.app.state.workflows.start_curation, kind, str(caller.tenant_id), str(opened)
    )
    if started and wait_until(lambda: services.curation.has_ended(caller, opened)):
        return None
    return answer(CurationRun.model_validate(services.curation.run(caller, opened).model_dump()), 202)
