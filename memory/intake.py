"""Files on their way in: into the object store first, and out of it again if no row tells of them in the end."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self
from uuid import UUID, uuid4

import structlog

from memory import quotas
from memory.drop_schemas import FileRefused
from memory.errors import AppError, TooLarge
from memory.filenames import clean_content_type, clean_filename, clean_path
from memory.ports import ObjectStore
from memory.store import files
from memory.store.database import Database
from memory.store.drops import StoredFile as StoredFile

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class IncomingFile:
    """A file as it is handed in; nothing of it is trusted."""

    filename: str | None
    content_type: str | None
    stream: BinaryIO


# A file that lies in the store, and one that does not because it is too large.
Taken = StoredFile | FileRefused


def stored(taken: Sequence[Taken]) -> list[StoredFile]:
    return [file for file in taken if isinstance(file, StoredFile)]


def refused(taken: Sequence[Taken]) -> list[FileRefused]:
    return [file for file in taken if isinstance(file, FileRefused)]


class Intake:
    """Where originals are taken in, for one request at a time."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def of(self, tenant_id: UUID) -> "Taking":
        return Taking(self._database, self._objects, tenant_id)


class Taking:
    """The files of one request. At its end those go that no row tells of: it was refused, or it failed halfway.

    The database is asked and not the flow of the request, which cannot know whether a commit that it lost sight of
    has happened.
    """

    def __init__(self, database: Database, objects: ObjectStore, tenant_id: UUID) -> None:
        self._database = database
        self._objects = objects
        self._tenant_id = tenant_id
        self._stored: list[str] = []

    def take(self, file: IncomingFile) -> Taken:
        """Stores one original. Over 10 MiB it is refused by name. Raises Unavailable."""
        filename = clean_filename(file.filename)
        file_id = uuid4()
        key = f"{self._tenant_id}/files/{file_id}"
        # Before it is there: a store that takes it in and cannot say so any more has it too.
        self._stored.append(key)
        try:
            made = self._objects.put(key, file.stream, max_bytes=quotas.MAX_FILE_BYTES)
        except TooLarge:
            self._stored.remove(key)
            return too_large(filename)
        content_type = clean_content_type(file.content_type, filename)
        path = clean_path(file.filename)
        return StoredFile(file_id, filename, path, content_type, made.size, made.sha256, key)

    def adopt(self, file_id: UUID, uploaded: str, filename: str | None, content_type: str | None) -> Taken:
        """Takes a copy of an object that was uploaded past us: what is put there later does not reach it.

        Over 10 MiB it is refused. Raises NotFound, Unavailable.
        """
        name = clean_filename(filename)
        if self._objects.size(uploaded) > quotas.MAX_FILE_BYTES:
            return too_large(name)
        key = f"{self._tenant_id}/files/{uuid4()}"
        self._stored.append(key)
        self._objects.copy(uploaded, key)
        digest, size = hashlib.sha256(), 0
        for piece in self._objects.stream(key):
            digest.update(piece)
            size += len(piece)
            if size > quotas.MAX_FILE_BYTES:
                # It was replaced by something larger just now.
                return too_large(name)
        return StoredFile(
            file_id, name, clean_path(filename), clean_content_type(content_type, name), size, digest.digest(), key
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        if not self._stored:
            return
        try:
            with self._database.transaction(self._tenant_id) as session:
                kept = files.with_keys(session, self._stored)
            self._objects.delete([key for key in self._stored if key not in kept])
        except AppError:
            # Without a row they are orphans, which are looked for.
            log.warning("objects of a failed request stay behind", files=len(self._stored))
        self._stored = []


def too_large(filename: str) -> FileRefused:
    return FileRefused(filename=filename, reason="larger than 10 MB, the limit for one file")
