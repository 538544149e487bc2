"""Mail: the subject as heading, who wrote to whom and when, and the body; attachments are named, not read."""

import email
import email.policy
import io
from collections.abc import Iterable, Iterator
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

from oxmsg import Message

from memory.adapters.reading.collector import Collector, one_line
from memory.adapters.reading.decoding import decode
from memory.adapters.reading.markup import read_html

_HEADERS = ("From", "To", "Cc", "Date")
_MAX_PARTS = 1_000


def read_eml(data: bytes, found: Collector) -> None:
    """A plain body is preferred to the HTML form of the same; a forwarded message in the mail counts as attachment."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    headers = {name: value for name in ("Subject", *_HEADERS, "Message-ID") if (value := _header(message, name))}
    _describe(headers, found)
    attached: list[str] = []
    for part in _parts(message, attached):
        _read_body(part, found)
    _note_attached(attached, found)


def _describe(headers: dict[str, str], found: Collector) -> None:
    for name in ("Subject", "From", "To", "Date", "Message-ID"):
        if value := headers.get(name):
            found.metadata[name.lower().replace("-", "_")] = _iso(value) if name == "Date" else value[:500]
    found.heading(headers.get("Subject", ""))
    found.text("\n".join(f"{name}: {headers[name]}" for name in _HEADERS if name in headers))


def _header(message: EmailMessage, name: str) -> str:
    try:
        return one_line(str(message.get(name, "")))[:2_000]
    except (ValueError, IndexError, AttributeError, TypeError, LookupError):
        # The parser of the standard library trips over some malformed addresses.
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return one_line(str(raw))[:2_000]


def _iso(date: str) -> str:
    try:
        return parsedate_to_datetime(date).isoformat()
    except (ValueError, TypeError, IndexError):
        return date[:100]


def _parts(message: EmailMessage, attached: list[str]) -> Iterator[EmailMessage]:
    """The bodies to read, in order; the names of everything else go into `attached`. Without recursion."""
    waiting: list[EmailMessage] = [message]
    seen = 0
    while waiting and seen < _MAX_PARTS:
        part = waiting.pop()
        seen += 1
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or part.get_filename() or kind == "message/rfc822":
            attached.append(one_line(part.get_filename() or kind)[:200])
        elif kind == "multipart/alternative":
            waiting.extend(_preferred(_children(part)))
        elif part.is_multipart():
            waiting.extend(reversed(_children(part)))
        elif part.get_content_maintype() == "text":
            yield part
        else:
            attached.append(kind)


def _children(part: EmailMessage) -> list[EmailMessage]:
    return [child for child in part.iter_parts() if isinstance(child, EmailMessage)]


def _preferred(forms: list[EmailMessage]) -> Iterable[EmailMessage]:
    """Of several forms of the same body the plain one, unless it is empty; otherwise the last, which is the richest."""
    for form in forms:
        if form.get_content_type() == "text/plain" and _payload(form).strip():
            return [form]
    return forms[-1:]


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
    else:
        found.text(decoded.text)


def read_msg(data: bytes, found: Collector) -> None:
    """A message that Outlook saved."""
    message = Message.load(io.BytesIO(data))
    sent = message.sent_date
    headers = {
        "Subject": message.subject,
        "From": message.sender or "",
        "To": ", ".join(f"{person.name} <{person.email_address}>" for person in message.recipients),
        "Date": sent.isoformat() if sent is not None else "",
    }
    _describe({name: one_line(value) for name, value in headers.items() if value}, found)
    if message.body and message.body.strip():
        found.text(message.body)
    elif message.html_body:
        read_html(message.html_body, found, is_part=True)
    _note_attached([one_line(attachment.file_name or "a file") for attachment in message.attachments], found)


def _note_attached(names: list[str], found: Collector) -> None:
    if names:
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        found.note(f"attachments not read: {', '.join(names[:20])}{more}")
