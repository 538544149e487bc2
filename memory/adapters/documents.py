"""The house's reader of files: hands each to a guarded child process and makes its answer what the house asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from memory.adapters import answers, ocr
from memory.adapters.guard import Guard, Limits
from memory.errors import Unavailable
from memory.ports import SAMPLES_A_SECOND, Document, FileReader, MediaReader, Samples, Sound

_FILENAME_CHARACTERS = 1_000
# An engine on one thread takes one to three seconds a page.
_OCR_FACTOR = 3
# Whatever an engine may lose in memory is given back after so many files.
_SCANS_OF_ONE_ENGINE = 500
_SAMPLE_BYTES = 2
# Long enough to tell the language and to keep sentences whole, short enough to hold and to send.
PIECE_SECONDS = 300
# A piece ends at the most silent moment of its last seconds.
_QUIET_SECONDS = 20
_MOMENT = SAMPLES_A_SECOND // 5


class GuardedReader(FileReader, MediaReader):
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
        self._media: Guard | None = None
        self._starting = threading.Lock()
        self._closed = False

    def read(self, path: Path, filename: str) -> Document:
        """See FileReader. One call takes at most `max_seconds`, besides the time it waits for its turn."""
        request = {"filename": filename[-_FILENAME_CHARACTERS:]}
        answer = self._files.run(path, request, self._limits)
        if not answer:
            answer = self._scanner().run(path, request, self._scan_limits)
        return answers.unpack(answer)

    @contextmanager
    def sound(self, path: Path, *, max_seconds: int) -> Iterator[Sound | None]:
        """See MediaReader."""
        most = _SAMPLE_BYTES * SAMPLES_A_SECOND * max_seconds
        # One byte says how it ended, and the last frame may go beyond what is wanted.
        limits = replace(self._limits, result_bytes=most + 16 * 1024**2)
        request = {"want": "sound", "max_samples": SAMPLES_A_SECOND * max_seconds}
        with self._decoder().open(path, request, limits) as decoded:
            length = decoded.seek(0, 2) - 1
            if length < _SAMPLE_BYTES:
                yield None
                return
            decoded.seek(1)
            seconds = min(length, most) / _SAMPLE_BYTES / SAMPLES_A_SECOND
            yield Sound(seconds=seconds, is_whole=length <= most, pieces=_pieces(decoded, min(length, most)))

    def small_picture(self, path: Path) -> bytes:
        """See MediaReader."""
        return self._decoder().run(path, {"want": "picture"}, self._limits)

    @property
    def max_seconds(self) -> int:
        """The longest that reading one file takes before it is refused."""
        return self._limits.wall_seconds + (0 if self._engine == "off" else self._scan_limits.wall_seconds)

    def kept(self) -> tuple[str, ...]:
        """See Guard."""
        return self._files.kept()

    def close(self) -> None:
        """Ends the warm processes; reads in flight end as Unavailable."""
        with self._starting:
            self._closed = True
            guards = [self._files, self._scans, self._media]
        for guard in guards:
            if guard is not None:
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
            work = f"memory.adapters.reading.scanned:reader:{self._engine}"
            # That engine is a program of its own.
            self._scans = self._scans or self._started(
                work, programs=self._engine == "tesseract", renewed_after=_SCANS_OF_ONE_ENGINE
            )
            return self._scans

    def _decoder(self) -> Guard:
        with self._starting:
            self._media = self._media or self._started("memory.adapters.reading.media:decoder:")
            return self._media

    def _started(self, work: str, *, programs: bool = False, renewed_after: int | None = None) -> Guard:
        if self._closed:
            raise Unavailable("the reader of files is closed")
        return Guard(work, concurrency=self._concurrency, programs=programs, renewed_after=renewed_after)


def _pieces(decoded: BinaryIO, length: int) -> Iterator[Samples]:
    left = b""
    while length or left:
        more = decoded.read(min(length, _SAMPLE_BYTES * SAMPLES_A_SECOND * PIECE_SECONDS - len(left)))
        length = length - len(more) if more else 0
        held = left + more
        samples = np.frombuffer(held[: len(held) // _SAMPLE_BYTES * _SAMPLE_BYTES], dtype="<i2")
        end = len(samples) if not length else _quietest(samples)
        yield samples[:end]
        left = held[end * _SAMPLE_BYTES :] if length else b""


def _quietest(samples: Samples) -> int:
    """The middle of the most silent moment near the end."""
    first = len(samples) - _QUIET_SECONDS * SAMPLES_A_SECOND
    moments = np.abs(samples[first:].astype(np.int32)).reshape(-1, _MOMENT).sum(axis=1)
    return first + int(moments.argmin()) * _MOMENT + _MOMENT // 2
