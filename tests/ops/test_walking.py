"""Which files a path on the command line means."""

import os
from pathlib import Path

import pytest

from memory.errors import Invalid
from ops.walking import Found, LeftOut, Unreadable, walk


def _names(*paths: Path) -> list[str]:
    return [one.name for one in walk(paths) if isinstance(one, Found)]


def _file(path: Path, content: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_folder_means_all_that_is_in_it_by_its_path_from_there(tmp_path: Path) -> None:
    for name in ("b.md", "deep/er/c.md", "a.md"):
        _file(tmp_path / "notes" / name)

    assert _names(tmp_path / "notes") == ["notes/a.md", "notes/b.md", "notes/deep/er/c.md"]
    assert _names(tmp_path / "notes" / "a.md") == ["a.md"]


def test_a_folder_named_by_a_dot_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _file(tmp_path / "notes" / "a.md")
    monkeypatch.chdir(tmp_path / "notes")

    assert _names(Path()) == ["notes/a.md"]
    assert _names(Path("..")) == [f"{tmp_path.name}/notes/a.md"]


def test_hidden_files_are_taken_only_when_they_are_named(tmp_path: Path) -> None:
    hidden = _file(tmp_path / "notes" / ".env")
    _file(tmp_path / "notes" / ".git" / "config")
    _file(tmp_path / "notes" / "a.md")

    assert _names(tmp_path / "notes") == ["notes/a.md"]
    assert _names(hidden) == [".env"]
    assert _names(tmp_path / "notes" / ".git") == [".git/config"]
    left_out = [one.reason for one in walk([tmp_path / "notes"]) if isinstance(one, LeftOut)]
    assert left_out == ["hidden", "hidden"]


def test_links_within_the_folder_are_followed_and_a_loop_ends(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    _file(notes / "a.md")
    _file(notes / "deep" / "b.md")
    (notes / "also-deep").symlink_to(notes / "deep")
    (notes / "loop").symlink_to(notes)
    (notes / "to-a.md").symlink_to(notes / "a.md")

    assert _names(notes) == ["notes/a.md", "notes/also-deep/b.md", "notes/to-a.md"]


def test_links_out_of_the_folder_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    _file(notes / "a.md")
    _file(tmp_path / "elsewhere" / "b.md")
    (notes / "linked").symlink_to(tmp_path / "elsewhere")
    (notes / "secret.md").symlink_to(tmp_path / "elsewhere" / "b.md")
    (notes / "up").symlink_to("..")

    assert _names(notes) == ["notes/a.md"]
    left_out = [one for one in walk([notes]) if isinstance(one, LeftOut)]
    assert left_out == [LeftOut(notes / name, "links out of the folder") for name in ("linked", "secret.md", "up")]
    assert _names(notes / "linked") == ["linked/b.md"]


def test_a_path_named_twice_is_one(tmp_path: Path) -> None:
    file = _file(tmp_path / "notes" / "a.md")

    assert _names(tmp_path / "notes", file, tmp_path / "notes" / ".." / "notes") == ["notes/a.md"]


def test_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")

    walked = list(walk([tmp_path]))

    assert walked == [
        Unreadable(f"{tmp_path.name}/broken", "cannot be read: No such file or directory"),
        LeftOut(tmp_path / "pipe", "neither files nor folders"),
    ]


def test_a_name_that_is_no_text_is_sent_as_one(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.txt"))
    file.write_text("text")

    assert _names(file) == ["gr\N{REPLACEMENT CHARACTER}n.txt"]


def test_a_path_that_is_not_there_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    file = _file(tmp_path / "a.md")

    with pytest.raises(Invalid, match="no such file"):
        next(walk([file, tmp_path / "missing"]))
