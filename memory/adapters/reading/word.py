"""Word documents: headings, paragraphs, tables and text boxes in reading order, then notes, comments and margins."""

import re
from collections.abc import Iterator

from lxml import etree

from memory.adapters.reading.archives import OfficePackage, attribute, local
from memory.adapters.reading.collector import Collector
from memory.adapters.reading.tables import add_table

_HEADING_NAME = re.compile(r"^heading (\d)$")
_SKIPPED = frozenset({"del", "moveFrom", "Fallback", "pPr", "rPr", "sectPr", "instrText", "delText"})
_BODY_TEXT_LEVEL = 9


def read_docx(data: bytes, found: Collector) -> None:
    """Deleted text of tracked changes is left out, inserted text is in."""
    package = OfficePackage(data)
    levels = _style_levels(package)
    body = next((child for child in package.xml(package.main) if local(child) == "body"), None)
    if body is not None:
        _Reader(found, levels).blocks(body)
    for kind in ("footnotes", "endnotes", "comments", "header", "footer"):
        seen: set[str] = set()
        for part in package.related(package.main, kind):
            for note in _paragraphs(package.xml(part)):
                # First-page, odd and even margins mostly repeat one another.
                if (text := _text(note)).strip() and text not in seen:
                    seen.add(text)
                    found.text(text)


class _Reader:
    """Walks a body and adds what it finds."""

    def __init__(self, found: Collector, levels: dict[str, int]) -> None:
        self._found = found
        self._levels = levels

    def blocks(self, parent: etree._Element) -> None:
        for child in parent:
            name = local(child)
            if name == "p":
                self._paragraph(child)
            elif name == "tbl":
                self._table(child)
            elif name not in _SKIPPED:
                self.blocks(child)

    def _paragraph(self, paragraph: etree._Element) -> None:
        text, level = _text(paragraph), self._level(paragraph)
        if level is not None:
            self._found.heading(text, level)
        else:
            self._found.text(text)
        for box in _boxes(paragraph):
            self.blocks(box)

    def _level(self, paragraph: etree._Element) -> int | None:
        properties = next((child for child in paragraph if local(child) == "pPr"), None)
        if properties is None:
            return None
        for child in properties:
            if local(child) == "outlineLvl":
                return _outline_level(child)
        style = next((attribute(child, "val") for child in properties if local(child) == "pStyle"), None)
        return self._levels.get(style or "")

    def _table(self, table: etree._Element) -> None:
        rows = [[_cell(cell) for cell in _inside(row, "tc")] for row in _inside(table, "tr")]
        if rows and max(len(row) for row in rows) == 1:
            # One column is a frame around text, which may hold headings and tables of its own.
            for row in _inside(table, "tr"):
                for cell in _inside(row, "tc"):
                    self.blocks(cell)
        else:
            add_table(self._found, rows, has_header=True)


def _inside(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    """Children of that name, also where content controls or tracked changes stand between."""
    for child in parent:
        if local(child) == name:
            yield child
        elif local(child) in ("sdt", "sdtContent", "customXml", "ins", "moveTo"):
            yield from _inside(child, name)


def _cell(cell: etree._Element) -> str:
    return " ".join(text for paragraph in _paragraphs(cell) if (text := _text(paragraph).strip()))


def _paragraphs(parent: etree._Element) -> Iterator[etree._Element]:
    """Every paragraph below, text boxes and inner tables included, in order."""
    for child in parent:
        if local(child) == "p":
            yield child
            for box in _boxes(child):
                yield from _paragraphs(box)
        elif local(child) not in _SKIPPED:
            yield from _paragraphs(child)


def _boxes(parent: etree._Element) -> Iterator[etree._Element]:
    for child in parent:
        if local(child) == "txbxContent":
            yield child
        elif local(child) not in _SKIPPED:
            yield from _boxes(child)


def _text(paragraph: etree._Element) -> str:
    return "".join(_pieces(paragraph))


def _pieces(parent: etree._Element) -> Iterator[str]:
    for child in parent:
        name = local(child)
        if name == "t":
            yield child.text or ""
        elif name in ("tab", "ptab"):
            yield "\t"
        elif name in ("br", "cr"):
            yield "\n"
        elif name == "noBreakHyphen":
            yield "-"
        elif name == "docPr":
            if description := attribute(child, "descr"):
                yield f" {description} "
        elif name not in _SKIPPED and name != "txbxContent":
            yield from _pieces(child)


def _style_levels(package: OfficePackage) -> dict[str, int]:
    """Style id to heading level, through the styles each is based on."""
    own: dict[str, int | None] = {}
    bases: dict[str, str] = {}
    for part in package.related(package.main, "styles"):
        for style in package.xml(part):
            identity = attribute(style, "styleId") if local(style) == "style" else None
            if identity is None:
                continue
            own[identity] = _style_level(style)
            base = next((attribute(child, "val") for child in style if local(child) == "basedOn"), None)
            if base is not None:
                bases[identity] = base
    levels: dict[str, int] = {}
    for identity in own:
        current: str | None = identity
        for _ in range(12):  # a chain may be a circle
            if current is None or (level := own.get(current)) is not None:
                break
            current = bases.get(current)
        level = own.get(current) if current is not None else None
        if level is not None:
            levels[identity] = level
    return levels


def _style_level(style: etree._Element) -> int | None:
    for element in style.iter():
        name = local(element)
        if name == "outlineLvl":
            return _outline_level(element)
        if name == "name":
            value = (attribute(element, "val") or "").lower()
            if value == "title":
                return 1
            if match := _HEADING_NAME.match(value):
                return int(match[1]) + 1
    return None


def _outline_level(element: etree._Element) -> int | None:
    """Level 1 is the document's title, so the outline begins at 2."""
    value = attribute(element, "val") or ""
    return int(value) + 2 if value.isdigit() and int(value) < _BODY_TEXT_LEVEL else None
