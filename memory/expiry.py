"""Expiry: memories whose time is over are gone for everybody at once; here they go from the tables too."""

from uuid import UUID

from memory.collections import remove_objects
from memory.ports import ObjectStore
from memory.schemas import Caller
from memory.statistics import Statistics
from memory.store import changes, collections, files, memories
from memory.store.database import Database

_TENANTS_A_LISTING = 200
_MEMORIES_AT_ONCE = 1_000
# The actor of what nobody asked for by hand.
SYSTEM = "system"


class Expiry:
    """Removes expired memories, some at a time."""

    def __init__(self, database: Database, objects: ObjectStore, statistics: Statistics) -> None:
        self._database = database
        self._objects = objects
        self._statistics = statistics

    def due(self) -> list[UUID]:
        """Tenants with expired memories, not necessarily all of them."""
        with self._database.across() as session:
            return memories.tenants_with_expired(session, _TENANTS_A_LISTING)

    def sweep(self, tenant_id: UUID) -> bool:
        """Removes some of the tenant's expired memories with the files that only they carried; whether to come again.

        One that was given more time meanwhile stays.
        """
        with self._database.transaction(tenant_id) as session:
            found = memories.expired(session, _MEMORIES_AT_ONCE)
            # One that is being deleted takes its memories along.
            kept = {one for one in sorted(set(found.values())) if collections.keep(session, one)}
            ids = [memory_id for memory_id, collection_id in found.items() if collection_id in kept]
            carried = files.hold_of_memories(session, ids)
            gone = memories.delete(session, ids, expired=True)
            keys = files.release(session, carried)
            touched = sorted({found[memory_id] for memory_id in gone})
            if gone:
                system = Caller(tenant_id, key_id=None, label=SYSTEM)
                changes.record(session, system, "memory.expire", f"{len(gone)} memories", touched)
        remove_objects(self._objects, keys)
        for collection_id in touched:
            self._statistics.changed(tenant_id, collection_id)
        # Without progress the next schedule is soon enough.
        return bool(gone) and len(found) == _MEMORIES_AT_ONCE
