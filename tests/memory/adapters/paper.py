"""Files made in memory for the tests of the readers: small, whole, and each of its real format."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
OASIS = "urn:oasis:names:tc:opendocument:xmlns"
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_CONTENT_TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def relations(*targets: tuple[str, str]) -> str:
    """A part's relations: kind and target, with the ids rId1, rId2, …"""
    lines = "".join(
        f'<Relationship Id="rId{number}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{lines}</Relationships>'
    )


def docx(body: str, *, prolog: str = "", parts: Mapping[str, str] | None = None) -> bytes:
    """A Word file from the XML of its body; `parts` are further parts by their kind, such as `footnotes`."""
    parts = parts or {}
    return zipped(
        {
            "[Content_Types].xml": _CONTENT_TYPES,
            "_rels/.rels": relations(("officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": relations(*((kind, f"{kind}.xml") for kind in parts)),
            "word/document.xml": f"{prolog}<w:document {WORD}><w:body>{body}</w:body></w:document>",
            **{f"word/{kind}.xml": f"<w:{kind} {WORD}>{content}</w:{kind}>" for kind, content in parts.items()},
        }
    )


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def pdf(pages: Sequence[str | bytes], *, outline: Sequence[tuple[str, int]] = (), box: str = "0 0 595 842") -> bytes:
    """A PDF of pages, each a text (a line of it per line) or the bytes of a content stream; outline: title and page."""
    objects = ["", "", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>", b""]
    first = len(objects) + 2 * len(pages) + 1
    for page in pages:
        stream = page if isinstance(page, bytes) else _lines(page)
        objects.append(b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % _packed(stream))
        content = len(objects)
        resources = "/Resources<</Font<</F 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]{resources}/Contents {content} 0 R>>".encode())
    numbers = [6 + 2 * index for index in range(len(pages))]
    for index, (title, on_page) in enumerate(outline):
        links = f"/Next {first + index + 1} 0 R" if index + 1 < len(outline) else ""
        objects.append(f"<</Title({title})/Parent 4 0 R/Dest[{numbers[on_page - 1]} 0 R/Fit]{links}>>".encode())
    kids = " ".join(f"{number} 0 R" for number in numbers)
    objects[0] = b"<</Type/Catalog/Pages 2 0 R/Outlines 4 0 R>>"
    objects[1] = f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>".encode()
    ends = f"/First {first} 0 R/Last {first + len(outline) - 1} 0 R/Count {len(outline)}" if outline else ""
    objects[3] = f"<</Type/Outlines{ends}>>".encode()
    written = b"%PDF-1.4\n"
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for number, value in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(written)
        written += b"%d 0 obj\n%s\nendobj\n" % (number, value)
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(written))
    return written + table + trailer


def _packed(stream: bytes) -> tuple[int, bytes]:
    packed = zlib.compress(stream, 9)
    return len(packed), packed


def _lines(text: str) -> bytes:
    lines = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.split("\n")]
    shown = "\n".join(f"BT /F 11 Tf 50 {800 - 15 * number} Td ({line}) Tj ET" for number, line in enumerate(lines))
    return shown.encode("cp1252")


def written(*lines: str, size: int = 36) -> Image.Image:
    """A picture of lines of text."""
    image = Image.new("RGB", (900, 60 + 80 * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((40, 30 + 80 * number), line, fill="black", font=ImageFont.load_default(size=size))
    return image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def blank_png(width: int, height: int) -> bytes:
    """A PNG of any size without holding its pixels."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", pixels) + piece(b"IEND", b"")


def compound(streams: Mapping[str, bytes]) -> bytes:
    """A compound file, the container of Outlook and old Office: streams by their path, all kept in the mini stream."""
    return _Compound(streams).data


class _Compound:
    _SECTOR, _MINI = 512, 64
    _END, _FREE, _FAT, _NONE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD, 0xFFFFFFFF

    def __init__(self, streams: Mapping[str, bytes]) -> None:
        mini, mini_fat, starts = self._mini_stream(streams)
        entries = self._entries(streams, starts, len(mini))
        directory = self._padded(b"".join(entries), self._SECTOR)
        mini_fat_bytes = self._padded(struct.pack(f"<{len(mini_fat)}I", *mini_fat), self._SECTOR, b"\xff")
        pieces = [directory, mini_fat_bytes, self._padded(mini, self._SECTOR)]
        fat, firsts = [self._FAT], []
        for piece in pieces:
            firsts.append(len(fat))
            count = len(piece) // self._SECTOR
            fat += [*range(len(fat) + 1, len(fat) + count), self._END] if count else []
        assert len(fat) <= 128, "one FAT sector is enough for a test"
        # The root entry points at the mini stream.
        directory = directory[:116] + struct.pack("<I", firsts[2]) + directory[120:]
        table = self._padded(struct.pack(f"<{len(fat)}I", *fat), self._SECTOR, b"\xff")
        header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 62, 3, 0xFFFE, 9, 6) + bytes(6)
        header += struct.pack(
            "<IIIIIIIII", 0, 1, firsts[0], 0, 4096, firsts[1], len(mini_fat_bytes) // 512, self._END, 0
        )
        header += struct.pack("<I", 0) + b"\xff" * (4 * 108)
        self.data = header + table + directory + mini_fat_bytes + pieces[2]

    def _mini_stream(self, streams: Mapping[str, bytes]) -> tuple[bytes, list[int], dict[str, int]]:
        mini, fat, starts = b"", list[int](), {}
        for path, content in streams.items():
            count = -(-len(content) // self._MINI)
            starts[path] = len(fat) if count else self._END
            fat += [*range(len(fat) + 1, len(fat) + count), self._END] if count else []
            mini += self._padded(content, self._MINI)
        return mini, fat, starts

    def _entries(self, streams: Mapping[str, bytes], starts: Mapping[str, int], size: int) -> list[bytes]:
        folders = {path.rpartition("/")[0] for path in streams} - {""}
        paths = ["", *sorted({*streams, *folders}, key=lambda path: (path.count("/"), len(path), path.upper()))]
        numbers = {path: number for number, path in enumerate(paths)}
        entries = []
        for path in paths:
            inside = [other for other in paths[1:] if other.rpartition("/")[0] == path and other != path]
            beside = [other for other in paths[1:] if other.rpartition("/")[0] == path.rpartition("/")[0]]
            after = beside[beside.index(path) + 1 :] if path in beside else []
            name = (path.rpartition("/")[2] or "Root Entry").encode("utf-16-le") + b"\0\0"
            kind = 5 if path == "" else 2 if path in streams else 1
            start, length = (0, size) if path == "" else (starts.get(path, 0), len(streams.get(path, b"")))
            # Siblings as a chain to the right: a search tree, though no balanced one.
            right = numbers[after[0]] if after else self._NONE
            child = numbers[inside[0]] if inside and kind != 2 else self._NONE
            entries.append(
                name.ljust(64, b"\0")
                + struct.pack("<HBBIII", len(name), kind, 1, self._NONE, right, child)
                + bytes(36)
                + struct.pack("<IQ", start, length)
            )
        return entries

    @staticmethod
    def _padded(data: bytes, size: int, filler: bytes = b"\0") -> bytes:
        return data + filler * (-len(data) % size)
