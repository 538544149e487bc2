"""What an answer about collections depends on besides the question."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from memory.schemas import Caller
from memory.store.accounts import caller_of
from memory.store.database import Database


@dataclass(frozen=True)
class State:
    """One collection as a transaction sees it: its version, and when the next of its memories expires, if any does.

    While neither changes, no answer about the collection does: every committed change raises the version, and time
    alone changes what is visible when something expires, which makes another expiry the next one.
    """

    collection_id: UUID
    version: int
    next_expiry: datetime | None


def states(database: Database, tenant_id: UUID, collection: str | None) -> list[State]:
    """Of the collection with this name, or of all the tenant's, in the order of their ids."""
    named = "select * from states_of_collection(%(name)s)"
    each = "select s.* from collections c cross join lateral states_of_collection(c.name) as s order by 1"
    rows = database.glance(tenant_id, each if collection is None else named, {"name": collection})
    return [State(*row) for row in rows]


def entered(database: Database, key_hash: bytes, collection: str | None) -> tuple[Caller, list[State]] | None:
    """Who holds the key with this hash, and the same states of theirs, at once; None where `find_caller` gives None."""
    rows = database.glance(None, "select * from enter(%(hash)s, %(name)s)", {"hash": key_hash, "name": collection})
    if not rows:
        return None
    states = [State(row.collection_id, row.version, row.next_expiry) for row in rows if row.collection_id is not None]
    return caller_of(rows[0]), states
