"""What kind of file this is: by its content first, by its name where the content leaves it open."""

import io
import json
import mimetypes
import re
from enum import Enum
from pathlib import PurePath

import olefile

from memory.adapters.reading.archives import PROTECTED, Archive
from memory.adapters.reading.sounds import recording_type
from memory.adapters.reading.tables import delimiter
from memory.errors import RejectedFile

# Without the files of the operating system: the same name means the same type everywhere.
_BY_NAME = mimetypes.MimeTypes(filenames=())
for _suffix in (".docx", ".pptx", ".xlsx", ".odt", ".epub", ".rtf", ".msg", ".zip", ".webp", ".heic", ".m4a", ".ogg"):
    _BY_NAME.add_type("application/octet-stream", _suffix)  # whatever they are, they are no text


class Kind(Enum):
    """The kinds that have a reader, each with its media type."""

    ZIP = "application/zip"
    TAR = "application/x-tar"
    PACKED = "application/gzip"
    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
    XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    ODT = "application/vnd.oasis.opendocument.text"
    ODS = "application/vnd.oasis.opendocument.spreadsheet"
    ODP = "application/vnd.oasis.opendocument.presentation"
    FLAT_ODF = "application/vnd.oasis.opendocument.text-flat-xml"
    DOC = "application/msword"
    XLS = "application/vnd.ms-excel"
    XLSB = "application/vnd.ms-excel.sheet.binary"
    PPT = "application/vnd.ms-powerpoint"
    EPUB = "application/epub+zip"
    RTF = "application/rtf"
    MSG = "application/vnd.ms-outlook"
    EML = "message/rfc822"
    PICTURE = "image/*"
    RECORDING = "audio/*"
    HTML = "text/html"
    MARKDOWN = "text/markdown"
    JSON = "application/json"
    XML = "application/xml"
    CSV = "text/csv"
    TEXT = "text/plain"


_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00\x08\x00\x00\x00", "image/tiff"),
    (b"MM\x00+\x00\x08\x00\x00", "image/tiff"),
)
# One file, or a tar archive, packed as a whole.
_PACKED = (
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
)
# Recognised so that they are named rightly; nothing reads them yet.
_UNREAD = (
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
)
# What scanners of old write, in its form that is no text.
_NETPBM = re.compile(rb"P[456]\s(?:\s*#[^\n]*\n)*\s*\d+\s+\d+\s")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS = (
    ("WordDocument", Kind.DOC),
    ("Workbook", Kind.XLS),
    ("Book", Kind.XLS),
    ("PowerPoint Document", Kind.PPT),
)
# Templates and master documents are declared by longer names.
_DECLARED = (
    (Kind.EPUB, "application/epub+zip"),
    (Kind.ODT, "application/vnd.oasis.opendocument.text"),
    (Kind.ODS, "application/vnd.oasis.opendocument.spreadsheet"),
    (Kind.ODP, "application/vnd.oasis.opendocument.presentation"),
    (Kind.ODP, "application/vnd.oasis.opendocument.graphics"),
)
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")
_OFFICE_FOLDERS = (("word/", Kind.DOCX), ("ppt/", Kind.PPTX), ("xl/", Kind.XLSX))
_HTML_START = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?><!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_TAG = re.compile(r"<[a-z!/][^<>]*>", re.I)
_HEADER_LINE = re.compile(r"[A-Za-z][A-Za-z0-9-]*:(?:\s|$)")
_MAIL_HEADER = re.compile(
    r"^(received|return-path|message-id|mime-version|from|to|subject|date|delivered-to):", re.I | re.M
)
_TEXT_TYPES = frozenset({"application/javascript", "application/x-sh", "application/x-tex", "application/x-latex"})
_TEXT_SUFFIXES = {
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".mdown": Kind.MARKDOWN,
    ".htm": Kind.HTML,
    ".html": Kind.HTML,
    ".xhtml": Kind.HTML,
    ".eml": Kind.EML,
    ".json": Kind.JSON,
    ".jsonl": Kind.JSON,
    ".ndjson": Kind.JSON,
    ".geojson": Kind.JSON,
    ".ipynb": Kind.JSON,
    ".xml": Kind.XML,
    ".svg": Kind.XML,
    ".csv": Kind.CSV,
    ".tsv": Kind.CSV,
    ".tab": Kind.CSV,
}


def binary_kind(data: bytes) -> tuple[Kind | None, str] | None:
    """The kind and media type of a format that is known by its first bytes; the kind is None when nothing reads it.
    None when the bytes may be text.
    """
    if b"%PDF-" in data[:1024]:
        return Kind.PDF, Kind.PDF.value
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(data)
    if data.startswith(_OLE):
        return _ole_kind(data)
    if data.startswith(b"{\\rtf"):
        return Kind.RTF, Kind.RTF.value
    if (picture := _picture_type(data)) is not None:
        return Kind.PICTURE, picture
    if (recording := recording_type(data)) is not None:
        return Kind.RECORDING, recording
    if data[257:262] == b"ustar":
        return Kind.TAR, Kind.TAR.value
    packed = next(((Kind.PACKED, media_type) for start, media_type in _PACKED if data.startswith(start)), None)
    return packed or next(((None, media_type) for start, media_type in _UNREAD if data.startswith(start)), None)


def _picture_type(data: bytes) -> str | None:
    if data.startswith(b"BM") and int.from_bytes(data[2:6], "little") in range(26, len(data) + 4):
        return "image/bmp"
    if _NETPBM.match(data[:1024]):
        return "image/x-portable-anymap"
    return next((media for start, media in _PICTURES if data.startswith(start)), None) or _boxed_picture(data)


def _boxed_picture(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"avif", b"avis") or (data[8:12] in _HEIF and b"avif" in data[8:64]):
            return "image/avif"
        if data[8:12] in _HEIF:
            return "image/heic"
    return None


def _zip_kind(data: bytes) -> tuple[Kind | None, str]:
    archive = Archive(data)
    if "mimetype" in archive.names:
        declared = archive.read("mimetype", limit=1024).decode("ascii", errors="replace").strip()
        for kind, beginning in _DECLARED:
            if declared.startswith(beginning):
                return kind, declared if _MEDIA_TYPE.fullmatch(declared) else kind.value
    if "[Content_Types].xml" in archive.names:
        for folder, kind in _OFFICE_FOLDERS:
            if any(name.startswith(folder) for name in archive.names):
                kind = Kind.XLSB if "xl/workbook.bin" in archive.names else kind
                return kind, kind.value
    # Formats of other programs, whose parts mean nothing to people.
    is_archive = archive.names.isdisjoint(("mimetype", "[Content_Types].xml"))
    return Kind.ZIP if is_archive else None, Kind.ZIP.value


def _ole_kind(data: bytes) -> tuple[Kind | None, str]:
    """The container of Office before 2007, which also wraps what newer Office encrypts."""
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            if container.exists("EncryptedPackage") or container.exists("EncryptionInfo"):
                raise RejectedFile(PROTECTED)
            if container.exists("__properties_version1.0"):
                return Kind.MSG, Kind.MSG.value
            for stream, kind in _OLE_STREAMS:
                if container.exists(stream):
                    return kind, kind.value
    except (OSError, IndexError, ValueError) as error:
        raise RejectedFile("it is damaged: its container cannot be opened") from error
    return None, "application/x-ole-storage"


def text_kind(text: str, filename: str) -> tuple[Kind, str]:
    """The kind and media type of a text."""
    suffix = PurePath(filename).suffix.lower()
    named = _TEXT_SUFFIXES.get(suffix)
    beginning = text[:16_384]
    if _HTML_START.match(beginning) or (named is Kind.HTML and _TAG.search(text)):
        return Kind.HTML, Kind.HTML.value
    if _is_mail(beginning, trusting=named is Kind.EML):
        return Kind.EML, Kind.EML.value
    guessed = _BY_NAME.guess_type(f"file{suffix}")[0] or Kind.TEXT.value
    if beginning.lstrip().startswith("<?xml") or (named is Kind.XML and _TAG.search(text)):
        return _xml_kind(beginning, suffix)
    if named in (Kind.MARKDOWN, Kind.JSON):
        return named, named.value
    if named is Kind.CSV:
        media_type = Kind.CSV.value if suffix == ".csv" else "text/tab-separated-values"
        return Kind.CSV if delimiter(text, evenness=0.5) else Kind.TEXT, media_type
    if named is not None:
        return Kind.TEXT, Kind.TEXT.value
    if suffix and (guessed.startswith("text/") or guessed in _TEXT_TYPES):
        return Kind.TEXT, guessed
    # The name says nothing, or says wrongly that this is no text.
    if _is_json(text):
        return Kind.JSON, Kind.JSON.value
    if delimiter(text, evenness=0.95):
        return Kind.CSV, Kind.CSV.value
    return Kind.TEXT, Kind.TEXT.value


def _xml_kind(beginning: str, suffix: str) -> tuple[Kind, str]:
    if "<office:document " in beginning:
        return Kind.FLAT_ODF, Kind.FLAT_ODF.value
    return Kind.XML, "image/svg+xml" if suffix == ".svg" else Kind.XML.value


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_mail(beginning: str, *, trusting: bool) -> bool:
    head = re.split(r"\r?\n\r?\n", beginning, maxsplit=1)[0]
    lines = [line for line in head.splitlines() if not line.startswith((" ", "\t"))]
    if not lines or not all(_HEADER_LINE.match(line) for line in lines):
        return False
    known = {name.lower() for name in _MAIL_HEADER.findall(head)}
    return bool(known) if trusting else "from" in known and len(known) >= 4
