"""RTF: text in any of its code pages, headings, tables, notes and margins."""

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import groupby

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.decoding import looks_binary
from memory.adapters.reading.tables import add_table, looks_like_header
from memory.errors import RejectedFile

_TOKEN = re.compile(
    rb"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})?[ ]?|\\'(?P<byte>[0-9a-fA-F]{2})|\\(?P<sign>[^a-zA-Z])"
    rb"|(?P<brace>[{}])|(?P<text>[^\\{}\r\n]+)",
    re.DOTALL,
)
# fmt: off
# The number that a font has for its script, as a code page; 0 and 1 stand for the document's own.
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874",
    238: "cp1250", 254: "cp437", 255: "cp850",
}
_SIGNS = {
    "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",  # noqa: RUF001
    "bullet": "•", "tab": "\t", "line": "\n", "emspace": " ", "enspace": " ", "qmspace": " ", "lbr": "\n",
    "nestcell": " ", "nestrow": " ", "zwj": "\u200d", "zwnj": "\u200c",
}
_NOTES = frozenset({"footnote", "annotation"})
_MARGINS = frozenset({"header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr", "footerf"})
_SKIPPED = frozenset({
    "aftnsep", "aftnsepc", "atnauthor", "atndate", "atnid", "atnparent", "atnref", "bkmkend", "bkmkstart", "blipuid",
    "colorschememapping", "colortbl", "datafield", "datastore", "defchp", "defpap", "do", "falt", "fldinst", "filetbl",
    "fontemb", "ftnsep", "ftnsepc", "generator", "info", "latentstyles", "listoverridetable", "listtable", "listtext",
    "mmathPr", "nonshppict", "objclass", "objdata", "panose", "passwordhash", "pgptbl", "pict", "picprop", "pntext",
    "pntxta", "pntxtb", "private", "revtbl", "rsidtbl", "rxe", "sp", "tc", "tcn", "themedata", "txe", "userprops",
    "wgrffmtfilter", "xe", "xmlnstbl",
})
# Marked as something that old readers may skip, and yet text.
_READ_THOUGH_MARKED = frozenset({"shptxt", "shppict", "shpinst", "fldrslt"}) | _NOTES | _MARGINS
# fmt: on
_HEADING_NAME = re.compile(r"heading (\d)", re.IGNORECASE)
_MAX_DEPTH = 10_000


@dataclass(frozen=True)
class _State:
    """What a group inherits and forgets at its end."""

    destination: str = "text"
    codec: str = "cp1252"
    fallbacks: int = 1
    is_deleted: bool = False


@dataclass
class _Flow:
    """A stream of paragraphs and table rows: the body, a note or a margin."""

    kind: str = "body"
    done: list[tuple[int | None, str | list[str]]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    level: int | None = None
    is_in_table: bool = False

    def end_paragraph(self) -> None:
        if self.is_in_table:
            self.pieces.append("\n")
            return
        self.done.append((self.level, _whole(self.pieces)))
        self._end_notes()

    def end_cell(self) -> None:
        self.cells.append(one_line(_whole(self.pieces)))

    def end_row(self) -> None:
        if rest := one_line(_whole(self.pieces)):
            self.cells.append(rest)
        self.done.append((None, self.cells))
        self.cells = []
        self._end_notes()

    def end(self) -> None:
        self.is_in_table = False
        if self.cells:
            self.end_row()
        self.end_paragraph()

    def _end_notes(self) -> None:
        self.done += [(None, note) for note in self.notes]
        self.notes = []


def _whole(pieces: list[str]) -> str:
    """Characters beyond the first plane come as two halves."""
    text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    pieces.clear()
    return text


def read_rtf(data: bytes, found: Collector) -> None:
    """Notes follow the paragraph they belong to; headers and footers come last."""
    if looks_binary(data) and rb"\bin" not in data:
        raise RejectedFile("it is damaged: RTF is plain text, and this is not")
    reader = _Reader()
    reader.read(data)
    for is_row, group in groupby(reader.body.done, key=lambda item: isinstance(item[1], list)):
        if is_row:
            rows = [value for _, value in group if isinstance(value, list)]
            add_table(found, rows, has_header=bool(rows) and looks_like_header(rows[0]))
            continue
        for level, value in group:
            if isinstance(value, str):
                found.text(value) if level is None else found.heading(value, level)
    for margin in dict.fromkeys(reader.margins):
        found.text(margin)


class _Reader:
    """Walks the tokens of a file with a stack of groups."""

    def __init__(self) -> None:
        self.body = self._flow = _Flow()
        self.margins: list[str] = []
        self._state = _State()
        self._stack: list[tuple[_State, _Flow]] = []
        self._bytes = bytearray()
        self._to_skip = 0
        self._is_marked = False
        self._fonts: dict[int, str] = {}
        self._font = 0
        self._default = "cp1252"
        self._levels: dict[int, int] = {}
        self._style = 0
        self._words: dict[str, Callable[[int], None]] = {
            "par": lambda _: self._flow.end_paragraph(),
            "sect": lambda _: self._flow.end_paragraph(),
            "page": lambda _: self._flow.pieces.append("\n"),
            "pard": lambda _: self._plain_paragraph(),
            "intbl": lambda _: self._in_table(),
            "cell": lambda _: self._flow.end_cell(),
            "row": lambda _: self._flow.end_row(),
            "s": self._named_style,
            "outlinelevel": self._outline,
            "u": self._unicode,
            "uc": lambda number: self._set(fallbacks=min(max(number, 0), 16)),
            "f": self._use_font,
            "plain": lambda _: self._set(codec=self._default, is_deleted=False),
            "deleted": lambda number: self._set(is_deleted=number != 0),
            "fcharset": self._charset,
            "cpg": self._code_page,
            "ansicpg": self._default_code_page,
            "mac": lambda _: self._set_default("mac_roman"),
            "pc": lambda _: self._set_default("cp437"),
            "pca": lambda _: self._set_default("cp850"),
            "fonttbl": lambda _: self._set(destination="fonts"),
            "stylesheet": lambda _: self._set(destination="styles"),
        }

    def read(self, data: bytes) -> None:
        position = 0
        while match := _TOKEN.search(data, position):
            position = match.end()
            if match["word"]:
                if match["word"] == b"bin":
                    position += max(0, int(match["number"] or 0))
                else:
                    self._word(match["word"].decode("ascii"), match["number"])
            elif match["byte"]:
                self._add_bytes(bytes([int(match["byte"], 16)]), is_one=True)
            elif match["sign"]:
                self._sign(match["sign"])
            elif match["brace"]:
                self._brace(match["brace"])
            else:
                self._add_bytes(match["text"])
        self._flush()
        while self._stack:
            self._close()
        self.body.end()

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._to_skip = 0
        self._is_marked = False
        if brace == b"}":
            if self._stack:
                self._close()
        elif len(self._stack) > _MAX_DEPTH:
            raise RejectedFile("it is nested too deeply")
        else:
            self._stack.append((self._state, self._flow))

    def _close(self) -> None:
        flow = self._flow
        self._state, self._flow = self._stack.pop()
        if flow is self._flow:
            return
        flow.end()
        lines = (" ".join(value) if isinstance(value, list) else value.strip() for _, value in flow.done)
        text = "\n".join(filter(None, lines))
        (self.margins if flow.kind == "margin" else self._flow.notes).append(text)

    def _sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._is_marked = True
        elif sign in (b"\\", b"{", b"}"):
            self._add_bytes(sign)
        elif sign in (b"~", b"_"):
            self._add("\xa0" if sign == b"~" else "-")
        elif sign in (b"\n", b"\r"):
            self._word("par", None)

    def _word(self, word: str, number: bytes | None) -> None:
        is_marked, self._is_marked = self._is_marked, False
        if word != "u":
            self._to_skip = 0
        if word in _SKIPPED or (is_marked and word not in _READ_THOUGH_MARKED):
            self._flush()
            self._set(destination="skipped")
        elif self._state.destination == "skipped":
            return
        elif word in _SIGNS:
            self._add(_SIGNS[word])
        elif word in self._words:
            if word != "u" or self._to_skip == 0:
                self._flush()
            self._words[word](int(number) if number is not None else 1 if word == "deleted" else 0)
        elif word in _NOTES or word in _MARGINS:
            self._flush()
            self._flow = _Flow("margin" if word in _MARGINS else "note")

    def _add_bytes(self, data: bytes, *, is_one: bool = False) -> None:
        if self._to_skip:
            skipped = 1 if is_one else min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
        if self._state.destination != "skipped":
            self._bytes += data

    def _flush(self) -> None:
        if self._bytes:
            text = self._bytes.decode(self._state.codec, errors="replace")
            self._bytes.clear()
            self._add(text)

    def _add(self, text: str) -> None:
        self._flush()
        if self._state.destination == "styles":
            if match := _HEADING_NAME.match(text.strip()):
                self._levels[self._style] = int(match[1]) + 1
            elif text.strip().rstrip(";").casefold() == "title":
                self._levels[self._style] = 1
        elif self._state.destination == "text" and not self._state.is_deleted:
            self._flow.pieces.append(text)

    def _set(self, **changes: str | int | bool) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]

    def _plain_paragraph(self) -> None:
        self._flow.level = None
        self._flow.is_in_table = False

    def _in_table(self) -> None:
        self._flow.is_in_table = True

    def _named_style(self, number: int) -> None:
        if self._state.destination == "styles":
            self._style = number
        else:
            self._flow.level = self._levels.get(number)

    def _outline(self, number: int) -> None:
        """Level 1 is the document's title, so the outline begins at 2."""
        level = number + 2 if 0 <= number < 9 else None
        if self._state.destination != "styles":
            self._flow.level = level
        elif level is not None:
            self._levels.setdefault(self._style, level)

    def _unicode(self, number: int) -> None:
        self._add(chr(number % 0x10000))
        self._to_skip = self._state.fallbacks

    def _use_font(self, number: int) -> None:
        self._font = number
        if self._state.destination == "text":
            self._set(codec=self._fonts.get(number, self._default))

    def _charset(self, number: int) -> None:
        self._fonts[self._font] = _CHARSETS.get(number, self._default)

    def _code_page(self, number: int) -> None:
        self._fonts[self._font] = _known(f"cp{number}") or self._default

    def _default_code_page(self, number: int) -> None:
        # Some programs write 0, or a number without a code page.
        self._set_default({65001: "utf-8", 10000: "mac_roman"}.get(number) or _known(f"cp{number}") or "cp1252")

    def _set_default(self, codec: str) -> None:
        self._default = codec
        self._set(codec=codec)


def _known(codec: str) -> str | None:
    try:
        return codecs.lookup(codec).name
    except LookupError:
        return None
