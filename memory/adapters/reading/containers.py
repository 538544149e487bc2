"""Archives of files: the members of a zip or tar, and what is packed by gzip, bzip2 or xz, each a file of its own."""

import bz2
import io
import lzma
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial

from memory.adapters.reading.archives import Archive
from memory.adapters.reading.collector import MAX_MEMBERS, MAX_MEMBERS_BYTES, Collector
from memory.adapters.reading.decoding import decode
from memory.errors import RejectedFile

# What operating systems leave beside the files.
_LEFT_BEHIND = re.compile(r"(?:^|/)(?:__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
_PIECE = 1024**2
_UTF8_NAMES = 0x800
_MAX_DICTIONARY = 256 * 1024**2
_PACKED_ENDINGS = {".tgz": ".tar", ".tbz": ".tar", ".tbz2": ".tar", ".txz": ".tar", ".gz": "", ".bz2": "", ".xz": ""}


def read_zip(data: bytes, found: Collector) -> None:
    archive = Archive(data)
    members = [member for member in archive.members if not member.is_dir()]
    names = _names(members)
    wanted = [(member, name) for member, name in zip(members, names, strict=True) if not _LEFT_BEHIND.search(name)]
    for member, name in wanted:
        if not found.has_room_for_members:
            break
        found.member(name, member.file_size, partial(archive.unpack, member))
    _note_count(len(wanted), found)


def _names(members: list[zipfile.ZipInfo]) -> list[str]:
    """Older programs write names in the code page of their machine, and do not say which."""
    old = {member.orig_filename.encode("cp437", "replace") for member in members if not member.flag_bits & _UTF8_NAMES}
    decoded = decode(b"\n".join(sorted(old)))
    lines = decoded.text.split("\n") if decoded is not None else []
    meant = dict(zip(sorted(old), lines, strict=True)) if len(lines) == len(old) else {}
    return [
        member.filename
        if member.flag_bits & _UTF8_NAMES
        else meant.get(member.orig_filename.encode("cp437", "replace"), member.filename)
        for member in members
    ]


def read_tar(data: bytes, found: Collector) -> None:
    """Links and devices are left out: they would be files of this machine."""
    count = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isfile() or _LEFT_BEHIND.search(member.name):
                    continue
                count += 1
                if found.has_room_for_members:
                    found.member(member.name, member.size, partial(_extract, archive, member))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if not count:
            raise RejectedFile("it is damaged: its container cannot be opened") from error
        found.note("its end is damaged")
    _note_count(count, found)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = archive.extractfile(member)
    content = source.read() if source is not None else b""
    if len(content) != member.size:
        raise RejectedFile("it is damaged: one of its parts is cut off")
    return content


def read_packed(data: bytes, filename: str, found: Collector) -> None:
    """A tar archive is read through; anything else is one file, named as the packed one without its ending."""
    unpacked = b"".join(_unpacked(data))
    if unpacked[257:262] == b"ustar":
        read_tar(unpacked, found)
        return
    stem, ending = posixpath.splitext(filename)
    name = stem + _PACKED_ENDINGS[ending.lower()] if ending.lower() in _PACKED_ENDINGS else filename
    found.member(posixpath.basename(name) or "file", len(unpacked), lambda: unpacked)
    _note_count(1, found)


def _unpacked(data: bytes) -> Iterator[bytes]:
    size = 0
    try:
        for piece in _pieces(data):
            size += len(piece)
            if size > MAX_MEMBERS_BYTES:
                raise RejectedFile(f"it unpacks to more than {MAX_MEMBERS_BYTES // 1024**2} MB")
            yield piece
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
        raise RejectedFile("it is damaged: it cannot be unpacked") from error


def _pieces(data: bytes) -> Iterator[bytes]:
    """Bounded pieces, however much a few bytes unpack to. A file may hold several streams one after the other."""
    while data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")):
        if data.startswith(b"\x1f\x8b"):
            inflating = zlib.decompressobj(31)
            while not inflating.eof:
                piece = inflating.decompress(data, _PIECE)
                if not piece and not inflating.unconsumed_tail:
                    raise EOFError
                yield piece
                data = inflating.unconsumed_tail
            data = inflating.unused_data
        else:
            unpacking = (
                bz2.BZ2Decompressor() if data.startswith(b"BZh") else lzma.LZMADecompressor(memlimit=256 * 1024**2)
            )
            while not unpacking.eof:
                piece = unpacking.decompress(data, _PIECE)
                if not piece and unpacking.needs_input:
                    raise EOFError
                yield piece
                data = b""
            data = unpacking.unused_data


def _note_count(count: int, found: Collector) -> None:
    if count > MAX_MEMBERS:
        found.note(f"{count} files; only the first {MAX_MEMBERS} were taken")
    else:
        found.note(f"{count} {'file' if count == 1 else 'files'}")
