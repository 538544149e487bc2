"""Nouns of keys, agents and grants on the wire."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from memory.described import SaysSomething
from memory.errors import NotFound
from memory.schemas import NoNul, Timestamp, Unicode


def _still_to_come(value: datetime) -> datetime:
    if value <= datetime.now(UTC):
        raise ValueError("expires_at must lie in the future")
    return value


def _id_of_a_key(value: object) -> object:
    # What cannot be an id is the id of no key: 404 as for any other unknown one.
    if not isinstance(value, str):
        return value
    try:
        parsed = UUID(value)
    except ValueError:
        raise NotFound("no such agent key") from None
    if str(parsed) != value.lower():
        raise NotFound("no such agent key")
    return parsed


Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), NoNul, Unicode, SaysSomething
]


class KeyCreate(BaseModel):
    """`label` names the agent that will use the key; without `expires_at` it works until it is revoked."""

    label: Label | None = None
    read_only: Annotated[bool, Field(strict=True)] = False
    expires_at: Annotated[Timestamp, AfterValidator(_still_to_come)] | None = None


class Key(BaseModel):
    """A key as it is listed: never the key itself, only how it begins."""

    id: UUID
    label: str | None
    read_only: bool
    prefix: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None
    revoked: bool


class NewKey(Key):
    """The only time that `api_key` is shown."""

    api_key: str


class Agent(BaseModel):
    """An agent's identity, which is a key without anything that opens doors."""

    id: UUID
    label: str | None
    read_only: bool
    created_at: Timestamp


class GrantWanted(BaseModel):
    """Both rights stand for themselves: who may write need not be allowed to read."""

    agent_key_id: Annotated[UUID, BeforeValidator(_id_of_a_key)]
    can_read: Annotated[bool, Field(strict=True)] = True
    can_write: Annotated[bool, Field(strict=True)] = False


class GrantedAgent(BaseModel):
    """One agent's rights in a restricted collection."""

    agent_key_id: UUID
    label: str | None
    can_read: bool
    can_write: bool


class CollectionGrants(BaseModel):
    """Who may use a collection; without grants it is open to every agent of its tenant."""

    restricted: bool
    grants: list[GrantedAgent]


class NewTenant(BaseModel):
    """The only time a key is shown."""

    tenant_id: UUID
    email: str
    api_key: str
