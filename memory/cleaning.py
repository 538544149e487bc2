"""Cleaning: batches whose week is over go with what nobody needs of them, and objects that no row knows of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from memory.collections import remove_objects
from memory.documents import DOCUMENTS
from memory.ports import ListedObject, ObjectStore
from memory.store import accounts, batches, files
from memory.store.database import Database

BATCHES_KEPT = timedelta(days=7)
# An upload lies in the store before a row tells of it: while its request lasts, or until it is said to be complete.
SAFE_AGE = timedelta(hours=24)
TENANTS_A_LISTING = 100
_BATCHES_AT_ONCE = 20


@dataclass(frozen=True)
class Orphans:
    """Objects that no row knows of."""

    count: int
    size_bytes: int

    def __add__(self, other: "Orphans") -> "Orphans":
        return Orphans(self.count + other.count, self.size_bytes + other.size_bytes)


class Cleaning:
    """Removes what time and crashes leave behind, tenant by tenant."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def tenants(self, after: UUID | None) -> list[UUID]:
        """The next tenants in the order of their ids; fewer than `TENANTS_A_LISTING` are the last."""
        with self._database.across() as session:
            return accounts.tenants_after(session, after, TENANTS_A_LISTING)

    def clean(self, tenant_id: UUID) -> None:
        """All of it for one tenant. Raises Unavailable; what was done by then stays done."""
        while self.forget_batches(tenant_id):
            continue
        self.sweep(tenant_id)

    def forget_batches(self, tenant_id: UUID, kept: timedelta = BATCHES_KEPT) -> bool:
        """Removes some of the batches that were completed longer ago; whether there may be more.

        Originals that memories carry stay, all others go.
        """
        with self._database.transaction(tenant_id) as session:
            old = batches.completed_before(session, datetime.now(UTC) - kept, _BATCHES_AT_ONCE)
            keys = batches.forget(session, old)
        remove_objects(self._objects, keys)
        return len(old) == _BATCHES_AT_ONCE

    def sweep(self, tenant_id: UUID, older_than: timedelta = SAFE_AGE) -> Orphans:
        """Removes the tenant's orphans of that age; how many there were. Raises Unavailable."""
        return self._orphans(tenant_id, older_than, removing=True)

    def count(self, older_than: timedelta = SAFE_AGE) -> Orphans:
        """How many orphans all tenants together have, none of which is touched. Raises Unavailable."""
        found, after = Orphans(0, 0), None
        while True:
            tenants = self.tenants(after)
            for tenant_id in tenants:
                found += self._orphans(tenant_id, older_than, removing=False)
            if len(tenants) < TENANTS_A_LISTING:
                return found
            after = tenants[-1]

    def _orphans(self, tenant_id: UUID, older_than: timedelta, *, removing: bool) -> Orphans:
        found, before = Orphans(0, 0), datetime.now(UTC) - older_than
        for page in self._objects.listed(f"{tenant_id}/"):
            orphans = self._unknown(tenant_id, [one for one in page if one.modified < before])
            if orphans and removing:
                self._objects.discard([one.key for one in orphans])
            found += Orphans(len(orphans), sum(one.size for one in orphans))
        return found

    def _unknown(self, tenant_id: UUID, listed: Sequence[ListedObject]) -> list[ListedObject]:
        if not listed:
            return []
        documents = f"{tenant_id}/{DOCUMENTS}/"
        # A document is known as long as its file is worked on; everything else by its key.
        of = {one.key: file_id for one in listed if (file_id := _id(one.key.removeprefix(documents))) is not None}
        with self._database.transaction(tenant_id) as session:
            kept = files.with_keys(session, [one.key for one in listed])
            working = files.pending(session, list(of.values()))
        return [one for one in listed if one.key not in kept and of.get(one.key) not in working]


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
