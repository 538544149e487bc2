"""What the reader makes of any file: its kind by content first, its text, and when it says no."""

import io
import json
from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter

from memory.adapters.documents import GuardedReader
from memory.errors import Misconfigured, RejectedFile, Unavailable
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import compound, docx, paragraph, pdf, saved, written, zipped

EXAMPLES = Path(__file__).parents[3] / "examples"
UNREADABLE = "kept; not readable as text, found by its name"
WORD_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

# One sentence that stands in just that example, and answers its question.
ANSWERS = {
    "about-kestrel.txt": "founded in 1998 by Ingrid Solberg and Tom Achterberg",
    "warranty-and-returns.md": "Steel frames are guaranteed for ten years",
    "falcon-gravel-bike.html": "Weight | 10.9 kg | 9.8 kg",
    "employee-handbook.docx": "Everyone has 28 days of holiday a year",
    "merlin-launch.pptx": "range of 95 kilometres",
    "spare-parts.xlsx": "W-2025 | Spokes 262 mm, black | D5 | 4300",
    "orders-2026-q1.csv": "Wanderlust Reykjavik | Reykjavik | Heron | 11",
    "workshop-manual.pdf": "The seatpost clamp is tightened to 6 newton metres",
    "carbon-forks-delay.eml": "The autoclave in Vicenza has been out of order",
}


@pytest.mark.parametrize("filename", ANSWERS)
def test_each_example_is_read(reader: GuardedReader, filename: str) -> None:
    document = reader.read(EXAMPLES / filename, filename)
    whole = " ".join(" ".join(shown(document)).split())
    assert ANSWERS[filename] in whole
    assert all(answer not in whole for other, answer in ANSWERS.items() if other != filename)


def test_every_example_has_its_question() -> None:
    questions = json.loads((EXAMPLES / "questions.json").read_text("utf-8"))
    dropped = {path.name for path in EXAMPLES.iterdir()} - {"questions.json"}
    assert {question["file"] for question in questions} == dropped == {*ANSWERS, "workshop-notice.png"}
    assert all(path.stat().st_size < 60_000 for path in EXAMPLES.iterdir())


def test_text_keeps_its_lines(read: Read) -> None:
    document = read("notes.txt", b"First line.\r\n\r\n  indented = 1\r\n")
    assert document.content_type == "text/plain"
    assert shown(document) == ["First line.\n\n  indented = 1"]
    assert document.note is None


@pytest.mark.parametrize(
    ("filename", "data", "content_type", "found"),
    [
        ("report.txt", docx(paragraph("Inside Word")), WORD_TYPE, "Inside Word"),
        ("report", docx(paragraph("Inside Word")), WORD_TYPE, "Inside Word"),
        ("page.docx", pdf(["Inside a PDF"]), "application/pdf", "Inside a PDF"),
        ("page.pdf", b"<!DOCTYPE html><title>T</title><p>Inside a page", "text/html", "Inside a page"),
        ("page.txt", b"\n<html><body><p>Inside a page", "text/html", "Inside a page"),
        ("data.pdf", b'{"name": "inside json"}', "application/json", "name: inside json"),
        ("data.xlsx", b"a,b\n1,2\n3,4\n5,6\n", "text/csv", "1 | 2"),
        ("mail.txt", b"From: a@b.c\nTo: d@e.f\nSubject: S\nDate: x\n\nInside mail", "message/rfc822", "Inside mail"),
        ("plain.html", b"No tag in here", "text/plain", "No tag in here"),
        ("plain.docx", b"Just words, and\nmore words", "text/plain", "Just words, and\nmore words"),
        ("plain.eml", b"No header in here", "text/plain", "No header in here"),
        ("code.py", b"def f(a, b):\n    return a, b\n", "text/x-python", "def f(a, b):\n    return a, b"),
        ("list.txt", b"a,b\n1,2\n3,4\n", "text/plain", "a,b\n1,2\n3,4"),
        ("notes", b"From: the beginning\nit was clear.", "text/plain", "From: the beginning\nit was clear."),
    ],
)
def test_the_kind_comes_from_the_content_first(
    read: Read, filename: str, data: bytes, content_type: str, found: str
) -> None:
    document = read(filename, data)
    assert document.content_type == content_type
    assert found in [block.text for block in document.blocks]


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (bytes(range(256)) * 100, "application/octet-stream"),
        (zipped({"[Content_Types].xml": "<Types/>", "visio/a.xml": "<a/>"}), "application/zip"),
        (compound({"Something": b"old"}), "application/x-ole-storage"),
    ],
)
def test_what_nothing_reads_is_kept_and_says_so(read: Read, data: bytes, content_type: str) -> None:
    for filename in ("thing", "thing.txt", "thing.docx"):
        document = read(filename, data)
        assert (document.blocks, document.content_type, document.note) == ([], content_type, UNREADABLE)


def test_an_empty_file_is_refused(read: Read) -> None:
    with pytest.raises(RejectedFile, match=r"^empty file$"):
        read("notes.txt", b"")


def test_a_file_without_text_is_kept_and_says_so(read: Read) -> None:
    document = read("notes.txt", b" \n\t\n")
    assert document.blocks == []
    assert document.note == "kept; no text was found in it, found by its name"


def test_pictures_say_that_ocr_is_off(read: Read) -> None:
    document = read("notice.png", saved(written("Closed"), "PNG"))
    assert (document.blocks, document.content_type) == ([], "image/png")
    assert document.note == "kept; its text was not read (OCR is off), found by its name"


def encrypted_pdf() -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["A secret"]))))
    writer.encrypt("password", algorithm="RC4-128")
    held = io.BytesIO()
    writer.write(held)
    return held.getvalue()


def encrypted_zip() -> bytes:
    data = docx(paragraph("A secret"))
    return data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")


@pytest.mark.parametrize(
    "data", [encrypted_pdf(), encrypted_zip(), compound({"EncryptedPackage": b"x", "EncryptionInfo": b"y"})]
)
def test_what_is_protected_by_a_password_is_refused_with_that_reason(read: Read, data: bytes) -> None:
    with pytest.raises(RejectedFile, match="protected by a password"):
        read("secret.docx", data)


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
        docx(paragraph("cut off"))[:300],
        zipped({"[Content_Types].xml": "<Types/>", "word/other.xml": "<a/>"}),
        docx("<w:p><w:unclosed></w:p>"),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
        compound({"WordDocument": b"old"}),
        compound({"Workbook": b"old"}),
        compound({"PowerPoint Document": b"old", "Current User": b"x"}),
        b"{\\rtf1 " + bytes(range(256)) * 20,
    ],
)
def test_what_is_damaged_is_refused_with_that_reason(read: Read, data: bytes) -> None:
    with pytest.raises(RejectedFile, match="damaged"):
        read("broken", data)


def test_only_the_beginning_of_an_endless_text_is_read(read: Read) -> None:
    document = read("endless.txt", b"word " * 1_000_000)
    assert sum(len(block.text) for block in document.blocks) == 2_000_000
    assert document.note == "only the beginning was read: the file holds more text than one file may"


def test_a_long_name_is_no_trouble(read: Read) -> None:
    assert shown(read("x" * 100_000 + ".md", b"# Title")) == ["# Title"]


def test_a_closed_reader_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "stored").write_text("text")
    reader = GuardedReader(ocr_engine="off")
    reader.close()
    with pytest.raises(Unavailable):
        reader.read(tmp_path / "stored", "notes.txt")


def test_an_engine_that_is_not_installed_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Misconfigured, match="OCR_ENGINE is tesseract"):
        GuardedReader(ocr_engine="tesseract")
