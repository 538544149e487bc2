"""The guarded readers, warm once for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memory.adapters.documents import GuardedReader
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


def shown(document: Document) -> list[str]:
    """The texts of a document in order; headings with their level, rows with a bar."""
    marks = {"row": "| ", "text": ""}
    return [marks.get(block.kind, "#" * block.level + " ") + block.text for block in document.blocks]
