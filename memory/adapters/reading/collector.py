"""Where readers put what they find: cleans text, stops at the caps, and makes the Document."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from memory.errors import RejectedFile
from memory.ports import Block, Document, Member

MAX_CHARACTERS = 2_000_000
MAX_BLOCKS = 100_000
# Headers are repeated in every row, so rows count with them, against a wider cap.
MAX_WITH_HEADERS = 20_000_000
MAX_HEADING_LEVEL = 9
MAX_MEMBERS = 1_000
MAX_MEMBER_BYTES = 10 * 1024**2
# The answer of a child holds them all.
MAX_MEMBERS_BYTES = 48 * 1024**2

# Control characters other than tab and line ends, NUL among them, and lone surrogates: no text store takes them.
_UNSTORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
_SPACES = re.compile(r"\s+")
# Readers put U+FFFD where bytes mean nothing; whoever finds one in a text is to know that it stood for something.
_TOLD = "could not be decoded"


class Full(Exception):
    """The document has reached a cap; what was collected so far stands."""


class Collector:
    """Collects the blocks of one document. `add_…` raises Full at a cap; `collecting` turns that into a note."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._characters = 0
        self._with_headers = 0
        self._notes: list[str] = []
        self._members: list[Member] = []
        self._members_bytes = 0
        self._broken = 0
        self.metadata: dict[str, str] = {}
        self.awaits: Literal["transcript", "caption"] | None = None

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Ends early without failing once the document is full."""
        try:
            yield
        except Full:
            self.note("only the beginning was read: the file holds more text than one file may")

    def note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def heading(self, text: str, level: int = 1, **place: int | str) -> None:
        """A title; white space in it becomes single spaces."""
        cleaned = _SPACES.sub(" ", clean(text)).strip()
        self._add("heading", cleaned, min(max(level, 1), MAX_HEADING_LEVEL), None, place)

    def text(self, text: str, **place: int | str) -> None:
        """A paragraph or a longer stretch of text; its line breaks stay."""
        self._add("text", clean(text).strip(), 1, None, place)

    def row(self, text: str, header: str | None, **place: int | str) -> None:
        """One row of a table as one line, with the table's header line."""
        self._add("row", one_line(text), 1, header, place)

    def member(self, name: str, size: int, content: Callable[[], bytes]) -> None:
        """A file inside of this one; `content` is called only when there is room for so many bytes."""
        refused = None
        if size > MAX_MEMBER_BYTES:
            refused = f"larger than {MAX_MEMBER_BYTES // 1024**2} MB, the limit for one file"
        elif self._members_bytes + size > MAX_MEMBERS_BYTES:
            refused = (
                f"not taken: the files before it hold {MAX_MEMBERS_BYTES // 1024**2} MB together, the most there is"
            )
        held = b""
        if refused is None:
            try:
                held = content()
            except RejectedFile as error:
                refused = error.detail
        self._members_bytes += len(held)
        self._members.append(Member(name, held, refused))

    @property
    def has_room_for_members(self) -> bool:
        return len(self._members) < MAX_MEMBERS

    def document(self, content_type: str) -> Document:
        if self._broken and not any(_TOLD in note for note in self._notes):
            self.note(f"{self._broken} characters of it are damaged and {_TOLD}")
        note = "; ".join(self._notes) or None
        if not self._blocks and note is None:
            note = "kept; no text was found in it, found by its name"
        return Document(
            content_type=content_type,
            blocks=self._blocks,
            metadata={**self.metadata},
            note=note,
            awaits=self.awaits,
            members=self._members,
        )

    @property
    def is_empty(self) -> bool:
        return not self._blocks

    def _add(self, kind: str, text: str, level: int, header: str | None, place: dict[str, int | str]) -> None:
        if not text:
            return
        room = MAX_CHARACTERS - self._characters
        self._characters += len(text)
        self._with_headers += len(text) + len(header or "")
        if len(self._blocks) >= MAX_BLOCKS or self._with_headers > MAX_WITH_HEADERS:
            raise Full
        if text := text[:room]:
            block = {"kind": kind, "text": text, "level": level, "header": header, "place": place}
            self._blocks.append(Block.model_validate(block))
            self._broken += text.count("\ufffd")
        if self._characters > MAX_CHARACTERS:
            raise Full


def clean(text: str) -> str:
    """The text with plain line ends and without what no store can hold."""
    return _UNSTORABLE.sub("", _LINE_ENDS.sub("\n", text))


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return _SPACES.sub(" ", clean(text)).strip()
