"""Nouns of drops on the wire: what is dropped with which options, and what comes of it."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from memory.schemas import Category, ContainerTag, Importance, Metadata, Timestamp

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class FileRefused(BaseModel):
    """A file that was not taken in at all."""

    filename: str
    reason: str


class DropOptions(BaseModel):
    """What every memory of one drop gets besides its text."""

    model_config = ConfigDict(frozen=True)

    container_tag: ContainerTag | None = None
    category: Category = "other"
    importance: Importance = 0.7
    metadata: Metadata = Field(default_factory=dict)


class DropResult(BaseModel):
    filename: str
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


class BatchFile(BaseModel):
    """`path` is where it lay, when it was dropped with its folders."""

    filename: str
    path: str | None
    status: Literal["queued", "processing", "done", "failed"]
    memory_ids: list[UUID]
    chunks: int
    note: str | None
    error: str | None


class BatchProgress(BaseModel):
    batch_id: UUID
    collection: str
    total: int
    done: int
    failed: int
    pending: int
    complete: bool
    created_at: Timestamp
    files: list[BatchFile]
