"""Drops: files taken in as one batch; their originals are durable, and their rows written, before it is answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID, uuid4

import structlog

from memory import quotas
from memory.drop_schemas import ContentsAsked, DropOptions, FileRefused, MissingContents
from memory.errors import AppError, TooLarge
from memory.filenames import clean_content_type, clean_filename, clean_path
from memory.grants import Grants, Reach
from memory.ports import ObjectStore
from memory.schemas import Author, Caller
from memory.store import changes, contents, drops
from memory.store.database import Database
from memory.store.drops import StoredFile

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class IncomingFile:
    """A file as it is handed in; nothing of it is trusted."""

    filename: str | None
    content_type: str | None
    stream: BinaryIO


@dataclass(frozen=True)
class OpenedDrop:
    """`queued` files are durable now; `refused` ones were not taken in at all."""

    batch_id: UUID
    queued: int
    refused: list[FileRefused]


class Drops:
    """Takes drops in."""

    def __init__(self, database: Database, grants: Grants, objects: ObjectStore) -> None:
        self._database = database
        self._grants = grants
        self._objects = objects

    def open(
        self, caller: Caller, collection: str, incoming: Iterable[IncomingFile], options: DropOptions
    ) -> OpenedDrop:
        """Stores the originals, then writes batch and files in one transaction; the collection is made if missing.

        Files over 10 MiB are refused by name. Raises Unavailable; nothing stays behind then.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            # Before anything is taken in, for nothing; and once more with the rows, for certain.
            reach.changeable(session, collection)
        stored: list[StoredFile] = []
        refused: list[FileRefused] = []
        batch_id = uuid4()
        try:
            for file in incoming:
                taken = self._take(caller.tenant_id, file)
                if isinstance(taken, StoredFile):
                    stored.append(taken)
                else:
                    refused.append(taken)
            self._write(reach, collection, batch_id, options, stored)
        except BaseException:
            self._discard([file.key for file in stored])
            raise
        return OpenedDrop(batch_id, len(stored), refused)

    def missing(self, caller: Caller, collection: str, asked: ContentsAsked) -> MissingContents:
        """Which contents a drop would have to send; nothing is changed. Raises Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            return contents.missing(session, collection_id, asked)

    def _take(self, tenant_id: UUID, file: IncomingFile) -> StoredFile | FileRefused:
        filename = clean_filename(file.filename)
        file_id = uuid4()
        key = f"{tenant_id}/files/{file_id}"
        try:
            stored = self._objects.put(key, file.stream, max_bytes=quotas.MAX_FILE_BYTES)
        except TooLarge:
            return FileRefused(filename=filename, reason="larger than 10 MB, the limit for one file")
        content_type = clean_content_type(file.content_type, filename)
        path = clean_path(file.filename)
        return StoredFile(file_id, filename, path, content_type, stored.size, stored.sha256, key)

    def _write(
        self, reach: Reach, collection: str, batch_id: UUID, options: DropOptions, stored: list[StoredFile]
    ) -> None:
        caller = reach.caller
        with self._database.transaction(caller.tenant_id) as session:
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

    def _discard(self, keys: Sequence[str]) -> None:
        try:
            self._objects.delete(keys)
        except AppError:
            log.warning("objects of a failed drop stay behind", keys=list(keys))
