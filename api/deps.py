"""What routes ask for by type: services, ids in paths, paging."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, File, Form, Path, Query, Request, UploadFile
from pydantic import BeforeValidator, Json, TypeAdapter, ValidationError

from api.errors import in_plain_words, uncapitalised
from api.forms import TakenUpload
from memory.errors import Invalid, NotFound
from memory.intake import Taken
from memory.schemas import CollectionName, Metadata
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


def existing_index(value: object) -> int:
    # The same for places in a list.
    written = str(value)
    if not (written.isascii() and written.isdecimal() and len(written) < 7):
        raise NotFound("no such index")
    return int(written)


async def _files(
    files: Annotated[
        list[UploadFile],
        File(default_factory=list, description="the files; the field may repeat", json_schema_extra={"minItems": 1}),
    ],
    file: Annotated[
        list[UploadFile],
        File(default_factory=list, description="the same under another name", json_schema_extra={"minItems": 1}),
    ],
) -> list[Taken]:
    taken = [upload.taken for upload in (*files, *file) if isinstance(upload, TakenUpload)]
    if not taken:
        raise Invalid("files: send at least one file, as multipart/form-data")
    return taken


async def _form_metadata(
    metadata: Annotated[
        str, Form(description="a JSON object", json_schema_extra={"contentMediaType": "application/json"})
    ] = "{}",
) -> Metadata:
    return parsed_metadata(metadata)


def parsed_metadata(metadata: str) -> Metadata:
    """Raises Invalid."""
    try:
        return _metadata.validate_python(metadata)
    except ValidationError as error:
        raise Invalid(f"metadata: {uncapitalised(in_plain_words(error.errors()[0]))}") from error


_metadata = TypeAdapter(Json[Metadata])


def with_files(most: int) -> dict[str, Any]:
    """For the document: a form with one file at least and so many at most, in either of the two fields."""
    fields = ("files", "file")
    alternatives = [
        {"required": [field], "properties": {one: {"maxItems": most if one == field else 0} for one in fields}}
        for field in fields
    ]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {"anyOf": alternatives}}}}}


Files = Annotated[list[Taken], Depends(_files)]
FormMetadata = Annotated[Metadata, Depends(_form_metadata)]
Services = Annotated[House, Depends(_services)]
Id = Annotated[UUID, BeforeValidator(existing_id), Path()]
Index = Annotated[int, BeforeValidator(existing_index), Path()]
Collection = Annotated[CollectionName, Path(description="1-128 characters, no '/', URL-encoded")]
Limit = Annotated[int, Query(ge=1, le=200)]
# Of what a tenant has few: who asks for no page gets all of them.
AnyLimit = Annotated[int | None, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
