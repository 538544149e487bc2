"""Messages that Outlook saved: who wrote to whom, and the body in whichever of its three forms there is."""

import io
import struct
from email.header import Header
from functools import partial

from oxmsg import Message
from oxmsg.attachment import Attachment
from oxmsg.domain.encodings import encoding_from_codepage
from oxmsg.domain.model import UnrecognizedCodePageError, UnsupportedEncodingError

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.decoding import decode
from memory.adapters.reading.mail import MAX_NAME, describe
from memory.adapters.reading.markup import read_html
from memory.adapters.reading.rtf import read_rtf
from memory.errors import RejectedFile

_SUBJECT, _SENDER, _BODY, _HTML, _RTF = 0x0037, 0x0C1A, 0x1000, 0x1013, 0x1009
_CODE_PAGES = (0x3FDE, 0x3FFD)
_WIDE, _NARROW, _BINARY = 0x001F, 0x001E, 0x0102
# What a packed body may point back at before it has said anything.
_KNOWN_TO_ALL = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans "
    rb"SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_WINDOW = 4096
_MAX_UNPACKED = 64 * 1024**2


def read_msg(data: bytes, found: Collector) -> None:
    """The plain body is preferred, then the page, then RTF."""
    message = Message.load(io.BytesIO(data))
    sent = message.sent_date
    headers = {
        "Subject": _text(message, _SUBJECT, found),
        "From": _sender(message, found),
        "To": _recipients(message),
        "Date": sent.isoformat() if sent is not None else "",
    }
    attached = [one_line(attachment.file_name or "")[:MAX_NAME] or "file" for attachment in message.attachments]
    describe({name: one_line(value) for name, value in headers.items() if value}, attached, found)
    _read_body(message, found)
    for name, attachment in zip(attached, message.attachments, strict=True):
        content = attachment.file_bytes or _embedded(attachment)
        if content and found.has_room_for_members:
            is_message = attachment.file_bytes is None and not name.lower().endswith(".eml")
            found.member(f"{name}.eml" if is_message else name, len(content), partial(bytes, content))


def _read_body(message: Message, found: Collector) -> None:
    page = _bytes(message, _HTML, _BINARY)
    packed = _bytes(message, _RTF, _BINARY)
    if (body := _text(message, _BODY, found)).strip():
        found.text(body)
    elif page and (decoded := decode(page, _code_page(message))) is not None:
        if decoded.note is not None:
            found.note(decoded.note)
        read_html(decoded.text, found, is_part=True)
    elif html := _text(message, _HTML, found):
        read_html(html, found, is_part=True)
    elif packed:
        read_rtf(_unpacked(packed), found)


def _bytes(message: Message, tag: int, kind: int) -> bytes:
    if not any(held.pid == tag and held.ptyp == kind for held in message.properties):
        return b""
    # Decoded by the library, it would be in a code page that no one named.
    content: bytes = getattr(message, "_storage").property_stream_bytes(tag, kind)  # noqa: B009
    return content


def _text(message: Message, tag: int, found: Collector) -> str:
    if wide := _bytes(message, tag, _WIDE):
        return wide.decode("utf-16-le", errors="replace")
    narrow = _bytes(message, tag, _NARROW)
    decoded = decode(narrow, _code_page(message)) if narrow else None
    if decoded is None:
        return ""
    if decoded.note is not None:
        found.note(decoded.note)
    return decoded.text


def _code_page(message: Message) -> str | None:
    for tag in _CODE_PAGES:
        number = message.properties.int_prop_value(tag)
        if number is not None:
            try:
                return encoding_from_codepage(number)
            except (UnrecognizedCodePageError, UnsupportedEncodingError):
                continue
    return None


def _sender(message: Message, found: Collector) -> str:
    try:
        return message.sender or ""
    except (UnicodeError, LookupError):
        return _text(message, _SENDER, found)


def _recipients(message: Message) -> str:
    try:
        return ", ".join(f"{person.name} <{person.email_address}>" for person in message.recipients)
    except (UnicodeError, LookupError):
        return ""


def _unpacked(packed: bytes) -> bytes:
    """RTF as Outlook packs it: literal bytes, and pairs that point back into the last 4,096 of them."""
    _, size, kind = struct.unpack_from("<II4s", packed.ljust(16, b"\0"))
    if kind == b"MELA":
        return packed[16:]
    if kind != b"LZFu" or size > _MAX_UNPACKED:
        raise RejectedFile("it is damaged: its body cannot be unpacked")
    written = bytearray(_KNOWN_TO_ALL)
    position = 16
    end = len(_KNOWN_TO_ALL) + size
    while position < len(packed) and len(written) < end:
        flags, position = packed[position], position + 1
        for bit in range(8):
            if not flags >> bit & 1:
                written += packed[position : position + 1]
                position += 1
                continue
            pair = int.from_bytes(packed[position : position + 2], "big")
            position += 2
            # Where a pair points at is counted in a ring.
            back = (len(written) - (pair >> 4)) % _WINDOW
            if back == 0 or position > len(packed):
                break
            for _ in range((pair & 0xF) + 2):
                written.append(written[-back] if back <= len(written) else 0)
    return bytes(written[len(_KNOWN_TO_ALL) : end])


def _embedded(attachment: Attachment) -> bytes:
    """A message in the message has no bytes of its own: what it says, written down as mail."""
    for storage in getattr(attachment, "_storage").storages:  # noqa: B009 - the library shows no other way
        # Streams are named by tag and type: text in UTF-16, or in the code page of a machine.
        streams = [(stream.name[-8:-4], stream.name[-4:], stream.bytes_) for stream in storage.streams]
        texts = {tag: _text_of_property(kind, data) for tag, kind, data in streams}
        named = (("Subject", "0037"), ("From", "0C1A"), ("To", "0E04"))
        lines = [
            f"{name}: {Header(one_line(texts[tag])[:500], 'utf-8').encode()}" for name, tag in named if tag in texts
        ]
        lines += ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", ""]
        return "\n".join([*lines, texts.get("1000", "")]).encode(errors="replace")
    return b""


def _text_of_property(kind: str, data: bytes) -> str:
    if kind == "001F":
        return data.decode("utf-16-le", errors="replace")
    decoded = decode(data) if kind == "001E" else None
    return decoded.text if decoded is not None else ""
