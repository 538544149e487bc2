"""The house's reader of files: hands each to a guarded child process and makes its answer a Document."""

import threading
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from memory.adapters import ocr
from memory.adapters.guard import Guard, Limits
from memory.errors import RejectedFile, Unavailable
from memory.ports import Document, FileReader

_FILENAME_CHARACTERS = 1_000
# An engine on one thread takes one to three seconds a page.
_OCR_FACTOR = 3


class GuardedReader(FileReader):
    """Reads `concurrency` files at once, each in a child process of its own; further ones wait.

    `ocr_engine` is the setting of that name. Holds a warm process from construction to `close`, and one more with the
    OCR engine from the first picture on. Raises Misconfigured when the engine is not installed.
    """

    def __init__(self, *, ocr_engine: str, concurrency: int = 2, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._engine = ocr.choose(ocr_engine)
        self._concurrency = concurrency
        pictures = "off" if self._engine == "off" else "elsewhere"
        self._files = Guard(f"memory.adapters.reading.files:reader:{pictures}", concurrency=concurrency)
        self._scans: Guard | None = None
        self._starting = threading.Lock()
        self._closed = False

    def read(self, path: Path, filename: str) -> Document:
        """See FileReader. One call takes at most `max_seconds`, besides the time it waits for its turn."""
        request = {"filename": filename[-_FILENAME_CHARACTERS:]}
        answer = self._files.run(path, request, self._limits)
        if not answer:
            answer = self._scanner().run(path, request, self._scan_limits)
        try:
            return Document.model_validate_json(answer)
        except ValidationError as error:
            raise RejectedFile("it broke its reader") from error

    @property
    def max_seconds(self) -> int:
        """The longest that reading one file takes before it is refused."""
        return self._limits.wall_seconds + (0 if self._engine == "off" else self._scan_limits.wall_seconds)

    def close(self) -> None:
        """Ends the warm processes; reads in flight end as Unavailable."""
        with self._starting:
            self._closed = True
            guards = [self._files] if self._scans is None else [self._files, self._scans]
        for guard in guards:
            guard.close()

    @property
    def _scan_limits(self) -> Limits:
        seconds = _OCR_FACTOR * self._limits.wall_seconds
        return replace(
            self._limits,
            memory_bytes=2 * self._limits.memory_bytes,
            cpu_seconds=seconds,
            wall_seconds=seconds,
        )

    def _scanner(self) -> Guard:
        with self._starting:
            if self._closed:
                raise Unavailable("the reader of files is closed")
            if self._scans is None:
                work = f"memory.adapters.reading.scanned:reader:{self._engine}"
                self._scans = Guard(work, concurrency=self._concurrency)
            return self._scans
