"""Text on pictures: rapidocr for real, through the guard; tesseract by a stand-in that shows how it is called."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from memory.adapters import ocr
from memory.adapters.documents import GuardedReader
from memory.adapters.guard import Guard, Limits
from memory.errors import Misconfigured, RejectedFile
from memory.ports import Document
from tests.memory.adapters.conftest import Read, shown
from tests.memory.adapters.paper import blank_png, pdf, saved, written

NOTICE = ("Spray booth 2 is closed", "until 9 December")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything goes that the warm processes say on their standard error."""
    return tmp_path_factory.mktemp("ocr") / "said"


@pytest.fixture(scope="module")
def reader(said: Path) -> Iterator[GuardedReader]:
    stderr = os.dup(2)
    try:
        with said.open("wb") as heard:
            os.dup2(heard.fileno(), 2)
        reader = GuardedReader(ocr_engine="rapidocr")
        scans = reader._scanner()
        wait_for(lambda: reader._files.server_pid and scans.server_pid)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    yield reader
    reader.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def words(document: Document) -> str:
    return " ".join(" ".join(shown(document)).split())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_pictures_of_every_kind_are_read(read: Read, kind: str) -> None:
    document = read(f"notice.{kind.lower()}", saved(written(*NOTICE), kind))
    assert words(document) == "Spray booth 2 is closed until 9 December"
    assert document.content_type == f"image/{kind.lower()}"
    assert document.note is None


def test_a_photo_of_an_apple_device_is_read(read: Read) -> None:
    assert words(read("notice.heic", (Path(__file__).parent / "notice.heic").read_bytes())).startswith("Spray booth 2")


def test_the_example_is_read(read: Read) -> None:
    path = Path(__file__).parents[3] / "examples" / "workshop-notice.png"
    assert "Spray booth 2 is closed until 9 December." in words(read(path.name, path.read_bytes()))


def test_what_is_transparent_is_paper(read: Read) -> None:
    drawn = written(*NOTICE).convert("L")
    ink = Image.new("RGBA", drawn.size, (0, 0, 0, 255))
    ink.putalpha(drawn.point(lambda value: 255 - value))
    assert "Spray booth 2" in words(read("notice.png", saved(ink, "PNG")))


def test_what_stands_side_by_side_is_one_line(read: Read) -> None:
    picture = written("Chain", "Cassette")
    for line, price in enumerate(("24.90", "79.00")):
        picture.paste(written(price).crop((0, 0, 300, 120)), (600, 80 * line))
    assert shown(read("prices.png", saved(picture, "PNG"))) == ["Chain 24.90\nCassette 79.00"]


def test_a_scanned_document_has_its_pages(read: Read) -> None:
    scan = saved(written("First page here"), "PDF", save_all=True, append_images=[written("Second page here")])
    document = read("scan.pdf", scan)
    assert [(block.text, block.place) for block in document.blocks] == [
        ("First page here", {"page": 1}),
        ("Second page here", {"page": 2}),
    ]
    pages = saved(written("First page here"), "TIFF", save_all=True, append_images=[written("Second page here")])
    assert read("scan.tiff", pages).blocks == document.blocks


def test_only_pages_without_text_are_looked_at(read: Read) -> None:
    image = b"q 900 0 0 100 0 0 cm BI /W 9 /H 1 /CS /G /BPC 8 ID \0\xff\0\xff\0\xff\0\xff\0 EI Q"
    text = b" BT /F 12 Tf 50 700 Td (A page with a text of its own.) Tj ET"
    document = read("mixed.pdf", pdf([image + text]))
    assert shown(document) == ["A page with a text of its own."]


def test_a_page_as_wide_as_a_country_is_no_trouble(read: Read) -> None:
    document = read("wide.pdf", pdf([b"0 0 100 100 re f"], box="0 0 2000000 2000000"))
    assert document.note == "kept; no text was found in it, found by its name"


def test_a_picture_without_text_is_kept_and_says_so(read: Read) -> None:
    document = read("blank.png", blank_png(300, 200))
    assert (document.blocks, document.note) == ([], "kept; no text was found in it, found by its name")


def test_a_broken_picture_does_not_end_the_engine(reader: GuardedReader, read: Read) -> None:
    whole = saved(written(*NOTICE), "JPEG")
    assert "Spray booth 2" in words(read("notice.jpg", whole))
    assert reader._scans is not None
    engine = reader._scans.server_pid
    with pytest.raises(RejectedFile, match="damaged"):
        read("notice.jpg", whole[: len(whole) // 2])
    assert "Spray booth 2" in words(read("notice.jpg", whole))
    assert reader._scans.server_pid == engine


def test_the_warm_processes_were_quiet(reader: GuardedReader, said: Path) -> None:
    assert said.read_bytes() == b""


def test_a_file_of_many_scans_is_read_until_its_time_is_up(tmp_path: Path) -> None:
    (tmp_path / "tesseract").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(0.5)\nprint('A line of text')\n")
    (tmp_path / "tesseract").chmod(0o755)
    path = tmp_path / "stored"
    path.write_bytes(saved(written("x"), "PDF", save_all=True, append_images=[written("x")] * 40))
    document = read_with_tesseract(tmp_path, path, Limits(wall_seconds=4))
    assert 0 < len(document.blocks) < 41
    unread = 41 - len(document.blocks)
    assert document.note == f"{unread} pages without text not read: only 3 seconds of OCR are spent on one file"


def read_with_tesseract(folder: Path, path: Path, limits: Limits | None = None) -> Document:
    """Reads a file with the program `tesseract` that lies in the folder."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    guard = Guard("memory.adapters.reading.scanned:reader:tesseract", concurrency=1, programs=True)
    try:
        answer = guard.run(path, {"filename": "x"}, limits or Limits())
        return Document.model_validate_json(answer.partition(b"\n")[0])
    finally:
        os.environ["PATH"] = before
        guard.close()


STAND_IN = """#!{python}
import os, struct, sys
if sys.argv[1:] == ["--list-langs"]:
    print("List of available languages in /usr/share/tessdata/ (4):\\ndeu\\neng\\n{extra}")
else:
    picture = sys.stdin.buffer.read()
    size = struct.unpack(">II", picture[16:24])
    print(" ".join(sys.argv[1:]), os.environ.get("OMP_THREAD_LIMIT"), size, "\\n___ ~\\n\\x0c")
"""


@pytest.mark.parametrize(("extra", "mode"), [("osd", "1"), ("fra", "3")])
def test_tesseract_is_called_with_all_its_languages_and_turns_pages(tmp_path: Path, extra: str, mode: str) -> None:
    (tmp_path / "tesseract").write_text(STAND_IN.format(python=sys.executable, extra=extra))
    (tmp_path / "tesseract").chmod(0o755)
    path = tmp_path / "stored"
    path.write_bytes(saved(written("x"), "PNG"))
    languages = "eng+deu" if extra == "osd" else "eng+deu+fra"
    assert shown(read_with_tesseract(tmp_path, path)) == [f"stdin stdout --psm {mode} -l {languages} 1 (900, 140)"]


def test_a_tesseract_that_fails_found_nothing(tmp_path: Path) -> None:
    (tmp_path / "tesseract").write_text('#!/bin/sh\ncat > /dev/null\ntest "$1" = --list-langs\n')
    (tmp_path / "tesseract").chmod(0o755)
    path = tmp_path / "stored"
    path.write_bytes(saved(written("x"), "PNG"))
    assert read_with_tesseract(tmp_path, path).note == "kept; no text was found in it, found by its name"


def test_which_engine_a_setting_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [ocr.choose(setting) for setting in ("auto", "rapidocr", "off")] == ["rapidocr", "rapidocr", "off"]
    with pytest.raises(Misconfigured):
        ocr.choose("tesseract")
    (tmp_path / "tesseract").write_text("#!/bin/sh\n")
    (tmp_path / "tesseract").chmod(0o755)
    assert [ocr.choose(setting) for setting in ("auto", "tesseract", "off")] == ["tesseract", "tesseract", "off"]


def test_off_reads_nothing() -> None:
    assert ocr.load("off") is None
    assert re.fullmatch(r"tesseract|rapidocr", ocr.choose("auto"))
