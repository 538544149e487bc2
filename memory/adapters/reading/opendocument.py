"""OpenDocument texts, sheets and presentations, in their zip containers or as one flat XML file."""

from collections.abc import Iterator, Sequence

from lxml import etree

from memory.adapters.reading.archives import Archive, attribute, local, parser
from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.tables import RowStream, add_table
from memory.errors import RejectedFile

# Repeated cells and rows stand once in the file; so many copies of a filled one are believed.
_MOST_COPIES = 200
_MAX_BODY = 256 * 1024**2
_NOT_TEXT = frozenset(
    {"tracked-changes", "note-citation", "sequence-decls", "variable-decls", "user-field-decls", "forms"}
)
_BESIDE = frozenset(
    {"note", "annotation", "frame", "custom-shape", "text-box", "rect", "ellipse", "g", "line", "connector"}
)
_TITLES_OF_SHAPES = frozenset({"title", "desc"})


def read_opendocument(data: bytes, found: Collector) -> None:
    """Headings, paragraphs, lists, tables, text boxes, notes and comments in reading order, then the margins. Deleted
    text of tracked changes is left out.
    """
    archive = Archive(data)
    if "META-INF/manifest.xml" in archive.names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
        raise RejectedFile("it is protected by a password")
    content = _parsed(archive.read("content.xml", limit=_MAX_BODY))
    styles = _parsed(archive.read("styles.xml")) if "styles.xml" in archive.names else None
    _read(content, styles, found, archive)


def read_flat(data: bytes, found: Collector) -> None:
    """The same where the whole document is one XML file."""
    root = _parsed(data)
    _read(root, root, found, None)


def _parsed(data: bytes) -> etree._Element:
    try:
        return etree.fromstring(data, parser())
    except etree.XMLSyntaxError as error:
        raise RejectedFile("it is damaged: one of its parts is not valid XML") from error


def _read(content: etree._Element, styles: etree._Element | None, found: Collector, archive: Archive | None) -> None:
    titles = {name for root in (content, styles) if root is not None for name in _title_styles(root)}
    walker = _Walker(found, titles | {"Title"}, archive)
    body = next((element for element in content.iter() if local(element) == "body"), None)
    for document in body if body is not None else ():
        if local(document) == "spreadsheet":
            _read_sheets(document, found, walker)
        elif local(document) in ("presentation", "drawing"):
            _read_slides(document, found, walker)
        else:
            walker.blocks(document)
    if styles is not None:
        _read_margins(styles, found)


def _title_styles(root: etree._Element) -> Iterator[str]:
    """Styles that only vary the one for a document's title."""
    for style in root.iter():
        if local(style) == "style" and attribute(style, "parent-style-name") == "Title":
            yield attribute(style, "name") or ""


def _read_margins(styles: etree._Element, found: Collector) -> None:
    seen: set[str] = set()
    for page in (element for element in styles.iter() if local(element) == "master-page"):
        for margin in page:
            if not local(margin).startswith(("header", "footer")):
                continue
            text = " ".join(_line(paragraph) for paragraph in margin.iter() if local(paragraph) in ("p", "h"))
            if text.strip() and text not in seen:
                seen.add(text)
                found.text(text)


class _Walker:
    """Adds what stands in a text, on a slide or in a shape."""

    def __init__(self, found: Collector, titles: set[str], archive: Archive | None) -> None:
        self._found = found
        self._titles = titles
        self._archive = archive
        self.place: dict[str, int | str] = {}

    def blocks(self, parent: etree._Element) -> None:
        for child in parent:
            name = local(child)
            if name in ("p", "h"):
                self._paragraph(child, name)
            elif name == "table":
                self._table(child)
            elif name == "object":
                self._object(child)
            elif name in _TITLES_OF_SHAPES:
                self._found.text(child.text or "", **self.place)
            elif name not in _NOT_TEXT:
                self.blocks(child)

    def _paragraph(self, paragraph: etree._Element, name: str) -> None:
        text = _line(paragraph)
        if name == "h":
            level = attribute(paragraph, "outline-level") or "1"
            self._found.heading(text, (int(level) if level.isdigit() else 1) + 1, **self.place)
        elif attribute(paragraph, "style-name") in self._titles:
            self._found.heading(text, 1, **self.place)
        else:
            self._found.text(text, **self.place)
        for beside in _beside(paragraph):
            self.blocks(beside)

    def _table(self, table: etree._Element) -> None:
        rows = [list(_inside(row, ("table-cell",))) for row in _inside(table, ("table-row",))]
        if rows and max(len(row) for row in rows) <= 1:
            # One column is a frame around text, which may hold headings and tables of its own.
            for cell in (cell for row in rows for cell in row):
                self.blocks(cell)
        else:
            add_table(self._found, [[_cell(cell) for cell in row] for row in rows], has_header=True, **self.place)

    def _object(self, reference: etree._Element) -> None:
        """A chart or a formula: a document of its own in the container."""
        name = (attribute(reference, "href") or "").removeprefix("./") + "/content.xml"
        root = reference
        if self._archive is not None and name in self._archive.names:
            root = _parsed(self._archive.read(name))
        texts = (
            one_line(element.text or "") for element in root.iter() if local(element) in ("p", "annotation", "span")
        )
        self._found.text(", ".join(filter(None, texts)), **self.place)


def _inside(parent: etree._Element, names: Sequence[str]) -> Iterator[etree._Element]:
    """Children of these names, also where groups of rows or header rows stand between."""
    for child in parent:
        name = local(child)
        if name in names:
            yield child
        elif name.startswith("table-") and "cell" not in name and "column" not in name:
            yield from _inside(child, names)


def _beside(paragraph: etree._Element) -> Iterator[etree._Element]:
    """What is anchored in a paragraph and stands beside its line."""
    for child in paragraph:
        if local(child) in _BESIDE:
            yield child
        elif local(child) not in _NOT_TEXT:
            yield from _beside(child)


def _line(element: etree._Element) -> str:
    return "".join(_pieces(element))


def _pieces(parent: etree._Element) -> Iterator[str]:
    # White space of the source is no white space of the text: runs of it are one space.
    yield _collapsed(parent.text)
    for child in parent:
        name = local(child)
        if name == "s":
            count = attribute(child, "c") or "1"
            yield " " * min(int(count) if count.isdigit() else 1, 1_000)
        elif name == "tab":
            yield "\t"
        elif name == "line-break":
            yield "\n"
        elif name == "ruby-text":
            yield f"({_line(child)})"
        elif name not in _BESIDE and name not in _NOT_TEXT:
            yield from _pieces(child)
        yield _collapsed(child.tail)


def _collapsed(text: str | None) -> str:
    if not text:
        return ""
    start, end = " " if text[0].isspace() else "", " " if text[-1].isspace() else ""
    return start + one_line(text) + end if text.strip() else " "


def _cell(cell: etree._Element) -> str:
    lines = (_line(element) for element in cell.iter() if local(element) in ("p", "h"))
    return one_line(" ".join(lines)) or attribute(cell, "value") or attribute(cell, "date-value") or ""


def _read_sheets(document: etree._Element, found: Collector, walker: _Walker) -> None:
    for sheet in document:
        if local(sheet) != "table":
            continue
        name = attribute(sheet, "name") or "Sheet"
        stream = RowStream(found, sheet=name)
        number = 0
        is_named = False
        for row in _inside(sheet, ("table-row",)):
            cells = _cells(row)
            copies = _copies(row, "number-rows-repeated")
            for copy in range(min(copies, _MOST_COPIES) if any(cells) else 0):
                if not is_named:
                    found.heading(name, sheet=name)
                    is_named = True
                stream.add(number + copy + 1, cells)
            number += copies
        stream.close()
        walker.place = {"sheet": name}
        for shapes in (child for child in sheet if local(child) == "shapes"):
            walker.blocks(shapes)
    walker.place = {}


def _cells(row: etree._Element) -> list[str]:
    cells: list[str] = []
    for cell in _inside(row, ("table-cell", "covered-table-cell")):
        text = _cell(cell)
        cells += [text] * min(_copies(cell, "number-columns-repeated"), _MOST_COPIES if text else 1_024)
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _copies(element: etree._Element, name: str) -> int:
    value = attribute(element, name) or "1"
    return max(1, int(value)) if value.isdigit() and len(value) < 10 else 1


def _read_slides(document: etree._Element, found: Collector, walker: _Walker) -> None:
    pages = [child for child in document if local(child) == "page"]
    for number, page in enumerate(pages, 1):
        walker.place = {"slide": number}
        title = next((shape for shape in page if attribute(shape, "class") == "title"), None)
        lines = (_line(element) for element in title.iter() if local(element) == "p") if title is not None else ()
        found.heading(" ".join(lines) or f"Slide {number}", slide=number)
        for shape in page:
            if shape is not title and attribute(shape, "class") not in ("page-number", "date-time", "page"):
                holder = etree.Element("holder")
                holder.append(shape)
                walker.blocks(holder)
    walker.place = {}
