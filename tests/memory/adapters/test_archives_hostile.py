"""Archives made to hurt: bombs of every packing, members that overlap or lie, archives in archives, names."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zlib
from collections.abc import Callable

import pytest

from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read, outcome
from tests.memory.adapters.paper import zipped

MOST = 48 * 1024**2


def _overlapping(count: int, content: bytes) -> bytes:
    """An archive whose members are all the same bytes of it."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packing.compress(content) + packing.flush()
    sizes = struct.pack("<III", zlib.crc32(content), len(packed), len(content))
    local = struct.pack("<IHHHHH", 0x04034B50, 20, 0, 8, 0, 33) + sizes + struct.pack("<HH", 1, 0) + b"a" + packed
    entry = struct.pack("<IHHHHHH", 0x02014B50, 20, 20, 0, 8, 0, 33) + sizes
    entry += struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(entry) * count, len(local), 0)
    return local + entry * count + end


def _of_64_bits(size: int) -> bytes:
    """An archive whose only member declares its size in the long form."""
    honest = zipped({"a.txt": "hello"})
    start, end = honest.index(b"PK\x01\x02"), honest.rindex(b"PK\x05\x06")
    entry = bytearray(honest[start:end])
    extra = struct.pack("<HHQQ", 1, 16, size, 5)
    entry[20:28] = b"\xff" * 8
    entry[30:32] = struct.pack("<H", len(extra))
    entry += extra
    return honest[:start] + bytes(entry) + honest[end : end + 12] + struct.pack("<I", len(entry)) + honest[end + 16 :]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0)])
def test_a_bomb_of_every_packing(survive: Read, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RejectedFile, match="unpacks to more than 48 MB"):
        survive("a.gz", pack(bytes(60_000_000)))


def test_a_packed_bomb_in_another_is_met_one_step_later(survive: Read) -> None:
    (inner,) = survive("a.gz.gz", gzip.compress(gzip.compress(bytes(60_000_000)))).members
    with pytest.raises(RejectedFile, match="unpacks to more than 48 MB"):
        survive(inner.name, inner.content)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_very_many_empty_streams(survive: Read, pack: Callable[[bytes], bytes]) -> None:
    assert outcome(survive, "a.gz", pack(b"") * 20_000)


def test_members_that_share_their_bytes(survive: Read) -> None:
    with pytest.raises(RejectedFile, match="no honest file of its size"):
        survive("a.zip", _overlapping(15_000, bytes(1_000_000)))
    found = outcome(survive, "a.zip", _overlapping(1_000, random.Random(1).randbytes(100_000)))
    assert isinstance(found, str) or sum(len(member.content) for member in found.members) <= MOST


@pytest.mark.parametrize("size", [2**62, 2**40, 1])
def test_sizes_of_64_bits_are_not_believed(survive: Read, size: int) -> None:
    found = outcome(survive, "a.zip", _of_64_bits(size))
    assert isinstance(found, str) or all(len(member.content) <= 5 for member in found.members)


def test_an_archive_of_more_members_than_it_says(survive: Read) -> None:
    honest = zipped({"a.txt": "hello"})
    assert outcome(survive, "a.zip", honest[:-14] + b"\xff\xff\xff\xff" + honest[-10:])


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE])
def test_a_tape_whose_sizes_lie(survive: Read, kind: bytes) -> None:
    header = tarfile.TarInfo("big")
    header.size, header.type = 2**40, kind
    for data in (header.tobuf(tarfile.GNU_FORMAT) + bytes(2_000), gzip.compress(header.tobuf(tarfile.GNU_FORMAT))):
        found = outcome(survive, "a.tar", data)
        assert isinstance(found, str) or all(not member.content for member in found.members)


def test_links_and_devices_of_a_tape_are_left_out(survive: Read) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tape:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"{number}")
            member.type, member.linkname = kind, "/etc/passwd"
            tape.addfile(member)
    assert survive("a.tar", held.getvalue()).members == []


def test_names_of_members_are_told_as_they_are(survive: Read) -> None:
    names = ["../" * 1_300 + "etc/passwd", "\x1b[31m\x07", "a\u202egpj.exe", "CON", "/etc/passwd", "..", "x" * 60_000]
    document = survive("a.zip", zipped(dict.fromkeys(names, "harmless")))
    assert [member.content for member in document.members] == [b"harmless"] * len(names)
