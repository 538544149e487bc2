"""Word, PowerPoint and Excel files: everything people see is read, in order and with its place."""

import datetime
import io
from typing import Any

import docx as python_docx
import openpyxl
import pptx
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from memory.ports import Block
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import docx, paragraph

BOX = "<w:r><w:pict><w:textbox><w:txbxContent>{}</w:txbxContent></w:textbox></w:pict></w:r>"


def word_file() -> bytes:
    document = python_docx.Document()
    document.add_heading("Handbook", 0)
    document.add_paragraph("Before the first chapter.")
    document.add_heading("Chapter", 1)
    document.add_paragraph("A point", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, value in zip(table.rows[0].cells + table.rows[1].cells, ("Part", "Price", "Chain", "24.90"), strict=True):
        cell.text = value
    document.add_heading("Section", 2)
    document.add_paragraph("Last words.")
    document.sections[0].footer.paragraphs[0].text = "Kestrel Bicycles, Molenkade 17"
    held = io.BytesIO()
    document.save(held)
    return held.getvalue()


def test_a_word_file_keeps_headings_tables_and_order(read: Read) -> None:
    document = read("handbook.docx", word_file())
    assert shown(document) == [
        "# Handbook",
        "Before the first chapter.",
        "## Chapter",
        "A point",
        "| Chain | 24.90",
        "### Section",
        "Last words.",
        "Kestrel Bicycles, Molenkade 17",
    ]
    assert [block.header for block in document.blocks if block.kind == "row"] == ["Part | Price"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<w:p><w:r><w:t>kept </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>", ["kept"]),
        ("<w:p><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins></w:p>", ["inserted"]),
        ("<w:p><w:hyperlink><w:r><w:t>a link</w:t></w:r></w:hyperlink></w:p>", ["a link"]),
        ("<w:p><w:r><w:t>one</w:t><w:tab/><w:t>two</w:t><w:br/><w:t>three</w:t></w:r></w:p>", ["one\ttwo\nthree"]),
        (f"<w:sdt><w:sdtContent>{paragraph('in a control')}</w:sdtContent></w:sdt>", ["in a control"]),
        (f"<w:p><w:r><w:t>around</w:t></w:r>{BOX.format(paragraph('in a box'))}</w:p>", ["around", "in a box"]),
        (paragraph("A title", '<w:outlineLvl w:val="1"/>'), ["### A title"]),
        (f"<w:tbl><w:tr><w:tc>{paragraph('framed')}</w:tc></w:tr></w:tbl>", ["framed"]),
        ("<w:p><w:r><w:drawing><w:docPr descr='A kestrel'/></w:drawing></w:r></w:p>", ["A kestrel"]),
        ("<w:p><w:r><w:instrText>PAGE</w:instrText><w:t>7</w:t></w:r></w:p>", ["7"]),
    ],
)
def test_the_corners_of_a_word_file(read: Read, body: str, expected: list[str]) -> None:
    assert shown(read("corner.docx", docx(body))) == expected


def test_a_table_in_a_cell_is_part_of_its_row(read: Read) -> None:
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('x')}</w:tc><w:tc>{paragraph('y')}</w:tc></w:tr></w:tbl>"
    rows = f"<w:tr><w:tc>{paragraph('A')}</w:tc><w:tc>{paragraph('B')}</w:tc></w:tr>"
    rows += f"<w:tr><w:tc>{paragraph('1')}{inner}</w:tc><w:tc>{paragraph('2')}</w:tc></w:tr>"
    assert shown(read("nested.docx", docx(f"<w:tbl>{rows}</w:tbl>"))) == ["| 1 x y | 2"]


def test_notes_and_comments_follow_the_text_and_headings_have_styles_of_styles(read: Read) -> None:
    styles = (
        '<w:style w:styleId="Ueberschrift"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:styleId="Eigene"><w:name w:val="mine"/><w:basedOn w:val="Ueberschrift"/></w:style>'
        '<w:style w:styleId="Kreis"><w:name w:val="round"/><w:basedOn w:val="Kreis"/></w:style>'
    )
    parts = {
        "styles": styles,
        "footnotes": f"<w:footnote>{paragraph('The footnote.')}</w:footnote>",
        "comments": f"<w:comment>{paragraph('The comment.')}</w:comment>",
    }
    body = paragraph("Titel", '<w:pStyle w:val="Eigene"/>') + paragraph("Text", '<w:pStyle w:val="Kreis"/>')
    document = read("noted.docx", docx(body, parts=parts))
    assert shown(document) == ["## Titel", "Text", "The footnote.", "The comment."]


def presentation() -> bytes:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "The Merlin"
    slide.placeholders[1].text_frame.text = "First point"
    slide.placeholders[1].text_frame.add_paragraph().text = "Second point"
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for place, value in zip(((0, 0), (0, 1), (1, 0), (1, 1)), ("Step", "Until", "Photographs", "March"), strict=True):
        table.cell(*place).text = value
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "In a group"
    make_chart: Any = CategoryChartData  # pptx leaves it untyped
    chart = make_chart()
    chart.categories = ["2025", "2026"]
    chart.add_series("Bicycles built", (1980, 2100))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(3), Inches(3), chart)
    held = io.BytesIO()
    deck.save(held)
    return held.getvalue()


def test_a_presentation_keeps_its_slides_tables_charts_and_notes(read: Read) -> None:
    document = read("merlin.pptx", presentation())
    assert shown(document) == [
        "# The Merlin",
        "First point\nSecond point",
        "Say it slowly.",
        "# Slide 2",
        "| Photographs | March",
        "In a group",
        "Bicycles built: 2025 1980, 2026 2100",
    ]
    assert [block.place for block in document.blocks] == [{"slide": 1}] * 3 + [{"slide": 2}] * 4


def workbook(*sheets: tuple[str, list[list[object]]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets:
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    held = io.BytesIO()
    book.save(held)
    return held.getvalue()


def test_a_workbook_keeps_sheets_rows_and_headers(read: Read) -> None:
    day = datetime.date(2026, 9, 28)
    data = workbook(
        ("Stock", [["Part", "Count", "Checked"], ["Chain", 212, day], [None, None, None], ["Rim", 96.5, None]]),
        ("Empty", []),
        ("Remarks", [["Only one column"], ["and a second line"]]),
    )
    blocks = read("stock.xlsx", data).blocks
    row = "Part | Count | Checked"
    assert blocks == [
        Block(kind="heading", text="Stock", place={"sheet": "Stock"}),
        Block(kind="row", text="Chain | 212 | 2026-09-28", header=row, place={"sheet": "Stock", "row": 2}),
        Block(kind="row", text="Rim | 96.5", header=row, place={"sheet": "Stock", "row": 4}),
        Block(kind="heading", text="Remarks", place={"sheet": "Remarks"}),
        Block(text="Only one column", place={"sheet": "Remarks", "row": 1}),
        Block(text="and a second line", place={"sheet": "Remarks", "row": 2}),
    ]


def test_cells_are_read_as_they_are_shown(read: Read) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Kind", "Value", "Note"])
    for value, number_format in ((0.19, "0%"), (12.0, "General"), (True, "General"), (1e-7, "General")):
        sheet.append(["x", value, "y"])
        sheet.cell(sheet.max_row, 2).number_format = number_format
    sheet.append(["x", datetime.datetime(2026, 10, 14, 9, 42), "y"])  # noqa: DTZ001 - sheets know no zones
    held = io.BytesIO()
    book.save(held)
    values = [block.text.split(" | ")[1] for block in read("cells.xlsx", held.getvalue()).blocks[1:]]
    assert values == ["19%", "12", "TRUE", "1e-07", "2026-10-14 09:42"]


def test_remarks_on_cells_and_titles_of_charts_come_last(read: Read) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Rim", 3])
    sheet["A1"].comment = Comment("Order more.", "Ann")
    chart = BarChart()
    chart.title = "Stock of October"
    chart.add_data(Reference(sheet, min_col=2, min_row=1))
    sheet.add_chart(chart)
    held = io.BytesIO()
    book.save(held)
    assert shown(read("stock.xlsx", held.getvalue()))[-2:] == ["Stock of October", "Order more."]


def test_a_title_above_a_table_is_not_its_header(read: Read) -> None:
    document = read("titled.xlsx", workbook(("S", [["Stock of October"], [], ["Part", "Count"], ["Chain", 3]])))
    assert shown(document) == ["# S", "Stock of October", "| Chain | 3"]
    assert document.blocks[-1].header == "Part | Count"


def test_a_table_of_numbers_has_no_header(read: Read) -> None:
    document = read("numbers.xlsx", workbook(("S", [[1, 2], [3, 4]])))
    assert [(block.text, block.header) for block in document.blocks[1:]] == [("1 | 2", None), ("3 | 4", None)]


def test_a_header_without_rows_is_not_lost(read: Read) -> None:
    assert shown(read("head.xlsx", workbook(("S", [["Part", "Count"]])))) == ["# S", "| Part | Count"]
