"""What lies in the object store while a file is worked on: its original, and the document that was made of it."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from memory.errors import NotFound, RejectedFile
from memory.ports import Document, ObjectStore

# Where they lie under their tenant's prefix, by the id of their file.
DOCUMENTS = "documents"
_MISSING = "its stored original is missing"


class Documents:
    """Keeps each file's document from the step that reads it to the step that stores it."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def keep(self, tenant_id: UUID, file_id: UUID, document: Document) -> None:
        """Raises Unavailable."""
        written = document.model_dump_json().encode()
        self._objects.put(_key(tenant_id, file_id), io.BytesIO(written), max_bytes=len(written))

    def find(self, tenant_id: UUID, file_id: UUID) -> Document | None:
        """Raises Unavailable."""
        try:
            return Document.model_validate_json(self._objects.get(_key(tenant_id, file_id)))
        except NotFound:
            return None

    def drop(self, tenant_id: UUID, file_ids: Sequence[UUID]) -> None:
        """Raises Unavailable."""
        self._objects.delete([_key(tenant_id, file_id) for file_id in file_ids])

    @contextmanager
    def original(self, key: str | None) -> Iterator[Path]:
        """The original as a local file, for as long as it is read; it has no key once it is gone with the memories that
        carried it. Raises RejectedFile, Unavailable."""
        if key is None:
            raise RejectedFile(_MISSING)
        with tempfile.TemporaryDirectory(prefix="rememberos-") as folder:
            path = Path(folder) / "original"
            try:
                self._objects.download(key, path)
            except NotFound:
                raise RejectedFile(_MISSING) from None
            yield path


def _key(tenant_id: UUID, file_id: UUID) -> str:
    return f"{tenant_id}/{DOCUMENTS}/{file_id}"
