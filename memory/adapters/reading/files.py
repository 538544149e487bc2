"""The work of the fork server that reads files: finds out what kind a file is and has it read by its reader."""

from collections.abc import Callable
from typing import Any, BinaryIO

from memory.adapters.answers import pack
from memory.adapters.forkserver import Work
from memory.adapters.reading.books import read_epub
from memory.adapters.reading.cards import is_cards, read_cards
from memory.adapters.reading.collector import Collector
from memory.adapters.reading.containers import read_packed, read_tar, read_zip
from memory.adapters.reading.decoding import Decoded, decode
from memory.adapters.reading.legacy import read_doc, read_ppt, read_xls
from memory.adapters.reading.mail import read_eml
from memory.adapters.reading.markup import read_html, read_markdown
from memory.adapters.reading.opendocument import read_flat, read_opendocument
from memory.adapters.reading.outlook import read_msg
from memory.adapters.reading.pdf import read_pdf
from memory.adapters.reading.pictures import read_picture
from memory.adapters.reading.rtf import read_rtf
from memory.adapters.reading.scans import NeedsOcr, Ocr, OcrElsewhere, OcrOff
from memory.adapters.reading.slides import read_pptx
from memory.adapters.reading.sniff import Kind, binary_kind, text_kind
from memory.adapters.reading.spreadsheets import read_csv, read_xlsx
from memory.adapters.reading.structured import read_json, read_xml
from memory.adapters.reading.word import read_docx
from memory.errors import RejectedFile
from memory.ports import Document

UNREADABLE = "kept; not readable as text, found by its name"
# In the place of a document: the file shows pictures of text, and the process with the OCR engine must read it.
NEEDS_OCR = b""

_BINARY: dict[Kind, Callable[[bytes, Collector], None]] = {
    Kind.ZIP: read_zip,
    Kind.TAR: read_tar,
    Kind.DOCX: read_docx,
    Kind.PPTX: read_pptx,
    Kind.XLSX: read_xlsx,
    Kind.ODT: read_opendocument,
    Kind.ODS: read_opendocument,
    Kind.ODP: read_opendocument,
    Kind.DOC: read_doc,
    Kind.XLS: read_xls,
    Kind.XLSB: read_xls,
    Kind.PPT: read_ppt,
    Kind.EPUB: read_epub,
    Kind.RTF: read_rtf,
    Kind.MSG: read_msg,
    Kind.EML: read_eml,
}
_TEXT: dict[Kind, Callable[[str, Collector], None]] = {
    Kind.HTML: read_html,
    Kind.MARKDOWN: read_markdown,
    Kind.JSON: read_json,
    Kind.CSV: read_csv,
}


def reader(pictures: str) -> Work:
    """The work: the file's Document as JSON. `pictures` says what happens to pictures of text: `off` leaves them
    unread, `elsewhere` answers NEEDS_OCR.
    """
    sight: Ocr = OcrElsewhere() if pictures == "elsewhere" else OcrOff()

    def read(source: BinaryIO, request: dict[str, Any]) -> bytes:
        try:
            return pack(read_document(source.read(), request["filename"], sight))
        except NeedsOcr:
            return NEEDS_OCR

    return read


def read_document(data: bytes, filename: str, sight: Ocr) -> Document:
    """Raises RejectedFile, and whatever the libraries raise on a broken file."""
    if not data:
        raise RejectedFile("empty file")
    found = Collector()
    known = binary_kind(data)
    if known is not None:
        kind, media_type = known
        if kind is Kind.RECORDING:
            return Document(content_type=media_type, blocks=[], awaits="transcript")
        if kind is None:
            return Document(content_type=media_type, blocks=[], note=UNREADABLE)
        with found.collecting():
            _read_binary(kind, data, filename, found, sight)
        return found.document(media_type)
    decoded = decode(data)
    if decoded is None:
        return Document(content_type="application/octet-stream", blocks=[], note=UNREADABLE)
    kind, media_type = text_kind(decoded.text, filename)
    with found.collecting():
        _read_text(kind, data, decoded, found)
    return found.document(media_type)


def _read_binary(kind: Kind, data: bytes, filename: str, found: Collector, sight: Ocr) -> None:
    if kind is Kind.PACKED:
        read_packed(data, filename, found)
    elif kind is Kind.PDF:
        read_pdf(data, found, sight)
    elif kind is Kind.PICTURE:
        read_picture(data, found, sight)
    else:
        _BINARY[kind](data, found)


def _read_text(kind: Kind, data: bytes, decoded: Decoded, found: Collector) -> None:
    if kind is Kind.EML:
        read_eml(data, found)  # each part of a mail has an encoding of its own
        return
    if decoded.note is not None:
        found.note(decoded.note)
    if kind is Kind.FLAT_ODF:
        read_flat(data, found)
    elif kind is Kind.XML:
        read_xml(data, decoded.text, found)
    elif kind in _TEXT:
        _TEXT[kind](decoded.text, found)
    elif is_cards(decoded.text):
        read_cards(decoded.text, found)
    else:
        # As one stretch, so that blank lines and indents stay as they are.
        found.text(decoded.text)
