"""Routes of keys and of the agents behind them."""

from typing import Annotated
from uuid import UUID

from fastapi import Body, Query, Response
from pydantic import BaseModel, BeforeValidator, TypeAdapter

from api.auth import Reader, Token, Writer
from api.deps import AnyLimit, Id, Offset, Services, existing_id
from api.idempotency import answers_with_a_secret
from api.routing import answer, answer_list
from api.routing import router as guarded_router
from memory.agents import Agent, Key, KeyCreate, NewKey

router = guarded_router("keys & agents")

_keys = TypeAdapter(list[Key])
_agents = TypeAdapter(list[Agent])


class KeyRevoked(BaseModel):
    deleted: bool = True
    id: UUID


@router.get("/v1/memory/keys", response_model=list[Key])
def list_keys(caller: Writer, services: Services, limit: AnyLimit = None, offset: Offset = 0) -> Response:
    """Your keys, newest first, revoked ones included, never the keys themselves."""
    return answer_list(_keys, *services.accounts.keys(caller, limit=limit, offset=offset))


@router.post("/v1/memory/keys", status_code=201, response_model=NewKey)
@answers_with_a_secret
def create_key(
    caller: Writer, services: Services, body: Annotated[KeyCreate, Body(default_factory=KeyCreate)]
) -> Response:
    """Creates a key; `api_key` is shown here and never again. A read-only key searches and reads."""
    return answer(services.accounts.create_key(caller, body), 201)


@router.delete("/v1/memory/keys", response_model=KeyRevoked)
def revoke_key_by_query(
    caller: Writer, services: Services, key_id: Annotated[UUID, BeforeValidator(existing_id), Query(alias="id")]
) -> Response:
    """The same as with the id in the path."""
    return _revoked(caller, services, key_id)


@router.delete("/v1/memory/keys/{key_id}", response_model=KeyRevoked)
def revoke_key(caller: Writer, services: Services, key_id: Id) -> Response:
    """Ends a key for good; what it wrote stays, and so do its grants. The last that can write cannot be revoked."""
    return _revoked(caller, services, key_id)


@router.post("/v1/memory/admin/rotate-key", response_model=NewKey)
@answers_with_a_secret
def rotate_key(caller: Writer, services: Services, token: Token) -> Response:
    """A new secret for the key that asks: it keeps id, label and grants, and the old secret ends at once."""
    return answer(services.accounts.rotate_key(caller, token))


@router.get("/v1/memory/agents", response_model=list[Agent])
def list_agents(caller: Reader, services: Services, limit: AnyLimit = None, offset: Offset = 0) -> Response:
    """The agents of this account: one for each key that works."""
    return answer_list(_agents, *services.accounts.agents(caller, limit=limit, offset=offset))


def _revoked(caller: Writer, services: Services, key_id: UUID) -> Response:
    services.accounts.revoke_key(caller, key_id)
    return answer(KeyRevoked(id=key_id))
