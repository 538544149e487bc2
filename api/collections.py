"""Routes of the heading "Collections"."""

from fastapi import Response
from pydantic import BaseModel, TypeAdapter

from api.auth import Reader, Writer
from api.deps import AnyLimit, Collection, Offset, Services
from api.routing import answer, answer_list
from api.routing import router as guarded_router
from memory import schemas

router = guarded_router("collections")

_many = TypeAdapter(list[schemas.Collection])


class CollectionDeleted(BaseModel):
    deleted: bool = True
    name: str


@router.get("/v1/memory/collections", response_model=list[schemas.Collection])
def list_collections(caller: Reader, services: Services, limit: AnyLimit = None, offset: Offset = 0) -> Response:
    """Your collections with memory counts; their number in `X-Total-Count`."""
    found, total = services.collections.page(caller, limit=limit, offset=offset)
    return answer_list(_many, found, total)


@router.post("/v1/memory/collections", status_code=201, response_model=schemas.Collection)
def create_collection(caller: Writer, services: Services, body: schemas.CollectionCreate) -> Response:
    """Creates a collection; writes also create theirs by themselves. One that exists is 409."""
    return answer(services.collections.create(caller, body), 201)


@router.get("/v1/memory/collections/{name}", response_model=schemas.Collection)
def get_collection(caller: Reader, services: Services, name: Collection) -> Response:
    return answer(services.collections.get(caller, name))


@router.put("/v1/memory/collections/{name}", response_model=schemas.Collection)
def update_collection(caller: Writer, services: Services, name: Collection, body: schemas.CollectionUpdate) -> Response:
    """Changes the fields that are sent; `metadata` is replaced whole."""
    return answer(services.collections.update(caller, name, body))


@router.delete("/v1/memory/collections/{name}", response_model=CollectionDeleted)
def delete_collection(caller: Writer, services: Services, name: Collection) -> Response:
    """Deletes the collection with all its memories and files."""
    return answer(CollectionDeleted(name=services.collections.delete(caller, name).name))
