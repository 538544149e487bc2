"""Office before 2007: the text of .doc and .ppt out of their compound files, and the cells of .xls and .xlsb."""

import datetime
import io
import re
import struct
from collections.abc import Iterator

import olefile
from python_calamine import CalamineError, CalamineWorkbook

from memory.adapters.reading.collector import Collector
from memory.adapters.reading.tables import RowStream, add_table
from memory.errors import RejectedFile

_WORD_97 = 0xC1
_PROTECTED = RejectedFile("it is protected by a password")
_FIELD = re.compile("\x13[^\x13\x14\x15]*(?:\x14([^\x13\x14\x15]*))?\x15")
_MAX_FIELDS_IN_FIELDS = 10
# What stands for a picture, a note's number, an object; and two kinds of hyphen and of break.
_DOC_SIGNS = str.maketrans("\x0b\x0c\x0e\x1e", "\n\r\n-", "\x01\x02\x03\x04\x05\x08\x1f")
_MAX_COLUMNS = 63

_SLIDE_LIST, _SLIDE, _NOTES, _MAIN_MASTER = 4080, 1006, 1008, 1016
_SLIDE_PERSIST, _TEXT_WIDE, _TEXT_NARROW, _USER_EDIT, _PERSIST_DIRECTORY = 1011, 4000, 4008, 4085, 6002
_ENCRYPTED_PPT = 0xF3D1C4DF


def read_doc(data: bytes, found: Collector) -> None:
    """Word: paragraphs and table rows of the body, then notes, margins, comments and text boxes."""
    with olefile.OleFileIO(io.BytesIO(data)) as container:
        main = container.openstream("WordDocument").read()
        identity, flags = struct.unpack_from("<2xH6xH", main)
        if flags & 0x100:
            raise _PROTECTED
        if identity < _WORD_97:
            first, last = struct.unpack_from("<II", main, 24)
            text = main[first:last].decode("cp1252", errors="replace")
        else:
            table = container.openstream("1Table" if flags & 0x200 else "0Table").read()
            text = "".join(_pieces(main, table))
    _add_doc(text, found)


def _pieces(main: bytes, table: bytes) -> Iterator[str]:
    """The text is kept in pieces, of one or two bytes a character; their list is behind some that may be skipped."""
    position, size = struct.unpack_from("<II", main, 0x1A2)
    end = position + size
    while position < end and table[position] == 1:
        position += 3 + struct.unpack_from("<H", table, position + 1)[0]
    if position >= end or table[position] != 2:
        raise RejectedFile("it is damaged: the list of its pieces is missing")
    (size,) = struct.unpack_from("<I", table, position + 1)
    count = (size - 4) // 12
    bounds = struct.unpack_from(f"<{count + 1}I", table, position + 5)
    for number in range(count):
        (start,) = struct.unpack_from("<I", table, position + 5 + 4 * (count + 1) + 8 * number + 2)
        characters = bounds[number + 1] - bounds[number]
        if start & 0x40000000:
            start = (start & 0x3FFFFFFF) // 2
            yield main[start : start + characters].decode("cp1252", errors="replace")
        else:
            yield main[start : start + 2 * characters].decode("utf-16-le", errors="replace")


def _add_doc(text: str, found: Collector) -> None:
    for _ in range(_MAX_FIELDS_IN_FIELDS):
        text, changed = _FIELD.subn(lambda match: match[1] or "", text)
        if not changed:
            break
    text = text.translate(_DOC_SIGNS)
    rows: list[list[str]] = []
    cells: list[str] = []
    # A cell ends with a bell, a row with one more. Where a row's first cell begins cannot be told.
    for line, end in re.findall(r"([^\r\x07]*)([\r\x07]?)", text):
        if end == "\x07":
            if line or not cells:
                cells += [line] if line else []
                continue
            rows.append(cells[:_MAX_COLUMNS])
            cells = []
        elif cells:
            cells[-1] += f" {line}"
        elif line:
            add_table(found, rows, has_header=True)
            rows = []
            found.text(line)
    add_table(found, [*rows, cells] if cells else rows, has_header=True)


def read_xls(data: bytes, found: Collector) -> None:
    """Excel: the values as last computed, sheet by sheet."""
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = book.sheet_names
    except CalamineError as error:
        if "password" in str(error).lower():
            raise _PROTECTED from error
        raise RejectedFile("it is damaged: its sheets cannot be opened") from error
    if not names:
        raise RejectedFile("it is damaged: it has no sheets")
    for name in names:
        try:
            sheet = book.get_sheet_by_name(name)
        except CalamineError:
            continue  # a sheet that is a chart
        stream = RowStream(found, sheet=name)
        is_named = False
        for number, row in enumerate(sheet.iter_rows(), sheet.start[0] + 1 if sheet.start else 1):
            cells = [_shown(value) for value in row]
            if any(cells) and not is_named:
                found.heading(name, sheet=name)
                is_named = True
            stream.add(number, cells)
        stream.close()


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    return str(value)


def read_ppt(data: bytes, found: Collector) -> None:
    """PowerPoint: the texts of each slide in order, then what its speaker notes say."""
    with olefile.OleFileIO(io.BytesIO(data)) as container:
        stream = container.openstream("PowerPoint Document").read()
        user = container.openstream("Current User").read() if container.exists("Current User") else b""
    if len(user) >= 20 and struct.unpack_from("<I", user, 12)[0] == _ENCRYPTED_PPT:
        raise _PROTECTED
    slides = _Slides(stream)
    slides.walk(0, len(stream), 0)
    shown = list(slides.in_order(_places(stream, user)))
    if not shown:
        raise RejectedFile("it is damaged: it has no slides")
    for number, texts in enumerate(shown, 1):
        first, *rest = texts or [""]
        title = first if len(first) <= 200 else ""
        found.heading(title or f"Slide {number}", slide=number)
        found.text("\n".join(rest if title else texts), slide=number)
    found.text("\n".join(slides.notes))


def _records(stream: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Version and instance, type, and where the content begins and ends; what is cut off is left out."""
    while start + 8 <= end:
        version, kind, size = struct.unpack_from("<HHI", stream, start)
        yield start, version, kind, start + 8, min(start + 8 + size, end)
        start += 8 + size


class _Slides:
    """Collects texts: those in the document's outline, slide by slide, and those of each slide's own shapes."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self.notes: list[str] = []
        self._outline: list[tuple[int, list[str]]] = []
        self._shapes: dict[int, list[str]] = {}

    def walk(self, start: int, end: int, depth: int) -> None:
        for at, version, kind, begin, stop in _records(self._stream, start, end):
            if kind == _SLIDE_LIST and version >> 4 == 0:
                self._outline = []  # a later save replaces an earlier one
                self._read_outline(begin, stop)
            elif kind == _SLIDE:
                self._shapes[at] = list(self._texts(begin, stop, depth + 1))
            elif kind == _NOTES:
                self.notes += self._texts(begin, stop, depth + 1)
            elif version & 0xF == 0xF and kind not in (_MAIN_MASTER, _SLIDE_LIST) and depth < 20:
                self.walk(begin, stop, depth + 1)

    def in_order(self, places: dict[int, int]) -> Iterator[list[str]]:
        left = dict(self._shapes)
        for persist, texts in self._outline:
            own = left.pop(places.get(persist, -1), [])
            yield list(dict.fromkeys([*texts, *own]))
        if not self._outline:
            yield from left.values()

    def _read_outline(self, start: int, end: int) -> None:
        for _, _, kind, begin, stop in _records(self._stream, start, end):
            if kind == _SLIDE_PERSIST and stop - begin >= 4:
                self._outline.append((struct.unpack_from("<I", self._stream, begin)[0], []))
            elif self._outline:
                self._outline[-1][1].extend(self._text(kind, begin, stop))

    def _texts(self, start: int, end: int, depth: int) -> Iterator[str]:
        for _, version, kind, begin, stop in _records(self._stream, start, end):
            if version & 0xF == 0xF and depth < 20:
                yield from self._texts(begin, stop, depth + 1)
            else:
                yield from self._text(kind, begin, stop)

    def _text(self, kind: int, start: int, end: int) -> Iterator[str]:
        codec = {_TEXT_WIDE: "utf-16-le", _TEXT_NARROW: "latin-1"}.get(kind)
        if codec is not None:
            text = self._stream[start:end].decode(codec, errors="replace").replace("\x0b", "\n").strip()
            if text and text != "*":
                yield text


def _places(stream: bytes, user: bytes) -> dict[int, int]:
    """Where each numbered object of the presentation lies now: the newest save is asked first."""
    places: dict[int, int] = {}
    at = struct.unpack_from("<I", user, 16)[0] if len(user) >= 20 else 0
    seen: set[int] = set()
    while at and at not in seen and at + 36 <= len(stream):
        seen.add(at)
        kind, previous, directory = struct.unpack_from("<2xH12xII", stream, at)
        if kind != _USER_EDIT or directory + 8 > len(stream):
            break
        (size,) = struct.unpack_from("<4xI", stream, directory)
        position, end = directory + 8, min(directory + 8 + size, len(stream))
        while position + 4 <= end:
            (head,) = struct.unpack_from("<I", stream, position)
            first, count = head & 0xFFFFF, head >> 20
            for number in range(min(count, (end - position - 4) // 4)):
                places.setdefault(first + number, struct.unpack_from("<I", stream, position + 4 + 4 * number)[0])
            position += 4 + 4 * count
        at = previous
    return places
