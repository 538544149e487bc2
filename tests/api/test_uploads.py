"""Files that clients put into the store by themselves: links that say what for, and completion that trusts nothing."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.app import create_app
from memory.drop_schemas import DropOptions, UploadDone, UploadWanted
from memory.quotas import MAX_FILE_BYTES
from memory.services import Services, build
from memory.settings import Settings
from tests.api.conftest import NoTemporal, Tenant
from tests.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, s3_server

DROP = "/v1/memory/collections/garden/drop"
BEES = b"Bees dance to tell the hive where the flowers are."
WANTED = {"filename": "notes/bees.txt", "content_type": "text/plain; charset=utf-8", "size": len(BEES)}


class Place(NamedTuple):
    """An API whose files lie in `folder`, and what sends to the addresses that it gives out."""

    client: TestClient
    services: Services
    folder: Path
    put: Callable[..., Any]


@pytest.fixture(scope="module")
def bucket(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        changed = settings.model_copy(
            update={
                "s3_endpoint_url": server.endpoint_url,
                "s3_bucket": BUCKET,
                "s3_region": REGION,
                "s3_access_key": SecretStr(ACCESS_KEY),
                "s3_secret_key": SecretStr(SECRET_KEY),
            }
        )
        built = build(changed)
        app = create_app(changed, built)
        with TestClient(app) as client, httpx.Client() as outside:
            app.state.workflows = NoTemporal()
            yield Place(client, built, server.folder, outside.put)
        built.close()


@pytest.fixture
def folder(client: TestClient, services: Services, settings: Settings) -> Place:
    return Place(client, services, settings.rememberos_data / "objects", client.put)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def presign(place: Place, tenant: Tenant, *wanted: dict[str, Any]) -> list[Any]:
    answer = place.client.post(f"{DROP}/presign", headers=tenant.headers, json=list(wanted or [WANTED]))
    assert answer.status_code == 200, answer.text
    uploads: list[Any] = answer.json()["uploads"]
    return uploads


def put(place: Place, link: Any, content: bytes = BEES) -> Any:
    return place.put(link["url"], content=content, headers=link["headers"])


def complete(place: Place, tenant: Tenant, *keys: str, **options: Any) -> Any:
    done = [{"key": key, "filename": "notes/bees.txt", "mime": "text/plain", "size": 1} for key in keys]
    return place.client.post(f"{DROP}/complete", headers=tenant.headers, json=done, params=options)


def objects(place: Place, tenant: Tenant) -> list[str]:
    root = place.folder / str(tenant.id)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_file_goes_past_the_api_and_becomes_a_batch(place: Place, tenant: Tenant, settings: Settings) -> None:
    (link,) = presign(place, tenant)
    assert link.keys() == {"filename", "key", "url", "method", "headers", "expires_in"}
    assert (link["filename"], link["method"], link["expires_in"]) == ("notes/bees.txt", "PUT", 3600)
    assert link["headers"] == {"Content-Type": "text/plain"}
    assert link["key"].startswith(f"{tenant.id}/")

    assert put(place, link).status_code == 200
    answer = complete(place, tenant, link["key"], container_tag="hive", importance=0.2, metadata='{"a": 1}')

    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["queued"], accepted["rejected"]) == (1, [])
    batch = place.client.get(f"/v1/memory/ingest/batch/{accepted['batch_id']}", headers=tenant.headers).json()
    assert [one["filename"] for one in batch["files"]] == ["bees.txt"]
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        row = owner.execute(
            "select f.size, f.sha256, f.key, f.path, b.container_tag, b.importance, b.metadata from files f "
            "join batches b on b.id = f.batch_id where b.id = %s",
            [accepted["batch_id"]],
        ).fetchone()
    assert row is not None
    assert row[:2] == (len(BEES), hashlib.sha256(BEES).digest())
    assert row[3:] == ("notes/bees.txt", "hive", 0.2, {"a": 1})
    # What was uploaded is gone; what is worked on lies where no link leads.
    assert objects(place, tenant) == [row[2].removeprefix(f"{tenant.id}/")]
    assert row[2] != link["key"]


def test_what_cannot_be_is_flagged_and_not_signed(place: Place, tenant: Tenant) -> None:
    small, large = presign(place, tenant, WANTED, {"filename": "big.bin", "size": MAX_FILE_BYTES + 1})

    assert "url" in small
    assert large == {"filename": "big.bin", "error": "larger than 10 MB, the limit for one file"}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        [{}],
        [{"filename": "a", "size": -1}],
        [{"filename": "a", "size": "4"}],
        [{"filename": "a"}],
        [{"filename": "x" * 5000, "size": 1}],
        [{"filename": "a", "size": 1}] * 501,
    ],
)
def test_wrong_wishes_are_422(folder: Place, tenant: Tenant, body: Any) -> None:
    answer = folder.client.post(f"{DROP}/presign", headers=tenant.headers, json=body)

    assert answer.status_code == 422


def test_a_link_is_for_one_type_size_and_key(place: Place, tenant: Tenant) -> None:
    one, other = presign(place, tenant, WANTED, WANTED)

    assert put(place, {**one, "headers": {"Content-Type": "text/html"}}).status_code == 403
    assert put(place, {**one, "url": one["url"].replace(one["key"], other["key"])}).status_code == 403
    assert put(place, {**one, "url": one["url"][:-1] + ("0" if one["url"][-1] != "0" else "1")}).status_code == 403
    assert put(place, one, BEES + b"!").status_code in {403, 413}
    assert put(place, one, BEES[:-1]).status_code in {400, 403}
    assert objects(place, tenant) == []
    assert put(place, one).status_code == 200


@pytest.mark.parametrize("name", ["type", "size", "expires"])
def test_no_part_of_our_own_links_can_be_changed(folder: Place, tenant: Tenant, name: str) -> None:
    (link,) = presign(folder, tenant)
    value = parse_qs(urlsplit(link["url"]).query)[name][0]
    changed = {"type": "text%2Fhtml", "size": "999", "expires": str(int(value) + 1) if name == "expires" else ""}[name]
    before = f"{name}={value.replace('/', '%2F')}"
    assert before in link["url"]

    url = link["url"].replace(before, f"{name}={changed}")

    assert folder.put(url, content=BEES, headers={"Content-Type": "text/html"}).status_code == 403


def test_our_own_links_expire(folder: Place, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.uploads.LINK_SECONDS", 0)
    (link,) = presign(folder, tenant)

    answer = put(folder, link)

    assert answer.status_code == 403
    assert "expired" in answer.json()["detail"]


def test_without_a_length_the_bytes_are_counted(folder: Place, tenant: Tenant) -> None:
    links = presign(folder, tenant, WANTED, WANTED, WANTED)

    def sent(link: Any, content: bytes) -> int:
        status: int = folder.put(
            link["url"], content=iter([content[:7], content[7:]]), headers=link["headers"]
        ).status_code
        return status

    assert [sent(link, content) for link, content in zip(links, (BEES[:-1], BEES + b"!", BEES), strict=True)] == [
        400,
        413,
        200,
    ]
    assert objects(folder, tenant) == [links[2]["key"].removeprefix(f"{tenant.id}/")]


def test_a_link_to_write_is_for_one_method_and_the_very_type(folder: Place, tenant: Tenant) -> None:
    (link,) = presign(folder, tenant)

    for given in ({}, {"Content-Type": "text/plain; charset=utf-8"}, {"Content-Type": ""}):
        assert folder.put(link["url"], content=BEES, headers=given).status_code == 403
    methods = {method: folder.client.request(method, link["url"]).status_code for method in ("GET", "POST", "DELETE")}
    assert methods == {"GET": 404, "POST": 405, "DELETE": 405}
    for twice in ("&size=5", "&expires=99999999999", "&type=text%2Fhtml", "&signature=" + "0" * 64):
        assert put(folder, {**link, "url": link["url"] + twice}).status_code == 403
    wrong = link["url"].replace("expires=", "expires=x")
    assert put(folder, {**link, "url": wrong}).status_code == 422
    assert objects(folder, tenant) == []


def test_until_a_key_is_used_the_last_upload_counts(place: Place, tenant: Tenant) -> None:
    (link,) = presign(place, tenant)

    assert [put(place, link, content).status_code for content in (BEES, BEES[::-1])] == [200, 200]
    assert complete(place, tenant, link["key"]).json()["queued"] == 1
    (kept,) = objects(place, tenant)
    assert (place.folder / str(tenant.id) / kept).read_bytes() == BEES[::-1]


def test_an_empty_file_goes_past_the_api_too(place: Place, tenant: Tenant) -> None:
    (link,) = presign(place, tenant, {**WANTED, "size": 0})

    assert put(place, link, b"x").status_code in {403, 413}
    assert put(place, link, b"").status_code == 200
    assert complete(place, tenant, link["key"]).json()["queued"] == 1


def test_too_much_is_refused_while_it_arrives(folder: Place, tenant: Tenant) -> None:
    (link,) = presign(folder, tenant)
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        for number in range(1000):
            sent.append(number)
            yield b"x" * 65536

    assert folder.put(link["url"], content=endless(), headers=link["headers"]).status_code == 413
    assert objects(folder, tenant) == []


def test_a_link_to_read_is_none_to_write(folder: Place, tenant: Tenant) -> None:
    made = folder.client.post(
        "/v1/memory/collections/garden/memories/upload",
        headers=tenant.headers,
        files={"file": ("a.txt", BEES)},
        data={"text": "a"},
    ).json()
    url = made["images"][0]["url"]

    assert folder.put(url, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 403
    assert folder.client.get(url).content == BEES


def test_once_a_key_was_used_nothing_more_goes_there(place: Place, tenant: Tenant) -> None:
    (link,) = presign(place, tenant)
    put(place, link)
    complete(place, tenant, link["key"])
    (kept,) = objects(place, tenant)

    # A bucket takes it, and nothing ever reads it.
    in_bucket = "X-Amz-Signature" in link["url"]
    assert put(place, link, BEES[::-1]).status_code == (200 if in_bucket else 403)
    again = complete(place, tenant, link["key"]).json()

    assert (again["queued"], again["rejected"]) == (0, [{"key": link["key"], "reason": "this key was used before"}])
    assert (place.folder / str(tenant.id) / kept).read_bytes() == BEES


def test_every_key_is_looked_at(place: Place, tenant: Tenant, new_tenant: Callable[..., Tenant]) -> None:
    other = new_tenant()
    (theirs,) = presign(place, other)
    put(place, theirs)
    mine, empty = presign(place, tenant, WANTED, WANTED)
    put(place, mine)
    large = f"{tenant.id}/uploads/00000000-0000-4000-8000-00000000000{place.folder.name[0] == 'o':d}"
    place.services.objects.put(large, io.BytesIO(bytes(MAX_FILE_BYTES + 1)), max_bytes=MAX_FILE_BYTES + 1)
    keys = {
        theirs["key"]: "not a key",
        empty["key"]: "nothing was uploaded",
        large: "10 MB",
        f"{tenant.id}/uploads/../files/x": "not a key",
        f"{tenant.id}/uploads/{'g' * 36}": "not a key",
        f"{tenant.id}/uploads/{'-' * 36}": "not a key",
        mine["key"].upper(): "not a key",
        "": "not a key",
        "\u0000": "not a key",
    }

    answer = complete(place, tenant, mine["key"], *keys, mine["key"])

    assert answer.status_code == 202
    assert answer.json()["queued"] == 1
    rejected = answer.json()["rejected"]
    assert [
        (one["key"], expected in one["reason"]) for one, expected in zip(rejected, keys.values(), strict=False)
    ] == [(key.replace("\x00", ""), True) for key in keys]
    assert rejected[-1] == {"key": mine["key"], "reason": "this key was used before"}
    assert len([name for name in objects(place, tenant) if name.startswith("files/")]) == 1
    assert complete(place, other, theirs["key"]).json()["queued"] == 1


def test_of_two_completions_at_once_one_counts(folder: Place, tenant: Tenant) -> None:
    for _ in range(3):
        link = folder.services.uploads.presign(tenant.caller, "garden", [UploadWanted(**WANTED)]).uploads[0]
        assert put(folder, link.model_dump()).status_code == 200
        start = threading.Barrier(4)

        def one(_: int, key: str = getattr(link, "key"), start: threading.Barrier = start) -> int:  # noqa: B009
            start.wait()
            done = [UploadDone(key=key)]
            return folder.services.uploads.complete(tenant.caller, "garden", done, DropOptions()).queued

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(one, range(4))) == [0, 0, 0, 1]
    assert len(objects(folder, tenant)) == 3


def test_a_key_can_be_used_again_after_a_refusal(folder: Place, tenant: Tenant) -> None:
    (link,) = presign(folder, tenant)
    put(folder, link)

    assert complete(folder, tenant, link["key"], importance=2).status_code == 422
    assert complete(folder, tenant, link["key"], metadata="{").status_code == 422
    assert len(objects(folder, tenant)) == 1
    assert complete(folder, tenant, link["key"]).json()["queued"] == 1


def test_a_repeat_gives_out_no_second_link(folder: Place, tenant: Tenant) -> None:
    once = {**tenant.headers, "Idempotency-Key": "once"}

    answers = [folder.client.post(f"{DROP}/presign", headers=once, json=[WANTED]) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 409]


def test_a_link_serves_ranges(folder: Place, tenant: Tenant) -> None:
    made = folder.client.post(
        "/v1/memory/collections/garden/memories/upload",
        headers=tenant.headers,
        files={"file": ("a.html", BEES, "text/html")},
        data={"text": "a"},
    ).json()
    url = made["images"][0]["url"]

    whole, some, tail, beyond, head, lines, none = (
        folder.client.request(method, url, headers={"Range": asked} if asked else {})
        for method, asked in (
            ("GET", ""),
            ("GET", "bytes=5-9"),
            ("GET", "bytes=-6"),
            ("GET", "bytes=900-"),
            ("HEAD", ""),
            ("GET", "lines=1-2"),
            ("GET", "bytes=abc"),
        )
    )

    assert (whole.status_code, whole.content) == (200, BEES)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert (some.status_code, some.content) == (206, BEES[5:10])
    assert some.headers["Content-Range"] == f"bytes 5-9/{len(BEES)}"
    assert (tail.status_code, tail.content) == (206, BEES[-6:])
    assert (beyond.status_code, beyond.json()) == (416, {"detail": f"the file has {len(BEES)} bytes"})
    assert beyond.headers["Content-Range"] == f"bytes */{len(BEES)}"
    assert {(answer.status_code, answer.content) for answer in (lines, none)} == {(200, BEES)}
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(BEES)))
    for answer in (whole, some):
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"].startswith("text/html")
