"""Nouns of drops on the wire: what is dropped with which options, and what comes of it."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from memory.schemas import Category, ContainerTag, Importance, Metadata, Timestamp


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


class BatchFile(BaseModel):
    filename: str
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
