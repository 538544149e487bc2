"""What readers put into a document: cleaned, capped, and noted."""

import pytest

from memory.adapters.reading import collector
from memory.adapters.reading.collector import MAX_BLOCKS, MAX_CHARACTERS, Collector, Full
from memory.ports import Block

FULL = "only the beginning was read: the file holds more text than one file may"


def test_text_is_cleaned_of_what_no_store_can_hold() -> None:
    found = Collector()
    found.text(" a\x00b\r\nc\x85d\ud800e\ufeff\u2028f\x0b ")
    found.heading(" two \n words ", 12)
    found.row("a\n | b", "h", row=3)
    found.text(" \x00 ")
    assert found.document("x").blocks == [
        Block(text="ab\nc\nde\nf"),
        Block(kind="heading", text="two words", level=9),
        Block(kind="row", text="a | b", header="h", place={"row": 3}),
    ]


def test_the_text_that_fits_is_kept_to_the_last_character() -> None:
    found, reached = Collector(), False
    with found.collecting():
        found.text("x" * (MAX_CHARACTERS - 5))
        found.text("0123456789")
        reached = True
    assert not reached
    document = found.document("x")
    assert document.blocks[-1].text == "01234"
    assert document.note == FULL


def test_the_number_of_blocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MAX_BLOCKS", 100)
    found = Collector()
    for _ in range(100):
        found.text("x")
    with pytest.raises(Full):
        found.text("x")


def test_headers_count_too_as_they_stand_in_every_row() -> None:
    found = Collector()
    with found.collecting():
        for _ in range(MAX_BLOCKS):
            found.row("x", "h" * 10_000)
    assert len(found.document("x").blocks) < 3_000


def test_notes_are_collected_once_each() -> None:
    found = Collector()
    for note in ("one", "two", "one"):
        found.note(note)
    assert found.document("x").note == "one; two"
    assert Collector().document("x").note == "kept; no text was found in it, found by its name"
