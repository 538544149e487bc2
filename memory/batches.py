"""Batches: what was dropped together, how far it is, what came of each file; taken up again, or cancelled."""

from dataclasses import dataclass
from uuid import UUID

from memory import quotas
from memory.drop_schemas import BatchCancelled, BatchCounts, BatchProgress, DropResponse, FileStatus
from memory.errors import Conflict, Forbidden, NotFound
from memory.grants import Grants, Reach
from memory.schemas import Caller
from memory.store import batches, changes, collections
from memory.store.batches import Batch
from memory.store.database import Database, Session

PREVIEW_CHARACTERS = 200
# Of a larger batch the files are asked for in pages.
MOST_FILES = 10_000


@dataclass(frozen=True)
class Retried:
    """`queued` files are to be worked on again; `alone` when nothing else of the batch was still to be done."""

    queued: int
    alone: bool


class Batches:
    """Tells how far drops are, takes up again what failed, and ends what is no longer wanted."""

    def __init__(self, database: Database, grants: Grants) -> None:
        self._database = database
        self._grants = grants

    def counts(self, caller: Caller, batch_id: UUID) -> BatchCounts:
        """Raises NotFound for an unknown or another tenant's batch, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            return _readable(session, reach, batch_id).counts

    def progress(
        self,
        caller: Caller,
        batch_id: UUID,
        *,
        limit: int = MOST_FILES,
        offset: int = 0,
        status: FileStatus | None = None,
    ) -> BatchProgress:
        """The counts, always of all files, and a page of the files, or of those with one status.

        Raises NotFound for an unknown or another tenant's batch, Forbidden.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            batch = _readable(session, reach, batch_id)
            files = batches.files(
                session,
                batch_id,
                shows_duplicates=_shows_duplicates(reach, batch),
                limit=limit,
                offset=offset,
                status=status,
            )
        return BatchProgress(**dict(batch.counts), files=files)

    def pending(self, caller: Caller, batch_id: UUID) -> int:
        """How many files of a batch are neither done nor failed: the cheap question for those who wait."""
        with self._database.transaction(caller.tenant_id) as session:
            return batches.count_pending(session, batch_id)

    def results(self, caller: Caller, batch_id: UUID) -> DropResponse:
        """What came of each file that has ended. Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            batch = _readable(session, reach, batch_id)
            found = batches.results(
                session,
                batch_id,
                shows_duplicates=_shows_duplicates(reach, batch),
                preview_characters=PREVIEW_CHARACTERS,
            )
        count = {status: sum(result.status == status for result in found) for status in ("ok", "failed", "duplicate")}
        return DropResponse(stored=count["ok"], failed=count["failed"], duplicates=count["duplicate"], results=found)

    def retry(self, caller: Caller, batch_id: UUID) -> Retried:
        """Queues again, from their stored originals, the files that failed or were cancelled.

        Raises NotFound, Forbidden, and Conflict when the collection is gone.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            batch = _writable(session, reach, batch_id)
            if not batch.counts.failed:
                return Retried(0, alone=False)
            # The collection before the batch: its deletion takes locks in this order too.
            if batch.collection_id is None or not collections.keep(session, batch.collection_id):
                raise Conflict("the collection of this batch was deleted; drop the files again")
            quotas.room_for_memories(session, caller, batch.counts.failed)
            batches.hold(session, batch_id)
            alone = batches.count_pending(session, batch_id) == 0
            queued = batches.take_up_again(session, batch_id)
            if queued:
                changes.record(session, caller, "drop.retry", f"batch {batch_id}")
        return Retried(queued, alone)

    def cancel(self, caller: Caller, batch_id: UUID) -> BatchCancelled:
        """Ends what has not ended; nothing of that is stored any more. Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            batch = _writable(session, reach, batch_id)
            # The collection first, as in `retry`; one that is gone has nothing more to do with the batch.
            if batch.collection_id is not None:
                collections.keep(session, batch.collection_id)
            batches.hold(session, batch_id)
            cancelled = batches.cancel(session, batch_id)
            batches.close(session, batch_id)
            if cancelled:
                changes.record(session, caller, "drop.cancel", f"batch {batch_id}")
        return BatchCancelled(batch_id=batch_id, cancelled=cancelled, pending=0, complete=True)


def _readable(session: Session, reach: Reach, batch_id: UUID) -> Batch:
    batch = _known(batches.find(session, batch_id))
    of = batch.collection_id
    if of is not None and not (reach.can_read(of) or reach.can_write(of)):
        raise Forbidden("this key may not use the collection of this batch")
    return batch


def _writable(session: Session, reach: Reach, batch_id: UUID) -> Batch:
    batch = _known(batches.find(session, batch_id))
    if batch.collection_id is not None and not reach.can_write(batch.collection_id):
        raise Forbidden("this key may not write to the collection of this batch")
    return batch


def _shows_duplicates(reach: Reach, batch: Batch) -> bool:
    """Who may only write learns that the bytes are there, and nothing of what was made of them."""
    return batch.collection_id is not None and reach.can_read(batch.collection_id)


def _known(batch: Batch | None) -> Batch:
    if batch is None:
        raise NotFound("no such batch")
    return batch
