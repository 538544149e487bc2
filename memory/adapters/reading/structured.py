"""JSON, XML and notebooks: every value with the name it has in the file; what does not parse is read as plain text."""

import json
from collections.abc import Iterator
from typing import Any

from lxml import etree

from memory.adapters.reading.archives import local
from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.markup import read_markdown

_MAX_DEPTH = 60


def read_json(text: str, found: Collector) -> None:
    """One block per element of a list at the top, or per key of an object; also a document per line (JSON Lines)."""
    documents = list(_documents(text))
    if len(documents) == 1 and (cells := _cells(documents[0])) is not None:
        _read_notebook(cells, found)
        return
    if not documents:
        found.text(text)
    for document in documents:
        for part in _parts(document):
            found.text("\n".join(_lines(part, "", 0)))


def _cells(document: Any) -> list[dict[str, Any]] | None:
    """The cells when this is a notebook."""
    cells = document.get("cells") if isinstance(document, dict) and "nbformat" in document else None
    is_notebook = isinstance(cells, list) and all(isinstance(cell, dict) for cell in cells)
    return cells if is_notebook else None


def _read_notebook(cells: list[dict[str, Any]], found: Collector) -> None:
    """What is written, the code, and what it printed; pictures of results are left out."""
    for cell in cells:
        if cell.get("cell_type") == "markdown":
            read_markdown(_joined(cell.get("source")), found)
            continue
        found.text(_joined(cell.get("source")))
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else ():
            shown = output.get("data", output) if isinstance(output, dict) else {}
            found.text(_joined(shown.get("text/plain", shown.get("text", shown.get("evalue")))))


def _joined(lines: Any) -> str:
    return "".join(map(str, lines)) if isinstance(lines, list) else lines if isinstance(lines, str) else ""


def _documents(text: str) -> Iterator[Any]:
    try:
        yield _load(text)
    except (ValueError, RecursionError):
        try:
            documents = [_load(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            return
        yield from documents


def _load(text: str) -> Any:
    # Numbers stay as they are written.
    return json.loads(text, parse_float=str, parse_int=str)


def _parts(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        yield from document
    elif isinstance(document, dict):
        for key, value in document.items():
            nested = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
            yield from ({key: item} for item in value) if nested else ({key: value},)
    else:
        yield document


def _lines(value: Any, name: str, depth: int) -> Iterator[str]:
    prefix = f"{name}: " if name else ""
    if depth > _MAX_DEPTH:
        yield prefix + json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else str(key), depth + 1)
        if not value and name:
            yield name
    elif isinstance(value, list):
        if all(not isinstance(item, dict | list) for item in value):
            yield prefix + ", ".join(_scalar(item) for item in value)
        else:
            for item in value:
                yield from _lines(item, name, depth + 1)
    else:
        yield prefix + _scalar(value)


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_xml(data: bytes, text: str, found: Collector) -> None:
    """One line per element that holds text, with the element's name; attributes beside it."""
    # Internal entities are text that the author wrote once; the library stops when they blow up. Nothing is fetched.
    internal: Any = "internal"
    parser = etree.XMLParser(resolve_entities=internal, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError:
        found.text(text)
        return
    is_drawing = local(root) == "svg"
    if is_drawing:
        # Its attributes say where lines go, not what a person reads.
        etree.strip_elements(root, "{*}style", "{*}script", "{*}metadata", "style", "script", with_tail=False)
    _add_elements(root, found, with_attributes=not is_drawing)


def _add_elements(root: etree._Element, found: Collector, *, with_attributes: bool) -> None:
    """Walks without recursion, so that depth costs nothing."""
    waiting = [root]
    lines: list[str] = []
    while waiting:
        element = waiting.pop()
        own = one_line(element.text or "")
        mixed = bool(own and len(element)) or any(one_line(child.tail or "") for child in element)
        if mixed:
            own = one_line("".join(map(str, element.itertext())))
        elif len(element):
            # The parts of one record stay together.
            waiting.extend(reversed(element))
        named = ((str(key).rpartition("}")[2], str(value)) for key, value in element.attrib.items() if with_attributes)
        attributes = ", ".join(f"{key} {value}" for key, value in named)
        if own or attributes:
            shown = f"{local(element)} ({attributes})" if attributes else local(element)
            lines.append(f"{shown}: {own}" if own else shown)
        following = waiting[-1] if waiting else None
        if lines and (following is None or following.getparent() is root or len("\n".join(lines)) > 1_000):
            found.text("\n".join(lines))
            lines = []
