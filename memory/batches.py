"""Batches: what was dropped together, how far it is, and what came of each file."""

from uuid import UUID

from memory.drop_schemas import BatchProgress, DropResponse
from memory.errors import Forbidden, NotFound
from memory.grants import Grants
from memory.schemas import Caller
from memory.store import batches
from memory.store.database import Database

PREVIEW_CHARACTERS = 200


class Batches:
    """Tells how far drops are."""

    def __init__(self, database: Database, grants: Grants) -> None:
        self._database = database
        self._grants = grants

    def progress(self, caller: Caller, batch_id: UUID) -> BatchProgress:
        """Raises NotFound for an unknown or another tenant's batch, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = batches.collection_of(session, batch_id)
            if collection_id is not None and not (reach.can_read(collection_id) or reach.can_write(collection_id)):
                raise Forbidden("this key may not use the collection of this batch")
            found = batches.progress(session, batch_id)
        if found is None:
            raise NotFound("no such batch")
        return found

    def pending(self, caller: Caller, batch_id: UUID) -> int:
        """How many files of a batch are neither done nor failed: the cheap question for those who wait."""
        with self._database.transaction(caller.tenant_id) as session:
            return batches.count_pending(session, batch_id)

    def results(self, caller: Caller, batch_id: UUID) -> DropResponse:
        """What came of each file that has ended. Raises NotFound."""
        with self._database.transaction(caller.tenant_id) as session:
            found = batches.results(session, batch_id, preview_characters=PREVIEW_CHARACTERS)
        if found is None:
            raise NotFound("no such batch")
        stored = sum(result.status == "ok" for result in found)
        return DropResponse(stored=stored, failed=len(found) - stored, results=found)
