"""Cuts a document into chunks that one memory holds and the embedder reads whole, each with its place in the source."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Any

from memory.ports import Block, Document

TARGET_CHARACTERS = 1_200
OVERLAP_CHARACTERS = 150
SPECIAL_TOKENS = 2  # what a model puts around a text; `count_tokens` leaves them out
PATH_SEPARATOR = " > "
# A longer one is a paragraph in a heading's style.
_MAX_HEADING = 200

# Where a cut may fall, best first; each match ends at the cut. The look-aheads read little, so a window stays cheap.
_PARAGRAPH_END = re.compile(r"\S(?=[^\S\n]*\n[^\S\n]*\n)")
_LINE_END = re.compile(r"\S(?=[^\S\n]*\n)")
_SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]]*(?=\s)|[。！？][”’」』)]*""")  # noqa: RUF001
_CLOSED = re.compile(r"""[.!?…:。！？]["'”’»)\]]*$""")  # noqa: RUF001
_WORD_END = re.compile(r"\S(?=\s)")
_LOOK_AHEAD = 64
_NOT_SPACE = re.compile(r"\S")


@dataclass(frozen=True)
class Chunk:
    """A piece of a document. `text` is what a memory shows; `embedded` is the heading path and the text."""

    text: str
    embedded: str
    metadata: dict[str, Any]


def chunk(document: Document, *, count_tokens: Callable[[str], int], max_tokens: int) -> list[Chunk]:
    """Chunks in reading order: about 1,200 characters with 150 of overlap, at paragraph or sentence ends, and never
    more than `max_tokens` in the embedded form, special tokens included. Every word of every block is in some chunk.
    """
    fitter = _Fitter(count_tokens, max(1, max_tokens - SPECIAL_TOKENS))
    return [made for section in _sections(document.blocks) for made in _Cutter(section, fitter).chunks()]


@dataclass
class _Heading:
    text: str
    level: int
    place: dict[str, int | str]
    is_covered: bool = False


@dataclass
class _Section:
    """The blocks under one heading, down to the next heading of any level."""

    headings: list[_Heading] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def _sections(blocks: list[Block]) -> Iterator[_Section]:
    section = _Section()
    for block in blocks:
        if not block.text.strip():
            continue
        if block.kind != "heading":
            section.blocks.append(block)
            continue
        parents = [heading for heading in section.headings if heading.level < block.level]
        # A heading with nothing under it but deeper headings stands in their paths; any other is text itself.
        if section.blocks or len(parents) < len(section.headings):
            yield _with_own_text(section)
        section = _Section([*parents, _Heading(block.text.strip(), block.level, block.place)])
    yield _with_own_text(section)


def _with_own_text(section: _Section) -> _Section:
    if section.blocks or not section.headings or section.headings[-1].is_covered:
        return section
    *parents, own = section.headings
    own.is_covered = True
    return _Section(parents, [Block(text=own.text, place=own.place)])


class _Fitter:
    """Counts tokens, and remembers how many characters a token had, to guess well and so to count rarely."""

    def __init__(self, count_tokens: Callable[[str], int], budget: int) -> None:
        self._count_tokens = count_tokens
        self._characters_per_token = 4.0
        self.budget = budget

    def count(self, text: str) -> int:
        return self._count_tokens(text)

    def guess(self, used: int) -> int:
        """How many characters probably fit beside `used` ones."""
        return max(1, min(TARGET_CHARACTERS, int(self.budget * self._characters_per_token)) - used)

    def share(self, text: str) -> float:
        """The tokens of the text as a share of what fits: over 1 is too much."""
        tokens = self.count(text)
        if tokens > 0:
            self._characters_per_token += 0.3 * (min(len(text) / tokens, 8.0) - self._characters_per_token)
        return tokens / self.budget


class _Cutter:
    """Makes the chunks of one section."""

    def __init__(self, section: _Section, fitter: _Fitter) -> None:
        self._fitter = fitter
        self._blocks = section.blocks
        self._path = self._fitting_path(section.headings) if section.blocks else ""

    def chunks(self) -> Iterator[Chunk]:
        carried = ""
        for (kind, header, place), group in groupby(self._blocks, key=_run):
            run = list(group)
            if kind == "speech":
                yield from self._speech(run)
                carried = ""
            elif kind == "row":
                yield from self._rows(run, header, dict(place))
                carried = ""
            else:
                text = "\n".join(block.text.strip() for block in run)
                # A sentence may go on from page to page, never from slide to slide or sheet to sheet.
                is_page = any(key == "page" for key, _ in place)
                goes_on = is_page and text[0].isalpha() and not text[0].isupper()
                yield from self._cut(text, dict(place), carried=carried if goes_on else "")
                tail = text[_overlap_start(text, len(text), OVERLAP_CHARACTERS) :]
                carried = tail if is_page and not _CLOSED.search(tail) else ""

    def _fitting_path(self, headings: list[_Heading]) -> str:
        """The innermost headings that fit into a third of what the model reads; the others become text, once."""
        fitting: list[_Heading] = []
        for heading in reversed(headings):
            longer = PATH_SEPARATOR.join(h.text for h in [heading, *fitting])
            if len(heading.text) > _MAX_HEADING or self._fitter.count(longer) * 3 > self._fitter.budget:
                break
            fitting.insert(0, heading)
        shown = {id(heading) for heading in fitting}
        left_out = [h for h in headings if id(h) not in shown and not h.is_covered]
        for heading in headings:
            heading.is_covered = True
        self._blocks = [*(Block(text=h.text, place=h.place) for h in left_out), *self._blocks]
        return PATH_SEPARATOR.join(heading.text for heading in fitting)

    def _embedded(self, text: str) -> str:
        return f"{self._path}\n{text}" if self._path else text

    def _chunk(self, text: str, place: dict[str, int | str], rows: str | None = None) -> Chunk:
        metadata: dict[str, Any] = {"heading": self._path} if self._path else {}
        metadata.update(place)
        if rows is not None:
            metadata["rows"] = rows
        return Chunk(text, self._embedded(text), metadata)

    def _cut(
        self, text: str, place: dict[str, int | str], *, top: str = "", carried: str = "", rows: str | None = None
    ) -> Iterator[Chunk]:
        """Cuts a stretch of text; each chunk begins with `top`, the first one also with what is `carried` over."""
        text = f"{carried}\n{text}" if carried else text
        for start, end in self._pieces(text, done=len(carried) + 1 if carried else 0, top=top):
            yield self._chunk(top + text[start:end].strip(), place, rows)

    def _speech(self, run: list[Block]) -> Iterator[Chunk]:
        """Cuts what was said; each chunk tells the time from its first utterance to its last."""
        text = " ".join(block.text.strip() for block in run)
        begins = list(accumulate((len(block.text.strip()) + 1 for block in run[:-1]), initial=0))
        for start, end in self._pieces(text):
            heard = run[bisect_right(begins, start) - 1 : bisect_left(begins, end)]
            times = {"start": heard[0].start, "end": heard[-1].end}
            piece = self._chunk(text[start:end].strip(), heard[0].place)
            yield replace(piece, metadata=piece.metadata | times)

    def _pieces(self, text: str, *, done: int = 0, top: str = "") -> Iterator[tuple[int, int]]:
        """Where the chunks of a text begin and end; what comes before `done` is in another chunk already."""
        start = 0
        while done < len(text):
            end = self._end(text, start, done, top)
            if end is None:
                start = done
                continue
            if text[start:end].strip():
                yield start, end
            following = _NOT_SPACE.search(text, end)
            done = following.start() if following else len(text)
            # Less where a script takes many tokens, as chunks are short there.
            overlap = min(OVERLAP_CHARACTERS, (end - start) // 6)
            start = min(_overlap_start(text, end, overlap), done)

    def _end(self, text: str, start: int, done: int, top: str) -> int | None:
        """Where the chunk from `start` ends, beyond `done`; None when the overlap before `done` leaves no room."""
        room = self._fitter.guess(len(self._path) + len(top))
        while True:
            high = min(start + room, len(text))
            end = high if high == len(text) else _boundary(text, start, done, high)
            if end is None and (start == done or _boundary(text, done, done, done + room) is None):
                end = high  # a word longer than a chunk, or a script without spaces
            if end is None or end <= done:
                return None
            share = self._fitter.share(self._embedded(top + text[start:end]))
            if share <= 1 or end - start == 1:
                return end
            room = max(1, min(room - 1, int((end - start) / share * 0.97)))

    def _rows(self, rows: list[Block], header: str | None, place: dict[str, int | str]) -> Iterator[Chunk]:
        top = self._fitting_top(header)
        if header and len(top) < len(header):
            yield from self._cut(header, place)
        position = 0
        while position < len(rows):
            taken = self._take(rows, position, top)
            span = _span(rows[position : position + taken])
            if taken > 1:
                yield self._chunk(top + _lines(rows[position : position + taken]), place, span)
            else:
                yield from self._cut(rows[position].text.strip(), place, top=top, rows=span)
            position += taken

    def _fitting_top(self, header: str | None) -> str:
        """The header line, cut to half of what a chunk holds."""
        header = (header or "").strip()[: TARGET_CHARACTERS // 2]
        while header:
            share = self._fitter.count(self._embedded(header)) / self._fitter.budget
            if share <= 2 / 3 or len(header) < 2:
                break
            header = header[: int(len(header) / share * 0.6)]
        return f"{header}\n" if header else ""

    def _take(self, rows: list[Block], position: int, top: str) -> int:
        """How many rows fit into one chunk; at least one."""
        room = self._fitter.guess(len(self._path) + len(top))
        taken = length = 0
        for row in rows[position : position + room]:
            length += len(row.text) + 1
            if taken and length > room:
                break
            taken += 1
        while taken > 1:
            share = self._fitter.share(self._embedded(top + _lines(rows[position : position + taken])))
            if share <= 1:
                break
            taken = max(1, min(taken - 1, int(taken / share)))
        return taken


def _run(block: Block) -> tuple[str, str | None, tuple[tuple[str, int | str], ...]]:
    place = tuple((key, value) for key, value in sorted(block.place.items()) if key != "row")
    return block.kind, block.header, place


def _lines(rows: list[Block]) -> str:
    return "\n".join(row.text.strip() for row in rows)


def _span(rows: list[Block]) -> str | None:
    numbers = [row.place["row"] for row in rows if "row" in row.place]
    if not numbers:
        return None
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def _boundary(text: str, start: int, done: int, high: int) -> int | None:
    """The best place to cut in the second half of the window, or failing that the last end of a word in it."""
    middle = max(done, start + (high - start) // 2)
    for pattern, low in (
        (_PARAGRAPH_END, middle),
        (_LINE_END, middle),
        (_SENTENCE_END, middle),
        (_WORD_END, middle),
        (_WORD_END, done),
    ):
        ends = [match.end() for match in pattern.finditer(text, low, high + _LOOK_AHEAD) if match.end() <= high]
        if ends:
            return ends[-1]
    return None


def _overlap_start(text: str, end: int, length: int) -> int:
    """Where the next chunk may begin, so that it repeats the last sentences or words before `end`: up to `length`."""
    if length < 1:
        return end
    low = end - length
    if low < 1:
        return 0
    for pattern in (_SENTENCE_END, _WORD_END):
        match = pattern.search(text, low - 1, end)
        following = _NOT_SPACE.search(text, match.end(), end) if match else None
        if following:
            return following.start()
    space = text.rfind(" ", max(0, low - _LOOK_AHEAD), low)
    return space + 1 or low
