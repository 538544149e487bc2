"""Bytes to text: byte order marks, UTF-8, UTF-16 and UTF-32 without a mark, then legacy code pages; never mojibake."""

import codecs
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from charset_normalizer import from_bytes

from memory.adapters.reading import codepages

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Seven bits a character, with escapes between scripts.
_ESCAPING = (
    (b"\x1b$", ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_kr")),
    (b"\x1b(", ("iso2022_jp_2", "iso2022_jp_ext")),
    (b"~{", ("hz",)),
)
_SAMPLE = 64 * 1024
_TELLING = 4 * 1024
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\r\x0b\x0c\x1b")) + b"\x7f"
_TEXT_CONTROLS = frozenset("\t\n\r\x0b\x0c\x1b\x85")
# What pages call by these names is, byte for byte, Windows-1252: browsers read it so, and the HTML standard says so.
_LATIN = frozenset({"ascii", "iso8859-1"})
# So are these read as the code pages that extend them, and by these names, of which Python knows nothing.
_EXTENDED = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
_OTHER_NAMES = {
    "x-sjis": "cp932",
    "x-euc-jp": "euc_jp",
    "x-gbk": "gb18030",
    "x-x-big5": "big5hkscs",
    "x-euc-kr": "cp949",
    "x-cp1250": "cp1250",
    "x-cp1251": "cp1251",
    "x-mac-roman": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "x-mac-ukrainian": "mac_cyrillic",
    "dos-874": "cp874",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "unicode-1-1-utf-8": "utf-8",
}
# Codecs that are no charsets; idna and punycode take quadratic time on top.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7"})


_EAST_ASIAN = re.compile("[\\s!-~\u0e01-\u0e5b\u3000-\u30ff\u4e00-\u9fa5\uac00-\ud7a3\uff01-\uff5e‘’“”…—]")  # noqa: RUF001
_FEW = 12
_DECLARATION = re.compile(rb"""(?:<\?xml[^>]*?encoding|<meta[^>]*?charset)\s*=\s*["']?([A-Za-z0-9._:-]{2,40})""", re.I)


@dataclass(frozen=True)
class Decoded:
    """A file's text, how many places of it could not be decoded and stand as U+FFFD, and the code page when it is not
    certain.
    """

    text: str
    damaged: int = 0
    guessed: str | None = None

    @property
    def note(self) -> str | None:
        """What a person who finds odd letters in the text would want to know."""
        notes = []
        if self.damaged:
            notes.append(f"{self.damaged} characters of it are damaged and could not be decoded")
        if self.guessed:
            notes.append(f"its encoding is not certain; it was read as {self.guessed}")
        return "; ".join(notes) or None


def decode(data: bytes, declared: str | None = None) -> Decoded | None:
    """None when the bytes are not text. `declared` is the encoding that a mail names; pages name their own."""
    decoded = _decode(data, declared or _declared(data))
    return None if decoded is None or _is_noise(decoded.text) else decoded


def _decode(data: bytes, declared: str | None) -> Decoded | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _repaired(data, encoding)
    for mark, escapings in _ESCAPING:
        for escaping in escapings if mark in data[:_SAMPLE] and data.isascii() else ():
            text = _strict(data, escaping)
            if text is not None and "\x1b" not in text and "\x0e" not in text:
                return Decoded(text)
    text = _wide(data) if b"\x00" in data[:_SAMPLE] else None
    if text is None:
        text = _strict(data, "utf-8")
    if text is None and declared is not None and (text := _strict(data, declared)) is not None:
        return _misnamed(data, declared) or Decoded(text)
    if text is not None:
        return Decoded(text)
    if looks_binary(data):
        text = _wide_east_asian(data)
        return Decoded(text) if text is not None else None
    return _damaged(data, "utf-8") or (_damaged(data, declared) if declared is not None else None) or _legacy(data)


def _declared(data: bytes) -> str | None:
    """What an XML declaration or a page's `meta` says."""
    match = _DECLARATION.search(data, 0, 2048) if data.lstrip()[:1] == b"<" else None
    return match[1].decode("ascii") if match else None


def _strict(data: bytes, encoding: str) -> str | None:
    return _in_charset(data, encoding, "strict")


def _in_charset(data: bytes, encoding: str, errors: str) -> str | None:
    try:
        name = codecs.lookup(_OTHER_NAMES.get(encoding.lower(), encoding)).name
        if name in _NO_CHARSETS:
            return None
        text = data.decode("cp1252" if name in _LATIN else _EXTENDED.get(name, name), errors)
    except (LookupError, UnicodeError, ValueError):
        return None
    # Its tones are characters of their own; everywhere else they are part of their letters.
    return unicodedata.normalize("NFC", text) if name == "cp1258" else text


def _repaired(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, errors="replace")
    return Decoded(text, damaged=text.count("\ufffd"))


def _wide(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark: of the readings without nonsense, the one from the fewest Unicode blocks."""
    best: tuple[int, str] | None = None
    for encoding, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        text = _strict(data, encoding) if len(data) % width == 0 else None
        if not text or _is_noise(text):
            continue
        blocks = len({ord(character) >> 8 for character in text[:_SAMPLE]})
        if best is None or blocks < best[0]:
            best = (blocks, text)
    return None if best is None else best[1]


def _wide_east_asian(data: bytes) -> str | None:
    """UTF-16 without a mark and without a single character of one byte. Random bytes do not look like it for long."""
    for encoding in ("utf-16-le", "utf-16-be"):
        text = _strict(data, encoding) if len(data) % 2 == 0 else None
        if text and 50 * len(_EAST_ASIAN.findall(text)) >= 49 * len(text) >= 49 * _FEW:
            return text
    return None


def looks_binary(data: bytes) -> bool:
    """Whether there are more control characters than any text has."""
    middle = len(data) // 2
    sample = data[:_SAMPLE] + data[middle : middle + _SAMPLE] + data[-_SAMPLE:]
    controls = len(sample) - len(sample.translate(None, _CONTROL_BYTES))
    return controls * 200 > len(sample)


def _damaged(data: bytes, encoding: str) -> Decoded | None:
    """A text with a few broken places: another encoding would turn every good letter beside them into wrong ones."""
    text = _in_charset(data, encoding, "replace")
    if text is None:
        return None
    damaged = text.count("\ufffd")
    beyond_ascii = sum(1 for character in text if character > "\x7f") - damaged
    return Decoded(text, damaged) if beyond_ascii > 4 * damaged else None


def _legacy(data: bytes) -> Decoded | None:
    sample = _sample(data)
    guess = codepages.guess(sample)
    if guess is not None and (text := _in_charset(data, guess.codec, "replace")) is not None:
        return Decoded(text, text.count("\ufffd"), None if guess.is_certain else guess.codec)
    best = from_bytes(sample).best()
    for guessed in (best.encoding if best is not None else None, "cp1252"):
        if guessed is not None and (text := _strict(data, guessed)) is not None:
            return Decoded(text, guessed=guessed)
    return None


def _misnamed(data: bytes, declared: str) -> Decoded | None:
    """Programs name the encoding of their machine without asking what the text is in."""
    name = _OTHER_NAMES.get(declared.lower(), declared)
    name = codecs.lookup(name).name
    claimed = "cp1252" if name in _LATIN else _EXTENDED.get(name, name)
    meant = codepages.contradicts(_sample(data)[:_TELLING], claimed)
    text = _strict(data, meant.codec) if meant is not None else None
    return Decoded(text, guessed=meant.codec) if meant is not None and text is not None else None


def _sample(data: bytes) -> bytes:
    """The lines that hold bytes beyond ASCII, up to a bound: the others say nothing about the code page."""
    telling: list[bytes] = []
    size = 0
    for line in _lines(data):
        if not line.isascii():
            telling.append(line)
            size += len(line)
            if size > codepages.MAX_SAMPLE:
                break
    return b"".join(telling)[: codepages.MAX_SAMPLE]


def _lines(data: bytes) -> Iterable[bytes]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


def _is_noise(text: str) -> bool:
    middle = len(text) // 2
    sample = text[:_SAMPLE] + text[middle : middle + _SAMPLE] + text[-_SAMPLE:]
    odd = sum(1 for c in sample if c not in _TEXT_CONTROLS and unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs"))
    return odd * 100 > len(sample)
