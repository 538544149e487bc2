"""Tables of any source as row blocks: one line per row, cells parted by bars, the header line beside each."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from memory.adapters.reading.collector import Collector, one_line

_BAR = " | "
_DELIMITERS = ",;\t|"
_SNIFFED_CHARACTERS = 64 * 1024


def line(cells: Iterable[str]) -> str:
    """One row as one line; empty cells at its end are left out."""
    cleaned = [one_line(cell) for cell in cells]
    while cleaned and not cleaned[-1]:
        cleaned.pop()
    return _BAR.join(cleaned)


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether a first row names columns: several short, different words and no number among them."""
    named = [cell.strip() for cell in cells if cell.strip()]
    return (
        len(named) > 1
        and len(set(named)) == len(named)
        and all(len(cell) <= 60 and not _is_number(cell) for cell in named)
    )


def add_table(found: Collector, rows: Sequence[Sequence[str]], *, has_header: bool, **place: int | str) -> None:
    """A whole table. One column or one row is no table: its cells are paragraphs."""
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if len(filled) < 2 or max(len(row) for row in filled) < 2:
        for row in filled:
            for cell in row:
                found.text(cell, **place)
        return
    header = line(filled[0]) if has_header else None
    for row in filled[1:] if has_header else filled:
        found.row(line(row), header, **place)


class RowStream:
    """Rows of a sheet or a CSV file as they come: finds the header line, then adds row after row."""

    def __init__(self, found: Collector, **place: int | str) -> None:
        self._found = found
        self._place = place
        self._header: str | None = None
        self._held: tuple[int, str] | None = None
        self._in_table = False

    def add(self, number: int, cells: Sequence[str]) -> None:
        """The row with this number in the source, counted from 1."""
        text = line(cells)
        if not text:
            return
        place = {**self._place, "row": number}
        if self._in_table:
            self._held = None
            self._found.row(text, self._header, **place)
        elif _BAR not in text:
            # A title or a remark above the table.
            self._found.text(text, **place)
        else:
            self._in_table = True
            if looks_like_header(cells):
                self._header, self._held = text, (number, text)
            else:
                self._found.row(text, None, **place)

    def close(self) -> None:
        """A header without rows is the only row there is."""
        if self._held is not None:
            number, text = self._held
            self._found.row(text, None, **self._place, row=number)


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").replace("-", "").replace("%", "").strip().isdigit()


def delimiter(text: str, *, evenness: float = 0.0) -> str | None:
    """What parts the fields of a table in text form; None when fewer than three lines, or than this share of the
    lines, have the same number of fields.
    """
    sample = text[:_SNIFFED_CHARACTERS]
    if len(text) > len(sample):
        sample = sample[: sample.rfind("\n") + 1] or sample
    best: tuple[float, int, str] | None = None
    for candidate in _DELIMITERS:
        if candidate not in sample:
            continue
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=candidate)
        widths = Counter(len(row) for row in reader if row)
        width, rows = max(widths.items(), key=lambda item: (item[0] > 1, item[1]))
        share = rows / widths.total()
        if width > 1 and share >= evenness and (rows > 2 or not evenness):
            best = max(best or (0.0, 0, ""), (share, width, candidate))
    return best[2] if best is not None else None
