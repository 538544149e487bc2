"""A bucket in trouble: every wait ends, what is said is true, and nothing stays half."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from memory.adapters import buckets, s3_objects
from memory.adapters.s3_objects import S3Objects
from memory.errors import Misconfigured, NotFound, Unavailable
from tests.bad_line import BadLine, Fault, bad_line
from tests.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server, s3_server

MIB = 1024 * 1024
KEY = "tenant/files/one"
LARGE = bytes(range(256)) * 4096 * 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def line(server: S3Server) -> Iterator[BadLine]:
    with bad_line(server.endpoint_url) as one:
        yield one


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_objects, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(s3_objects, "_SENT_SECONDS", 0.5)
    monkeypatch.setattr(s3_objects, "_TRIED_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(buckets, "_ASK_SECONDS", 0.5)


def at(url: str, *, bucket: str = BUCKET, secret: str = SECRET_KEY, region: str = REGION) -> S3Objects:
    return S3Objects(
        bucket=bucket,
        endpoint_url=url,
        region=region,
        access_key=SecretStr(ACCESS_KEY),
        secret_key=SecretStr(secret),
    )


class Conflicted(BaseHTTPRequestHandler):
    """A store that is busy with something else at first."""

    protocol_version = "HTTP/1.1"
    left = 0

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).left -= 1
        self.send_response(409 if type(self).left >= 0 else 200)
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(("conflicts", "is_stored"), [(1, True), (2, True), (9, False)])
def test_a_conflict_is_tried_again(conflicts: int, is_stored: bool) -> None:
    Conflicted.left = conflicts
    with ThreadingHTTPServer(("127.0.0.1", 0), Conflicted) as store:
        thread = threading.Thread(target=store.serve_forever)
        thread.start()
        try:
            with nullcontext() if is_stored else pytest.raises(Unavailable):
                at(f"http://127.0.0.1:{store.server_port}").put(KEY, io.BytesIO(b"x"), max_bytes=MIB)
        finally:
            store.shutdown()
            thread.join()
    assert Conflicted.left == (-1 if is_stored else conflicts - 3)


def link(objects: S3Objects) -> str:
    return objects.url(KEY, filename="a", content_type="a/b", seconds=60)


CALLS: dict[str, Callable[[S3Objects], Any]] = {
    "put": lambda objects: objects.put(KEY, io.BytesIO(b"x"), max_bytes=MIB),
    "put a large one": lambda objects: objects.put(KEY, io.BytesIO(LARGE), max_bytes=len(LARGE)),
    "get": lambda objects: objects.get(KEY),
    "stream": lambda objects: list(objects.stream(KEY)),
    "size": lambda objects: objects.size(KEY),
    "copy": lambda objects: objects.copy(KEY, "tenant/files/two"),
    "delete": lambda objects: objects.delete([KEY]),
    "list": lambda objects: list(objects.listed("tenant/")),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@each_call
@pytest.mark.parametrize("fault", ["refused", "silent"])
@pytest.mark.usefixtures("hasty")
def test_a_store_that_is_away_is_unavailable_soon(
    line: BadLine, fault: Fault, call: Callable[[S3Objects], Any]
) -> None:
    line.break_down(fault)

    with pytest.raises(Unavailable, match="does not answer"):
        call(at(line.url))


@each_call
def test_a_missing_bucket_is_no_missing_object(server: S3Server, call: Callable[[S3Objects], Any]) -> None:
    with pytest.raises(Misconfigured, match="S3_BUCKET does not exist"):
        call(at(server.endpoint_url, bucket="no-such-bucket"))


@each_call
def test_wrong_credentials_are_named_whatever_is_asked(server: S3Server, call: Callable[[S3Objects], Any]) -> None:
    with pytest.raises(Misconfigured, match="S3_SECRET_KEY") as refused:
        call(at(server.endpoint_url, secret="never-shown"))

    assert "never-shown" not in str(refused.value)


@each_call
def test_a_wrong_region_is_named(server: S3Server, call: Callable[[S3Objects], Any]) -> None:
    with pytest.raises(Misconfigured, match="S3_REGION"):
        call(at(server.endpoint_url, region="moon-1"))


def test_a_missing_object_in_a_bucket_that_is_there_is_not_found(server: S3Server) -> None:
    for call in (CALLS["get"], CALLS["size"], CALLS["copy"]):
        with pytest.raises(NotFound):
            call(at(server.endpoint_url))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_what_was_half_sent_is_not_there(server: S3Server, line: BadLine, fault: Fault) -> None:
    kept = server.folder / KEY
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(b"as it was")
    line.break_down(fault, sound_bytes=6 * MIB)

    with pytest.raises(Unavailable):
        at(line.url).put(KEY, io.BytesIO(LARGE), max_bytes=len(LARGE))

    assert kept.read_bytes() == b"as it was"
    # Nor are there parts of it, which no listing shows.
    assert [path for path in server.folder.rglob("*") if path.is_file()] == [kept]
    kept.unlink()


def test_an_answer_that_is_cut_is_no_end(server: S3Server, line: BadLine) -> None:
    at(server.endpoint_url).put(KEY, io.BytesIO(LARGE), max_bytes=len(LARGE))
    line.break_down("cut", cut_bytes=3 * MIB)
    objects = at(line.url)

    with pytest.raises(Unavailable):
        list(objects.stream(KEY))

    line.heal()
    assert b"".join(objects.stream(KEY)) == LARGE
    objects.delete([KEY])


def test_a_slow_line_is_no_trouble(line: BadLine) -> None:
    line.slow_seconds = 0.002
    objects = at(line.url)

    objects.put(KEY, io.BytesIO(LARGE), max_bytes=len(LARGE))

    assert b"".join(objects.stream(KEY)) == LARGE
    objects.delete([KEY])


@pytest.mark.usefixtures("hasty")
def test_many_links_wait_together_for_a_store_that_does_not_name_its_region(line: BadLine) -> None:
    line.break_down("silent")
    objects, asked = at(line.url, region="auto"), time.monotonic()

    links = [link(objects) for _ in range(30)]

    # Each wait is half a second; thirty of them would take fifteen.
    assert time.monotonic() - asked < 10
    assert all("us-east-1" in one for one in links)
    with pytest.raises(Unavailable):
        objects.upload_url(KEY, content_type="a/b", size=1, seconds=60)


def test_the_region_is_known_once_the_store_is_back(line: BadLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_objects, "_ASK_AGAIN_SECONDS", 0.0)
    line.break_down("refused")
    objects = at(line.url, region="auto")
    assert "us-east-1" in link(objects)
    line.heal()

    assert REGION in link(objects)
    assert REGION in objects.upload_url(KEY, content_type="a/b", size=1, seconds=60)
