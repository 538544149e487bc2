"""Files made to hurt: each ends contained, within its limits, and the next file is served by the same warm process."""

import io
import random
import socket
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openpyxl
import pytest

from memory.adapters.documents import GuardedReader
from memory.adapters.reading import sniff
from memory.errors import RejectedFile
from tests.memory.adapters.conftest import Read, outcome
from tests.memory.adapters.paper import WORD, docx, paragraph, pdf, relations, zipped

ENDED = "broke its reader|more memory|longer than|seconds of computing|nested too deeply"


@pytest.fixture
def read(survive: Read) -> Read:
    return survive


def laughs(use: str) -> str:
    """An entity of entities of entities, a thousand million times the same word."""
    lines = ['<!ENTITY e0 "lol">', *(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))]
    return f"<?xml version='1.0'?><!DOCTYPE {use} [{''.join(lines)}]>"


def bomb(name: str, megabytes: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", relations(("officeDocument", name)))
        with archive.open(name, "w") as member:
            for _ in range(megabytes):
                member.write(b"<w:p><w:r><w:t>aaaaaaaaaaaaaaaa</w:t></w:r></w:p>  " * 20_000)
    return held.getvalue()


@pytest.mark.parametrize(
    ("filename", "part"),
    [("a.docx", "word/document.xml"), ("a.pptx", "ppt/presentation.xml"), ("a.xlsx", "xl/workbook.xml")],
)
def test_an_office_file_that_unpacks_to_a_hundred_times_more(read: Read, filename: str, part: str) -> None:
    with pytest.raises(RejectedFile, match="unpacks to 36 MB"):
        read(filename, bomb(part, 38))


@pytest.mark.parametrize("media_type", ["application/vnd.oasis.opendocument.text", "application/epub+zip"])
def test_a_book_or_open_document_that_unpacks_to_a_hundred_times_more(read: Read, media_type: str) -> None:
    paragraphs = "<p>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</p>" * 1_100_000
    with pytest.raises(RejectedFile, match="unpacks to"):
        read("a", zipped({"mimetype": media_type, "content.xml": paragraphs}))


def test_an_archive_of_archives_unpacks_one_level_at_a_time(read: Read) -> None:
    inner = zipped({f"{number}.txt": bytes(9_000_000) for number in range(5)})
    document = read("a.zip", zipped({f"{number}.zip": inner for number in range(500)}))
    assert len(document.members) == 500
    with pytest.raises(RejectedFile, match="no honest file of its size"):
        read("0.zip", document.members[0].content)


def test_an_archive_that_holds_itself(read: Read) -> None:
    data = zipped({"a.zip": zipped({"a.zip": zipped({"a.txt": "deep"})})})
    for _ in range(3):
        (member,) = read("a.zip", data).members
        data = member.content
    assert data == b"deep"


def test_sizes_that_lie_are_not_believed(read: Read) -> None:
    honest = docx(paragraph("a" * 100_000))
    size = len(f"<w:document {WORD}><w:body>{paragraph('a' * 100_000)}</w:body></w:document>")
    lying = honest.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != honest
    with pytest.raises(RejectedFile, match="damaged"):
        read("a.docx", lying)


def test_a_container_of_very_many_parts(read: Read) -> None:
    with pytest.raises(RejectedFile, match="25000 parts"):
        read("a.docx", zipped({f"{number}": b"" for number in range(25_000)}))


def test_a_billion_laughs(read: Read) -> None:
    document = read("a.xml", (laughs("a") + "<a>&e9;</a>").encode())
    assert sum(len(block.text) for block in document.blocks) < 10_000
    with pytest.raises(RejectedFile, match="damaged"):
        read("a.docx", docx(paragraph("&e9;"), prolog=laughs("w:document")))
    slides = {"[Content_Types].xml": "<Types/>", "_rels/.rels": relations(("officeDocument", "ppt/presentation.xml"))}
    with pytest.raises(RejectedFile, match="damaged"):
        read("a.pptx", zipped({**slides, "ppt/presentation.xml": f"{laughs('p')}<p><sldIdLst/>&e9;</p>"}))


@pytest.mark.parametrize("kind", ["text", "spreadsheet", "presentation"])
def test_a_billion_laughs_in_an_open_document(read: Read, kind: str) -> None:
    content = (
        laughs("d") + f"<d><body><{kind}><p>&e9;</p><table><table-row>&e9;</table-row></table></{kind}></body></d>"
    )
    found = outcome(
        read, "a.odt", zipped({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content})
    )
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) < 10_000


def test_a_billion_laughs_in_a_book(read: Read) -> None:
    package = laughs("package") + "<package><metadata><title>&e9;</title></metadata></package>"
    found = outcome(read, "a.epub", zipped({"mimetype": "application/epub+zip", "b.opf": package}))
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) < 10_000


@pytest.mark.parametrize(
    "part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml"]
)
def test_a_billion_laughs_in_a_sheet(read: Read, part: str) -> None:
    book, held = openpyxl.Workbook(), io.BytesIO()
    book.save(held)
    with zipfile.ZipFile(held) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    root = parts[part].split("?>")[-1]
    parts[part] = laughs("r") + "&e9;</".join(root.rsplit("</", 1))
    found = outcome(read, "a.xlsx", zipped(parts))
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) < 10_000


@pytest.mark.parametrize(("filename", "root"), [("a.svg", "svg"), ("a.html", "html"), ("a.fodt", "office:document ")])
def test_a_billion_laughs_in_any_markup(read: Read, filename: str, root: str) -> None:
    text = f"{laughs(root.strip())}<{root} xmlns:office='o'><p>&e9;</p></{root.strip()}>"
    found = outcome(read, filename, text.encode())
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) < 10_000


def test_one_long_entity_a_hundred_thousand_times(read: Read) -> None:
    text = f"<?xml version='1.0'?><!DOCTYPE r [<!ENTITY a '{'A' * 100_000}'>]><r>{'&a;' * 100_000}</r>"
    found = outcome(read, "a.xml", text.encode())
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) <= 2_000_000


def test_nothing_is_fetched_from_the_network(read: Read) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        entity = f"<!DOCTYPE r SYSTEM '{url}' [<!ENTITY % p SYSTEM '{url}'> %p; <!ENTITY x SYSTEM '{url}'>]>"
        link = f"<link rel='stylesheet' href='{url}'/><img src='{url}'/><script src='{url}'/><iframe src='{url}'/>"
        include = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{url}'/>"
        external = f"<Relationship Id='r' TargetMode='External' Type='http://x/attachedTemplate' Target='{url}'/>"
        rels = f"<Relationships xmlns='http://schemas.openxmlformats.org/package/2006/relationships'>{external}</Relationships>"
        book = {"mimetype": "application/epub+zip", "META-INF/container.xml": f"{entity}<r>&x;{include}</r>"}
        files: tuple[tuple[str, bytes], ...] = (
            ("a.xml", f"<?xml version='1.0'?>{entity}<r>&x;{include}</r>".encode()),
            ("a.svg", f"<?xml version='1.0'?>{entity}<svg>&x;<image href='{url}'/></svg>".encode()),
            ("a.html", f"{entity}<html><head>{link}</head><body>&x;{include}{link}</body></html>".encode()),
            ("a.docx", docx(paragraph("&x;"), prolog=entity.replace("DOCTYPE r", "DOCTYPE w:document"))),
            (
                "a.odt",
                zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": f"{entity}<d>&x;</d>"}),
            ),
            ("a.epub", zipped(book)),
            ("a.docx", zipped({"[Content_Types].xml": "<Types/>", "_rels/.rels": rels, "word/document.xml": "<d/>"})),
            ("a.rtf", f'{{\\rtf1{{\\field{{\\*\\fldinst INCLUDEPICTURE "{url}"}}}}}}'.encode()),
            ("a.md", f"![a]({url})\n{link}".encode()),
            ("a.eml", f"From: a@b.c\nTo: x\nSubject: s\nDate: d\nContent-Type: text/html\n\n{link}".encode()),
        )
        for filename, data in files:
            assert outcome(read, filename, data)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_entities_from_outside_are_not_fetched(read: Read, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of the machine")
    entity = f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    body = docx(paragraph("before &x; after"), prolog=entity.replace("DOCTYPE r", "DOCTYPE w:document"))
    content = entity.replace("DOCTYPE r", "DOCTYPE d") + "<d><body><text><p>before &x; after</p></text></body></d>"
    opened = zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})
    package = entity.replace("DOCTYPE r", "DOCTYPE package") + "<package><title>&x;</title></package>"
    book = zipped({"mimetype": "application/epub+zip", "b.opf": package})
    page = f"{entity}<html xmlns='http://www.w3.org/1999/xhtml'><p>&x;</p></html>".encode()
    files = (("a.docx", body), ("a.odt", opened), ("a.epub", book), ("a.html", page))
    for filename, data in (("a.xml", f"{entity}<r>before &x; after</r>".encode()), *files):
        assert "secret of the machine" not in repr(outcome(read, filename, data))


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.html", b"<div>" * 300_000 + b"deep" + b"</div>" * 300_000),
        ("a.html", b"<table><tr><td>" * 20_000),
        ("a.xml", b"<?xml version='1.0'?>" + b"<a>" * 300_000 + b"</a>" * 300_000),
        ("a.json", b"[" * 1_000_000 + b"]" * 1_000_000),
        ("a.md", b"[" * 100_000),
        ("a.md", b"".join(b"e" + b"`" * n for n in range(1_500))),
        ("a.md", b"> " * 100_000),
        ("a.rtf", b"{\\rtf1 " + b"{" * 200_000 + b"deep" + b"}" * 200_000 + b"}"),
        ("a.docx", docx("<w:sdt><w:sdtContent>" * 50_000 + paragraph("deep") + "</w:sdtContent></w:sdt>" * 50_000)),
        ("a.docx", docx("<w:tbl><w:tr><w:tc>" * 80 + paragraph("deep") + "</w:tc></w:tr></w:tbl>" * 80)),
        ("a.eml", b"From: a@b.c\n" + b"".join(
            b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(1_500)
        )),
        ("a.eml", b"From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\npart\n" * 20_000),
        ("a.csv", b'a,b\n1,"' + b"x,y\n" * 300_000),
        ("a.csv", b"a,b\n" + b"1,2\n" * 1_000_000),
        ("a.csv", b"," * 3_000_000),
        ("a.csv", b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b",".join([b"1"] * 100_000)),
        ("a.json", b'["' + b"x" * 9_000_000 + b'"]'),
        ("a.html", b"<p>" + b"x" * 9_000_000),
        ("a.html", b"<" * 3_000_000),
        ("a.html", b"<!--" * 1_000_000),
        ("a.html", b"<script" * 1_000_000),
        ("a.xml", b"<?xml version='1.0'?><a " + b" ".join(b'b%d="x"' % n for n in range(300_000)) + b"/>"),
        ("a.rtf", b"{\\rtf1 " + b"\\'e9" * 2_000_000 + b"}"),
        ("a.rtf", b"{\\rtf1 " + b"\\u8364?" * 1_000_000 + b"}"),
        ("a.eml", b"From: a@b.c\nContent-Type: message/rfc822\n\n" * 3_000 + b"deep"),
        ("a.eml", b"From: " + b"<a@b.c>, " * 300_000 + b"\nSubject: S\nTo: x\nDate: y\n\nbody"),
        ("a.eml", b"From: a@b.c\nSubject: " + b"=?utf-8?q?a?= " * 300_000 + b"\nTo: x\nDate: y\n\nbody"),
        ("a.md", b"- " * 50_000 + b"deep"),
        ("a.md", b"*a **b " * 100_000),
        ("a.md", b"|a" * 100_000 + b"\n" + b"|-" * 100_000),
        ("a.md", b"<!--a-->\n" * 1_800 + b"# Title"),
        ("a.txt", b" " * 9_000_000 + b"x"),
        ("a.csv", b"abc,def," * 6_250_000),
        ("a.csv", b'"' * 9_000_000),
        ("a.yaml", b"- " * 2_000_000),
        ("a.yaml", b"[" * 1_000_000),
        ("a.json", b'{"a":' * 1_000_000),
        ("a.docx", docx("<w:p><w:r><w:t>ab</w:t></w:r></w:p>" * 1_000_000)),
        ("a.docx", docx("<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2000000000'/></w:tcPr></w:tc></w:tr></w:tbl>")),
        ("a.eml", b"From: a@b.c\nTo: x\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 100_000),
        ("a.pdf", pdf(["hello"], box="0 0 1000000000 1000000000")),
        ("a.txt", b"x" * 10_000_000),
        ("a.txt", "\u0301".encode() * 1_000_000),
    ],
)  # fmt: skip
def test_what_is_deep_or_endless_is_read_or_refused_in_time(read: Read, filename: str, data: bytes) -> None:
    found = outcome(read, filename, data)
    assert found
    assert isinstance(found, str) or sum(len(block.text) for block in found.blocks) <= 2_000_000


def test_a_million_pages(read: Read) -> None:
    kids = b"3 0 R " * 1_000_000
    data = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n3 0 obj<</Type/Page/Parent 2 0 R>>endobj\n"
    data += b"2 0 obj<</Type/Pages/Count 1000000/Kids[" + kids + b"]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    assert read("a.pdf", data).note == "only the first 2000 of 1000000 pages were read"


@pytest.mark.parametrize(
    "objects",
    [
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 9/Kids[2 0 R]/Parent 2 0 R>>"],
        [b"<</Type/Catalog/Pages 2 0 R/Outlines 3 0 R>>", b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
         b"<</First 3 0 R/Last 3 0 R/Next 3 0 R/Title(round)/Dest[4 0 R/Fit]>>", b"<</Type/Page/Parent 2 0 R>>"],
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
         b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>",
         b"<</Length 4>>stream\n/X Do\nendstream",
         b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 5/Resources<</XObject<</X 5 0 R>>>>>>stream\n"
         b"/X Do\nendstream"],
    ],
)  # fmt: skip
def test_objects_that_hold_themselves(read: Read, objects: list[bytes]) -> None:
    body = b"".join(b"%d 0 obj%sendobj\n" % (number, content) for number, content in enumerate(objects, 1))
    assert outcome(read, "a.pdf", b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF")


@pytest.mark.parametrize(
    "stream",
    [b"BT /F 12 Tf " + b"(hello world) Tj " * 3_000_000 + b"ET", b"q " * 20_000_000, b"0 0 m 9 9 l S " * 5_000_000],
)
def test_a_page_that_unpacks_to_more_than_may_be(read: Read, stream: bytes) -> None:
    with pytest.raises(RejectedFile, match=ENDED):
        read("a.pdf", pdf([stream]))


def test_forms_in_forms_in_forms(read: Read) -> None:
    form = b"%d 0 obj<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length %d%s>>stream\n%s\nendstream endobj\n"
    data = pdf([b"/X Do " * 10]).replace(b"/Resources<<", b"/Resources<</XObject<</X 10 0 R>>")
    for number in range(10, 19):
        data += form % (number, 60, b"/Resources<</XObject<</X %d 0 R>>>>" % (number + 1), b"/X Do " * 10)
    data += form % (19, 12, b"", b"0 0 9 9 re f")
    found = outcome(read, "a.pdf", data)
    assert found
    assert isinstance(found, str) or found.blocks == []


def test_a_cell_at_the_end_of_the_sheet(read: Read) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet["XFD1048576"] = "far away"
    held = io.BytesIO()
    book.save(held)
    document = read("a.xlsx", held.getvalue())
    assert document.blocks[-1].place["row"] == 1_048_576
    assert "far away" in document.blocks[-1].text


SUFFIXES = sorted({*sniff._TEXT_SUFFIXES, *(suffix for known in sniff._BY_NAME.types_map for suffix in known), ""})


def test_random_bytes_under_every_name_that_means_something(strict: GuardedReader, tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(random.Random(1).randbytes(10_000_000))
    server = strict._files.server_pid
    assert len(SUFFIXES) > 100
    with ThreadPoolExecutor(2) as threads:
        read = list(threads.map(lambda suffix: strict.read(path, f"a{suffix}"), SUFFIXES))
    unread = "kept; not readable as text, found by its name"
    assert [(document.blocks, document.note) for document in read] == [([], unread)] * len(SUFFIXES)
    assert strict._files.server_pid == server or server is None


@pytest.mark.parametrize(
    "start",
    [
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"{\\rtf1 ",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0",
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\x00",
    ],
)
def test_random_bytes_behind_any_beginning(read: Read, start: bytes) -> None:
    with pytest.raises(RejectedFile, match="damaged"):
        read("a", start + random.Random(start).randbytes(1_000_000))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b.txt", "\x1b[31m.md", "x" * 4096, ".", "", "\ud800.txt"])
def test_hostile_names(read: Read, name: str) -> None:
    assert [block.text for block in read(name, b"Harmless words.").blocks] == ["Harmless words."]


def test_truncated_files_of_every_family(read: Read) -> None:
    examples = Path(__file__).parents[3] / "examples"
    for path in sorted(examples.iterdir()):
        data = path.read_bytes()
        for share in (0.1, 0.5, 0.9):
            assert outcome(read, path.name, data[: int(len(data) * share)])
