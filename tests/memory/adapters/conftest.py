"""The guarded readers, warm once for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memory.adapters.documents import GuardedReader
from memory.adapters.guard import Limits
from memory.errors import RejectedFile
from memory.ports import Document

Read = Callable[[str, bytes], Document]


@pytest.fixture(scope="session")
def reader() -> Iterator[GuardedReader]:
    """Reads everything but pictures of text."""
    reader = GuardedReader(ocr_engine="off")
    yield reader
    reader.close()


@pytest.fixture
def read(reader: GuardedReader, tmp_path: Path) -> Read:
    """Reads a file of that name and content, as the worker would: from a path that says nothing about it."""

    def read_bytes(filename: str, data: bytes) -> Document:
        path = tmp_path / "stored"
        path.write_bytes(data)
        return reader.read(path, filename)

    return read_bytes


@pytest.fixture(scope="session")
def strict() -> Iterator[GuardedReader]:
    """For files made to hurt: with little memory and time."""
    limits = Limits(memory_bytes=400 * 1024**2, cpu_seconds=10, wall_seconds=15)
    reader = GuardedReader(ocr_engine="off", limits=limits)
    yield reader
    reader.close()


@pytest.fixture
def survive(strict: GuardedReader, tmp_path: Path) -> Read:
    """Reads a file, and shows that the next one is served by the same process whatever became of it."""

    def read_bytes(filename: str, data: bytes) -> Document:
        path, following = tmp_path / "stored", tmp_path / "next"
        path.write_bytes(data)
        following.write_text("Next, please.")
        server = strict._files.server_pid
        try:
            return strict.read(path, filename)
        finally:
            assert strict.read(following, "next.txt").blocks[0].text == "Next, please."
            assert server is None or strict._files.server_pid == server

    return read_bytes


def outcome(read: Read, filename: str, data: bytes) -> Document | str:
    """The document, or why it was refused."""
    try:
        return read(filename, data)
    except RejectedFile as refused:
        return refused.detail


def shown(document: Document) -> list[str]:
    """The texts of a document in order; headings with their level, rows with a bar."""
    marks = {"row": "| ", "text": ""}
    return [marks.get(block.kind, "#" * block.level + " ") + block.text for block in document.blocks]
