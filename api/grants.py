"""Routes of grants: which agents may use a collection."""

from uuid import UUID

from fastapi import Response

from api.auth import Reader, Writer
from api.deps import Collection, Id, Services
from api.routing import answer
from api.routing import router as guarded_router
from memory.agents import CollectionGrants, GrantWanted

router = guarded_router("keys & agents")

_GRANTS = "/v1/memory/collections/{name}/grants"


class GrantSet(CollectionGrants):
    """The grant as it is now, and with it all others of the collection."""

    agent_key_id: UUID
    can_read: bool
    can_write: bool


class GrantDeleted(CollectionGrants):
    """What is left; without any the collection is open again."""

    deleted: bool = True
    id: UUID


@router.get(_GRANTS, response_model=CollectionGrants)
def list_grants(caller: Reader, services: Services, name: Collection) -> Response:
    """Who may use the collection; without grants it is open to all of your agents."""
    return answer(services.grants.show(caller, name))


@router.put(_GRANTS, response_model=GrantSet)
def set_grant(caller: Writer, services: Services, name: Collection, body: GrantWanted) -> Response:
    """Grants or changes an agent's rights. The first grant restricts the collection to those who have one.

    A collection that is missing is created, restricted. You do not get a grant by giving one.
    """
    left = services.grants.put(caller, name, body)
    return answer(
        GrantSet(**left.model_dump(), agent_key_id=body.agent_key_id, can_read=body.can_read, can_write=body.can_write)
    )


@router.delete(f"{_GRANTS}/{{agent_key_id}}", response_model=GrantDeleted)
def delete_grant(caller: Writer, services: Services, name: Collection, agent_key_id: Id) -> Response:
    """Takes an agent's grant back. Without the last one the collection is open again."""
    return answer(GrantDeleted(**services.grants.delete(caller, name, agent_key_id).model_dump(), id=agent_key_id))
