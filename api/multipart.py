"""A multipart body cut into its parts while it arrives; no more of it is held than the headers of one part."""

from dataclasses import dataclass
from email.message import Message as Header
from email.utils import collapse_rfc2231_value
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from memory.errors import BadRequest

# A name of 4 kB is three times as long when a client escapes each of its bytes.
_HEADER_BYTES = 32 * 1024
# Nobody means so many; taking them apart takes time by their square.
_MOST_PARAMETERS = 16


@dataclass(frozen=True)
class Part:
    """What the headers of one part say."""

    name: str
    filename: str | None
    content_type: str | None


@dataclass(frozen=True)
class End:
    """Of a part."""


Event = Part | bytes | End


class Parts:
    """One body. What is no such form is refused as BadRequest, wherever that shows."""

    def __init__(self, content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadRequest("the Content-Type of the form names no boundary")
        self._events: list[Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_begin": self._begin_header,
                    "on_header_field": self._add_to_name,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin,
                    "on_part_data": self._add,
                    "on_part_end": lambda: self._events.append(End()),
                    "on_end": self._finish,
                },
                max_header_size=_HEADER_BYTES,
            )
        except FormParserError as error:
            raise BadRequest("the boundary of the form is too long") from error

    def split(self, piece: bytes) -> list[Event]:
        """What the next piece of the body brings."""
        self._events = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadRequest("the body is not the multipart form that its Content-Type promises") from error
        return self._events

    def check_end(self) -> None:
        if not self._ended:
            raise BadRequest("the body ends in the middle of the form")

    def _begin_header(self) -> None:
        self._name = self._value = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value

    def _begin(self) -> None:
        name, filename = _named(self._headers.get(b"content-disposition", b""))
        content_type = self._headers.get(b"content-type")
        self._events.append(Part(name, filename, None if content_type is None else content_type.decode("latin-1")))

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _finish(self) -> None:
        self._ended = True


def _named(disposition: bytes) -> tuple[str, str | None]:
    """The field and the file that a Content-Disposition names. Raises BadRequest."""
    if disposition.count(b";") > _MOST_PARAMETERS:
        raise BadRequest("the Content-Disposition of a part has too many parameters")
    header = Header()
    header["Content-Disposition"] = _decoded(disposition).replace("\n", " ")
    given = header.get_params(failobj=[], header="Content-Disposition")
    if not given or given[0][0].lower() != "form-data":
        raise BadRequest("a part of the form lacks its Content-Disposition")
    # A name that says its own encoding comes last and counts.
    said = {
        key.lower(): _collapsed(value) for key, value in sorted(given[1:], key=lambda one: isinstance(one[1], tuple))
    }
    if "name" not in said:
        raise BadRequest("the Content-Disposition of a part names no field")
    return said["name"], said.get("filename")


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _collapsed(value: Any) -> str:
    try:
        return collapse_rfc2231_value(value, errors="replace")
    except (LookupError, ValueError):
        # An encoding that is none.
        return str(value[2])
