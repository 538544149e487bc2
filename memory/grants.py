"""Grants: which collections a caller may read and write. Every rule asks here, and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from memory import quotas
from memory.agents import CollectionGrants, GrantedAgent, GrantWanted
from memory.errors import Forbidden, NotFound
from memory.schemas import Caller
from memory.store import changes, collections, grants, requests
from memory.store.database import Database, Session
from memory.store.grants import Grant


@dataclass(frozen=True)
class Reach:
    """What one caller may read and write. A collection without grants is open to every agent of its tenant."""

    caller: Caller
    restricted: Mapping[UUID, Grant]

    def can_read(self, collection_id: UUID) -> bool:
        grant = self.restricted.get(collection_id)
        return grant is None or grant.can_read

    def can_write(self, collection_id: UUID) -> bool:
        grant = self.restricted.get(collection_id)
        return not self.caller.read_only and (grant is None or grant.can_write)

    def shows(self, collection_id: UUID) -> bool:
        """Whether the caller learns that the collection exists: the main key manages even what it may not read."""
        return self.caller.is_main or self.can_read(collection_id)

    def manages(self, collection_id: UUID) -> bool:
        """Whether the caller may change the collection itself and its grants."""
        return not self.caller.read_only and (self.caller.is_main or self.can_write(collection_id))

    def readable(self, session: Session, name: str) -> UUID | None:
        """The collection's id; None when there is none. Raises Forbidden."""
        found = collections.find_id(session, name)
        if found is not None:
            self.check_readable(found, name)
        return found

    def check_readable(self, collection_id: UUID, name: str) -> None:
        """Raises Forbidden."""
        if not self.can_read(collection_id):
            raise Forbidden(f"this key may not read the collection {name!r}")

    def changeable(self, session: Session, name: str) -> UUID | None:
        """The same for a change to what exists; the collection stays until the transaction ends. Raises Forbidden."""
        found = collections.keep_named(session, name)
        if found is not None and not self.can_write(found):
            raise Forbidden(f"this key may not write to the collection {name!r}")
        return found

    def writable(self, session: Session, name: str) -> UUID:
        """The collection's id, made when it is missing; it stays until the transaction ends. Raises Forbidden, also
        when there is no room for another one, and Repeated here, first of all: a repeat waits for what it repeats and
        does nothing of it twice."""
        requests.mark(session, self.caller)
        found = made_if_missing(session, self.caller, name)
        if not self.can_write(found):
            raise Forbidden(f"this key may not write to the collection {name!r}")
        return found


class Grants:
    """Who may use a restricted collection, and who decides that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reach(self, caller: Caller) -> Reach:
        """Asked before a use case opens its transaction: grants lie on the platform, memories perhaps elsewhere."""
        if not caller.has_grants:
            return Reach(caller, {})
        with self._database.transaction(caller.tenant_id) as session:
            return Reach(caller, grants.of_key(session, caller.key_id))

    def require_write(self, caller: Caller, name: str) -> None:
        """Raises Forbidden when the caller may not write to the collection, if there is one."""
        reach = self.reach(caller)
        if reach.restricted:
            with self._database.transaction(caller.tenant_id) as session:
                reach.changeable(session, name.strip())

    def show(self, caller: Caller, name: str) -> CollectionGrants:
        """Raises NotFound, Forbidden."""
        reach = self.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            found = _known(collections.find_id(session, name), name)
            if not (reach.shows(found) or reach.can_write(found)):
                raise Forbidden(f"this key may not read the collection {name!r}")
            return _listed(session, found)

    def put(self, caller: Caller, name: str, wanted: GrantWanted) -> CollectionGrants:
        """Grants or changes one agent's rights; the first grant restricts the collection, made if it is missing.

        Raises Forbidden; NotFound for a key that the tenant does not have.
        """
        with self._database.transaction(caller.tenant_id) as session:
            found = made_if_missing(session, caller, name)
            self._check(session, caller, found, name)
            if not grants.put(
                session, caller.tenant_id, found, wanted.agent_key_id, Grant(wanted.can_read, wanted.can_write)
            ):
                raise NotFound("no such agent key")
            changes.record(session, caller, "grant.put", _resource(found, wanted.agent_key_id), [found])
            return _listed(session, found)

    def delete(self, caller: Caller, name: str, key_id: UUID) -> CollectionGrants:
        """Takes an agent's grant back; without the last one the collection is open again.

        Raises NotFound, Forbidden.
        """
        with self._database.transaction(caller.tenant_id) as session:
            found = _known(collections.keep_named(session, name), name)
            self._check(session, caller, found, name)
            if not grants.delete(session, found, key_id):
                raise NotFound("no such grant")
            changes.record(session, caller, "grant.delete", _resource(found, key_id), [found])
            return _listed(session, found)

    def forget(self, caller: Caller, collection_id: UUID) -> None:
        """Drops the grants of a collection that is gone."""
        # Not only when the caller knows of grants: the first may have come after it asked.
        with self._database.transaction(caller.tenant_id) as session:
            grants.delete_of_collection(session, collection_id)

    def _check(self, session: Session, caller: Caller, collection_id: UUID, name: str) -> None:
        """Judged by the grants of this moment, one change of them at a time: judged by those of a moment ago, an agent
        that is about to be shut out could let itself in."""
        grants.hold(session, caller.tenant_id)
        if not Reach(caller, grants.of_key(session, caller.key_id)).manages(collection_id):
            raise Forbidden(f"this key may not manage the grants of {name!r}: the main key or a writer of it may")


def made_if_missing(session: Session, caller: Caller, name: str) -> UUID:
    """The collection's id; it stays until the transaction ends. Raises Forbidden when there is no room for it."""
    found = collections.keep_named(session, name)
    if found is None:
        quotas.room_for_a_collection(session, caller)
        found = collections.ensure(session, caller.tenant_id, name)
    return found


def _resource(collection_id: UUID, key_id: UUID) -> str:
    return f"key {key_id} in collection {collection_id}"


def _listed(session: Session, collection_id: UUID) -> CollectionGrants:
    rows = grants.of_collection(session, collection_id)
    return CollectionGrants(
        restricted=bool(rows),
        grants=[
            GrantedAgent(agent_key_id=key_id, label=label, can_read=grant.can_read, can_write=grant.can_write)
            for key_id, label, grant in rows
        ],
    )


def _known(found: UUID | None, name: str) -> UUID:
    if found is None:
        raise NotFound(f"no collection named {name!r}")
    return found
