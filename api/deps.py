"""What routes ask for by type: services, ids in paths, paging."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from memory.errors import NotFound
from memory.schemas import CollectionName
from memory.services import Services as House


async def _services(request: Request) -> House:
    house: House = request.app.state.services
    return house


def existing_id(value: object) -> UUID:
    # What cannot be an id is the id of nothing: 404 as for any other unknown one.
    try:
        parsed = UUID(str(value))
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != str(value).lower():
        raise NotFound("no such id")
    return parsed


Services = Annotated[House, Depends(_services)]
Id = Annotated[UUID, BeforeValidator(existing_id), Path()]
Collection = Annotated[CollectionName, Path(description="1-128 characters, no '/', URL-encoded")]
Limit = Annotated[int, Query(ge=1, le=200)]
# Of what a tenant has few: who asks for no page gets all of them.
AnyLimit = Annotated[int | None, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
