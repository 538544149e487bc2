"""The work of the fork server that holds the OCR engine: pictures, and PDF files with pages that are pictures."""

from typing import Any, BinaryIO

from memory.adapters import ocr
from memory.adapters.answers import pack
from memory.adapters.forkserver import Work
from memory.adapters.reading.collector import Collector
from memory.adapters.reading.pdf import read_pdf
from memory.adapters.reading.pictures import read_picture
from memory.adapters.reading.scans import Ocr, OcrHere, OcrOff
from memory.adapters.reading.sniff import Kind, binary_kind


def reader(engine_name: str) -> Work:
    """The work: the file's Document as JSON. Loads the engine now, so that every child finds it ready."""
    engine = ocr.load(engine_name)

    def read(source: BinaryIO, request: dict[str, Any]) -> bytes:
        data = source.read()
        # The rest of the time is for decoding and for the page under way.
        sight: Ocr = OcrHere(engine, 0.7 * request["limits"]["wall_seconds"]) if engine is not None else OcrOff()
        found = Collector()
        kind, media_type = binary_kind(data) or (None, "application/octet-stream")
        with found.collecting():
            if kind is Kind.PDF:
                read_pdf(data, found, sight)
            elif kind is Kind.PICTURE:
                read_picture(data, found, sight)
        return pack(found.document(media_type))

    return read
