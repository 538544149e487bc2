"""Collections of a tenant: made by name, on purpose or by the first write."""

import logging
from collections.abc import Sequence
from typing import TypeVar

from memory.errors import AppError, BadRequest, Conflict, NotFound
from memory.ports import ObjectStore
from memory.schemas import Caller, Collection, CollectionCreate, CollectionUpdate
from memory.store import collections, files
from memory.store.database import Database

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Collections:
    """Create, read, change and delete collections."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def page(self, caller: Caller, *, limit: int, offset: int) -> tuple[list[Collection], int]:
        """A page by name, and how many there are in all."""
        with self._database.transaction(caller.tenant_id) as session:
            return collections.listed(session, limit=limit, offset=offset)

    def get(self, caller: Caller, name: str) -> Collection:
        """Raises NotFound."""
        with self._database.transaction(caller.tenant_id) as session:
            return _known(collections.find(session, name), name)

    def create(self, caller: Caller, wanted: CollectionCreate) -> Collection:
        """Raises Conflict when one with this name exists."""
        with self._database.transaction(caller.tenant_id) as session:
            if not collections.insert(
                session,
                caller.tenant_id,
                wanted.name,
                description=wanted.description,
                metadata=wanted.metadata,
            ):
                raise Conflict(f"a collection named {wanted.name!r} exists")
            return _known(collections.find(session, wanted.name), wanted.name)

    def update(self, caller: Caller, name: str, wanted: CollectionUpdate) -> Collection:
        """Sets the fields that were sent. Raises BadRequest when there is none, NotFound."""
        changes = wanted.model_dump(exclude_unset=True)
        with self._database.transaction(caller.tenant_id) as session:
            _known(collections.find_id(session, name), name)
            if not changes:
                raise BadRequest("nothing to change: send `description` or `metadata`")
            collections.update(session, name, changes)
            return _known(collections.find(session, name), name)

    def delete(self, caller: Caller, name: str) -> Collection:
        """Removes the collection, its memories and the files that only they carried; what it was. Raises NotFound."""
        with self._database.transaction(caller.tenant_id) as session:
            _known(collections.hold(session, name), name)
            collection = _known(collections.find(session, name), name)
            held = files.hold_of_collection(session, collection.id)
            collections.delete(session, collection.id)
            keys = files.release(session, held)
        remove_objects(self._objects, keys)
        return collection


def remove_objects(objects: ObjectStore, keys: Sequence[str]) -> None:
    """Removes what the database no longer knows. A store that is down leaves orphans behind, never a failed request."""
    if not keys:
        return
    try:
        objects.delete(keys)
    except AppError:
        _log.warning("objects left behind", extra={"count": len(keys)})


def _known(found: T | None, name: str) -> T:
    if found is None:
        raise NotFound(f"no collection named {name!r}")
    return found
