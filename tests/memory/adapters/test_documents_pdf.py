"""PDF: page by page, titles by the outline, and what is said of pages without text."""

from itertools import groupby

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
