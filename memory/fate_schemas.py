"""Nouns of the history and the fates of memories on the wire."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from memory.schemas import Author, CollectionName, ContainerTag, Text, Timestamp, Whole


class MemoryVersion(BaseModel):
    """What a memory said for a while; `reason` and `changed_by` tell why it was replaced, and by whom."""

    id: UUID
    version: int
    text: str
    valid_from: Timestamp
    valid_to: Timestamp | None
    superseded_by: UUID | None
    reason: str | None
    changed_by: Author | None


class HistoryPage(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 200
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class MoveWanted(BaseModel):
    to_collection: CollectionName


class PinWanted(BaseModel):
    pinned: Annotated[bool, Field(strict=True)]


class ArchiveWanted(BaseModel):
    archived: Annotated[bool, Field(strict=True)]


class RelatedWanted(BaseModel):
    """Which neighbours of a memory are shown."""

    limit: Annotated[int, Field(ge=1, le=50)] = 5
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class ForgetRequest(BaseModel):
    """Erases by meaning. With `dry_run` nothing goes: the answer shows what would."""

    query: Text
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = 0.5
    limit: Annotated[int, Field(ge=1, le=100, strict=True), Whole] = 10
    container_tag: ContainerTag | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False


class Forgettable(BaseModel):
    """A memory that a dry run would erase; `text` is its beginning."""

    id: UUID
    text: str
    score: float
    archived: bool
    is_latest: bool
    created_at: Timestamp


class ForgetResponse(BaseModel):
    """`skipped_pinned`: how many match and stay because they are pinned. `memories` is for a dry run."""

    dry_run: bool
    deleted: int = 0
    would_delete: int = 0
    ids: list[UUID] = Field(default_factory=list)
    skipped_pinned: int = 0
    memories: list[Forgettable] = Field(default_factory=list)
