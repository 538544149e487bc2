"""Names and types as strangers give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.filenames import BINARY, MAX_NAME_BYTES, UNNAMED, clean_content_type, clean_filename, clean_path


@pytest.mark.parametrize(
    ("given_name", "clean"),
    [
        ("notes.txt", "notes.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.docx", "report.docx"),
        ("a\x00b\r\nc\x7f.txt", "abc.txt"),
        ("  spaced out .txt ", "spaced out .txt"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("Besprechung \u2013 März.pdf", "Besprechung \u2013 März.pdf"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        (".env", ".env"),
        ("folder/", UNNAMED),
        ("..", UNNAMED),
        ("\ud800", UNNAMED),
        ("", UNNAMED),
        (None, UNNAMED),
    ],
)
def test_a_name_is_its_last_part_without_what_cannot_be_shown(given_name: str | None, clean: str) -> None:
    assert clean_filename(given_name) == clean


@pytest.mark.parametrize(
    ("given_name", "ending"),
    [("x" * 400 + ".pdf", ".pdf"), ("ü" * 400 + ".docx", ".docx"), ("x" * 400, "x"), ("." + "y" * 400, "y")],
)
def test_a_long_name_is_cut_before_its_ending(given_name: str, ending: str) -> None:
    clean = clean_filename(given_name)

    assert MAX_NAME_BYTES - 1 <= len(clean.encode()) <= MAX_NAME_BYTES
    assert clean.endswith(ending)


@given(st.text())
def test_every_name_can_be_kept(given_name: str) -> None:
    clean = clean_filename(given_name)

    assert 0 < len(clean.encode("utf-8")) <= MAX_NAME_BYTES
    assert "/" not in clean
    assert "\x00" not in clean
    assert clean_filename(clean) == clean


@pytest.mark.parametrize(
    ("given_type", "filename", "clean"),
    [
        ("text/markdown", "a.md", "text/markdown"),
        ("Text/HTML; charset=utf-8", "a", "text/html"),
        ("application/octet-stream", "a.pdf", "application/pdf"),
        (None, "a.csv", "text/csv"),
        ("text/html\r\nX-Evil: 1", "a.txt", "text/plain"),
        ("nonsense", "a.unknown-ending", BINARY),
        ("a/" + "b" * 500, "a", BINARY),
    ],
)
def test_a_type_is_believed_when_it_is_one(given_type: str | None, filename: str, clean: str) -> None:
    assert clean_content_type(given_type, filename) == clean


@pytest.mark.parametrize(
    ("given_name", "path"),
    [
        ("notes/2026/march.md", "notes/2026/march.md"),
        ("notes\\march.md", "notes/march.md"),
        ("../../etc/./passwd", "etc/passwd"),
        ("/srv//notes/ma\x00rch\u202e.md", "srv/notes/march.md"),
        ("march.md", None),
        ("../march.md", None),
        ("notes/" * 200 + "march.md", None),
        ("", None),
        (None, None),
    ],
)
def test_a_path_is_the_folders_and_the_name_each_made_safe(given_name: str | None, path: str | None) -> None:
    assert clean_path(given_name) == path
