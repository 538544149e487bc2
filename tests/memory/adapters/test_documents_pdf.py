"""PDF: page by page, titles by the outline, and what is said of pages without text."""

import io
from itertools import groupby
from typing import Any

from pypdf import PdfReader, PdfWriter
from pypdf.annotations import FreeText, Text
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NumberObject, TextStringObject

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


def written_by(writer: PdfWriter) -> bytes:
    held = io.BytesIO()
    writer.write(held)
    return held.getvalue()


def test_a_field_may_have_its_value_from_its_parent_and_boxes_count_when_they_are_set(read: Read) -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["An application with words on it."]))))
    names = {name: NameObject(f"/{name}") for name in ("Tx", "Btn", "Yes", "Off")}
    shape = DictionaryObject({NameObject("/N"): DictionaryObject({names["Yes"]: DictionaryObject()})})
    text = writer._add_object(
        DictionaryObject({NameObject("/FT"): names["Tx"], NameObject("/V"): TextStringObject("Ada Lovelace")})
    )
    fields: list[dict[str, Any]] = [{"/Parent": text}]
    fields += [{"/FT": names["Btn"], "/V": names[set_], "/AS": names[set_], "/AP": shape} for set_ in ("Yes", "Off")]
    widgets = ArrayObject()
    for number, field in enumerate(fields):
        widget = FreeText(rect=(50, 90 + 40 * number, 90, 120 + 40 * number), text="")
        widget[NameObject("/Subtype")] = NameObject("/Widget")
        widget[NameObject("/T")] = TextStringObject(f"field {number}")
        widget.update({NameObject(key): value for key, value in field.items()})
        widgets.append(writer.add_annotation(0, widget).indirect_reference)
    writer._root_object[NameObject("/AcroForm")] = DictionaryObject({NameObject("/Fields"): widgets})
    assert shown(read("form.pdf", written_by(writer))) == ["An application with words on it.", "Ada Lovelace\nYes"]


def test_letters_that_the_fonts_do_not_name_are_no_text(read: Read) -> None:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["Words that no one knows.", "Words that are known."]))))
    secret = [NameObject(f"/g{code}") for code in range(32, 127)]
    encoding = DictionaryObject({NameObject("/Differences"): ArrayObject([NumberObject(32), *secret])})
    resources: Any = writer.pages[0]["/Resources"]
    font = DictionaryObject(resources["/Font"]["/F"])
    font[NameObject("/Encoding")] = encoding
    fonts = DictionaryObject({NameObject("/F"): font})
    writer.pages[0][NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    document = read("unknown.pdf", written_by(writer))
    assert shown(document) == ["Words that are known."]
    assert document.note is not None
    assert document.note.startswith("text of 1 page left out: its fonts do not say which letters they show")


def test_a_scan_with_a_line_at_its_foot_is_a_scan(read: Read) -> None:
    foot = "Page 3 of 3, Company Limited"
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(saved(written("A scan of a page"), "PDF"))))
    writer.pages[0].merge_page(PdfReader(io.BytesIO(pdf([foot], box="0 0 900 842"))).pages[0])
    document = read("scan.pdf", written_by(writer))
    assert document.note == "1 page without text not read: OCR is off"


def test_a_hyphen_at_the_end_of_a_line_stays_before_a_capital_or_a_number(read: Read) -> None:
    text = "The thorough inspection of all that the Anglo-\nSaxon and the COVID-\n19 rules named, and of the car-\nbon."
    assert shown(read("hyphens.pdf", pdf([text]))) == [
        "The thorough inspection of all that the Anglo-Saxon and the COVID-19 rules named, and of the carbon."
    ]
