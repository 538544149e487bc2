"""The house's reader of files: hands each to a guarded child process and makes its answer a Document."""

from pathlib import Path

from pydantic import ValidationError

from memory.adapters.guard import Guard, Limits
from memory.errors import RejectedFile
from memory.ports import Document, FileReader

_FILENAME_CHARACTERS = 1_000


class GuardedReader(FileReader):
    """Reads `concurrency` files at once, each in a child process of its own; further ones wait.

    `ocr_engine` is the setting of that name. Holds a warm process from construction to `close`.
    """

    def __init__(self, *, ocr_engine: str, concurrency: int = 2, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._guard = Guard("memory.adapters.reading.files:read", concurrency=concurrency)
        self._ocr_engine = ocr_engine

    def read(self, path: Path, filename: str) -> Document:
        request = {"filename": filename[-_FILENAME_CHARACTERS:], "ocr": self._ocr_engine}
        answer = self._guard.run(path, request, self._limits)
        try:
            return Document.model_validate_json(answer)
        except ValidationError as error:
            raise RejectedFile("it broke its reader") from error

    def close(self) -> None:
        """Ends the warm process; reads in flight end as Unavailable."""
        self._guard.close()
