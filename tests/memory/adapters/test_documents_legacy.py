"""RTF, OpenDocument, e-books and Office before 2007: read by our own readers, in order and with nothing lost."""

import struct
from collections.abc import Sequence

import pytest

from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import OASIS, compound, zipped

SPACES = " ".join(
    f'xmlns:{name}="{OASIS}:{name}:1.0"' for name in ("office", "text", "table", "draw", "style", "presentation")
)


def opendocument(kind: str, body: str, styles: str = "", manifest: str = "") -> bytes:
    """An OpenDocument file from the XML inside of its body: `text`, `spreadsheet` or `presentation`."""
    parts = {
        "mimetype": f"application/vnd.oasis.opendocument.{kind}",
        "content.xml": f"<office:document-content {SPACES}><office:body><office:{kind}>{body}</office:{kind}>"
        "</office:body></office:document-content>",
        "styles.xml": f"<office:document-styles {SPACES}>{styles}</office:document-styles>",
        "META-INF/manifest.xml": f"<manifest>{manifest}</manifest>",
    }
    return zipped(parts)


def hexed(text: str, codec: str) -> str:
    return "".join(f"\\'{byte:02x}" for byte in text.encode(codec))


def rtf(body: str, head: str = "") -> bytes:
    return f"{{\\rtf1\\ansi{head} {body}}}".encode("ascii")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<text:h text:outline-level='1'>Kop</text:h><text:p>Een zin.</text:p>", ["## Kop", "Een zin."]),
        ("<text:p text:style-name='Title'>Boek</text:p>", ["# Boek"]),
        ("<text:p>a<text:s text:c='2'/>b<text:tab/>c<text:line-break/>d\n   e</text:p>", ["a  b\tc\nd e"]),
        (
            "<text:p>noted<text:note><text:note-citation>1</text:note-citation><text:note-body>"
            "<text:p>the note</text:p></text:note-body></text:note>!"
            "<office:annotation><text:p>a remark</text:p></office:annotation></text:p>",
            ["noted!", "the note", "a remark"],
        ),
        ("<text:section><text:section><text:p>inner</text:p></text:section></text:section>", ["inner"]),
        (
            "<text:list><text:list-item><text:p>one</text:p><text:list><text:list-item><text:p>deeper</text:p>"
            "</text:list-item></text:list></text:list-item></text:list>",
            ["one", "deeper"],
        ),
        ("<text:tracked-changes><text:deletion><text:p>gone</text:p></text:deletion></text:tracked-changes>", []),
        ("<text:p><draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame></text:p>", ["boxed"]),
        (
            "<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>A</text:p>"
            "</table:table-cell><table:table-cell><text:p>B</text:p></table:table-cell></table:table-row>"
            "</table:table-header-rows><table:table-row><table:table-cell><text:p>1</text:p></table:table-cell>"
            "<table:table-cell><text:p>2</text:p></table:table-cell></table:table-row></table:table>",
            ["| 1 | 2"],
        ),
    ],
)
def test_the_corners_of_an_opendocument_text(read: Read, body: str, expected: list[str]) -> None:
    assert shown(read("corner.odt", opendocument("text", body))) == expected


def test_margins_of_an_opendocument_text_come_last(read: Read) -> None:
    styles = "<office:master-styles><style:master-page>{}</style:master-page></office:master-styles>"
    styles = styles.format("<style:header><text:p>Kestrel</text:p></style:header>")
    assert shown(read("a.odt", opendocument("text", "<text:p>Body</text:p>", styles))) == ["Body", "Kestrel"]


def test_an_opendocument_sheet_keeps_rows_as_they_are_shown(read: Read) -> None:
    def row(*cells: str) -> str:
        inside = "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in cells)
        return f"<table:table-row>{inside}</table:table-row>"

    empty = (
        '<table:table-row table:number-rows-repeated="1048570">'
        '<table:table-cell table:number-columns-repeated="16384"/></table:table-row>'
    )
    gap = '<table:table-row table:number-rows-repeated="3"><table:table-cell/></table:table-row>'
    table = f"<table:table table:name='Lager'>{row('Teil', 'Wert')}{gap}{row('Öl', '12,50 €')}{empty}</table:table>"
    document = read("lager.ods", opendocument("spreadsheet", table))
    assert shown(document) == ["# Lager", "| Öl | 12,50 €"]
    assert document.blocks[1].place == {"sheet": "Lager", "row": 5}
    assert document.blocks[1].header == "Teil | Wert"


def test_an_opendocument_presentation_has_slides_and_notes(read: Read) -> None:
    box = "<draw:frame{}><draw:text-box><text:p>{}</text:p></draw:text-box></draw:frame>"
    page = box.format(" presentation:class='title'", "The Merlin") + box.format("", "A point")
    notes = f"<presentation:notes>{box.format('', 'Say it slowly.')}</presentation:notes>"
    pages = f"<draw:page>{page}{notes}</draw:page><draw:page>{box.format('', 'Alone')}</draw:page>"
    document = read("a.odp", opendocument("presentation", pages))
    assert shown(document) == ["# The Merlin", "A point", "Say it slowly.", "# Slide 2", "Alone"]
    assert [block.place["slide"] for block in document.blocks] == [1, 1, 1, 2, 2]


def test_an_opendocument_text_with_a_password_is_refused_with_that_reason(read: Read) -> None:
    with pytest.raises(RejectedFile, match="protected by a password"):
        read("a.odt", opendocument("text", "", manifest="<encryption-data/>"))


def test_an_opendocument_text_in_one_xml_file(read: Read) -> None:
    flat = f"<?xml version='1.0'?><office:document {SPACES}><office:body><office:text><text:p>Flat</text:p>"
    assert shown(read("a.fodt", f"{flat}</office:text></office:body></office:document>".encode())) == ["Flat"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (rtf(hexed("Привет", "cp1251"), r"\ansicpg1251"), ["Привет"]),
        (rtf(r"\f1 " + hexed("Привет", "cp1251"), r"{\fonttbl{\f0 A;}{\f1\fcharset204 B;}}"), ["Привет"]),
        (rtf(r"\f0 " + hexed("表示テスト", "cp932"), r"{\fonttbl{\f0\fcharset128 A;}}"), ["表示テスト"]),
        (rtf(r"\uc1 \u8364\'80 \u322l \uc2\u8364\'80\'80x \uc0\u8364 y \uc1\u-10179?\u-8704?"), ["€ ł €x €y 😀"]),
        (rtf(r"one\par two\line three\~four\_five \{\\\}"), ["one", "two\nthree\xa0four-five {\\}"]),
        (rtf(r"a{\pict 010203}{\*\generator G}{\fldinst X}{\deleted b}{\info{\title t}}c"), ["ac"]),
        (rtf(r"a\bin5 }}}}}b"), ["ab"]),
        (rtf(r"text{\footnote\pard the note\par} on\par{\header top}"), ["text on", "the note", "top"]),
        (rtf(r"\s1 Title\par\pard body", r"{\stylesheet{\s1 heading 1;}}"), ["## Title", "body"]),
        (rtf(r"\trowd\intbl A\cell B\cell\row\trowd\intbl 1\par x\cell 2\cell\row\pard after"), ["| 1 x | 2", "after"]),
        (rtf(r"{\shp{\*\shpinst{\sp{\sn n}{\sv 1}}{\shptxt boxed\par}}}"), ["boxed"]),
        (b"{\\rtf1 never closed {\\b bold", ["never closed bold"]),
    ],
)
def test_the_corners_of_rtf(read: Read, data: bytes, expected: list[str]) -> None:
    assert shown(read("a.rtf", data)) == expected


def epub(pages: dict[str, str], package: str, **more: str) -> bytes:
    container = (
        f'<container xmlns="{OASIS}:container"><rootfiles><rootfile full-path="in/b.opf"/></rootfiles></container>'
    )
    parts = {"META-INF/container.xml": container, "in/b.opf": f"<package>{package}</package>", **pages, **more}
    return zipped({"mimetype": "application/epub+zip", **parts})


def manifest(*items: str) -> str:
    kind = 'media-type="application/xhtml+xml"'
    return "".join(f'<item id="i{number}" href="{item}" {kind}/>' for number, item in enumerate(items))


def test_pages_of_a_book_come_in_its_reading_order(read: Read) -> None:
    pages = {"in/z a.xhtml": "<html><h1>Eins</h1><p>Erstes.</p></html>", "in/a.xhtml": "<p>Zwei.</p>"}
    pages["in/notes.xhtml"] = "<p>Noten.</p>"
    spine = '<spine><itemref idref="i0"/><itemref idref="i1"/></spine>'
    metadata = "<metadata><title>Das Buch</title><creator>A. Nyms</creator></metadata>"
    data = epub(pages, metadata + manifest("z%20a.xhtml", "a.xhtml", "notes.xhtml", "gone.xhtml") + spine)
    document = read("a.epub", data)
    assert shown(document) == ["# Das Buch", "A. Nyms", "## Eins", "Erstes.", "Zwei.", "Noten."]
    assert document.metadata == {"title": "Das Buch", "author": "A. Nyms"}
    assert document.note == "1 of its pages is missing"


def test_a_book_that_only_its_shop_can_open_is_refused_with_that_reason(read: Read) -> None:
    entry = '<EncryptionMethod Algorithm="x"/><CipherReference URI="in/a.xhtml"/>'
    locked = f"<encryption><EncryptedData>{entry}</EncryptedData></encryption>"
    data = epub({"in/a.xhtml": "?"}, manifest("a.xhtml"), **{"META-INF/encryption.xml": locked})
    with pytest.raises(RejectedFile, match="protected"):
        read("a.epub", data)


def word(text: str, *, flags: int = 0) -> bytes:
    """A Word 97 file of one piece of text."""
    body = text.encode("utf-16-le")
    piece = struct.pack("<II", 0, len(text)) + struct.pack("<HIH", 0, 2048, 0)
    pieces = b"\x01\x02\x00xx\x02" + struct.pack("<I", len(piece)) + piece
    head = bytearray(2048)
    struct.pack_into("<HH", head, 0, 0xA5EC, 0xC1)
    struct.pack_into("<H", head, 10, flags)
    struct.pack_into("<II", head, 0x1A2, 0, len(pieces))
    return compound({"WordDocument": bytes(head) + body, "0Table": pieces})


def test_an_old_word_file(read: Read) -> None:
    text = "Überschrift\rA link: \x13HYPERLINK x\x14here\x15.\rA\x07B\x07\x071\x072\x07\x07After\x0bit\r"
    document = read("a.doc", word(text))
    assert shown(document) == ["Überschrift", "A link: here.", "| 1 | 2", "After\nit"]
    assert document.content_type == "application/msword"


def test_an_old_word_file_with_a_password_is_refused_with_that_reason(read: Read) -> None:
    with pytest.raises(RejectedFile, match="protected by a password"):
        read("a.doc", word("secret", flags=0x100))


def record(kind: int, content: bytes, *, version: int = 0xF) -> bytes:
    return struct.pack("<HHI", version, kind, len(content)) + content


def wide(text: str) -> bytes:
    return record(4000, text.encode("utf-16-le"), version=0)


def test_an_old_presentation(read: Read) -> None:
    persist = [record(1011, struct.pack("<I", number) + bytes(16), version=0) for number in (1, 2)]
    outline = persist[0] + wide("The Merlin") + wide("A point") + persist[1] + wide("Second")
    slides = record(4080, outline) + record(4080, wide("of the master"), version=0x1F)
    shapes = [record(1006, record(0xF00D, wide(text))) for text in ("In a box", "Alone")]
    stream = record(1016, wide("master")) + record(1000, slides)
    places = [len(stream) + len(shapes[1]), len(stream)]  # the second slide lies before the first
    stream += shapes[1] + shapes[0] + record(1008, wide("Say it slowly."))
    directory = len(stream)
    stream += record(6002, struct.pack("<3I", 2 << 20 | 1, *places), version=0)
    edit = record(4085, struct.pack("<5I8x", 0, 0, 0, directory, 0), version=0)
    user = struct.pack("<8xIII", 20, 0xE391C05F, len(stream))
    document = read("a.ppt", compound({"PowerPoint Document": stream + edit, "Current User": user}))
    assert shown(document) == ["# The Merlin", "A point\nIn a box", "# Second", "Alone", "Say it slowly."]


def test_an_old_workbook(read: Read) -> None:
    def cells(values: Sequence[Sequence[str | float]]) -> bytes:
        found = b""
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                head = struct.pack("<HHH", row, column, 0)
                if isinstance(value, str):
                    text = value.encode("cp1252")
                    found += old(0x0204, head + struct.pack("<H", len(text)) + text)
                else:
                    found += old(0x0203, head + struct.pack("<d", value))
        return found

    def old(kind: int, content: bytes) -> bytes:
        return struct.pack("<HH", kind, len(content)) + content

    begin, end = old(0x0809, struct.pack("<HHHH", 0x0500, 5, 0, 0)), old(0x000A, b"")
    name = b"Lager"
    length = len(begin) + 4 + 7 + len(name) + len(end)
    book = begin + old(0x0085, struct.pack("<IHB", length, 0, len(name)) + name) + end
    book += old(0x0809, struct.pack("<HHHH", 0x0500, 16, 0, 0)) + cells([["Teil", "Größe"], ["Kette", 12.5]]) + end
    document = read("a.xls", compound({"Book": book}))
    assert shown(document) == ["# Lager", "| Kette | 12.5"]
    assert (document.blocks[1].header, document.blocks[1].place) == ("Teil | Größe", {"sheet": "Lager", "row": 2})


def test_bytes_that_mean_nothing_are_told(read: Read) -> None:
    document = read("notes.rtf", rb"{\rtf1\ansi\ansicpg1251 \'c2\'e5\'eb\'ee \'98 \'98 end}")
    assert document.note == "2 characters of it are damaged and could not be decoded"
    assert read("notes.rtf", rb"{\rtf1\ansi\ansicpg1251 \'c2\'e5\'eb\'ee}").note is None
