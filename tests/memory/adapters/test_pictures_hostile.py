"""Pictures made to hurt: far too large in every format, of endless frames, of chunks that unpack without end."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from memory.adapters.documents import GuardedReader
from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read, outcome
from tests.memory.adapters.paper import blank_png

SIDE = 50_000
TOO_LARGE = "kept; not read, as it has more than 40 million pixels; found by its name"
HERE = Path(__file__).parent


def _gif() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0)
    return b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0xF0, 0, 0) + bytes(6) + frame + b"\x02\x02\x4c\x01\x00;"


def _bmp() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + header + bytes(46)


def _directory(width: int, height: int, following: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def _tiff() -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + _directory(SIDE, SIDE, 0) + bytes(200)


def _jpeg() -> bytes:
    held = io.BytesIO()
    Image.new("L", (16, 16)).save(held, "JPEG")
    data = bytearray(held.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def _webp() -> bytes:
    # The format itself ends at 16,383 a side.
    side = 16_383
    held = io.BytesIO()
    Image.new("RGB", (16, 16)).save(held, "WEBP", lossless=True)
    data = bytearray(held.getvalue())
    start = data.index(b"VP8L") + 9
    packed = int.from_bytes(data[start : start + 4], "little") >> 28 << 28 | (side - 1) << 14 | (side - 1)
    data[start : start + 4] = packed.to_bytes(4, "little")
    return bytes(data)


def _heic() -> bytes:
    data = bytearray((HERE / "notice.heic").read_bytes())
    place = -1
    while (place := data.find(b"ispe", place + 1)) > 0:
        data[place + 8 : place + 16] = struct.pack(">II", SIDE, SIDE)
    return bytes(data)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.png", blank_png(SIDE, SIDE)), ("a.gif", _gif()), ("a.bmp", _bmp()), ("a.tif", _tiff()), ("a.jpg", _jpeg()),
     ("a.webp", _webp()), ("a.heic", _heic())],
    ids=lambda given: given if isinstance(given, str) else "data",
)  # fmt: skip
def test_a_picture_of_two_billion_pixels_is_kept_unread(survive: Read, name: str, data: bytes) -> None:
    document = survive(name, data)
    assert document.blocks == []
    assert document.note == TOO_LARGE


@pytest.mark.parametrize("data", [blank_png(SIDE, SIDE), _webp()], ids=["png", "webp"])
def test_a_picture_of_two_billion_pixels_is_not_decoded_for_a_caption(
    strict: GuardedReader, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "stored"
    path.write_bytes(data)
    with pytest.raises(RejectedFile, match="more than 40 million pixels"):
        strict.small_picture(path)


def test_an_animation_of_very_many_frames(survive: Read) -> None:
    held = io.BytesIO()
    Image.new("L", (1, 1)).save(held, "GIF")
    start = held.getvalue().index(b",")
    data = held.getvalue()[:start] + held.getvalue()[start:-1] * 300_000 + b";"
    assert not isinstance(outcome(survive, "a.gif", data), str)


@pytest.mark.parametrize("following", ["the next", "itself"])
def test_a_scan_of_very_many_pages(survive: Read, following: str) -> None:
    size = len(_directory(1, 1, 0))
    steps = [8 + size * (number + 1) if following == "the next" else 8 for number in range(10_000)]
    data = b"II*\0" + struct.pack("<I", 8) + b"".join(_directory(1, 1, step) for step in steps)
    assert outcome(survive, "a.tif", data)


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_a_picture_with_a_bomb_beside_its_pixels(survive: Read, name: bytes) -> None:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 0, 0, 0, 0))
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(10_000_000)) for _ in range(50)) + bomb.flush()
    with pytest.raises(RejectedFile, match=r"damaged|memory"):
        survive("a.png", b"\x89PNG\r\n\x1a\n" + header + _chunk(name, b"a\0\0" + packed) + _chunk(b"IEND", b""))
