"""Files made to hurt, dropped beside good ones: these are stored, those have failed with a reason, nothing is left."""

import gzip
import io
import os
import random
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient

from memory.adapters.documents import GuardedReader
from memory.adapters.guard import Limits
from memory.services import build
from memory.settings import Settings
from tests.api.conftest import Tenant, at_work

DROP = "/v1/memory/collections/garden/drop"
TYPES = "<Types/>"
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="{}"/>'
    "</Relationships>"
)
LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))


def _zip(**members: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


def _office(part: str, content: bytes) -> bytes:
    return _zip(
        **{"[Content_Types].xml": TYPES.encode(), "_rels/.rels": RELATIONS.format(part).encode(), part: content}
    )


BAD = {
    "bomb.docx": _office("word/document.xml", b"<w:p>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</w:p>" * 1_000_000),
    "bomb.zip": _zip(**{f"{n}.txt": bytes(9_000_000) for n in range(5)}),
    "bomb.gz": gzip.compress(bytes(60_000_000)),
    "laughs.docx": _office("word/document.xml", f'<!DOCTYPE d [<!ENTITY e0 "lol">{LAUGHS}]><d>&e9;</d>'.encode()),
    "endless.pdf": b"%PDF-1.4\n" + random.Random(1).randbytes(100_000),
    "broken.png": b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(100_000),
    "broken.doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + random.Random(3).randbytes(100_000),
    "broken.xz": b"\xfd7zXZ\x00" + random.Random(4).randbytes(1_000),
    "many.xlsx": _zip(**{f"{n}": b"" for n in range(20_500)}),
    "hoard.docx": _office("word/document.xml", b"<d>" + b"<a/>" * 12_000_000 + b"</d>"),
}
GOOD = {f"bees {n}.txt": f"Bees of hive {n} dance to tell where the flowers are.".encode() for n in range(10)}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Where this process and the worker's readers make their temporary files."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        yield Path(folder)
        tempfile.tempdir = before


@pytest.fixture(scope="module")
def reader(scratch: Path) -> Iterator[GuardedReader]:
    with closing(GuardedReader(ocr_engine="off", limits=Limits(memory_bytes=300 * 1024**2))) as reader:
        yield reader


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str, reader: GuardedReader) -> Iterator[None]:
    with at_work(build(settings, reader=reader), temporal):
        yield


def _drop(live: TestClient, tenant: Tenant, files: dict[str, bytes]) -> dict[str, Any]:
    sent = [("files", (name, content)) for name, content in files.items()]
    answer = live.post(DROP, headers=tenant.headers, files=sent, params={"wait": 55})
    assert answer.status_code == 201, answer.text
    return {result["filename"]: result for result in answer.json()["results"]}


def test_ten_hostile_files_among_ten_good_ones(live: TestClient, tenant: Tenant, reader: GuardedReader) -> None:
    mixed = [one for pair in zip(BAD.items(), GOOD.items(), strict=True) for one in pair]
    server = reader._files.server_pid

    results = _drop(live, tenant, dict(mixed))

    assert {name: results[name]["status"] for name in GOOD} == dict.fromkeys(GOOD, "ok")
    assert {name: results[name]["status"] for name in BAD} == dict.fromkeys(BAD, "failed")
    assert all(results[name]["error"].strip() for name in BAD)
    assert server is None or reader._files.server_pid == server


@pytest.mark.long
def test_two_hundred_hostile_files_leave_nothing_behind(
    live: TestClient, tenant: Tenant, reader: GuardedReader, scratch: Path
) -> None:
    _drop(live, tenant, BAD)
    here = psutil.Process()
    children, files = set(here.children(recursive=True)), set(os.listdir(scratch))  # noqa: PTH208
    before = _memory(reader)

    for round_ in range(7):
        small = {
            f"{round_} {n}.pdf": b"%PDF-1.4\n" + random.Random(f"{round_} {n}").randbytes(2_000) for n in range(20)
        }
        results = _drop(live, tenant, {**BAD, **small, "next.txt": f"Next, please {round_}.".encode()})
        assert results["next.txt"]["status"] == "ok"

    after = set(here.children(recursive=True))
    assert {child.pid for child in after} == {child.pid for child in children}
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in after)
    assert set(os.listdir(scratch)) == files  # noqa: PTH208
    assert _memory(reader) < before + 50 * 1024**2


def _memory(reader: GuardedReader) -> int:
    """Of the process that forks a child for each file."""
    server = reader._files.server_pid
    assert server is not None
    used: int = psutil.Process(server).memory_info().rss
    return used
