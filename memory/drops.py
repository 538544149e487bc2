"""Drops: files taken in as one batch; their originals are durable, and their rows written, before it is answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from memory import intake, quotas
from memory.drop_schemas import ContentsAsked, DropOptions, FileRefused, MissingContents
from memory.grants import Grants, Reach
from memory.intake import IncomingFile, Intake, StoredFile, Taken
from memory.schemas import Author, Caller
from memory.store import changes, contents, drops, files
from memory.store.database import Database, Session


@dataclass(frozen=True)
class OpenedDrop:
    """`queued` files are durable now; `refused` ones were not taken in at all."""

    batch_id: UUID
    queued: int
    refused: list[FileRefused]


class Drops:
    """Takes drops in."""

    def __init__(self, database: Database, grants: Grants, intake: Intake) -> None:
        self._database = database
        self._grants = grants
        self._intake = intake

    def open(
        self, caller: Caller, collection: str, incoming: Iterable[IncomingFile], options: DropOptions
    ) -> OpenedDrop:
        """Takes the originals in and opens a drop of them. Files over 10 MiB are refused by name.

        Raises Forbidden, Unavailable; nothing stays behind then.
        """
        self._grants.require_write(caller, collection)
        with self._intake.of(caller.tenant_id) as taking:
            return self.open_with(caller, collection, [taking.take(file) for file in incoming], options)

    def open_with(self, caller: Caller, collection: str, taken: Sequence[Taken], options: DropOptions) -> OpenedDrop:
        """Writes batch and files, whose originals are in the store, in one transaction; the collection is made if
        missing. Raises Forbidden."""
        reach = self._grants.reach(caller)
        stored = intake.stored(taken)
        with self._database.transaction(caller.tenant_id) as session:
            batch_id = _opened(session, reach, collection, stored, options)
        return OpenedDrop(batch_id, len(stored), intake.refused(taken))

    def open_uploaded(
        self, caller: Caller, collection: str, stored: Sequence[StoredFile], options: DropOptions
    ) -> tuple[OpenedDrop, set[UUID]]:
        """The same for files whose ids somebody may have used already; those of whom that is true stay out."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            files.hold_uploads(session, caller.tenant_id)
            late = files.known(session, [file.id for file in stored])
            new = [file for file in stored if file.id not in late]
            batch_id = _opened(session, reach, collection, new, options)
        return OpenedDrop(batch_id, len(new), []), late

    def missing(self, caller: Caller, collection: str, asked: ContentsAsked) -> MissingContents:
        """Which contents a drop would have to send; nothing is changed. Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            return contents.missing(session, collection_id, asked)


def _opened(
    session: Session, reach: Reach, collection: str, stored: Sequence[StoredFile], options: DropOptions
) -> UUID:
    caller, batch_id = reach.caller, uuid4()
    collection_id = reach.writable(session, collection) if stored else None
    # At least one memory will come of each.
    quotas.room_for_memories(session, caller, len(stored))
    quotas.room_for_files(session, caller, sum(file.size for file in stored))
    drops.insert_batch(
        session,
        caller.tenant_id,
        batch_id,
        collection_id=collection_id,
        collection=collection,
        options=options,
        author=Author(id=caller.key_id, label=caller.label),
        files=stored,
    )
    changes.record(session, caller, "drop", f"batch {batch_id}")
    return batch_id
