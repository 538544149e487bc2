"""Nouns of drops on the wire: what is dropped with which options, and what comes of it."""

import re
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from memory.schemas import (
    Category,
    ContainerTag,
    Importance,
    Memory,
    Metadata,
    NoNul,
    Source,
    Text,
    Timestamp,
    Unicode,
    Whole,
)

_SHA256 = "^[0-9a-f]{64}$"


def _hexadecimal(value: str) -> str:
    if not re.fullmatch(_SHA256, value):
        raise ValueError("a SHA-256 is written as 64 hexadecimal digits, in lower case")
    return value


Sha256 = Annotated[str, AfterValidator(_hexadecimal), Field(json_schema_extra={"pattern": _SHA256})]


class FileRefused(BaseModel):
    """A file that was not taken in at all."""

    filename: str
    reason: str


class DropOptions(BaseModel):
    """What every memory of one drop gets besides its text; with `force` also of files that are there already."""

    model_config = ConfigDict(frozen=True)

    container_tag: ContainerTag | None = None
    category: Category = "other"
    importance: Importance = 0.7
    metadata: Metadata = Field(default_factory=dict)
    force: bool = False


class UploadOptions(DropOptions):
    """What a memory that carries its files gets; without a text, what is read of them or their names."""

    text: Text | None = None
    source: Source = "upload"


class FolderStored(BaseModel):
    """A memory for each file; `errors` names those of which none was made."""

    created: int
    failed: int
    memories: list[Memory]
    errors: list[FileRefused]


class DropResult(BaseModel):
    """`parent` is the archive or the mail that it lies in."""

    filename: str
    parent: str | None = None
    status: Literal["ok", "failed", "duplicate"]
    memory_ids: list[UUID]
    chunks: int
    preview: str | None
    note: str | None = None
    error: str | None = None


class DropResponse(BaseModel):
    """Answer of a drop that was waited for."""

    stored: int
    failed: int
    duplicates: int = 0
    results: list[DropResult]


class DropAccepted(BaseModel):
    """Answer of a drop that goes on in the background."""

    batch_id: UUID
    queued: int
    failed: int
    errors: list[FileRefused]


MAX_CONTENTS_ASKED = 1000


class ContentsAsked(BaseModel):
    """Which contents are asked for, by their SHA-256 in hexadecimal digits."""

    container_tag: ContainerTag | None = None
    sha256: Annotated[list[Sha256], Field(max_length=MAX_CONTENTS_ASKED)]


class PendingContent(BaseModel):
    """A content that was taken in and is still being worked on."""

    sha256: Sha256
    batch_id: UUID


class MissingContents(BaseModel):
    """`missing` has to be sent, `pending` is under way; the rest is stored."""

    missing: list[Sha256]
    pending: list[PendingContent]


FileStatus = Literal["queued", "processing", "done", "duplicate", "failed"]


class BatchFile(BaseModel):
    """`path` is where it lay, when it came with its folders; `parent` the archive or the mail that it lies in."""

    filename: str
    path: str | None
    parent: str | None
    status: FileStatus
    memory_ids: list[UUID]
    chunks: int
    note: str | None
    error: str | None


class BatchCounts(BaseModel):
    """How far a batch is. `done` counts duplicates too: their memories are there."""

    batch_id: UUID
    collection: str
    total: int
    done: int
    failed: int
    duplicates: int
    pending: int
    complete: bool
    created_at: Timestamp


class BatchProgress(BatchCounts):
    """The same with what came of each file."""

    files: list[BatchFile]


class BatchRetried(BaseModel):
    """How many files that had failed are queued again; none when nothing had failed."""

    batch_id: UUID
    queued: int


class BatchCancelled(BaseModel):
    """How many files were ended. Nothing is worked on any more, so `pending` is 0 and the batch complete."""

    batch_id: UUID
    cancelled: int
    pending: int
    complete: bool


MOST_UPLOADS = 500
_Given = Annotated[str, StringConstraints(max_length=4096), NoNul, Unicode]
_MediaType = Annotated[str, StringConstraints(max_length=256), NoNul, Unicode]


class UploadWanted(BaseModel):
    """A file that is about to be uploaded past us; `size` in bytes, and exactly that."""

    filename: _Given
    content_type: _MediaType | None = None
    size: Annotated[int, Field(ge=0, strict=True), Whole]


class UploadLink(BaseModel):
    """Where to PUT a file, and with which headers; or why not."""

    filename: str
    key: str
    url: str
    method: Literal["PUT"] = "PUT"
    headers: dict[str, str]
    expires_in: int


class UploadRefused(BaseModel):
    filename: str
    error: str


class UploadLinks(BaseModel):
    """In the order of what was asked for."""

    uploads: list[UploadLink | UploadRefused]


class UploadDone(BaseModel):
    """A file that was uploaded under a key of ours; what it says of the size is not relied upon."""

    key: _Given
    filename: _Given | None = None
    mime: _MediaType | None = None
    size: Annotated[int, Field(strict=True), Whole] | None = None


class KeyRejected(BaseModel):
    key: str
    reason: str


class UploadsAccepted(BaseModel):
    """`queued` files are worked on as the batch; of the `rejected` ones nothing was taken in."""

    batch_id: UUID
    queued: int
    rejected: list[KeyRejected]
