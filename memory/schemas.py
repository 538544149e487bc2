"""The nouns on the wire, and the caller. Shapes, defaults and ranges as in the API reference."""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    StringConstraints,
)

from memory.described import CannotBeCleared, IsAName, IsThere, SaysSomething, partial
from memory.filters import Filter

MAX_METADATA_BYTES = 32 * 1024
MAX_METADATA_DEPTH = 64
MAX_TEXT_CHARACTERS = 10_000

_NUMBER = re.compile(r"\s*[-+]?[0-9.]+\s*", re.ASCII)


@dataclass(frozen=True)
class Once:
    """What makes a repeat of one request known: its path, the digests of its `Idempotency-Key` and of its body.

    `attempt` is this very request, so that it knows its own mark when it meets it.
    """

    path: str
    token: bytes
    body: bytes
    attempt: UUID


@dataclass(frozen=True)
class Caller:
    """Who is asking now: the tenant, and the key as the agent's identity."""

    tenant_id: UUID
    key_id: UUID | None
    label: str | None = None
    read_only: bool = False
    is_main: bool = False
    is_admin: bool = False
    # Says what the account may have.
    tier: str = "self_hosted"
    # Whether any collection of the tenant is restricted to some agents.
    has_grants: bool = False
    # A salted hash of the address that the request came from.
    ip_hash: str | None = None
    # Set when the request may be repeated and must be carried out once.
    once: Once | None = None


def _without_nul(value: object) -> object:
    # Postgres text cannot hold NUL; it never means anything in text.
    return value.replace("\x00", "") if isinstance(value, str) else value


def _refuse_unstorable(value: object, depth: int = 1) -> None:
    # Much deeper, and what is stored can no longer be read: the serializer of answers stops at 255 levels.
    if depth > MAX_METADATA_DEPTH:
        raise ValueError(f"nested more than {MAX_METADATA_DEPTH} levels deep")
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("must not contain NUL characters")
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_unstorable(key, depth)
            _refuse_unstorable(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_unstorable(inner, depth + 1)


def _storable_metadata(value: dict[str, Any]) -> dict[str, Any]:
    _refuse_unstorable(value)
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (UnicodeEncodeError, ValueError) as error:
        raise ValueError("must be plain JSON: finite numbers and valid Unicode") from error
    if len(encoded) > MAX_METADATA_BYTES:
        raise ValueError(f"{len(encoded)} bytes of JSON; the limit is {MAX_METADATA_BYTES}")
    return value


def _valid_unicode(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("text holds a lone surrogate, which is not valid Unicode") from error
    return value


def _no_control(value: str) -> str:
    if "/" in value or any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("a collection name has no '/' and no control characters")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time lies outside the calendar") from error


def _written(value: object) -> object:
    # A number is a time in some unit, and which one nobody said: seconds taken for milliseconds hide a memory at once.
    if isinstance(value, int | float) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise ValueError("a time is written as in 2026-01-31T12:00:00Z")
    return value


def _whole(value: object) -> object:
    # JSON does not tell 5.0 from 5.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")


Unicode = AfterValidator(_valid_unicode)
NoNul = BeforeValidator(_without_nul)
Whole = BeforeValidator(_whole)
CollectionName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=128),
    AfterValidator(_no_control),
    Unicode,
    IsAName,
]
# NoNul stands behind the constraints, so that they bound what is left: before them, text is measured untrimmed.
Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARACTERS),
    NoNul,
    Unicode,
    SaysSomething,
]
Category = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), NoNul, Unicode, SaysSomething
]
Source = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), NoNul, Unicode, SaysSomething
]
ContainerTag = Annotated[str, StringConstraints(min_length=1, max_length=128), NoNul, Unicode, IsThere]
Sequence = Annotated[str, StringConstraints(min_length=1, max_length=128), NoNul, Unicode, IsThere]
ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=256), NoNul, Unicode, IsThere]
Position = Annotated[int, Field(ge=-(2**31), le=2**31 - 1, strict=True), Whole]
Flag = Annotated[bool, Field(strict=True)]
Importance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# In JSON a number is a number; a form knows only text.
JsonImportance = Annotated[Importance, Field(strict=True)]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable_metadata)]
Timestamp = Annotated[
    datetime,
    BeforeValidator(_written),
    AfterValidator(_utc),
    PlainSerializer(_iso, return_type=str, when_used="json"),
]


class CollectionCreate(BaseModel):
    name: CollectionName
    description: Annotated[str, Field(max_length=10_000), NoNul, Unicode] | None = None
    metadata: Metadata = Field(default_factory=dict)


class CollectionUpdate(BaseModel):
    """Partial: only the fields that are sent change; `metadata` is replaced whole."""

    model_config = ConfigDict(json_schema_extra=partial)

    description: Annotated[str, Field(max_length=10_000), NoNul, Unicode] | None = None
    metadata: Metadata = Field(default_factory=dict)


class Collection(BaseModel):
    id: UUID
    name: str
    description: str | None
    metadata: dict[str, Any]
    memory_count: int
    restricted: bool
    created_at: Timestamp
    updated_at: Timestamp


class Author(BaseModel):
    """Which agent wrote it: the key's id and label."""

    id: UUID | None
    label: str | None


class MemoryFile(BaseModel):
    """A stored file of a memory; `url` works for an hour and is made when the memory is read."""

    url: str = ""
    filename: str
    content_type: str
    size: int
    # Where the object lies; never shown.
    _key: str | None = PrivateAttr(default=None)

    @classmethod
    def stored(cls, key: str | None, filename: str, content_type: str, size: int) -> "MemoryFile":
        """As the store knows it, without a link yet."""
        file = cls(filename=filename, content_type=content_type, size=size)
        file._key = key
        return file

    @property
    def key(self) -> str | None:
        """Where the object lies; None once it is gone."""
        return self._key

    def linked(self, link: Callable[[str, str, str], str]) -> "MemoryFile":
        """With a link made by `link(key, filename, content_type)`; a file whose object is gone keeps none."""
        return self.model_copy(update={"url": link(self._key, self.filename, self.content_type) if self._key else ""})


class MemoryCreate(BaseModel):
    """A second one with the same `external_id` under the same tag changes the first, in the fields that it sends.

    `expires_at` may lie in the past, as it does in what is carried over from elsewhere: it is stored, and not shown.
    """

    text: Text
    importance: JsonImportance = 0.7
    category: Category = "other"
    source: Source = "api"
    metadata: Metadata = Field(default_factory=dict)
    container_tag: ContainerTag | None = None
    sequence: Sequence | None = None
    position: Position | None = None
    external_id: ExternalId | None = None
    expires_at: Timestamp | None = None


class MemoryPatch(BaseModel):
    """Partial: only the fields that are sent change; `metadata` is replaced whole; null clears where it may."""

    model_config = ConfigDict(json_schema_extra=partial)

    text: Annotated[Text | None, CannotBeCleared] = None
    importance: Annotated[JsonImportance | None, CannotBeCleared] = None
    category: Annotated[Category | None, CannotBeCleared] = None
    metadata: Annotated[Metadata | None, CannotBeCleared] = None
    sequence: Sequence | None = None
    position: Position | None = None
    expires_at: Timestamp | None = None


class Memory(BaseModel):
    id: UUID
    collection: str
    text: str
    importance: float
    category: str
    source: str
    metadata: dict[str, Any]
    container_tag: str | None
    images: list[MemoryFile]
    pinned: bool
    archived: bool
    created_by: Author
    type: str | None
    is_latest: bool
    sequence: str | None
    position: int | None
    external_id: str | None
    version: int
    valid_from: Timestamp
    valid_to: Timestamp | None
    superseded_by: UUID | None
    expires_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class BulkCreated(BaseModel):
    """In the order of what was sent; `updated` counts those whose `external_id` was there already."""

    created: int
    updated: int
    ids: list[UUID]
    memories: list[Memory]


class MemoryFilter(BaseModel):
    """What a listing shows."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    container_tag: Annotated[str, NoNul, Unicode] | None = None
    category: Annotated[str, NoNul, Unicode] | None = None
    include_archived: bool = False
    include_superseded: bool = False


class SearchRequest(BaseModel):
    query: Text
    limit: Annotated[int, Field(ge=1, le=50, strict=True), Whole] = 5
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] = 0.3
    mode: Literal["hybrid", "vector", "text"] = "hybrid"
    category: Category | None = None
    metadata_filter: Metadata | None = None
    container_tag: ContainerTag | None = None
    filter: Filter | None = None
    include_archived: Flag = False
    # What was current then; archive and deletion are judged as they are now.
    as_of: Timestamp | None = None
    context: Annotated[int, Field(ge=0, le=3, strict=True), Whole] = 0
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), Whole] | None = None
    explain: Flag = False
    # Both ask a language model; without one they change nothing.
    rewrite: Flag = False
    rerank: Flag = False


class Explanation(BaseModel):
    """How a result came to its score. `vector_rank`, `text_rank`: its place in the arm that found it, from 1.

    `fused` is its own score, unclamped, and `neighbour` what its neighbours in its sequence add to that.
    """

    origin: Literal["vector", "text", "both"]
    cosine: float | None
    bm25: float | None
    text_score: float | None
    neighbour: float
    fused: float
    vector_rank: int | None
    text_rank: int | None


class Context(BaseModel):
    """What stands around a memory in its sequence, in the order of the sequence."""

    before: list[Memory]
    after: list[Memory]

    def fields(self) -> dict[str, object]:
        """As a hit shows it: under its name, and both sides by themselves."""
        return {"context": self, "before": self.before, "after": self.after}


def _is_none(value: object) -> bool:
    return value is None


class SearchHit(Memory):
    """A memory with how well it answers: `score` 0-1, and each arm's part of it.

    `context`, `before`, `after` and `explain` only when asked for.
    """

    score: float
    vector_score: float | None
    text_score: float | None
    context: Annotated[Context | None, Field(exclude_if=_is_none)] = None
    before: Annotated[list[Memory] | None, Field(exclude_if=_is_none)] = None
    after: Annotated[list[Memory] | None, Field(exclude_if=_is_none)] = None
    explain: Annotated[Explanation | None, Field(exclude_if=_is_none)] = None


class SearchResponse(BaseModel):
    results: list[SearchHit]
    query_embedding_ms: float
    search_ms: float
    cached: bool = False
    # Something was missing that would have made it better: it must not be kept.
    _degraded: bool = PrivateAttr(default=False)

    @property
    def degraded(self) -> bool:
        return self._degraded

    def as_degraded(self) -> "SearchResponse":
        """The same, marked as made without something that was out of order."""
        marked = self.model_copy()
        marked._degraded = True
        return marked
