"""PDF: page by page, titles by the outline, and what is said of pages without text."""

import io
from itertools import groupby

from pypdf import PdfReader, PdfWriter
from pypdf.annotations import FreeText, Text
from pypdf.generic import NameObject, TextStringObject

from memory.ports import Block
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import pdf, saved, written

LINE = "The seatpost clamp is tightened to 6 newton metres, and to 5 when the post is of carbon;"


def test_each_page_has_its_number(read: Read) -> None:
    document = read("manual.pdf", pdf(["On page one.", "", "On page three (of three)."]))
    assert document.blocks == [
        Block(text="On page one.", place={"page": 1}),
        Block(text="On page three (of three).", place={"page": 3}),
    ]
    assert document.note is None


def test_the_lines_of_a_paragraph_are_joined_and_those_of_a_list_are_not(read: Read) -> None:
    text = f"{LINE}\nnever more.\n1. Grease the thread.\n2. {LINE}\n3. Done."
    assert shown(read("manual.pdf", pdf([text]))) == [
        f"{LINE} never more.\n1. Grease the thread.\n2. {LINE}\n3. Done.",
    ]


def test_titles_of_the_outline_are_headings_where_they_stand(read: Read) -> None:
    data = pdf(
        [f"Manual\nBefore.\n2.1 Torque settings\n{LINE}", "Torque settings\nBrakes\nOnly mineral oil."],
        outline=[("Manual", 1), ("Torque settings", 1), ("Brakes", 2), ("Not on its page", 2)],
    )
    assert shown(read("manual.pdf", data)) == [
        "# Manual",
        "Before.",
        "# 2.1 Torque settings",
        LINE,
        "Torque settings",
        "# Brakes",
        "Only mineral oil.",
    ]


def test_dots_between_a_title_and_its_page_are_one_sign(read: Read) -> None:
    assert shown(read("toc.pdf", pdf(["Brakes . . . . . . . . . . . 12"]))) == ["Brakes … 12"]


def test_pages_that_are_pictures_are_counted_when_ocr_is_off(read: Read) -> None:
    document = read("scan.pdf", saved(written("A scan"), "PDF", save_all=True, append_images=[written("Another")]))
    assert document.blocks == []
    assert document.note == "2 pages without text not read: OCR is off"


def test_only_the_first_pages_of_an_endless_document_are_read(read: Read) -> None:
    document = read("long.pdf", pdf([f"Page {number}" for number in range(1, 2_011)]))
    assert [page for page, _ in groupby(block.place["page"] for block in document.blocks)] == list(range(1, 2_001))
    assert document.note == "only the first 2000 of 2010 pages were read"


def test_fields_and_remarks_follow_their_page(read: Read) -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["A page with enough words on it.", "The second page."]))))
    writer.add_annotation(0, Text(rect=(50, 50, 90, 90), text="A remark – in the margin"))  # noqa: RUF001
    field = FreeText(rect=(50, 90, 90, 120), text="")
    field[NameObject("/Subtype")] = NameObject("/Widget")
    field[NameObject("/V")] = TextStringObject("Filled in")
    writer.add_annotation(0, field)
    held = io.BytesIO()
    writer.write(held)
    document = read("form.pdf", held.getvalue())
    assert [(block.text, block.place["page"]) for block in document.blocks] == [
        ("A page with enough words on it.", 1),
        ("A remark – in the margin\nFilled in", 1),  # noqa: RUF001
        ("The second page.", 2),
    ]
