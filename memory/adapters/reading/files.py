"""The work of the fork server: what kind of file this is, and which reader takes it."""

from pathlib import PurePath
from typing import Any, BinaryIO

from memory.adapters.reading.collector import Collector
from memory.adapters.reading.decoding import decode
from memory.adapters.reading.plain import read_text
from memory.errors import RejectedFile
from memory.ports import Document

UNREADABLE = "kept; not readable as text, found by its name"


def read(source: BinaryIO, request: dict[str, Any]) -> bytes:
    """The file's Document as JSON."""
    return _document(source.read(), request["filename"]).model_dump_json().encode()


def _document(data: bytes, filename: str) -> Document:
    if not data:
        raise RejectedFile("empty file")
    decoded = decode(data)
    if decoded is None:
        return Document(content_type="application/octet-stream", blocks=[], note=UNREADABLE)
    found = Collector()
    with found.collecting():
        read_text(decoded, found)
    markdown = PurePath(filename).suffix.lower() in (".md", ".markdown")
    return found.document("text/markdown" if markdown else "text/plain")
