"""Forms of any shape: taken apart while they arrive, refused with a reason, and nothing left behind."""

import gc
import os
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from starlette.testclient import TestClient

from api import arriving, forms
from api.multipart import End, Part, Parts
from memory.errors import BadRequest
from memory.quotas import MAX_FILE_BYTES
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant

DROP = "/v1/memory/collections/garden/drop"
HEADERS = {"Content-Type": "multipart/form-data; boundary=edge"}
CLOSE = b"--edge--\r\n"


def part(disposition: str | bytes, content: bytes = b"", *more: bytes) -> bytes:
    named = disposition.encode() if isinstance(disposition, str) else disposition
    return b"\r\n".join([b"--edge", b"Content-Disposition: form-data; " + named, *more, b"", content, b""])


def file(name: str, content: bytes = b"bees", *more: bytes) -> bytes:
    return part(f'name="files"; filename="{name}"', content, *more)


def post(client: TestClient, tenant: Tenant, body: Any, **headers: str) -> Any:
    return client.post(
        DROP, params={"async_ingest": "true"}, headers={**tenant.headers, **HEADERS, **headers}, content=body
    )


def names(client: TestClient, tenant: Tenant, accepted: Any) -> list[str]:
    assert accepted.status_code == 202, accepted.text
    batch = client.get(f"/v1/memory/ingest/batch/{accepted.json()['batch_id']}", headers=tenant.headers).json()
    return [one["filename"] for one in batch["files"]]


@pytest.fixture
def left(settings: Settings, tenant: Tenant) -> Iterator[None]:
    """Whatever a test sends: no object without a row, no file in the folder of what arrives."""
    yield
    folder = settings.rememberos_data
    originals = folder / "objects" / str(tenant.id) / "files"
    there = {UUID(path.name) for path in originals.rglob("*") if path.is_file()}
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        rows = {row[0] for row in owner.execute("select id from files where tenant_id = %s", [tenant.id])}
    assert there == rows
    assert not list((folder / "arriving").glob("*"))


pytestmark = pytest.mark.usefixtures("left")


def test_files_and_fields_come_in_any_order(client: TestClient, tenant: Tenant) -> None:
    body = [
        file("a.txt"),
        part('name="category"', b"first"),
        part('name="file"; filename="b.txt"', b"two"),
        part('name="unknown"', b"x"),
        part('name="portrait"; filename="c.png"', b"not asked for"),
        part('name="category"', b"nature"),
        part('name="files"; filename=""'),
        CLOSE,
        b"whatever follows",
    ]

    answer = post(client, tenant, b"".join(body))

    assert names(client, tenant, answer) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("count", [1_500])
def test_more_files_than_a_parser_usually_takes(client: TestClient, tenant: Tenant, count: int) -> None:
    body = b"".join([*(file(f"{number}.txt") for number in range(count)), CLOSE])

    assert len(names(client, tenant, post(client, tenant, body))) == count


@pytest.mark.parametrize("size", [1, 1000, 2**16])
def test_wherever_the_body_is_cut_into_pieces(client: TestClient, tenant: Tenant, size: int) -> None:
    content = (b"\r\n--edg\r\n--edge\r" * 40 + b"\r\n--edgy")[: 2 * size + 700]
    body = b"".join([file("tricky.bin", content), part('name="category"', "Wörter".encode()), CLOSE])

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    answer = post(client, tenant, pieces())

    assert names(client, tenant, answer) == ["tricky.bin"]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="files"; filename="../../etc/passwd"', "passwd"),
        (r'name="files"; filename="..\\..\\etc\\passwd"', "passwd"),
        ('name="files"; filename="C:\\dir\\a.txt"', "a.txt"),
        ("name=files; filename=plain.txt", "plain.txt"),
        ("NAME=files; FileName=loud.txt", "loud.txt"),
        ('name="files"; filename="a;b=c.txt"', "a;b=c.txt"),
        (r'name="files"; filename="a\"b.txt"', 'a"b.txt'),
        ('name="files"; filename="Übung.txt"', "Übung.txt"),
        ('name="files"; filename="Übung.txt"'.encode("latin-1"), "Übung.txt"),
        ('name="files"; filename="plain.txt"; filename*=UTF-8\'\'%C3%9Cbung.txt', "Übung.txt"),
        ("name=\"files\"; filename*=iso-8859-1''%DCbung.txt", "Übung.txt"),
        ("name=\"files\"; filename*=utf-8''%FF%FE.txt", "��.txt"),
        ("name=\"files\"; filename*=nonsense''a%20b.txt", "a b.txt"),
        ("name=\"files\"; filename*=undefined''a.txt", "a.txt"),
        ("name=\"files\"; filename*0*=UTF-8''%C3%9C; filename*1=bung.txt", "Übung.txt"),
        ("name=\"files\"; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ('name="files"; filename="\x01\x02\x7fa\tb\x1b.txt"', "ab.txt"),
        ('name="files"; filename="a\nb.txt"', "a b.txt"),
        ('name="files"; filename="\u202egpj.exe"', "gpj.exe"),
        ('name="files"; filename=".."', "file"),
    ],
)
def test_names_of_every_kind(client: TestClient, tenant: Tenant, disposition: str | bytes, name: str) -> None:
    answer = post(client, tenant, part(disposition, b"bees") + CLOSE)

    assert names(client, tenant, answer) == [name]


def test_a_name_of_four_kilobytes(client: TestClient, tenant: Tenant) -> None:
    (name,) = names(client, tenant, post(client, tenant, file("ü" * 2048 + ".txt") + CLOSE))

    assert name.endswith("ü.txt")
    assert len(name.encode()) <= 255


def test_a_name_of_four_kilobytes_that_is_escaped(client: TestClient, tenant: Tenant) -> None:
    (name,) = names(client, tenant, post(client, tenant, file("%01" * 4096 + ".txt") + CLOSE))

    assert name.startswith("%01")
    assert name.endswith(".txt")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(CLOSE, 422, id="no parts"),
        pytest.param(b"nonsense", 400, id="nonsense"),
        pytest.param(file("a.txt"), 400, id="no last boundary"),
        pytest.param(file("a.txt")[:-9], 400, id="cut in the middle of a file"),
        pytest.param(file("a.txt") + b"--edge\r\nContent-Dispo", 400, id="cut in a header"),
        pytest.param(file("a.txt") + b"--other--\r\n", 400, id="another boundary"),
        pytest.param(file("a.txt") + b"--edge\r\n\r\nx\r\n" + CLOSE, 400, id="no headers"),
        pytest.param(file("a.txt") + part('filename="b.txt"') + CLOSE, 400, id="no name"),
        pytest.param(b"--edge\r\nContent-Disposition: attachment\r\n\r\n\r\n" + CLOSE, 400, id="attachment"),
        pytest.param(file("a.txt") + b"--edge\r\nX: " + b"x" * 10_000, 400, id="endless header"),
        pytest.param(file("a.txt") + b"--edge\r\n" + b"x" * 10_000, 400, id="endless name of a header"),
        pytest.param(file("a.txt") + b"--edge\r\n" + b"X: 1\r\n" * 20, 400, id="endless headers"),
        pytest.param(file("a.txt") + part("name=files" + ";a=b" * 100) + CLOSE, 400, id="many parameters"),
        pytest.param(file("a.txt") + part('name="category"', b"\xff") + CLOSE, 422, id="no UTF-8"),
        pytest.param(file("a.txt") + part('name="category"', b"x" * (1024 * 1024 + 1)), 413, id="endless field"),
        pytest.param(file("a.txt") + part('name="a"') * (forms.MOST_FIELDS + 1), 413, id="endless fields"),
        pytest.param(file("a.txt") * 3 + part('name="metadata"', b"{") + CLOSE, 422, id="wrong value"),
    ],
)
def test_what_is_no_form_is_refused_and_leaves_nothing(
    client: TestClient, tenant: Tenant, body: bytes, status: int
) -> None:
    answer = post(client, tenant, body)

    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 300}"],
)
def test_a_form_without_a_boundary_is_refused(client: TestClient, tenant: Tenant, content_type: str) -> None:
    answer = post(client, tenant, file("a.txt") + CLOSE, **{"Content-Type": content_type})

    assert answer.status_code == 400
    assert "boundary" in answer.json()["detail"]


def test_only_so_many_files_at_once(client: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "limits_of", lambda _: forms.FormLimits(most_files=3))

    assert len(names(client, tenant, post(client, tenant, file("a.txt") * 3 + CLOSE))) == 3
    assert post(client, tenant, file("a.txt") * 4 + CLOSE).status_code == 400


def test_whoever_may_not_write_sends_nothing(client: TestClient, tenant: Tenant, app: FastAPI) -> None:
    read: list[bytes] = []

    def body() -> Iterator[bytes]:
        read.append(file("a.txt"))
        yield read[-1]

    answer = client.post(DROP, headers={**tenant.read_only, **HEADERS}, content=body())

    assert answer.status_code == 403


@pytest.mark.parametrize("size", [0, 1, 300_000, MAX_FILE_BYTES])
def test_a_file_is_kept_as_it_was_sent(
    client: TestClient, tenant: Tenant, services: Services, settings: Settings, size: int
) -> None:
    content = os.urandom(size)

    accepted = post(client, tenant, file("a.bin", content) + CLOSE)

    assert accepted.status_code == 202
    assert (accepted.json()["queued"], accepted.json()["failed"]) == (1, 0)
    folder = settings.rememberos_data / "objects" / str(tenant.id) / "files"
    (stored,) = folder.iterdir()
    assert stored.read_bytes() == content


async def _asked(app: FastAPI, tenant: Tenant, body: AsyncIterator[bytes], **more: Any) -> Response:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://api.test") as client:
        return await client.post(
            DROP, params={"async_ingest": "true"}, headers={**tenant.headers, **HEADERS}, content=body, **more
        )


async def _large(files: int) -> AsyncIterator[bytes]:
    block = b"x" * 65536
    for number in range(files):
        yield b"--edge\r\nContent-Disposition: form-data; name=files; filename=%d.bin\r\n\r\n" % number
        for _ in range(MAX_FILE_BYTES // len(block)):
            yield block
        yield b"\r\n"
    yield CLOSE


@pytest.mark.usefixtures("client")
def test_memory_does_not_grow_with_what_is_sent(app: FastAPI, tenant: Tenant) -> None:
    async def send(files: int, clients: int) -> list[Response]:
        answers: list[Response] = []

        async def one() -> None:
            answers.append(await _asked(app, tenant, _large(files)))

        async with anyio.create_task_group() as group:
            for _ in range(clients):
                group.start_soon(one)
        return answers

    async def run() -> tuple[list[Response], int]:
        await send(1, 1)
        gc.collect()
        tracemalloc.start()
        try:
            answers = await send(2, 12)
            return answers, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    answers, peak = anyio.run(run)

    assert [answer.json()["queued"] for answer in answers] == [2] * 12
    # Of 240 MB: what three that are being stored hold of one part, and what arrives meanwhile.
    assert peak < 80 * 1024 * 1024


@pytest.mark.usefixtures("client")
def test_who_stops_sending_is_told_so(app: FastAPI, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_STALLED_SECONDS", 0.2)

    async def stalls() -> AsyncIterator[bytes]:
        yield file("a.txt")
        yield file("b.txt", b"x" * 400_000)[:-1000]
        await anyio.sleep_forever()

    async def run() -> Response:
        with anyio.fail_after(30):
            return await _asked(app, tenant, stalls())

    assert anyio.run(run).status_code == 408


@pytest.mark.usefixtures("client")
def test_who_goes_away_leaves_nothing(app: FastAPI, tenant: Tenant) -> None:
    body = file("a.txt") + file("b.txt", b"x" * 400_000)[:-1000]
    messages = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    headers = {**tenant.headers, **HEADERS}
    scope = {
        "type": "http",
        "method": "POST",
        "path": DROP,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    anyio.run(app, scope, receive, send)

    assert sent == []
    assert messages == []


class _Full:
    """A folder on a disk that is full."""

    def file(self) -> Any:
        return Path("/dev/full").open("wb")


def test_a_full_disk_is_503_and_leaves_nothing(
    client: TestClient, tenant: Tenant, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.room, "file", _Full().file)

    answer = post(client, tenant, file("a.txt") + file("b.bin", b"x" * 400_000) + CLOSE)

    assert answer.status_code == 503
    assert "room" in answer.json()["detail"]
    assert app.state.room.on_disk.value == arriving.ON_DISK_AT_ONCE


def test_a_repeat_with_other_bytes_is_another_request(client: TestClient, tenant: Tenant) -> None:
    key = {"Idempotency-Key": "one-drop"}
    first = post(client, tenant, file("a.txt") + CLOSE, **key)

    again = post(client, tenant, file("a.txt") + CLOSE, **key)
    other = post(client, tenant, file("a.txt", b"wasps") + CLOSE, **key)
    renamed = post(client, tenant, file("b.txt") + CLOSE, **key)

    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert [other.status_code, renamed.status_code] == [409, 409]


def test_the_headers_of_a_part_are_all_that_is_held() -> None:
    parts = Parts("multipart/form-data; boundary=edge")

    events = [*parts.split(file("a.txt", b"x" * 10)[:-5]), *parts.split(b"y" * 10_000)]

    assert events[0] == Part("files", "a.txt", None)
    assert sum(len(event) for event in events if isinstance(event, bytes)) >= 10_000 - len("\r\n--edge")
    with pytest.raises(BadRequest):
        parts.check_end()
    assert End() in parts.split(b"\r\n" + CLOSE)
    parts.check_end()
