"""Sheets, CSV and TSV, row by row: a row is one line, with its sheet, its number and the header line."""

import csv
import datetime
import io
import re
from collections.abc import Iterator
from typing import Any

import openpyxl
from lxml import etree
from openpyxl.utils.exceptions import InvalidFileException

from memory.adapters.reading.archives import Archive, local, parser
from memory.adapters.reading.collector import Collector
from memory.adapters.reading.tables import RowStream, delimiter
from memory.errors import RejectedFile

_BESIDE_CELLS = re.compile(r"xl/(?:comments/?|threadedComments/|drawings/drawing|charts/chart)[^/]*\.xml")


def read_xlsx(data: bytes, found: Collector) -> None:
    """The values as last computed, dates as ISO dates, percentages as shown; sheets in the workbook's order."""
    archive = Archive(data)  # refuses a bomb before the library unpacks it
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    except (InvalidFileException, KeyError, ValueError, TypeError) as error:
        raise RejectedFile("it is damaged: its sheets cannot be opened") from error
    for sheet in book.worksheets:
        rows = _filled_rows(sheet)
        first = next(rows, None)
        if first is None:
            continue
        found.heading(sheet.title, sheet=sheet.title)
        stream = RowStream(found, sheet=sheet.title)
        stream.add(*first)
        for number, cells in rows:
            stream.add(number, cells)
        stream.close()
    for part in sorted(name for name in archive.names if _BESIDE_CELLS.fullmatch(name)):
        _read_beside(archive.read(part), found)


def _read_beside(data: bytes, found: Collector) -> None:
    """Remarks on cells, and the words in shapes and charts."""
    try:
        root = etree.fromstring(data, parser())
    except etree.XMLSyntaxError:
        return
    for holder in root.iter():
        if local(holder) in ("comment", "threadedComment", "txBody", "rich"):
            pieces = (element.text or "" for element in holder.iter() if local(element) in ("t", "text"))
            found.text("".join(pieces))


def _filled_rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    # A wrong declared size would cut rows off, or make the library fill up to it.
    sheet.reset_dimensions()
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_shown(cell.value, cell.number_format) if cell.value is not None else "" for cell in row]
        if any(cells):
            yield number, cells


def _shown(value: object, number_format: str) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        precision = "seconds" if value.second else "minutes"
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", precision)
    if isinstance(value, int | float):
        if "%" in number_format:
            return f"{value * 100:.10g}%"
        return f"{value:.15g}" if isinstance(value, float) else str(value)
    return str(value)


def read_csv(text: str, found: Collector) -> None:
    """Comma, semicolon, tab or bar, whichever parts the first lines most evenly."""
    csv.field_size_limit(len(text) + 1)
    stream = RowStream(found)
    for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text) or ","), 1):
        stream.add(number, cells)
    stream.close()
