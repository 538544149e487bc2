"""Mail: the subject as heading, who wrote to whom and when, and the body; what is attached are files inside of it."""

import email
import email.policy
import mimetypes
import re
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from functools import partial

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.decoding import decode
from memory.adapters.reading.markup import read_html
from memory.errors import RejectedFile

_HEADERS = ("From", "To", "Cc", "Date")
_BODIES = ("text/plain", "text/html", "text/enriched", "text/richtext")
_UNDECODED = re.compile("[\ud800-\udfff]")
# A space before the end of a line says that it goes on, but for the line above a signature; what is quoted stays.
_FLOWING = re.compile(r"(?m)(?<=\S)(?<!--) \r?\n(?![> \r\n])")
_MAX_PARTS = 2_000
MAX_NAME = 200
_MOST_NAMED = 50


def read_eml(data: bytes, found: Collector) -> None:
    """A plain body is preferred to the HTML form of the same; a forwarded message in the mail counts as attachment."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    if _is_sealed(message):
        raise RejectedFile("it is encrypted: only its recipient can read it")
    headers = {name: value for name in ("Subject", *_HEADERS, "Message-ID") if (value := _header(message, name, found))}
    bodies, attached = _parts(message)
    names = [_attached_name(part, number) for number, part in enumerate(attached, 1)]
    describe(headers, names, found)
    for part in bodies:
        _read_body(part, found)
    for name, part in zip(names, attached, strict=True):
        content = _content(part)
        if found.has_room_for_members:
            found.member(name, len(content), partial(bytes, content))


def _is_sealed(message: EmailMessage) -> bool:
    kind = message.get_content_type()
    sealed = ("application/pkcs7-mime", "application/x-pkcs7-mime")
    return kind == "multipart/encrypted" or (kind in sealed and message.get_param("smime-type") != "signed-data")


def describe(headers: dict[str, str], attached: list[str], found: Collector) -> None:
    for name in ("Subject", "From", "To", "Date", "Message-ID"):
        if value := headers.get(name):
            found.metadata[name.lower().replace("-", "_")] = _iso(value) if name == "Date" else value[:500]
    found.heading(headers.get("Subject", ""))
    lines = [f"{name}: {headers[name]}" for name in _HEADERS if name in headers]
    if attached:
        more = f" and {len(attached) - _MOST_NAMED} more" if len(attached) > _MOST_NAMED else ""
        lines.append(f"Attachments: {', '.join(attached[:_MOST_NAMED])}{more}")
        found.note(f"{len(attached)} {'attachment' if len(attached) == 1 else 'attachments'}")
    found.text("\n".join(lines))


def _header(message: EmailMessage, name: str, found: Collector | None = None) -> str:
    raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    if _UNDECODED.search(str(raw)):
        # Bytes beyond ASCII stand in it as they are, which no header may and many do.
        decoded = decode(str(raw).encode("utf-8", "surrogateescape"), message.get_content_charset())
        if decoded is not None:
            if decoded.note is not None and found is not None:
                found.note(f"{name}: {decoded.note}")
            return one_line(decoded.text)[:2_000]
    try:
        return one_line(str(message.get(name, "")))[:2_000]
    except (ValueError, IndexError, AttributeError, TypeError, LookupError):
        # The parser of the standard library trips over some malformed addresses.
        return one_line(str(raw))[:2_000]


def _iso(date: str) -> str:
    try:
        return parsedate_to_datetime(date).isoformat()
    except (ValueError, TypeError, IndexError):
        return date[:100]


def _parts(message: EmailMessage) -> tuple[list[EmailMessage], list[EmailMessage]]:
    """The bodies to read and everything else, each in order. Without recursion."""
    bodies: list[EmailMessage] = []
    attached: list[EmailMessage] = []
    waiting: list[EmailMessage] = [message]
    seen = 0
    while waiting and seen < _MAX_PARTS:
        part = waiting.pop()
        seen += 1
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or part.get_filename() or kind == "message/rfc822":
            attached.append(part)
        elif kind == "multipart/alternative":
            shown, rest = _preferred(_children(part))
            waiting.extend([*reversed(rest), *shown])
        elif part.is_multipart():
            waiting.extend(reversed(_children(part)))
        elif kind in _BODIES or (part is message and part.get_content_maintype() in ("text", "multipart")):
            bodies.append(part)
        else:
            attached.append(part)
    return bodies, attached


def _attached_name(part: EmailMessage, number: int) -> str:
    """As the mail names it, or by its kind; a mail in the mail by its subject."""
    if name := one_line(part.get_filename() or ""):
        return name[:MAX_NAME]
    if part.get_content_type() == "message/rfc822":
        inner = next(iter(_children(part)), None)
        subject = _header(inner, "Subject") if inner is not None else ""
        return f"{subject.replace('/', '-')[:MAX_NAME] or f'message {number}'}.eml"
    ending = mimetypes.guess_extension(part.get_content_type()) or ""
    return f"attachment {number}{ending}"


def _content(part: EmailMessage) -> bytes:
    if not part.is_multipart():
        return _payload(part)
    try:
        return b"\n".join(child.as_bytes(policy=email.policy.compat32) for child in _children(part))
    except (UnicodeError, LookupError, ValueError, TypeError, AttributeError):
        # It cannot be written again as it stood.
        return str(part).encode(errors="replace")


def _children(part: EmailMessage) -> list[EmailMessage]:
    return [child for child in part.iter_parts() if isinstance(child, EmailMessage)]


def _preferred(forms: list[EmailMessage]) -> tuple[list[EmailMessage], list[EmailMessage]]:
    """Of several forms of the same body the plain one, unless it is empty; otherwise the last, which is the richest.
    And the files that stand among the other forms, as in an invitation or beside the pictures of a page.
    """
    plain = [form for form in forms if form.get_content_type() == "text/plain" and _payload(form).strip()]
    readable = [form for form in forms if any(leaf.get_content_type() in _BODIES for leaf in form.walk())]
    shown = plain[:1] or readable[-1:] or forms[-1:]
    others = [leaf for form in forms if form not in shown for leaf in form.walk() if not leaf.is_multipart()]
    return shown, [leaf for leaf in others if isinstance(leaf, EmailMessage) and leaf.get_content_type() not in _BODIES]


def _payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _read_body(part: EmailMessage, found: Collector) -> None:
    data = _payload(part)
    decoded = decode(data, part.get_content_charset()) if data else None
    if decoded is None:
        if data:
            found.note("a part of the body is not text")
        return
    if decoded.note is not None:
        found.note(decoded.note)
    if part.get_content_subtype() == "html":
        read_html(decoded.text, found, is_part=True)
    elif part.get_param("format") == "flowed":
        found.text(_FLOWING.sub(" ", decoded.text))
    else:
        found.text(decoded.text)
