"""Collections of a tenant: made by name, on purpose or by the first write."""

import logging
from collections.abc import Sequence
from typing import TypeVar
from uuid import UUID

from memory import quotas
from memory.errors import AppError, BadRequest, Conflict, Forbidden, NotFound
from memory.grants import Grants, Reach
from memory.ports import ObjectStore
from memory.schemas import Caller, Collection, CollectionCreate, CollectionUpdate
from memory.store import changes, collections, files, requests
from memory.store.database import Database

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Collections:
    """Create, read, change and delete collections."""

    def __init__(self, database: Database, grants: Grants, objects: ObjectStore) -> None:
        self._database = database
        self._grants = grants
        self._objects = objects

    def page(self, caller: Caller, *, limit: int | None, offset: int) -> tuple[list[Collection], int]:
        """A page by name, and how many there are in all, without those that the caller may not know of."""
        reach = self._grants.reach(caller)
        hidden = [found for found in reach.restricted if not reach.shows(found)]
        with self._database.transaction(caller.tenant_id) as session:
            found, total = collections.listed(session, hidden=hidden, limit=limit, offset=offset)
        return [_marked(collection, reach) for collection in found], total

    def get(self, caller: Caller, name: str) -> Collection:
        """Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection = _known(collections.find(session, name), name)
        if not reach.shows(collection.id):
            raise Forbidden(f"this key may not read the collection {name!r}")
        return _marked(collection, reach)

    def create(self, caller: Caller, wanted: CollectionCreate) -> Collection:
        """Raises Conflict when one with this name exists, Forbidden when there is no room for another."""
        with self._database.transaction(caller.tenant_id) as session:
            # First of all: a repeat that comes too early must wait for the answer, not stumble over the name.
            requests.mark(session, caller)
            if collections.find_id(session, wanted.name) is None:
                quotas.room_for_a_collection(session, caller)
            if not collections.insert(
                session,
                caller.tenant_id,
                wanted.name,
                description=wanted.description,
                metadata=wanted.metadata,
            ):
                raise Conflict(f"a collection named {wanted.name!r} exists")
            made = _known(collections.find(session, wanted.name), wanted.name)
            changes.record(session, caller, "collection.create", f"collection {made.id}", [made.id])
            return made

    def update(self, caller: Caller, name: str, wanted: CollectionUpdate) -> Collection:
        """Sets the fields that were sent. Raises BadRequest when there is none, NotFound, Forbidden."""
        fields = wanted.model_dump(exclude_unset=True)
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = _managed(reach, collections.find_id(session, name), name)
            if not fields:
                raise BadRequest("nothing to change: send `description` or `metadata`")
            collections.update(session, name, fields)
            updated = _known(collections.find(session, name), name)
            changes.record(session, caller, "collection.update", f"collection {collection_id}", [collection_id])
        return _marked(updated, reach)

    def delete(self, caller: Caller, name: str) -> Collection:
        """Removes the collection, its memories and the files that only they carried; what it was.

        Raises NotFound, Forbidden.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            _managed(reach, collections.hold(session, name), name)
            collection = _known(collections.find(session, name), name)
            held = files.hold_of_collection(session, collection.id)
            collections.delete(session, collection.id)
            keys = files.release(session, held)
            changes.record(session, caller, "collection.delete", f"collection {collection.id}")
        self._grants.forget(caller, collection.id)
        remove_objects(self._objects, keys)
        return _marked(collection, reach)


def remove_objects(objects: ObjectStore, keys: Sequence[str]) -> None:
    """Removes what the database no longer knows. A store that is down leaves orphans behind, never a failed request."""
    if not keys:
        return
    try:
        objects.delete(keys)
    except AppError:
        _log.warning("objects left behind", extra={"count": len(keys)})


def _marked(collection: Collection, reach: Reach) -> Collection:
    return collection.model_copy(update={"restricted": collection.id in reach.restricted})


def _managed(reach: Reach, found: UUID | None, name: str) -> UUID:
    collection_id = _known(found, name)
    if not reach.manages(collection_id):
        raise Forbidden(f"this key may not change the collection {name!r}")
    return collection_id


def _known(found: T | None, name: str) -> T:
    if found is None:
        raise NotFound(f"no collection named {name!r}")
    return found
