"""What the reader makes of files of each family."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.adapters.documents import GuardedReader
from memory.errors import RejectedFile


@pytest.fixture(scope="module")
def reader() -> Iterator[GuardedReader]:
    reader = GuardedReader(ocr_engine="off")
    yield reader
    reader.close()


def test_text_keeps_its_lines(reader: GuardedReader, tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(b"First line.\r\n\r\n  indented = 1\r\n")
    document = reader.read(path, "notes.txt")
    assert document.content_type == "text/plain"
    assert [(block.kind, block.text) for block in document.blocks] == [("text", "First line.\n\n  indented = 1")]
    assert document.note is None


def test_an_empty_file_is_refused(reader: GuardedReader, tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.touch()
    with pytest.raises(RejectedFile, match=r"^empty file$"):
        reader.read(path, "notes.txt")


def test_what_is_not_text_is_kept_and_says_so(reader: GuardedReader, tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(bytes(range(256)) * 100)
    document = reader.read(path, "notes.txt")
    assert document.blocks == []
    assert document.note == "kept; not readable as text, found by its name"
