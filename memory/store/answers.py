"""What an answer about collections depends on besides the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel import Session


@dataclass(frozen=True)
class State:
    """One collection as a transaction sees it: its version, and when the next of its memories expires, if any does.

    While neither changes, no answer about the collection does: every committed change raises the version, and time
    alone changes what is visible when something expires, which makes another expiry the next one.
    """

    collection_id: UUID
    version: int
    next_expiry: datetime | None


def states(session: Session, collection_ids: Sequence[UUID]) -> list[State]:
    """In the order of their ids."""
    rows = session.connection().exec_driver_sql(
        """
        select g.id,
               coalesce((select sum(v.version)::bigint from collection_versions v where v.collection_id = g.id), 0),
               (select min(m.expires_at) from memories m where m.collection_id = g.id and m.expires_at > now())
        from unnest(%(ids)s::uuid[]) as g (id) order by g.id
        """,
        {"ids": list(collection_ids)},
    )
    return [State(*row) for row in rows]
