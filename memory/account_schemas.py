"""Nouns of an account on the wire: who it is, what it may have, what it uses, what was done in it."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from memory.schemas import Author, Timestamp


class Limits(BaseModel):
    """What one account may have at once; null is no limit."""

    max_collections: int | None = None
    max_memories: int | None = None
    max_storage_bytes: int | None = None
    max_file_bytes: int | None
    requests_per_minute: int | None = None


class Account(BaseModel):
    id: UUID
    name: str
    email: str
    tier: str
    is_admin: bool
    limits: Limits
    created_at: Timestamp


class Usage(BaseModel):
    """`memories`: all that have not expired, archived and superseded ones too. `added_…`: those of them since then."""

    collections: int
    memories: int
    storage_bytes: int
    added_7d: int
    added_30d: int


class AuditPage(BaseModel):
    days: Annotated[int, Field(ge=1, le=3_650)] = 30
    limit: Annotated[int, Field(ge=1, le=1_000)] = 200


class AuditEntry(BaseModel):
    """Who did what to what; never what it says. `ip_hash` is the same for the same address, and tells no more."""

    id: UUID
    created_at: Timestamp
    actor: Author
    action: str
    resource: str
    ip_hash: str | None
