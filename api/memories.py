"""Routes of the heading "Memories"."""

from typing import Annotated
from uuid import UUID

from fastapi import Body, Query, Response
from pydantic import BaseModel, TypeAdapter

from api.auth import Reader, Writer
from api.deps import Collection, Id, Services
from api.routing import MEGABYTE, answer, answer_list, body_limit
from api.routing import router as guarded_router
from memory.schemas import BulkCreated, Memory, MemoryCreate, MemoryFilter, MemoryPatch

router = guarded_router("memories")

_many = TypeAdapter(list[Memory])
_MEMORIES = "/v1/memory/collections/{collection}/memories"
_MEMORY = "/v1/memory/collections/{collection}/memories/{memory_id}"


class MemoryDeleted(BaseModel):
    deleted: bool = True
    id: UUID


@router.post(_MEMORIES, status_code=201, response_model=Memory)
def create_memory(caller: Writer, services: Services, collection: Collection, body: MemoryCreate) -> Response:
    """Stores one memory; the collection is created if need be."""
    return _one(services.memories.create(caller, collection, body), 201)


@router.post(f"{_MEMORIES}/bulk", status_code=201, response_model=BulkCreated)
@body_limit(10 * MEGABYTE)
def create_memories(
    caller: Writer,
    services: Services,
    collection: Collection,
    body: Annotated[list[MemoryCreate], Body(min_length=1, max_length=100)],
) -> Response:
    """Stores up to 100 memories, all or none; the answer keeps their order."""
    created = services.memories.create_many(caller, collection, body)
    return answer(BulkCreated(created=len(created), ids=[memory.id for memory in created], memories=created), 201)


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


@router.patch(_MEMORY, response_model=Memory)
def update_memory(
    caller: Writer, services: Services, collection: Collection, memory_id: Id, body: MemoryPatch
) -> Response:
    """Changes the fields that are sent; a changed text is embedded anew, `metadata` is replaced whole."""
    return _one(services.memories.patch(caller, collection, memory_id, body))


@router.delete(_MEMORY, response_model=MemoryDeleted)
def delete_memory(caller: Writer, services: Services, collection: Collection, memory_id: Id) -> Response:
    """Removes the memory and its stored files."""
    services.memories.delete(caller, collection, memory_id)
    return answer(MemoryDeleted(id=memory_id))


def _one(memory: Memory, status: int = 200) -> Response:
    return answer(memory, status, {"ETag": f'"{memory.version}"'})
