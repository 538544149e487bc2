"""Both places for originals under one set of tests: a folder, and a real S3 server."""

import email.message
import hashlib
import io
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pydantic import SecretStr

from memory.adapters.objects import LocalObjects, attachment, media_type
from memory.adapters.s3_objects import S3Objects
from memory.errors import AppError, Invalid, Misconfigured, NotFound, TooLarge, Unavailable
from memory.ports import ObjectStore, StoredObject
from tests.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server, s3_server

MIB = 1024 * 1024
KEY = "0f8b1c2d/files/one"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def in_bucket(server: S3Server, *, bucket: str = BUCKET, secret: str = SECRET_KEY, region: str = REGION) -> S3Objects:
    return S3Objects(
        bucket=bucket,
        endpoint_url=server.endpoint_url,
        region=region,
        access_key=SecretStr(ACCESS_KEY),
        secret_key=SecretStr(secret),
    )


def in_folder(folder: Path) -> LocalObjects:
    return LocalObjects(folder=folder, base_url="https://memory.test/", signing_key=b"secret")


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ObjectStore, Path]:
    """The store, and the folder in which its objects end up as files."""
    if request.param == "folder":
        return in_folder(tmp_path), tmp_path
    server: S3Server = request.getfixturevalue("server")
    return in_bucket(server), server.folder


@pytest.fixture
def objects(place: tuple[ObjectStore, Path]) -> ObjectStore:
    return place[0]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Endless(io.RawIOBase):
    """`size` bytes that were never in memory together."""

    def __init__(self, size: int, *, fail_at: int | None = None) -> None:
        self.left = size
        self.fail_at = fail_at

    def read(self, wanted: int = -1) -> bytes:
        assert wanted > 0
        if self.fail_at is not None and self.left <= self.fail_at:
            raise ConnectionResetError("the client went away")
        block = b"x" * min(wanted, self.left)
        self.left -= len(block)
        return block


def endless(size: int, *, fail_at: int | None = None) -> BinaryIO:
    source: object = Endless(size, fail_at=fail_at)
    assert isinstance(source, io.RawIOBase)
    return source  # type: ignore[return-value]


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 12 * MIB + 7])
def test_what_goes_in_comes_out(objects: ObjectStore, tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    stored = objects.put(KEY, io.BytesIO(content), max_bytes=20 * MIB)
    assert stored == StoredObject(size, hashlib.sha256(content).digest())
    assert objects.get(KEY) == content
    pieces = list(objects.stream(KEY))
    assert b"".join(pieces) == content
    assert all(0 < len(piece) <= MIB for piece in pieces)
    objects.download(KEY, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    objects.delete([KEY])


def test_putting_again_replaces(objects: ObjectStore) -> None:
    objects.put(KEY, io.BytesIO(b"first, and longer"), max_bytes=100)
    objects.put(KEY, io.BytesIO(b"second"), max_bytes=100)
    assert objects.get(KEY) == b"second"
    objects.delete([KEY])


@pytest.mark.parametrize("limit", [0, 10, 5 * MIB - 1, 5 * MIB, 12 * MIB])
def test_the_limit_is_inclusive_and_leaves_nothing(place: tuple[ObjectStore, Path], limit: int) -> None:
    objects, folder = place
    before = files(folder)
    with pytest.raises(TooLarge):
        objects.put(KEY, io.BytesIO(bytes(limit + 1)), max_bytes=limit)
    with pytest.raises(NotFound):
        objects.get(KEY)
    assert files(folder) == before
    assert objects.put(KEY, io.BytesIO(bytes(limit)), max_bytes=limit).size == limit
    objects.delete([KEY])
    assert files(folder) == before


@pytest.mark.parametrize("size", [MIB, 15 * MIB])
def test_a_source_that_breaks_leaves_nothing_and_keeps_its_error(place: tuple[ObjectStore, Path], size: int) -> None:
    objects, folder = place
    objects.put(KEY, io.BytesIO(b"as it was"), max_bytes=100)
    before = files(folder)
    with pytest.raises(ConnectionResetError, match="went away"):
        objects.put(KEY, endless(size, fail_at=MIB // 2), max_bytes=100 * MIB)
    assert files(folder) == before
    assert objects.get(KEY) == b"as it was"
    objects.delete([KEY])


def test_memory_stays_bounded(objects: ObjectStore, tmp_path: Path) -> None:
    # Into a bucket each object goes in one piece, and none is larger than a file may be.
    size = (64 if isinstance(objects, LocalObjects) else 10) * MIB
    tracemalloc.start()
    try:
        objects.put(KEY, endless(size), max_bytes=size)
        objects.download(KEY, tmp_path / "copy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy").stat().st_size == size
    (tmp_path / "copy").unlink()
    assert peak < 24 * MIB
    objects.delete([KEY])


def test_what_is_missing_is_not_found(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        objects.get("tenant/none")
    with pytest.raises(NotFound):
        objects.stream("tenant/none")
    with pytest.raises(NotFound):
        objects.download("tenant/none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_deleting_passes_over_what_is_missing(place: tuple[ObjectStore, Path]) -> None:
    objects, folder = place
    before = files(folder)
    keys = [f"tenant/files/{number}" for number in range(5)]
    for key in keys:
        objects.put(key, io.BytesIO(b"x"), max_bytes=1)
    objects.delete(["tenant/none", *keys[:3], "tenant/none/either", *keys[3:]])
    assert files(folder) == before
    objects.delete([])


@pytest.mark.parametrize(
    "key",
    [
        "",
        "one",
        "/etc/passwd",
        "../escape/x",
        "tenant/../../escape",
        "tenant/..",
        "tenant/./x",
        "tenant//x",
        "tenant/x/",
        "tenant/x\0",
        "tenant/x\n",
        "tenant/x\\y",
        "tenant/x#1",
        "tenant/%2e%2e/x",
        "tenant/ü",
        "tenant/" + "x" * 600,
    ],
)
def test_keys_that_the_house_never_makes_are_refused(objects: ObjectStore, tmp_path: Path, key: str) -> None:
    calls = (
        lambda: objects.put(key, io.BytesIO(b"x"), max_bytes=1),
        lambda: objects.get(key),
        lambda: objects.stream(key),
        lambda: objects.download(key, tmp_path / "copy"),
        lambda: objects.delete([key]),
        lambda: objects.url(key, filename="a", content_type="text/plain", seconds=1),
    )
    for call in calls:
        with pytest.raises(Invalid):
            call()


FILENAME = 'Bericht "März"\r\nX: y/2026.pdf'


def test_an_s3_link_serves_a_download(server: S3Server) -> None:
    objects = in_bucket(server)
    objects.put("tenant/~odd=key", io.BytesIO(b"%PDF"), max_bytes=10)
    url = objects.url("tenant/~odd=key", filename=FILENAME, content_type="application/pdf", seconds=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"%PDF"
        assert answer.headers["content-type"] == "application/pdf"
        assert "X" not in answer.headers
        disposition = email.message.Message()
        disposition["content-disposition"] = answer.headers["content-disposition"]
    assert disposition.get_content_disposition() == "attachment"
    assert SECRET_KEY not in unquote(url)
    objects.delete(["tenant/~odd=key"])


def test_an_s3_link_cannot_be_changed_and_expires(server: S3Server) -> None:
    objects = in_bucket(server)
    for key in ("tenant/mine", "tenant/other"):
        objects.put(key, io.BytesIO(b"x"), max_bytes=10)
    url = objects.url("tenant/mine", filename="a.html", content_type="text/plain", seconds=60)
    for changed in (
        url.replace("tenant/mine", "tenant/other"),
        url.replace("text%2Fplain", "text%2Fhtml"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
    ):
        assert changed != url
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(changed)
        refused.value.close()
    objects.delete(["tenant/mine", "tenant/other"])


def test_a_local_link_says_everything_and_passes(tmp_path: Path) -> None:
    objects = in_folder(tmp_path)
    url = objects.url(KEY, filename=FILENAME, content_type="application/pdf", seconds=3600)
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"https://memory.test/v1/memory/files/{KEY}"
    query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
    assert query.keys() == {"filename", "type", "expires", "signature"}
    assert (query["filename"], query["type"]) == (FILENAME, "application/pdf")
    objects.verify(
        KEY,
        filename=query["filename"],
        content_type=query["type"],
        expires=int(query["expires"]),
        signature=query["signature"],
    )


def test_a_local_link_cannot_be_changed(tmp_path: Path) -> None:
    objects = in_folder(tmp_path)
    query = parse_qs(urlsplit(objects.url(KEY, filename="a", content_type="b/c", seconds=60)).query)
    expires, signature = int(query["expires"][0]), query["signature"][0]

    def passes(
        store: LocalObjects = objects,
        key: str = KEY,
        name: str = "a",
        kind: str = "b/c",
        until: int = expires,
        sign: str = signature,
    ) -> bool:
        try:
            store.verify(key, filename=name, content_type=kind, expires=until, signature=sign)
        except NotFound:
            return False
        return True

    assert passes()
    assert not passes(key=KEY + "x")
    assert not passes(name="ab", kind="/c")
    assert not passes(kind="text/html")
    assert not passes(until=expires + 1)
    assert not passes(sign=signature.upper())
    assert not passes(sign="")
    assert not passes(sign="ü\ud800")
    assert not passes(key="../../etc/passwd")
    assert not passes(store=LocalObjects(folder=tmp_path, base_url="https://memory.test", signing_key=b"another"))


def test_a_local_link_expires(tmp_path: Path) -> None:
    objects = in_folder(tmp_path)
    query = parse_qs(urlsplit(objects.url(KEY, filename="a", content_type="b/c", seconds=0)).query)
    with pytest.raises(NotFound, match="expired"):
        objects.verify(
            KEY,
            filename="a",
            content_type="b/c",
            expires=int(query["expires"][0]),
            signature=query["signature"][0],
        )


def test_a_folder_that_cannot_be_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="REMEMBEROS_DATA"):
        in_folder(tmp_path / "file" / "objects")


def test_the_folder_is_private(tmp_path: Path) -> None:
    in_folder(tmp_path / "deep" / "objects")
    assert (tmp_path / "deep" / "objects").stat().st_mode & 0o777 == 0o700


def refusal(objects: ObjectStore) -> AppError:
    with pytest.raises(AppError) as caught:
        objects.put(KEY, io.BytesIO(b"x"), max_bytes=1)
    return caught.value


def test_all_under_a_prefix_is_listed_and_can_be_discarded(place: tuple[ObjectStore, Path]) -> None:
    objects, folder = place
    keys = [f"listed/files/{name}" for name in ("a", "b", "c")]
    for key in [*keys, "other/files/a"]:
        objects.put(key, io.BytesIO(b"1234"), max_bytes=4)

    listed = [one for page in objects.listed("listed/") for one in page]

    assert {one.key: one.size for one in listed} == dict.fromkeys(keys, 4)
    assert all(abs((datetime.now(UTC) - one.modified).total_seconds()) < 3600 for one in listed)
    objects.discard(keys[:2])
    assert [one.key for page in objects.listed("listed/") for one in page] == keys[2:]
    assert [one for page in objects.listed("nobody/") for one in page] == []
    objects.discard([keys[2], "other/files/a"])
    assert files(folder) == []


def test_a_store_that_is_down_is_unavailable() -> None:
    nowhere = S3Server("http://127.0.0.1:9", Path())
    assert isinstance(refusal(in_bucket(nowhere)), Unavailable)


def test_a_bucket_needs_keys() -> None:
    with pytest.raises(Misconfigured, match="S3_SECRET_KEY"):
        S3Objects(bucket="b", endpoint_url=None, region="auto", access_key=SecretStr("a"), secret_key=None)


def test_a_download_name_breaks_no_header() -> None:
    value = attachment(FILENAME)
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 2
    assert unquote(value.partition("filename*=UTF-8''")[2]) == FILENAME
    assert attachment("") == "attachment; filename=\"file\"; filename*=UTF-8''"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("image/svg+xml", "image/svg+xml"),
        ("text/html; charset=utf-8", "application/octet-stream"),
        ("text/html\r\nX: y", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_only_bare_media_types_are_told(given: str, kept: str) -> None:
    assert media_type(given) == kept


def test_the_region_is_found_out(server: S3Server) -> None:
    objects = in_bucket(server, region="auto")

    objects.put(KEY, io.BytesIO(b"x"), max_bytes=1)

    with urllib.request.urlopen(objects.url(KEY, filename="a", content_type="a/b", seconds=60)) as answer:
        assert answer.read() == b"x"
    objects.delete([KEY])


def test_the_region_is_asked_for_again_until_the_store_answers() -> None:
    objects = S3Objects(
        bucket=BUCKET,
        endpoint_url="http://127.0.0.1:9",
        region="auto",
        access_key=SecretStr(ACCESS_KEY),
        secret_key=SecretStr(SECRET_KEY),
    )

    assert "us-east-1" in objects.url(KEY, filename="a", content_type="a/b", seconds=60)
    assert isinstance(refusal(objects), Unavailable)


def test_a_bucket_may_stand_in_the_host_name(tmp_path: Path) -> None:
    # A host name that needs no look-up: the bucket `127` of the store `0.0.1`.
    with s3_server(tmp_path, bucket="127", options="--virtual-domain 0.0.1") as server:
        objects = S3Objects(
            bucket="127",
            endpoint_url=server.endpoint_url.replace("127.0.0.1", "0.0.1"),
            region=REGION,
            access_key=SecretStr(ACCESS_KEY),
            secret_key=SecretStr(SECRET_KEY),
            addressing="virtual",
        )

        objects.put(KEY, io.BytesIO(b"x"), max_bytes=1)
        url = objects.url(KEY, filename="a", content_type="a/b", seconds=60)

        assert urlsplit(url).path == f"/{KEY}"
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"x"
        assert (server.folder / KEY).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("region", "start"),
    [("auto", "https://s3.us-east-1.amazonaws.com/mine/"), ("eu-west-1", "https://s3.eu-west-1.amazonaws.com/mine/")],
)
def test_without_an_address_the_bucket_is_at_aws(region: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.adapters.s3_objects.region_of", lambda _: None)
    objects = S3Objects(
        bucket="mine", endpoint_url=None, region=region, access_key=SecretStr("a"), secret_key=SecretStr("b")
    )

    assert objects.url(KEY, filename="a", content_type="a/b", seconds=60).startswith(start + KEY)
