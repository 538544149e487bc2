"""A bucket that is away, silent, or set up wrongly, as clients meet it: a clear 503, nothing lost, nothing half."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.app import create_app
from memory.adapters import buckets, s3_objects
from memory.adapters.documents import GuardedReader
from memory.services import Services, build
from memory.settings import Settings
from tests.api.conftest import NoTemporal, Tenant, at_work
from tests.bad_line import BadLine, Fault, bad_line
from tests.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server, s3_server

GARDEN = "/v1/memory/collections/garden"
DROP = f"{GARDEN}/drop"
MEMORIES = f"{GARDEN}/memories"
BEES = b"Bees dance to tell the hive where the flowers are."
MIB = 1024 * 1024


class Place(NamedTuple):
    """An API whose bucket is reached over a bad line."""

    client: TestClient
    services: Services
    line: BadLine
    server: S3Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def in_bucket(settings: Settings, url: str, **changed: Any) -> Settings:
    given = {
        "s3_endpoint_url": url,
        "s3_bucket": BUCKET,
        "s3_region": REGION,
        "s3_access_key": SecretStr(ACCESS_KEY),
        "s3_secret_key": SecretStr(SECRET_KEY),
    }
    return settings.model_copy(update={**given, **changed})


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[TestClient, Services]]:
    built = build(settings)
    app = create_app(settings, built)
    with TestClient(app) as client:
        app.state.workflows = NoTemporal()
        yield client, built
    built.close()


@pytest.fixture(scope="module")
def place(settings: Settings, server: S3Server) -> Iterator[Place]:
    with bad_line(server.endpoint_url) as line, serving(in_bucket(settings, line.url)) as (client, built):
        yield Place(client, built, line, server)


@contextmanager
def broken(place: Place, fault: Fault, sound_bytes: int = 0) -> Iterator[None]:
    """While it lasts, waits are short: the fault is certain."""
    with pytest.MonkeyPatch.context() as hasty:
        for name in ("_ANSWER_SECONDS", "_SENT_SECONDS", "_TRIED_AGAIN_SECONDS"):
            hasty.setattr(s3_objects, name, 0.3)
        hasty.setattr(buckets, "_ASK_SECONDS", 0.3)
        place.line.break_down(fault, sound_bytes=sound_bytes)
        yield
    place.line.heal()


class Made(NamedTuple):
    memory: str
    upload: str


def post(client: TestClient, tenant: Tenant, path: str, **sent: Any) -> Any:
    return client.post(path, headers=tenant.headers, **sent)


def files(content: bytes = BEES) -> list[Any]:
    return [("files", ("a/bees.txt", content)), ("files", ("a/more.txt", content + b"!"))]


REQUESTS: dict[str, Callable[[TestClient, Tenant, Made], Any]] = {
    "drop": lambda client, tenant, _: post(client, tenant, DROP, files=files(), data={"async_ingest": "true"}),
    "upload": lambda client, tenant, _: post(
        client, tenant, f"{MEMORIES}/upload", files=files(), data={"text": "about"}
    ),
    "folder": lambda client, tenant, _: post(client, tenant, f"{MEMORIES}/folder", files=files()),
    "images": lambda client, tenant, made: post(client, tenant, f"{MEMORIES}/{made.memory}/images", files=files()),
    "complete": lambda client, tenant, made: post(
        client, tenant, f"{DROP}/complete", json=[{"key": made.upload, "filename": "a.txt"}]
    ),
}
each_request = pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS.keys())


def made(place: Place, tenant: Tenant) -> Made:
    memory = post(place.client, tenant, MEMORIES, json={"text": "about bees"}).json()["id"]
    link = post(place.client, tenant, f"{DROP}/presign", json=[{"filename": "a.txt", "size": len(BEES)}]).json()
    key = link["uploads"][0]["key"]
    path = place.server.folder / key
    path.parent.mkdir(parents=True)
    path.write_bytes(BEES)
    return Made(memory, key)


def objects(place: Place, tenant: Tenant) -> list[str]:
    root = place.server.folder / str(tenant.id)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def rows(settings: Settings, tenant: Tenant) -> list[str]:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        found = owner.execute("select key from files where tenant_id = %s", [tenant.id]).fetchall()
    return sorted(str(key).removeprefix(f"{tenant.id}/") for (key,) in found)


def assert_clear(answer: Any, said: str) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json().keys() == {"detail"}
    assert said in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert ACCESS_KEY not in answer.text
    assert SECRET_KEY not in answer.text


@each_request
@pytest.mark.parametrize("fault", ["refused", "silent", "cut"])
def test_while_the_bucket_is_away_it_is_503_and_the_same_request_works_later(
    place: Place,
    tenant: Tenant,
    settings: Settings,
    fault: Fault,
    ask: Callable[[TestClient, Tenant, Made], Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    there = made(place, tenant)
    before = objects(place, tenant)

    with broken(place, fault):
        assert_clear(ask(place.client, tenant, there), "does not answer")

    assert rows(settings, tenant) == []
    assert objects(place, tenant) == before
    assert ask(place.client, tenant, there).status_code in {201, 202}
    assert rows(settings, tenant) == [key for key in objects(place, tenant) if key.startswith("files/")] != []
    assert SECRET_KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_what_was_taken_in_before_the_bucket_went_away_stays_unseen(
    place: Place, tenant: Tenant, settings: Settings, fault: Fault
) -> None:
    large = bytes(range(256)) * 4 * 1024 * 3
    with broken(place, fault, sound_bytes=5 * MIB):
        assert_clear(post(place.client, tenant, DROP, files=files(large)), "does not answer")

    assert rows(settings, tenant) == []
    # What could not be removed any more is an object that no row knows, and whole.
    orphans = objects(place, tenant)
    assert [(place.server.folder / str(tenant.id) / key).read_bytes() for key in orphans] == [large] * len(orphans)
    answer = post(place.client, tenant, DROP, files=files(large), data={"async_ingest": "true"})
    assert (answer.status_code, answer.json()["queued"]) == (202, 2)


@pytest.mark.parametrize("fault", ["refused", "silent"])
def test_what_is_deleted_is_gone_though_the_bucket_is_away(
    place: Place, tenant: Tenant, settings: Settings, fault: Fault
) -> None:
    sent = {"files": files(), "data": {"text": "about"}}
    one, other = (post(place.client, tenant, f"{MEMORIES}/upload", **sent).json()["id"] for _ in range(2))

    with broken(place, fault):
        answers = [
            place.client.delete(f"{MEMORIES}/{one}/images/0", headers=tenant.headers),
            place.client.delete(f"{MEMORIES}/{one}", headers=tenant.headers),
            place.client.delete(GARDEN, headers=tenant.headers),
        ]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert place.client.get(f"{MEMORIES}/{other}", headers=tenant.headers).status_code == 404
    assert rows(settings, tenant) == []
    # The sweep does it once the bucket is back.
    assert place.services.cleaning.sweep(tenant.id, older_than=timedelta(hours=-1)).count == 4
    assert objects(place, tenant) == []


def test_reading_needs_no_bucket(place: Place, tenant: Tenant, settings: Settings) -> None:
    with serving(in_bucket(settings, place.line.url, s3_region="auto")) as (client, _):
        for number in range(12):
            post(client, tenant, f"{MEMORIES}/upload", files=files(), data={"text": f"about {number}"})
    with serving(in_bucket(settings, place.line.url, s3_region="auto")) as (client, _), broken(place, "silent"):
        asked = time.monotonic()
        listed = client.get(MEMORIES, headers=tenant.headers)
        search = post(client, tenant, f"{GARDEN}/search", json={"query": "about"})
        # A link in a region that nobody knows would be of no use.
        presigned = post(client, tenant, f"{DROP}/presign", json=[{"filename": "a.txt", "size": 1}])
        waited = time.monotonic() - asked

    assert (listed.status_code, len(listed.json())) == (200, 12)
    assert search.status_code == 200
    assert_clear(presigned, "does not answer")
    # Every link by itself would wait a third of a second: 44 of them.
    assert waited < 10


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"s3_secret_key": SecretStr("never-shown")}, "S3_SECRET_KEY"),
        ({"s3_bucket": "no-such-bucket"}, "S3_BUCKET"),
        ({"s3_region": "moon-1"}, "S3_REGION"),
    ],
)
def test_wrong_settings_are_named(
    place: Place, tenant: Tenant, settings: Settings, changed: Any, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    there = made(place, tenant)
    with serving(in_bucket(settings, place.server.endpoint_url, **changed)) as (client, _):
        answers = [ask(client, tenant, there) for ask in REQUESTS.values()]

    for answer in answers:
        assert_clear(answer, said)
        assert "never-shown" not in answer.text
    assert rows(settings, tenant) == []
    assert "never-shown" not in "".join(capfd.readouterr())


def test_a_drop_goes_on_by_itself_when_the_bucket_is_back(
    place: Place, tenant: Tenant, settings: Settings, temporal: str
) -> None:
    sent = {"files": files(), "data": {"async_ingest": "true"}}
    batch = post(place.client, tenant, DROP, **sent).json()["batch_id"]
    changed = in_bucket(settings, place.line.url).model_copy(update={"temporal_address": temporal})
    reader = GuardedReader(ocr_engine="off")
    progress = f"/v1/memory/ingest/batch/{batch}"
    app = create_app(changed, place.services)
    try:
        with (
            at_work(build(changed, reader=reader), temporal),
            TestClient(app) as client,
        ):
            with broken(place, "refused"):
                again = client.post(DROP, headers=tenant.headers, files=files())
                assert_clear(again, "does not answer")
                assert client.portal is not None
                assert client.portal.call(partial(app.state.workflows.start_drop, str(tenant.id), batch))
                time.sleep(1)
                during = client.get(progress, headers=tenant.headers).json()
            after = client.get(progress, headers=tenant.headers, params={"wait": 50}).json()
    finally:
        reader.close()

    assert (during["done"], during["failed"]) == (0, 0)
    assert (after["complete"], after["done"], after["failed"]) == (True, 2, 0)
