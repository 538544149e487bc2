"""E-books: the pages of an EPUB in the order in which they are read."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from lxml import etree

from memory.adapters.reading.archives import Archive, attribute, local, parser
from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.decoding import decode
from memory.adapters.reading.markup import read_html
from memory.errors import RejectedFile

_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
# Ways of hiding fonts, which are no protection of the text.
_FONT_HIDING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


@dataclass(frozen=True)
class _Item:
    part: str
    is_page: bool
    is_contents: bool


def read_epub(data: bytes, found: Collector) -> None:
    """The book's title is the top heading; pages that the reading order leaves out come last."""
    archive = Archive(data)
    package, folder = _package(archive)
    for name, key in (("title", "title"), ("creator", "author")):
        values = (one_line("".join(map(str, e.itertext()))) for e in package.iter() if local(e) == name)
        if value := ", ".join(filter(None, values)):
            found.metadata[key] = value[:500]
    items = dict(_items(package, folder))
    order = [attribute(element, "idref") or "" for element in package.iter() if local(element) == "itemref"]
    rest = [identity for identity, item in items.items() if item.is_page and not item.is_contents]
    parts = dict.fromkeys(items[identity].part for identity in [*order, *rest] if identity in items)
    locked = _locked(archive)
    if locked & set(parts):
        raise RejectedFile("it is protected against reading outside of its shop's own reader")
    found.heading(found.metadata.get("title", ""))
    if author := found.metadata.get("author"):
        found.text(author)
    missing = sum(not _read_page(archive, part, found) for part in parts)
    if missing:
        found.note(f"{missing} of its pages {'are' if missing > 1 else 'is'} missing")


def _package(archive: Archive) -> tuple[etree._Element, str]:
    name = ""
    if "META-INF/container.xml" in archive.names:
        root = _parsed(archive.read("META-INF/container.xml"))
        paths = (attribute(element, "full-path") for element in root.iter() if local(element) == "rootfile")
        name = next((path for path in paths if path in archive.names), None) or ""
    name = name or next((part for part in sorted(archive.names) if part.lower().endswith(".opf")), "")
    if not name:
        raise RejectedFile("it is damaged: its list of pages is missing")
    return _parsed(archive.read(name)), posixpath.dirname(name)


def _parsed(data: bytes) -> etree._Element:
    forgiving = parser(recover=True)
    root: etree._Element | None = etree.fromstring(data, forgiving)
    if root is None:
        raise RejectedFile("it is damaged: its list of pages is not valid XML")
    return root


def _items(package: etree._Element, folder: str) -> Iterator[tuple[str, _Item]]:
    for element in package.iter():
        if local(element) == "item":
            target = unquote((attribute(element, "href") or "").partition("#")[0])
            part = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            media_type = (attribute(element, "media-type") or "").lower()
            is_page = media_type in _PAGES or part.lower().endswith((".xhtml", ".html", ".htm"))
            is_contents = "nav" in (attribute(element, "properties") or "").split()
            yield attribute(element, "id") or part, _Item(part, is_page, is_contents)


def _locked(archive: Archive) -> set[str]:
    """The parts that only a shop's own reader can open."""
    if "META-INF/encryption.xml" not in archive.names:
        return set()
    locked: set[str] = set()
    for entry in _parsed(archive.read("META-INF/encryption.xml")).iter():
        if local(entry) == "EncryptedData":
            methods = [attribute(e, "Algorithm") for e in entry.iter() if local(e) == "EncryptionMethod"]
            if not any(method in _FONT_HIDING for method in methods):
                locked |= {unquote(attribute(e, "URI") or "") for e in entry.iter() if local(e) == "CipherReference"}
    return locked


def _read_page(archive: Archive, part: str, found: Collector) -> bool:
    if part not in archive.names:
        by_folded = {name.casefold(): name for name in archive.names}
        part = by_folded.get(part.casefold(), "")
    if not part or part.lower().endswith((".svg", ".jpg", ".jpeg", ".png", ".gif")):
        return bool(part)
    decoded = decode(archive.read(part))
    if decoded is not None:
        read_html(decoded.text, found, is_part=True)
    return True
