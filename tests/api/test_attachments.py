"""Files of memories: sent with them, attached, detached, a folder at once; read by a real worker."""

import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from memory.adapters.documents import GuardedReader
from memory.drop_schemas import UploadOptions
from memory.errors import BadRequest, NotFound
from memory.intake import IncomingFile, stored
from memory.quotas import MAX_FILE_BYTES
from memory.schemas import MemoryCreate
from memory.services import Services, build
from memory.settings import Settings
from tests.api.conftest import Tenant, at_work

GARDEN = "/v1/memory/collections/garden"
MEMORIES = f"{GARDEN}/memories"
NOISE = b"\x7fELF" + bytes(range(256))
BEES = b"Bees dance to tell the hive where the flowers are."


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str) -> Iterator[None]:
    """A worker on the database of these tests."""
    reader = GuardedReader(ocr_engine="off")
    with at_work(build(settings, reader=reader), temporal):
        yield
    reader.close()


def files(*sent: tuple[str, bytes], field: str = "files") -> list[Any]:
    return [(field, (name, content)) for name, content in sent]


def upload(client: TestClient, tenant: Tenant, sent: list[Any], **fields: str) -> Any:
    return client.post(f"{MEMORIES}/upload", headers=tenant.headers, files=sent, data=fields)


def attach(client: TestClient, tenant: Tenant, memory: Any, sent: list[Any], **headers: str) -> Any:
    return client.post(f"{MEMORIES}/{memory['id']}/images", headers={**tenant.headers, **headers}, files=sent)


def detach(client: TestClient, tenant: Tenant, memory: Any, index: object, **headers: str) -> Any:
    return client.delete(f"{MEMORIES}/{memory['id']}/images/{index}", headers={**tenant.headers, **headers})


def names(memory: Any) -> list[str]:
    return [one["filename"] for one in memory["images"]]


@pytest.fixture
def objects(settings: Settings, tenant: Tenant) -> Callable[[], int]:
    """How many originals of the tenant lie in the store."""

    def count() -> int:
        return len(list((settings.rememberos_data / "objects" / str(tenant.id) / "files").glob("*")))

    return count


@pytest.fixture
def memory(client: TestClient, tenant: Tenant) -> Any:
    return client.post(MEMORIES, headers=tenant.headers, json={"text": "about bees"}).json()


def test_an_upload_with_a_text_is_a_memory_at_once(client: TestClient, tenant: Tenant) -> None:
    sent = [*files(("bees.txt", BEES), ("b.png", b"\x89PNG")), *files(("c.bin", b""), field="file")]
    fields = {"text": "three files", "importance": "0.2", "category": "nature", "container_tag": "hive"}

    answer = upload(client, tenant, sent, **fields, metadata='{"year": 2026}', source="camera")

    assert answer.status_code == 201
    memory = answer.json()
    assert answer.headers["ETag"] == f'"{memory["version"]}"'
    assert (memory["text"], memory["importance"], memory["category"]) == ("three files", 0.2, "nature")
    assert (memory["container_tag"], memory["source"], memory["metadata"]) == ("hive", "camera", {"year": 2026})
    assert memory["created_by"]["id"] == str(tenant.caller.key_id)
    shown = [{name: value for name, value in one.items() if name != "url"} for one in memory["images"]]
    assert shown == [
        {"filename": "bees.txt", "content_type": "text/plain", "size": len(BEES)},
        {"filename": "b.png", "content_type": "image/png", "size": 4},
        {"filename": "c.bin", "content_type": "application/octet-stream", "size": 0},
    ]
    assert client.get(memory["images"][0]["url"]).content == BEES


def test_every_answer_about_a_memory_shows_its_files(client: TestClient, tenant: Tenant) -> None:
    made = upload(client, tenant, files(("bees.txt", BEES)), text="about bees").json()
    near = client.post(MEMORIES, headers=tenant.headers, json={"text": "about bees too"}).json()
    search = {"query": "bees", "min_score": 0}

    shown = [
        client.get(f"{MEMORIES}/{made['id']}", headers=tenant.headers).json(),
        client.get(MEMORIES, headers=tenant.headers).json()[1],
        *(
            next(hit for hit in answer.json()["results"] if hit["id"] == made["id"])
            for answer in [client.post(f"{GARDEN}/search", headers=tenant.headers, json=search) for _ in range(2)]
        ),
        client.get(f"{MEMORIES}/{near['id']}/related", headers=tenant.headers).json()[0],
    ]

    for one in shown:
        assert names(one) == ["bees.txt"]
        assert client.get(one["images"][0]["url"]).content == BEES


def test_an_upload_without_a_text_says_what_is_read_of_its_files(live: TestClient, tenant: Tenant) -> None:
    table = b"name,colour\nrose,red\nlily,white\n"

    answer = upload(live, tenant, files(("bees.txt", BEES), ("noise.bin", NOISE), ("list.csv", table)))

    assert answer.status_code == 201
    said = answer.json()["text"].split("\n")
    assert said[:2] == [BEES.decode(), "noise.bin"]
    assert "rose" in said[-2]
    assert "lily" in said[-1]
    for query in ("how bees talk", "lily"):
        found = live.post(f"{GARDEN}/search", headers=tenant.headers, json={"query": query}).json()["results"]
        assert [hit["id"] for hit in found] == [answer.json()["id"]]
    assert len(live.get(MEMORIES, headers=tenant.headers).json()) == 1


def test_a_folder_is_a_memory_for_each_file(live: TestClient, tenant: Tenant, objects: Callable[[], int]) -> None:
    sent = files(("notes/bees.txt", BEES), ("noise.bin", NOISE), ("void.txt", b""), ("big", bytes(MAX_FILE_BYTES + 1)))

    answer = live.post(f"{MEMORIES}/folder", headers=tenant.headers, files=sent, data={"metadata": '{"a": 1}'})

    assert answer.status_code == 201
    outcome = answer.json()
    assert (outcome["created"], outcome["failed"]) == (2, 2)
    assert [error["filename"] for error in outcome["errors"]] == ["big", "void.txt"]
    assert "10 MB" in outcome["errors"][0]["reason"]
    bees, noise = outcome["memories"]
    assert (bees["text"], bees["metadata"]) == (BEES.decode(), {"a": 1, "path": "notes/bees.txt"})
    assert (noise["text"], noise["source"], names(noise)) == ("noise.bin", "upload", ["noise.bin"])
    # At the top of the folder the path is the name.
    assert noise["metadata"]["path"] == "noise.bin"
    assert "not readable" in noise["metadata"]["file_notes"]["noise.bin"]
    assert objects() == 2


def test_a_memory_says_what_came_of_its_files(live: TestClient, tenant: Tenant) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("in/bees.txt", BEES)
        archive.writestr("wax.txt", b"wax")
    mail = b'Subject: Hives\nContent-Type: multipart/mixed; boundary="b"\n\n--b\n\nThree for you.\n--b\n'
    mail += b"Content-Disposition: attachment; filename=offer.txt\n\nForty each.\n--b--\n"
    sent = files(
        ("bees.txt", BEES), ("held.zip", held.getvalue()), ("hives.eml", mail), ("bad.pdf", b"%PDF-1.7\nx"),
        ("long.txt", b"word " * 2_500),
    )  # fmt: skip

    answer = upload(live, tenant, sent, metadata='{"a": 1}')

    assert answer.status_code == 201
    memory = answer.json()
    notes = memory["metadata"].pop("file_notes")
    assert memory["metadata"] == {"a": 1}
    assert notes.keys() == {"held.zip", "hives.eml", "bad.pdf", "long.txt"}
    assert all("not read here; drop it" in notes[name] for name in ("held.zip", "hives.eml"))
    assert notes["bad.pdf"].startswith("not read: it ")
    assert "of its 12499 characters are in the text" in notes["long.txt"]
    assert len(memory["text"]) <= 10_000
    for said in ("Bees dance", "held.zip: in/bees.txt, wax.txt", "Three for you.", "offer.txt", "bad.pdf", "word word"):
        assert said in memory["text"]
    assert names(memory) == ["bees.txt", "held.zip", "hives.eml", "bad.pdf", "long.txt"]
    assert len(live.get(MEMORIES, headers=tenant.headers).json()) == 1


def test_while_temporal_is_down_an_upload_says_its_names(client: TestClient, tenant: Tenant) -> None:
    answer = upload(client, tenant, files(("bees.txt", BEES), ("a.txt", b"a")))

    assert answer.status_code == 201
    assert answer.json()["text"] == "bees.txt\na.txt"


def test_the_text_of_a_file_that_waited_is_read_later(
    services: Services, settings: Settings, client: TestClient, tenant: Tenant
) -> None:
    made = [upload(client, tenant, files((f"{name}.txt", BEES))).json() for name in ("kept", "said", "bare", "gone")]
    kept, said, bare, gone = made
    client.patch(f"{MEMORIES}/{said['id']}", headers=tenant.headers, json={"text": "I know better"})
    detach(client, tenant, bare, 0)
    client.delete(f"{MEMORIES}/{gone['id']}", headers=tenant.headers)
    reader = GuardedReader(ocr_engine="off")
    working = build(settings, reader=reader)

    mine = [batch for tenant_id, batch in _open_batches(working, settings) if tenant_id == tenant.id]
    for batch_id in mine:
        for portion in working.ingesting.unfinished(tenant.id, batch_id, 100)[1]:
            for file_id in portion:
                working.ingesting.read(tenant.id, file_id)
            working.ingesting.store(tenant.id, portion)
        assert working.ingesting.close(tenant.id, batch_id)
    working.close()
    reader.close()

    assert len(mine) == 4
    texts = {one["id"]: one["text"] for one in client.get(MEMORIES, headers=tenant.headers).json()}
    assert texts == {kept["id"]: BEES.decode(), said["id"]: "I know better", bare["id"]: "bare.txt"}


def _open_batches(services: Services, settings: Settings) -> list[Any]:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        return owner.execute("select tenant_id, id from batches where completed_at is null").fetchall()


@pytest.mark.parametrize("path", ["upload", "folder", "images"])
def test_without_a_file_nothing_is_made(client: TestClient, tenant: Tenant, memory: Any, path: str) -> None:
    where = f"{MEMORIES}/{memory['id']}/images" if path == "images" else f"{MEMORIES}/{path}"

    assert client.post(where, headers=tenant.headers, data={"text": "a"}).status_code == 422
    assert len(client.get(MEMORIES, headers=tenant.headers).json()) == 1


@pytest.mark.parametrize(("path", "most"), [("upload", 20), ("folder", 50), ("images", 20)])
def test_too_many_files_are_400(
    client: TestClient, tenant: Tenant, memory: Any, objects: Callable[[], int], path: str, most: int
) -> None:
    where = f"{MEMORIES}/{memory['id']}/images" if path == "images" else f"{MEMORIES}/{path}"
    sent = files(*((f"{number}.txt", b"x") for number in range(most + 1)))

    assert client.post(where, headers=tenant.headers, files=sent).status_code == 400
    assert objects() == 0
    assert client.post(where, headers=tenant.headers, files=sent[:-1]).status_code == 201
    assert objects() == most


@pytest.mark.parametrize("path", ["upload", "images"])
def test_a_file_that_is_too_large_is_413_and_nothing_stays(
    client: TestClient, tenant: Tenant, memory: Any, objects: Callable[[], int], path: str
) -> None:
    where = f"{MEMORIES}/{memory['id']}/images" if path == "images" else f"{MEMORIES}/{path}"
    sent = files(("a.txt", b"a"), ("big.bin", bytes(MAX_FILE_BYTES + 1)))

    answer = client.post(where, headers=tenant.headers, files=sent, data={"text": "a"})

    assert answer.status_code == 413
    assert "big.bin" in answer.json()["detail"]
    assert objects() == 0
    assert len(client.get(MEMORIES, headers=tenant.headers).json()) == 1


def test_what_is_attached_comes_last_and_is_not_embedded(client: TestClient, tenant: Tenant, memory: Any) -> None:
    attach(client, tenant, memory, files(("a.txt", b"a"), ("b.txt", b"b")))

    answer = attach(client, tenant, memory, files(("c.txt", b"c"), field="file"))

    assert answer.status_code == 201
    changed = answer.json()
    assert names(changed) == ["a.txt", "b.txt", "c.txt"]
    assert (changed["text"], changed["version"]) == ("about bees", 3)
    assert answer.headers["ETag"] == '"3"'
    assert client.get(changed["images"][2]["url"]).content == b"c"


def test_a_memory_carries_twenty_files(client: TestClient, tenant: Tenant, memory: Any) -> None:
    twenty = files(*((f"{number}.txt", b"x") for number in range(20)))
    assert attach(client, tenant, memory, twenty).status_code == 201

    assert attach(client, tenant, memory, twenty[:1]).status_code == 400
    assert detach(client, tenant, memory, 19).status_code == 200
    assert attach(client, tenant, memory, twenty[:1]).status_code == 201


def test_a_file_is_detached_by_its_place(
    client: TestClient, tenant: Tenant, memory: Any, objects: Callable[[], int]
) -> None:
    attach(client, tenant, memory, files(("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")))

    answer = detach(client, tenant, memory, 1)

    assert answer.status_code == 200
    assert names(answer.json()) == ["a.txt", "c.txt"]
    assert objects() == 2
    assert names(detach(client, tenant, memory, 1).json()) == ["a.txt"]
    for index in (1, -1, "x", "1.0", 10**30, "%C2%B2"):
        assert detach(client, tenant, memory, index).status_code == 404
    assert names(detach(client, tenant, memory, 0).json()) == []
    assert objects() == 0


def test_changes_heed_if_match(client: TestClient, tenant: Tenant, memory: Any, objects: Callable[[], int]) -> None:
    stale, fresh = {"If-Match": '"7"'}, {"If-Match": '"1"'}

    assert attach(client, tenant, memory, files(("a.txt", b"a")), **stale).status_code == 412
    assert objects() == 0
    assert attach(client, tenant, memory, files(("a.txt", b"a")), **fresh).status_code == 201
    assert detach(client, tenant, memory, 0, **fresh).status_code == 412
    assert detach(client, tenant, memory, 0, **{"If-Match": '"2"'}).status_code == 200


def test_a_repeat_is_carried_out_once(
    client: TestClient, tenant: Tenant, memory: Any, objects: Callable[[], int]
) -> None:
    once = {**tenant.headers, "Idempotency-Key": "once"}
    for path in ("upload", "folder", f"{memory['id']}/images"):
        before = objects()
        answers = [client.post(f"{MEMORIES}/{path}", headers=once, files=files(("a.txt", b"a"))) for _ in range(2)]

        # The answer holds links, so it is not kept.
        assert [answer.status_code for answer in answers] == [201, 409]
        assert objects() == before + 1


def test_a_file_that_others_carry_stays(
    live: TestClient, tenant: Tenant, services: Services, objects: Callable[[], int]
) -> None:
    long = "\n\n".join(f"Paragraph {number} about {'bees ' * 60}" for number in range(12)).encode()
    live.post(f"{GARDEN}/drop", headers=tenant.headers, files=files(("long.txt", long)))
    chunks = live.get(MEMORIES, headers=tenant.headers).json()
    assert len(chunks) > 2

    for left, chunk in enumerate(reversed(chunks)):
        assert objects() == 1, left
        assert detach(live, tenant, chunk, 0).status_code == 200
    assert objects() == 0


def test_attaching_at_once_loses_nothing(services: Services, tenant: Tenant) -> None:
    memory = services.memories.create(tenant.caller, "garden", MemoryCreate(text="busy"))
    start = threading.Barrier(6)

    def one(number: int) -> None:
        with services.intake.of(tenant.id) as taking:
            file = taking.take(IncomingFile(f"{number}.txt", None, io.BytesIO(b"x")))
            start.wait()
            services.attachments.attach(tenant.caller, "garden", memory.id, stored([file]))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(6)))

    after = services.memories.get(tenant.caller, "garden", memory.id)
    assert sorted(file.filename for file in after.images) == [f"{number}.txt" for number in range(6)]
    assert after.version == 7


def test_who_attaches_at_once_keeps_to_the_limit(services: Services, tenant: Tenant) -> None:
    memory = services.memories.create(tenant.caller, "garden", MemoryCreate(text="busy"))
    start = threading.Barrier(4)

    def one(_: int) -> bool:
        with services.intake.of(tenant.id) as taking:
            sent = [taking.take(IncomingFile(f"{n}.txt", None, io.BytesIO(b"x"))) for n in range(8)]
            start.wait()
            try:
                services.attachments.attach(tenant.caller, "garden", memory.id, stored(sent))
            except BadRequest:
                return False
            return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(4))) == 2
    assert len(services.memories.get(tenant.caller, "garden", memory.id).images) == 16


def test_detaching_and_deleting_at_once_leaves_no_object(
    services: Services, tenant: Tenant, objects: Callable[[], int]
) -> None:
    for _ in range(5):
        with services.intake.of(tenant.id) as taking:
            sent = [taking.take(IncomingFile(f"{n}.txt", None, io.BytesIO(b"x"))) for n in range(4)]
            made = services.attachments.upload(tenant.caller, "garden", UploadOptions(text="busy"), [stored(sent)])
        (memory_id,) = made.ids
        start = threading.Barrier(5)

        def act(number: int, memory_id: Any = memory_id, start: threading.Barrier = start) -> str:
            with services.intake.of(tenant.id) as taking:
                file = taking.take(IncomingFile("late.txt", None, io.BytesIO(b"x"))) if number == 4 else None
                start.wait()
                try:
                    if file is not None:
                        services.attachments.attach(tenant.caller, "garden", memory_id, stored([file]))
                    elif number == 3:
                        services.memories.delete(tenant.caller, "garden", memory_id)
                    else:
                        services.attachments.detach(tenant.caller, "garden", memory_id, 0)
                except NotFound:
                    return "late"
                return "done"

        with ThreadPoolExecutor(5) as pool:
            outcomes = list(pool.map(act, range(5)))

        assert outcomes[3] == "done"
        assert objects() == 0
