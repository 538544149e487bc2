"""The tables as Python sees them; the migrations are their truth, and a test compares the two.

Two metadata sets: what stays on the platform, and what lies next to the memories (a tenant may bring its own
Postgres for the latter). No foreign key crosses from one to the other.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import ARRAY, BigInteger, DateTime, Double, Integer, LargeBinary, MetaData, SmallInteger, Uuid
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlmodel import Field, SQLModel

Time = DateTime(timezone=True)


class PlatformTable(SQLModel):
    metadata = MetaData()


class TenantTable(SQLModel):
    metadata = MetaData()


class TenantRow(PlatformTable, table=True):
    __tablename__ = "tenants"

    id: UUID = Field(primary_key=True)
    name: str
    email: str
    tier: str
    is_admin: bool
    created_at: datetime = Field(sa_type=Time)


class KeyRow(PlatformTable, table=True):
    __tablename__ = "keys"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    hash: bytes = Field(sa_type=LargeBinary)
    prefix: str
    label: str | None
    read_only: bool
    is_main: bool
    created_at: datetime = Field(sa_type=Time)
    expires_at: datetime | None = Field(sa_type=Time)
    last_used_at: datetime | None = Field(sa_type=Time)
    revoked_at: datetime | None = Field(sa_type=Time)


class GrantRow(PlatformTable, table=True):
    """One agent's rights in a collection; a collection with any grant is restricted."""

    __tablename__ = "grants"

    tenant_id: UUID = Field(primary_key=True)
    collection_id: UUID = Field(primary_key=True)
    key_id: UUID = Field(primary_key=True)
    can_read: bool
    can_write: bool
    created_at: datetime = Field(sa_type=Time)


class EmbeddingModelRow(TenantTable, table=True):
    """Which models made the vectors of this database; one is current. Not a tenant's row."""

    __tablename__ = "embedding_models"

    id: int = Field(primary_key=True)
    name: str
    dimensions: int
    is_current: bool


class CollectionRow(TenantTable, table=True):
    __tablename__ = "collections"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    name: str
    description: str | None
    details: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"name": "metadata"})
    created_at: datetime = Field(sa_type=Time)
    updated_at: datetime = Field(sa_type=Time)


class MemoryRow(TenantTable, table=True):
    __tablename__ = "memories"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    collection_id: UUID
    text: str
    importance: float = Field(sa_type=Double)
    category: str
    source: str
    details: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"name": "metadata"})
    container_tag: str | None
    type: str | None
    is_latest: bool
    version: int
    sequence: str | None
    position: int | None
    external_id: str | None
    valid_from: datetime = Field(sa_type=Time)
    valid_to: datetime | None = Field(sa_type=Time)
    superseded_by: UUID | None
    superseded_reason: str | None
    created_by: UUID | None
    created_by_label: str | None
    pinned: bool
    archived: bool
    expires_at: datetime | None = Field(sa_type=Time)
    created_at: datetime = Field(sa_type=Time)
    updated_at: datetime = Field(sa_type=Time)


class MemoryVersionRow(TenantTable, table=True):
    """What a memory said before its text was changed; readable as history, never searched."""

    __tablename__ = "memory_versions"

    tenant_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    version: int = Field(primary_key=True)
    text: str
    valid_from: datetime = Field(sa_type=Time)
    valid_to: datetime = Field(sa_type=Time)
    reason: str | None
    changed_by: UUID | None
    changed_by_label: str | None


class MemoryVectorRow(TenantTable, table=True):
    """The narrow table that exact scans read. `segment`: when it was written, in steps that indexes cover."""

    __tablename__ = "memory_vectors"

    tenant_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    model_id: int = Field(primary_key=True)
    collection_id: UUID
    embedding: Any = Field(sa_type=HALFVEC)
    segment: int


class OpenSegmentRow(TenantTable, table=True):
    """The segment in which vectors are written now; every index covers earlier ones. Not a tenant's row."""

    __tablename__ = "open_segment"

    is_only: bool = Field(primary_key=True)
    number: int


class VectorIndexRow(TenantTable, table=True):
    """An index over vectors: of which collections, with how many memories each, and over which segments."""

    __tablename__ = "vector_indexes"

    tenant_id: UUID = Field(primary_key=True)
    id: int = Field(primary_key=True)
    model_id: int
    collections: Any = Field(sa_type=ARRAY(Uuid))
    memories: Any = Field(sa_type=ARRAY(Integer))
    first_segment: int
    last_segment: int
    is_ready: bool


class MemoryTermsRow(TenantTable, table=True):
    """What text search reads: lexemes to find by, and their BM25 weights to rank by."""

    __tablename__ = "memory_terms"

    tenant_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    collection_id: UUID
    tsv: Any = Field(sa_type=TSVECTOR)
    lexical: Any = Field(sa_type=SPARSEVEC(1048576))


class CollectionStatisticsRow(TenantTable, table=True):
    """How many memories the term statistics of a large collection were counted over, and when."""

    __tablename__ = "collection_statistics"

    tenant_id: UUID = Field(primary_key=True)
    collection_id: UUID = Field(primary_key=True)
    documents: int
    sampled: int
    refreshed_at: datetime = Field(sa_type=Time)


class CollectionTermRow(TenantTable, table=True):
    """In how many of the sampled memories a lexeme stands."""

    __tablename__ = "collection_terms"

    tenant_id: UUID = Field(primary_key=True)
    collection_id: UUID = Field(primary_key=True)
    lexeme: str = Field(primary_key=True)
    documents: int


class BatchRow(TenantTable, table=True):
    """One drop: where its files go and what their memories get besides text."""

    __tablename__ = "batches"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    collection_id: UUID | None
    collection: str
    container_tag: str | None
    category: str
    importance: float = Field(sa_type=Double)
    source: str
    details: dict[str, Any] = Field(sa_type=JSONB, sa_column_kwargs={"name": "metadata"})
    created_by: UUID | None
    created_by_label: str | None
    created_at: datetime = Field(sa_type=Time)
    touched_at: datetime = Field(sa_type=Time)
    completed_at: datetime | None = Field(sa_type=Time)
    force: bool
    round: int


class FileRow(TenantTable, table=True):
    """One stored file, with its way through the batch that brought it."""

    __tablename__ = "files"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    batch_id: UUID | None
    ordinal: int
    filename: str
    path: str | None
    parent_id: UUID | None
    depth: int
    place: int
    inherited: dict[str, Any] = Field(sa_type=JSONB)
    content_type: str
    size: int = Field(sa_type=BigInteger)
    sha256: bytes = Field(sa_type=LargeBinary)
    key: str | None
    status: str
    chunks: int
    note: str | None
    error: str | None
    created_at: datetime = Field(sa_type=Time)
    updated_at: datetime = Field(sa_type=Time)
    duplicate_of: UUID | None


class MemoryFileRow(TenantTable, table=True):
    """Which files a memory carries, in order."""

    __tablename__ = "memory_files"

    tenant_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    file_id: UUID = Field(primary_key=True)
    position: int


class CollectionVersionRow(TenantTable, table=True):
    """A part of a collection's version, which every committed change raises."""

    __tablename__ = "collection_versions"

    tenant_id: UUID = Field(primary_key=True)
    collection_id: UUID = Field(primary_key=True)
    shard: int = Field(primary_key=True, sa_type=SmallInteger)
    version: int = Field(sa_type=BigInteger)


class AuditRow(TenantTable, table=True):
    """Who changed what, and when; never what it says."""

    __tablename__ = "audit"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_type=Time)
    actor_id: UUID | None
    actor_label: str | None
    action: str
    resource: str
    ip_hash: str | None


class CurationRunRow(TenantTable, table=True):
    """One dedup or archive-stale that changes things."""

    __tablename__ = "curation_runs"

    tenant_id: UUID = Field(primary_key=True)
    id: UUID = Field(primary_key=True)
    kind: str
    state: str
    collection_id: UUID | None
    collection: str
    threshold: float | None = Field(sa_type=Double)
    older_than_days: int | None
    stale_before: datetime | None = Field(sa_type=Time)
    scanned: int
    scheduled: bool
    error: str | None
    created_by: UUID | None
    created_by_label: str | None
    ip_hash: str | None
    created_at: datetime = Field(sa_type=Time)
    touched_at: datetime = Field(sa_type=Time)
    ended_at: datetime | None = Field(sa_type=Time)


class CurationItemRow(TenantTable, table=True):
    """One memory that a run deletes, archives or leaves after all."""

    __tablename__ = "curation_items"

    tenant_id: UUID = Field(primary_key=True)
    run_id: UUID = Field(primary_key=True)
    memory_id: UUID = Field(primary_key=True)
    keeper_id: UUID | None
    similarity: float | None = Field(sa_type=Double)
    state: str


class CurationPolicyRow(TenantTable, table=True):
    """What is done to a collection by itself; null is off."""

    __tablename__ = "curation_policies"

    tenant_id: UUID = Field(primary_key=True)
    collection_id: UUID = Field(primary_key=True)
    dedup_threshold: float | None = Field(sa_type=Double)
    stale_days: int | None
    interval_hours: int | None
    next_run_at: datetime | None = Field(sa_type=Time)


class IdempotentRequestRow(TenantTable, table=True):
    """A request that brought an `Idempotency-Key` and was carried out, and what it was answered, sealed."""

    __tablename__ = "idempotent_requests"

    tenant_id: UUID = Field(primary_key=True)
    key_id: UUID = Field(primary_key=True)
    path: str = Field(primary_key=True)
    token: bytes = Field(primary_key=True, sa_type=LargeBinary)
    body: bytes = Field(sa_type=LargeBinary)
    attempt: UUID
    resource: str | None
    status: int | None = Field(sa_type=SmallInteger)
    answer: bytes | None = Field(sa_type=LargeBinary)
    created_at: datetime = Field(sa_type=Time)
