"""Presentations: slide by slide the title, text, tables, charts and diagrams, and the speaker's notes."""

from collections.abc import Iterator

from lxml import etree

from memory.adapters.reading.archives import OfficePackage, attribute, local
from memory.adapters.reading.collector import Collector
from memory.adapters.reading.tables import add_table

_TITLES = frozenset({"title", "ctrTitle"})
_NOTES_FURNITURE = frozenset({"sldNum", "dt", "hdr", "ftr", "sldImg"})


def read_pptx(data: bytes, found: Collector) -> None:
    """Each slide is headed by its title, or by its number where it has none."""
    package = OfficePackage(data)
    targets = package.targets(package.main)
    slides = (element for element in package.xml(package.main).iter() if local(element) == "sldId")
    # A slide has two attributes called id: a number, and the name of its relation.
    parts = [targets[str(value)] for slide in slides for value in slide.attrib.values() if value in targets]
    for number, part in enumerate(parts, 1):
        _Slide(package, part, number, found).read()


class _Slide:
    def __init__(self, package: OfficePackage, part: str, number: int, found: Collector) -> None:
        self._package = package
        self._part = part
        self._number = number
        self._found = found
        self._targets = package.targets(part)

    def read(self) -> None:
        root = self._package.xml(self._part)
        title = next((shape for shape in root.iter() if local(shape) == "sp" and _placeholder(shape) in _TITLES), None)
        heading = " ".join(_paragraphs(title)) if title is not None else ""
        self._found.heading(heading or f"Slide {self._number}", slide=self._number)
        self._shapes(root, title)
        for part in self._package.related(self._part, "notesSlide"):
            for shape in self._package.xml(part).iter():
                if local(shape) == "sp" and _placeholder(shape) not in _NOTES_FURNITURE:
                    self._text(_paragraphs(shape))

    def _shapes(self, parent: etree._Element, title: etree._Element | None) -> None:
        for child in parent:
            name = local(child)
            if name == "Fallback" or child is title:
                continue
            if name == "cNvPr" and (description := child.get("descr")):
                self._found.text(description, slide=self._number)
            if name == "txBody":
                self._text(_paragraphs(child))
            elif name == "tbl":
                add_table(self._found, _rows(child), has_header=True, slide=self._number)
            elif name == "chart":
                self._chart(child)
            elif name == "relIds":
                self._diagram(child)
            else:
                self._shapes(child, title)

    def _text(self, paragraphs: Iterator[str]) -> None:
        self._found.text("\n".join(paragraphs), slide=self._number)

    def _chart(self, reference: etree._Element) -> None:
        part = self._targets.get(attribute(reference, "id") or "")
        if part is None:
            return
        root = self._package.xml(part)
        self._text(_paragraphs(root))
        for series in (element for element in root.iter() if local(element) == "ser"):
            parts = {local(child): [v.text or "" for v in child.iter() if local(v) == "v"] for child in series}
            name = " ".join(parts.get("tx", []))
            points = zip(parts.get("cat", parts.get("xVal", [])), parts.get("val", parts.get("yVal", [])), strict=False)
            self._found.text(f"{name}: " + ", ".join(f"{label} {value}" for label, value in points), slide=self._number)

    def _diagram(self, reference: etree._Element) -> None:
        part = self._targets.get(attribute(reference, "dm") or "")
        if part is not None:
            self._text(_paragraphs(self._package.xml(part)))


def _placeholder(shape: etree._Element) -> str | None:
    """The kind of placeholder a shape is; an unnamed kind is the body."""
    for element in shape.iter():
        if local(element) == "ph":
            return str(element.get("type", "body"))
        if local(element) == "txBody":
            break
    return None


def _rows(table: etree._Element) -> list[list[str]]:
    rows = (row for row in table if local(row) == "tr")
    return [[" ".join(_paragraphs(cell)) for cell in row if local(cell) == "tc"] for row in rows]


def _paragraphs(parent: etree._Element) -> Iterator[str]:
    """The lines of text below, without empty ones."""
    for paragraph in parent.iter():
        if local(paragraph) != "p":
            continue
        pieces = ("\n" if local(e) == "br" else e.text or "" for e in paragraph.iter() if local(e) in ("t", "br"))
        if text := "".join(pieces).strip():
            yield text
