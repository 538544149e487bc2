"""Files to measure with are what they say they are: the product's own readers find every word."""

import io
import zipfile

import pytest

from bench import files
from memory.adapters.reading.files import read_document
from memory.adapters.reading.scans import OcrOff

TEXTS = ("A bell rings (twice) at noon.", "The ferry leaves at seven & returns at nine. " * 40)


@pytest.mark.parametrize("kind", files.KINDS)
def test_every_word_is_read_back(kind: str) -> None:
    document = read_document(files.KINDS[kind](TEXTS), f"parts.{kind}", OcrOff())

    words = " ".join(block.text for block in document.blocks).split()
    for text in TEXTS:
        assert set(text.split()) <= {*words, *(word.strip("|") for word in words)}
    assert document.note is None


def test_an_archive_holds_a_file_for_each_text() -> None:
    with zipfile.ZipFile(io.BytesIO(files.archive(TEXTS))) as packed:
        assert [packed.read(name).decode() for name in packed.namelist()] == list(TEXTS)
