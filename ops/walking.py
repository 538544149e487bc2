"""Which files are meant by paths on the command line: folders walked, hidden and odd files left out, nothing twice."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory.errors import Invalid


@dataclass(frozen=True)
class Found:
    """A file to send. `name` is its relative path with `/`, from the folder that was named on, or its bare name."""

    file: Path
    name: str
    size: int


@dataclass(frozen=True)
class LeftOut:
    """What is not meant to be sent, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Unreadable:
    """What is meant and cannot be sent, and why."""

    name: str
    reason: str


Walked = Found | LeftOut | Unreadable


def walk(paths: Sequence[Path]) -> Iterator[Walked]:
    """Files below the paths, in the order of their names. Raises Invalid for a path that is not there.

    What is hidden below a folder is left out, and so is a link that leads out of it: one to a home would send the whole
    home. What is named itself is taken, hidden or a link or not. Links within the folder are followed, and a folder is
    walked once, however many of them lead to it.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise Invalid(f"{path}: no such file or folder")
    folders: set[tuple[int, int]] = set()
    files: set[str] = set()
    for path in paths:
        # Of `.` and `..` only the resolved path has a name.
        name = path.name if path.name not in ("", "..") else path.resolve().name or "root"
        for walked in _below(path, _readable(name), path.resolve(), folders):
            # Not resolved: two links to one file are two files with a name each.
            place = os.path.abspath(walked.file) if isinstance(walked, Found) else None  # noqa: PTH100
            if place is None or place not in files:
                files.update([place] if place else [])
                yield walked


def _below(path: Path, name: str, root: Path, folders: set[tuple[int, int]]) -> Iterator[Walked]:
    try:
        status = path.stat()
    except OSError as error:
        yield Unreadable(name, f"cannot be read: {error.strerror}")
        return
    place = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        yield Found(path, name, status.st_size)
    elif not stat.S_ISDIR(status.st_mode):
        yield LeftOut(path, "neither files nor folders")
    elif place in folders:
        yield LeftOut(path, "walked already")
    else:
        folders.add(place)
        yield from _inside(path, name, root, folders)


def _inside(folder: Path, name: str, root: Path, folders: set[tuple[int, int]]) -> Iterator[Walked]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        yield Unreadable(name, f"cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            yield LeftOut(entry, "hidden")
        elif entry.is_symlink() and entry.exists() and not Path(os.path.realpath(entry)).is_relative_to(root):
            yield LeftOut(entry, "links out of the folder")
        else:
            yield from _below(entry, f"{name}/{_readable(entry.name)}", root, folders)


def _readable(name: str) -> str:
    """A file system's names are bytes; what is no text in them is not sent as such."""
    return os.fsencode(name).decode(errors="replace")
