"""The nouns of curation on the wire: near-duplicates, stale memories, runs, policies, health, summaries."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from memory.described import partial
from memory.schemas import Flag, Memory, Timestamp, Whole

RunKind = Literal["dedup", "archive_stale"]
RunState = Literal["queued", "running", "done", "failed"]

Threshold = Annotated[
    float, Field(ge=0.5, le=1, allow_inf_nan=False, strict=True, description="least cosine similarity")
]
Days = Annotated[int, Field(ge=0, le=3650)]
JsonDays = Annotated[Days, Field(strict=True), Whole]
Hours = Annotated[int, Field(ge=1, le=8760, strict=True), Whole]


class DedupRequest(BaseModel):
    """A dry run shows what would go; only `dry_run: false` changes anything."""

    threshold: Threshold = 0.95
    dry_run: Flag = True


class Duplicate(Memory):
    """A memory that says what its keeper says; `similarity` is the cosine between the two."""

    similarity: float


class Cluster(BaseModel):
    """A memory that stays, and those that it stands for, most similar first."""

    keeper: Memory
    duplicates: list[Duplicate]


class DedupReport(BaseModel):
    """`scanned` of the newest memories were compared, `duplicates` stand in the clusters, `deleted` are gone."""

    dry_run: bool
    threshold: float
    scanned: int
    clusters: list[Cluster]
    duplicates: int
    deleted: int


class ArchiveStaleRequest(BaseModel):
    """Stale is what was not changed for `older_than_days`; pinned memories never are."""

    older_than_days: JsonDays = 90
    dry_run: Flag = True


class StaleFound(BaseModel):
    """What a dry run would archive; `ids` names the stalest, 10,000 at most."""

    dry_run: Literal[True] = True
    older_than_days: int
    would_archive: int
    ids: list[UUID]


class StaleArchived(BaseModel):
    """What was archived; `ids` names the stalest, 10,000 at most."""

    dry_run: Literal[False] = False
    older_than_days: int
    archived: int
    ids: list[UUID]


class CurationRun(BaseModel):
    """One dedup or archive-stale that changes things, and how far it is."""

    run_id: UUID
    kind: RunKind
    collection: str
    state: RunState
    scheduled: bool
    threshold: float | None
    older_than_days: int | None
    scanned: int
    deleted: int
    archived: int
    error: str | None
    created_at: Timestamp
    ended_at: Timestamp | None


class CurationOutcome(CurationRun):
    """The same with the memories that it deleted or archived, 10,000 at most."""

    ids: list[UUID]


class CurationPolicyUpdate(BaseModel):
    """Partial: only the fields that are sent change; null turns off. Without an interval nothing runs by itself."""

    model_config = ConfigDict(json_schema_extra=partial)

    dedup_threshold: Threshold | None = None
    stale_days: JsonDays | None = None
    interval_hours: Hours | None = None


class LastRun(BaseModel):
    """What the policy did last."""

    at: Timestamp
    dedup: CurationRun | None
    archive_stale: CurationRun | None


class CurationPolicy(BaseModel):
    """What is done to a collection by itself, and when."""

    dedup_threshold: float | None = None
    stale_days: int | None = None
    interval_hours: int | None = None
    next_run_at: Timestamp | None = None
    last_run: LastRun | None = None


class Contradiction(BaseModel):
    """Where the truth changed: what is held now, and what it took the place of."""

    current: Memory
    superseded: Memory
    reason: str | None
    created_at: Timestamp


class Health(BaseModel):
    """Counts over a collection. `categories` are those of the current memories, the 1,000 largest at most."""

    exists: Literal[True] = True
    total: int
    current: int
    archived: int
    pinned: int
    stale: int
    expired: int
    supersessions: int
    categories: dict[str, int]
    needs_attention: int


class NoHealth(BaseModel):
    """There is no such collection."""

    model_config = ConfigDict(extra="forbid")

    exists: Literal[False] = False


class Summary(BaseModel):
    """A briefing on what a collection holds; `based_on` counts the memories that it was made from."""

    summary: str
    themes: list[str]
    based_on: int
    generated_at: Timestamp
    method: Literal["llm", "extractive"]
    cached: bool
