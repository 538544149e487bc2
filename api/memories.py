"""Routes of the heading "Memories"."""

import re
from typing import Annotated, Any
from uuid import UUID

import anyio.from_thread
from fastapi import Body, Depends, Form, Header, Query, Request, Response
from pydantic import BaseModel, TypeAdapter

from api import forms
from api.auth import Reader, Writer
from api.deps import Collection, Files, FormMetadata, Id, Index, Services, with_files
from api.errors import ErrorAnswer
from api.idempotency import answers_with_a_secret
from api.routing import MEGABYTE, answer, answer_list, body_limit
from api.routing import router as guarded_router
from api.waiting import wait_until
from memory.attachments import MOST_FILES, Uploaded
from memory.drop_schemas import FileRefused, FolderStored, UploadOptions
from memory.errors import Invalid
from memory.fate_schemas import (
    ArchiveWanted,
    ForgetRequest,
    ForgetResponse,
    HistoryPage,
    MemoryVersion,
    MoveWanted,
    PinWanted,
    RelatedWanted,
)
from memory.intake import StoredFile, Taken, refused, stored
from memory.schemas import (
    BulkCreated,
    Caller,
    Category,
    ContainerTag,
    Importance,
    Memory,
    MemoryCreate,
    MemoryFilter,
    MemoryPatch,
    SearchHit,
    Source,
    Text,
)
from memory.services import Services as House

router = guarded_router("memories")

_many = TypeAdapter(list[Memory])
_hits = TypeAdapter(list[SearchHit])
_versions = TypeAdapter(list[MemoryVersion])
MOST_IN_FOLDER = 50
_COLLECTION = "/v1/memory/collections/{collection}"
_MEMORIES = f"{_COLLECTION}/memories"
_MEMORY = f"{_MEMORIES}/{{memory_id}}"

_CHANGED: dict[int | str, dict[str, Any]] = {
    412: {"model": ErrorAnswer, "description": "The memory is in none of the versions of `If-Match`"}
}
_TAG = r'(W/)?"([^"]*)"|([0-9]+)'
_TAGS = rf"^\s*(\*|({_TAG})(\s*,\s*({_TAG}))*)\s*$"


def _wanted_versions(
    if_match: Annotated[
        str | None,
        Header(
            json_schema_extra={"pattern": _TAGS},
            description="Changes the memory only while it is in this version: its `ETag`, or several of them",
        ),
    ] = None,
) -> frozenset[int] | None:
    """The versions that the caller allows; None is any. A weak tag, or one that is no number, is no version."""
    if if_match is None or if_match.strip() == "*":
        return None
    if re.search(_TAGS, if_match) is None:
        raise Invalid('If-Match: an `ETag` as it was given, like "3"; several with commas between them; or *')
    tags = [tag.group(2) or tag.group(3) or "" for tag in re.finditer(_TAG, if_match) if not tag.group(1)]
    return frozenset(int(tag) for tag in tags if re.fullmatch("[0-9]{1,10}", tag))


IfMatch = Annotated[frozenset[int] | None, Depends(_wanted_versions)]


class MemoryDeleted(BaseModel):
    deleted: bool = True
    id: UUID


@router.post(
    _MEMORIES,
    status_code=201,
    response_model=Memory,
    responses={200: {"model": Memory, "description": "The memory with this `external_id`, updated"}},
)
def create_memory(caller: Writer, services: Services, collection: Collection, body: MemoryCreate) -> Response:
    """Stores one memory; the collection is created if need be.

    With the `external_id` of one that is there, that one is updated in the fields that are sent, and the answer is 200.
    """
    stored = services.memories.create(caller, collection, body)
    return _one(stored, 201 if stored.version == 1 else 200)


@router.post(f"{_MEMORIES}/bulk", status_code=201, response_model=BulkCreated)
@body_limit(10 * MEGABYTE)
def create_memories(
    caller: Writer,
    services: Services,
    collection: Collection,
    body: Annotated[list[MemoryCreate], Body(min_length=1, max_length=100)],
) -> Response:
    """Stores up to 100 memories, all or none; the answer keeps their order. One whose `external_id` is there already
    is updated."""
    stored = services.memories.create_many(caller, collection, body)
    created = sum(memory.version == 1 for memory in stored)
    ids = [memory.id for memory in stored]
    return answer(BulkCreated(created=created, updated=len(stored) - created, ids=ids, memories=stored), 201)


async def _in_folder(
    metadata: FormMetadata,
    container_tag: Annotated[ContainerTag | None, Form()] = None,
    category: Annotated[Category, Form()] = "other",
    importance: Annotated[Importance, Form()] = 0.7,
    source: Annotated[Source, Form()] = "upload",
) -> UploadOptions:
    return UploadOptions(
        container_tag=container_tag, category=category, importance=importance, metadata=metadata, source=source
    )


async def _uploaded(
    wanted: Annotated[UploadOptions, Depends(_in_folder)],
    text: Annotated[
        Text | None, Form(description="what the memory says; left out, it says what is read of its files")
    ] = None,
) -> UploadOptions:
    return wanted.model_copy(update={"text": text})


@router.post(
    f"{_MEMORIES}/upload",
    status_code=201,
    response_model=Memory,
    responses=forms.REFUSALS,
    openapi_extra=with_files(MOST_FILES),
)
@forms.takes_files(MOST_FILES, fails_alone=False)
@answers_with_a_secret
def upload_memory(
    request: Request,
    caller: Writer,
    services: Services,
    collection: Collection,
    files: Files,
    wanted: Annotated[UploadOptions, Depends(_uploaded)],
) -> Response:
    """Stores one memory with up to 20 files.

    Without a `text` it says what is read of the files: waited for, up to 55 s. Until then, and where nothing can be
    read, it says their names.
    """
    made = services.attachments.upload(caller, collection, wanted, [stored(files)])
    _wait_for_texts(request, services, caller, made)
    return _one(services.attachments.shown(caller, made.ids)[0], 201)


@router.post(
    f"{_MEMORIES}/folder",
    status_code=201,
    response_model=FolderStored,
    responses=forms.REFUSALS,
    openapi_extra=with_files(MOST_IN_FOLDER),
)
@forms.takes_files(MOST_IN_FOLDER, fails_alone=True)
@answers_with_a_secret
def upload_folder(
    request: Request,
    caller: Writer,
    services: Services,
    collection: Collection,
    files: Files,
    wanted: Annotated[UploadOptions, Depends(_in_folder)],
) -> Response:
    """Stores one memory for each of up to 50 files, as an upload without a text; where a file lay stands in its
    metadata as `path`.

    A file over 10 MB, or an empty one, fails alone and is named with its reason.
    """
    errors = [*refused(files), *(FileRefused(filename=one.filename, reason="empty file") for one in _empty(files))]
    groups = [[one] for one in stored(files) if one.size]
    memories: list[Memory] = []
    if groups:
        made = services.attachments.upload(caller, collection, wanted, groups, of_a_folder=True)
        _wait_for_texts(request, services, caller, made)
        memories = services.attachments.shown(caller, made.ids)
    return answer(
        FolderStored(created=len(groups), failed=len(errors), memories=memories, errors=errors),
        201,
    )


@router.post(
    f"{_MEMORY}/images",
    status_code=201,
    response_model=Memory,
    responses={**_CHANGED, **forms.REFUSALS},
    openapi_extra=with_files(MOST_FILES),
)
@forms.takes_files(MOST_FILES, fails_alone=False)
@answers_with_a_secret
def attach_files(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, files: Files, versions: IfMatch
) -> Response:
    """Adds files to the memory, which carries at most 20; what it says stays as it is."""
    return _one(services.attachments.attach(caller, collection, memory_id, stored(files), versions=versions), 201)


@router.delete(f"{_MEMORY}/images/{{index}}", response_model=Memory, responses=_CHANGED)
def detach_file(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, index: Index, versions: IfMatch
) -> Response:
    """Takes a file off the memory, counted from 0; it is removed unless another memory carries it too."""
    return _one(services.attachments.detach(caller, collection, memory_id, index, versions=versions))


def _empty(files: list[Taken]) -> list[StoredFile]:
    return [one for one in stored(files) if not one.size]


def _wait_for_texts(request: Request, services: House, caller: Caller, made: Uploaded) -> None:
    """Has the files read and waits for that; when Temporal does not answer, that comes later."""
    batch_id = made.batch_id
    if batch_id is not None:
        start = request.app.state.workflows.start_drop
        if anyio.from_thread.run(start, str(caller.tenant_id), str(batch_id)):
            wait_until(lambda: not services.batches.pending(caller, batch_id))


@router.get(_MEMORIES, response_model=list[Memory])
def list_memories(
    caller: Reader, services: Services, collection: Collection, wanted: Annotated[MemoryFilter, Query()]
) -> Response:
    """Pinned first, then newest first; their number in `X-Total-Count`."""
    found, total = services.memories.page(caller, collection, wanted)
    return answer_list(_many, found, total)


@router.get(_MEMORY, response_model=Memory)
def get_memory(caller: Reader, services: Services, collection: Collection, memory_id: Id) -> Response:
    return _one(services.memories.get(caller, collection, memory_id))


@router.get(f"{_MEMORY}/history", response_model=list[MemoryVersion])
def list_history(
    caller: Reader,
    services: Services,
    collection: Collection,
    memory_id: Id,
    wanted: Annotated[HistoryPage, Query()],
) -> Response:
    """What the memory said, newest first, with those that superseded it or were superseded; their number in
    `X-Total-Count`."""
    found, total = services.memories.history(caller, collection, memory_id, wanted)
    return answer_list(_versions, found, total)


@router.get(f"{_MEMORY}/related", response_model=list[SearchHit])
def list_related(
    caller: Reader,
    services: Services,
    collection: Collection,
    memory_id: Id,
    wanted: Annotated[RelatedWanted, Query()],
) -> Response:
    """The current memories of the same collection that are nearest to this one in meaning."""
    found = services.memories.related(caller, collection, memory_id, wanted)
    return answer_list(_hits, found, len(found))


@router.patch(_MEMORY, response_model=Memory, responses=_CHANGED)
def update_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, body: MemoryPatch, versions: IfMatch
) -> Response:
    """Changes the fields that are sent; a changed text is embedded anew, `metadata` is replaced whole."""
    return _one(services.memories.patch(caller, collection, memory_id, body, versions=versions))


@router.post(f"{_MEMORY}/move", response_model=Memory, responses=_CHANGED)
def move_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, body: MoveWanted, versions: IfMatch
) -> Response:
    """Moves the memory to another collection, which is created if need be."""
    return _one(services.fates.move(caller, collection, memory_id, body.to_collection, versions=versions))


@router.post(f"{_MEMORY}/pin", response_model=Memory, responses=_CHANGED)
def pin_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, body: PinWanted, versions: IfMatch
) -> Response:
    """Pins or unpins the memory: a pinned one comes first in listings, and nothing tidies it away."""
    return _one(services.fates.pin(caller, collection, memory_id, body.pinned, versions=versions))


@router.post(f"{_MEMORY}/archive", response_model=Memory, responses=_CHANGED)
def archive_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, body: ArchiveWanted, versions: IfMatch
) -> Response:
    """Archives or restores the memory: an archived one is kept and left out of search and listings."""
    return _one(services.fates.archive(caller, collection, memory_id, body.archived, versions=versions))


@router.delete(_MEMORY, response_model=MemoryDeleted, responses=_CHANGED)
def delete_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, versions: IfMatch
) -> Response:
    """Removes the memory and its stored files."""
    services.memories.delete(caller, collection, memory_id, versions=versions)
    return answer(MemoryDeleted(id=memory_id))


@router.post(f"{_COLLECTION}/forget", response_model=ForgetResponse)
def forget_memories(caller: Reader, services: Services, collection: Collection, body: ForgetRequest) -> Response:
    """Erases what means the same as the query, archived and superseded memories too; pinned ones stay.

    With `dry_run` the answer shows what would go, and a read-only key may ask.
    """
    return answer(services.fates.forget(caller, collection, body))


def _one(memory: Memory, status: int = 200) -> Response:
    return answer(memory, status, {"ETag": f'"{memory.version}"'})
