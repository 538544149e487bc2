"""Archives and what lies in them: names as they were meant, nothing left behind by systems, nothing beyond limits."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read
from tests.memory.adapters.paper import zipped


def tar(members: dict[str, bytes], link: str = "") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return held.getvalue()


def named(read: Read, filename: str, data: bytes) -> dict[str, bytes | str]:
    """The members by their name: their content, or why it was refused."""
    return {member.name: member.refused or member.content for member in read(filename, data).members}


@pytest.mark.parametrize(
    ("filename", "data", "content_type"),
    [
        ("a.zip", zipped({"in/a.txt": "one", "b.txt": b"\x00\x01"}), "application/zip"),
        ("a.tar", tar({"in/a.txt": b"one", "b.txt": b"\x00\x01"}, link="/etc/passwd"), "application/x-tar"),
        ("a.tgz", gzip.compress(tar({"in/a.txt": b"one", "b.txt": b"\x00\x01"})), "application/gzip"),
        ("a.tar.bz2", bz2.compress(tar({"in/a.txt": b"one", "b.txt": b"\x00\x01"})), "application/x-bzip2"),
        ("a.txt", lzma.compress(tar({"in/a.txt": b"one", "b.txt": b"\x00\x01"})), "application/x-xz"),
    ],
)
def test_the_files_of_an_archive(read: Read, filename: str, data: bytes, content_type: str) -> None:
    document = read(filename, data)
    assert (document.blocks, document.content_type, document.note) == ([], content_type, "2 files")
    assert [(m.name, m.content) for m in document.members] == [("in/a.txt", b"one"), ("b.txt", b"\x00\x01")]


@pytest.mark.parametrize(
    ("filename", "name"), [("a.txt.gz", "a.txt"), ("A.GZ", "A"), ("log", "log"), ("in/a.svg.gz", "a.svg")]
)
def test_one_packed_file(read: Read, filename: str, name: str) -> None:
    document = read(filename, gzip.compress(b"one") + gzip.compress(b" two"))
    assert [(member.name, member.content) for member in document.members] == [(name, b"one two")]
    assert document.note == "1 file"


def test_what_systems_leave_behind_is_left_out(read: Read) -> None:
    data = zipped(
        {"a/": "", "a/b.txt": "x", "__MACOSX/a/._b.txt": "x", "a/.DS_Store": "x", "._c": "x", "Thumbs.db": "x"}
    )
    assert named(read, "a.zip", data) == {"a/b.txt": b"x"}


@pytest.mark.parametrize("codec", ["cp866", "cp932", "utf-8", "gb18030"])
def test_names_in_the_code_page_of_another_machine(read: Read, codec: str) -> None:
    names = ["会議の資料.txt", "報告.txt"] if codec in ("cp932", "gb18030") else ["Отчёт за год.txt", "Письмо.txt"]
    if codec == "gb18030":
        names = ["会议记录的资料.txt", "年度报告.txt"]
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr("#" * len(name.encode(codec)), b"x")
    data = held.getvalue()
    for name in names:
        raw = name.encode(codec)
        data = data.replace(b"#" * len(raw), raw)
    assert list(named(read, "a.zip", data)) == names


def test_one_locked_file_leaves_the_others(read: Read) -> None:
    data = zipped({"a.txt": "open", "b.txt": "locked"})
    place = data.rindex(b"PK\x01\x02")
    data = data[: place + 8] + b"\x01\x00" + data[place + 10 :]
    assert named(read, "a.zip", data) == {"a.txt": b"open", "b.txt": "it is protected by a password"}


def test_an_archive_with_a_password_is_refused_with_that_reason(read: Read) -> None:
    data = zipped({"in/": "", "in/a.txt": "locked"})
    place = data.rindex(b"PK\x01\x02")
    with pytest.raises(RejectedFile, match="protected by a password"):
        read("a.zip", data[: place + 8] + b"\x01\x00" + data[place + 10 :])


def test_a_damaged_member_leaves_the_others(read: Read) -> None:
    data = zipped({"a.txt": "whole", "b.txt": "broken " * 50})
    place = data.index(b"b.txt") + 5
    found = named(read, "a.zip", data[:place] + b"\xff" * 8 + data[place + 8 :])
    assert found == {"a.txt": b"whole", "b.txt": "it is damaged: one of its parts cannot be unpacked"}


def test_what_is_cut_off_is_damaged(read: Read) -> None:
    for name, data in (("a.zip", zipped({"a.txt": "x" * 500})), ("a.gz", gzip.compress(bytes(range(256)) * 9))):
        with pytest.raises(RejectedFile, match="damaged"):
            read(name, data[:-30])


def test_a_member_over_the_limit_fails_alone(read: Read) -> None:
    data = zipped({"big.bin": bytes(range(256)) * 41_000, "a.txt": "small"})
    assert named(read, "a.zip", data) == {"big.bin": "larger than 10 MB, the limit for one file", "a.txt": b"small"}


def test_only_so_many_files_are_taken(read: Read) -> None:
    document = read("a.zip", zipped({f"{number}.txt": "x" for number in range(1_200)}))
    assert len(document.members) == 1_000
    assert document.note == "1200 files; only the first 1000 were taken"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_unpacks_to_too_much_is_refused(read: Read, pack: object) -> None:
    with pytest.raises(RejectedFile, match="unpacks to more than 48 MB"):
        read("a.gz", pack(bytes(60 * 1024**2)))  # type: ignore[operator]
