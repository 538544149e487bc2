"""Calendars and address cards: each entry's fields as lines, without what only programs read."""

import quopri
import re
from collections.abc import Iterator

from memory.adapters.reading.collector import Collector
from memory.adapters.reading.decoding import decode

_BEGINNING = re.compile(r"\s*BEGIN:(VCALENDAR|VCARD)\s", re.IGNORECASE)
_ENTRIES = frozenset({"VEVENT", "VTODO", "VJOURNAL", "VCARD"})
_UNTOLD = frozenset({"VERSION", "PRODID", "CALSCALE", "METHOD", "REV", "DTSTAMP", "SEQUENCE", "TRANSP"})
_FOLD = re.compile(r"\r?\n[ \t]")
_FIELD = re.compile(r"(?:[\w-]+\.)?(?P<name>[\w-]+)(?P<options>(?:;(?:\"[^\"]*\"|[^:;\"])*)*):(?P<value>.*)")
_ESCAPED = re.compile(r"\\(.)")


def is_cards(text: str) -> bool:
    return _BEGINNING.match(text) is not None


def read_cards(text: str, found: Collector) -> None:
    """One block for each event, task or person; what stands outside of them is a block of its own."""
    entry: list[str] = []
    for name, options, value in _fields(text):
        if name in ("BEGIN", "END"):
            if value.strip().upper() in _ENTRIES:
                found.text("\n".join(entry))
                entry = []
        elif name not in _UNTOLD and (shown := _shown(options.upper(), value)):
            entry.append(f"{name}: {shown}" if name else shown)
    found.text("\n".join(entry))


def _fields(text: str) -> Iterator[tuple[str, str, str]]:
    lines = iter(_FOLD.sub("", text).splitlines())
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            yield "", "", line
            continue
        value = match["value"]
        if "QUOTED-PRINTABLE" in match["options"].upper():
            while value.endswith("="):
                value = value[:-1] + next(lines, "")
        yield match["name"].upper(), match["options"], value


def _shown(options: str, value: str) -> str:
    if "BASE64" in options or "ENCODING=B" in options or value.startswith("data:"):
        return ""  # a picture, a sound or a key
    if "QUOTED-PRINTABLE" in options:
        decoded = decode(quopri.decodestring(value.encode()))
        value = decoded.text if decoded is not None else value
    value = _ESCAPED.sub(lambda escaped: "\n" if escaped[1] in "nN" else escaped[1], value)
    return ", ".join(part.strip() for part in value.split(";") if part.strip())
