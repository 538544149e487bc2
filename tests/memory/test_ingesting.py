"""Files become memories once, whatever happens in between, and every file ends with its outcome."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from memory import ingesting as rules
from memory.drop_schemas import DropOptions
from memory.errors import Misconfigured, RejectedFile, Unavailable
from memory.ingesting import COLLECTION_DELETED
from memory.ports import Block, Document
from memory.schemas import CollectionCreate, SearchRequest
from memory.services import Services
from memory.store import ingesting as store
from tests.fakes import WordEmbedder
from tests.memory.conftest import Making, Tenant
from tests.memory.dropping import (
    BEES,
    ScriptedReader,
    incoming,
    memories_of,
    objects_of,
    only_file,
    open_one,
    paragraphs,
    work,
)

LONG = "\n\n".join(f"# Chapter {n}\n\n" + f"Sentence {n} about beekeeping in winter. " * 20 for n in range(5)).encode()


def test_a_dropped_file_becomes_a_memory_that_search_finds(reading_house: Services, tenant: Tenant) -> None:
    caller = tenant.caller
    options = DropOptions(container_tag="hive", category="nature", importance=0.9, metadata={"season": "spring"})

    opened = reading_house.drops.open(caller, "garden", [incoming("bees.txt", content_type="text/plain")], options)
    progress = work(reading_house, caller, opened.batch_id)

    assert (opened.queued, opened.refused) == (1, [])
    assert (progress.total, progress.done, progress.failed, progress.pending, progress.complete) == (1, 1, 0, 0, True)
    assert progress.collection == "garden"
    hit = reading_house.search.search(caller, "garden", SearchRequest(query="how do bees talk to each other")).results[
        0
    ]
    assert hit.text == BEES.decode().strip()
    assert [hit.id] == progress.files[0].memory_ids
    assert (hit.source, hit.category, hit.importance, hit.container_tag) == ("drop", "nature", 0.9, "hive")
    assert hit.sequence == hit.metadata["file_id"]
    assert hit.position == 0
    assert hit.metadata == {
        "season": "spring",
        "filename": "bees.txt",
        "mime": "text/plain",
        "chunk_index": 0,
        "chunk_count": 1,
        "file_id": hit.sequence,
    }
    assert (hit.created_by.id, hit.created_by.label) == (caller.key_id, caller.label)
    assert [(file.filename, file.size) for file in hit.images] == [("bees.txt", len(BEES))]


def test_a_long_file_becomes_chunks_in_order(reading_house: Services, tenant: Tenant) -> None:
    opened = reading_house.drops.open(tenant.caller, "garden", [incoming("book.md", LONG)], DropOptions())
    (file,) = work(reading_house, tenant.caller, opened.batch_id).files

    chunks = [reading_house.memories.get(tenant.caller, "garden", memory_id) for memory_id in file.memory_ids]
    assert file.chunks == len(chunks) > 4
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.metadata["chunk_index"] for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.metadata["chunk_count"] for chunk in chunks} == {len(chunks)}
    assert len({chunk.sequence for chunk in chunks}) == 1
    (preview,) = [result.preview for result in reading_house.batches.results(tenant.caller, opened.batch_id).results]
    assert preview == chunks[0].text[:200]


def test_a_chunk_says_where_it_stood(make: Making, tenant: Tenant) -> None:
    document = Document(
        content_type="application/pdf",
        blocks=[Block(kind="heading", text="Winter"), Block(text="Feed them.", place={"page": 7})],
        metadata={"title": "The hive", "author": "Ann"},
    )
    house = make(ScriptedReader(lambda _: document))
    options = DropOptions(metadata={"author": "the client's word", "page": 1, "file_id": "x"})

    opened = house.drops.open(tenant.caller, "garden", [incoming("hive.pdf")], options)
    (file,) = work(house, tenant.caller, opened.batch_id).files

    memory = house.memories.get(tenant.caller, "garden", file.memory_ids[0])
    assert memory.metadata["heading"] == "Winter"
    assert memory.metadata["page"] == 7
    assert memory.metadata["title"] == "The hive"
    assert memory.metadata["author"] == "the client's word"
    assert memory.metadata["mime"] == "application/pdf"
    assert memory.metadata["file_id"] == memory.sequence
    assert memory.images[0].content_type == "application/pdf"


def test_an_empty_file_fails_alone(reading_house: Services, tenant: Tenant) -> None:
    opened = reading_house.drops.open(
        tenant.caller, "garden", [incoming("void.txt", b""), incoming("bees.txt")], DropOptions()
    )

    void, bees = work(reading_house, tenant.caller, opened.batch_id).files

    assert (void.status, void.error, void.memory_ids) == ("failed", "empty file", [])
    assert (bees.status, bees.error, bees.chunks) == ("done", None, 1)
    outcome = reading_house.batches.results(tenant.caller, opened.batch_id)
    assert (outcome.stored, outcome.failed) == (1, 1)
    assert [result.status for result in outcome.results] == ["failed", "ok"]


def test_a_file_that_cannot_be_read_fails_with_its_reason(make: Making, tenant: Tenant) -> None:
    def refuse(filename: str) -> Document:
        raise RejectedFile("it is encrypted")

    house = make(ScriptedReader(refuse))
    batch_id, file_id = open_one(house, tenant.caller)

    progress = work(house, tenant.caller, batch_id)

    assert progress.complete
    assert (progress.files[0].status, progress.files[0].error) == ("failed", "it is encrypted")
    # The original stays, for another try.
    assert objects_of(house, tenant.caller) == [f"files/{file_id}"]


def test_a_file_without_text_is_found_by_its_name(reading_house: Services, tenant: Tenant) -> None:
    noise = bytes(range(256)) * 40

    opened = reading_house.drops.open(tenant.caller, "garden", [incoming("queen bee.bin", noise)], DropOptions())
    (file,) = work(reading_house, tenant.caller, opened.batch_id).files

    assert (file.status, file.chunks) == ("done", 1)
    assert file.note
    (hit,) = reading_house.search.search(tenant.caller, "garden", SearchRequest(query="queen bee", mode="text")).results
    assert hit.text == "queen bee.bin"


def test_what_was_done_is_not_done_again(make: Making, tenant: Tenant) -> None:
    reader = ScriptedReader(paragraphs("one"))
    house = make(reader)
    batch_id, file_id = open_one(house, tenant.caller)
    work(house, tenant.caller, batch_id)
    before = only_file(house, tenant.caller, batch_id)

    house.ingesting.read(tenant.id, file_id)
    house.ingesting.store(tenant.id, [file_id])
    house.ingesting.give_up(tenant.id, file_id, "too late")

    assert only_file(house, tenant.caller, batch_id) == before
    assert memories_of(house, tenant.caller) == 1
    assert reader.read_files == ["bees.txt"]
    assert objects_of(house, tenant.caller) == [f"files/{file_id}"]


def test_two_attempts_at_once_store_a_file_once(make: Making, tenant: Tenant) -> None:
    house = make(ScriptedReader(paragraphs("one", "two")))
    batch_id, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)

    with ThreadPoolExecutor(4) as attempts:
        for attempt in [attempts.submit(house.ingesting.store, tenant.id, [file_id]) for _ in range(4)]:
            attempt.result()

    assert only_file(house, tenant.caller, batch_id).status == "done"
    assert memories_of(house, tenant.caller) == only_file(house, tenant.caller, batch_id).chunks


def test_a_lost_document_is_read_again(make: Making, tenant: Tenant) -> None:
    reader = ScriptedReader(paragraphs("one"))
    house = make(reader)
    batch_id, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)
    house.objects.delete([f"{tenant.id}/documents/{file_id}"])

    house.ingesting.store(tenant.id, [file_id])

    assert only_file(house, tenant.caller, batch_id).status == "done"
    assert len(reader.read_files) == 2


def test_a_lost_original_is_a_reason(reading_house: Services, tenant: Tenant) -> None:
    batch_id, file_id = open_one(reading_house, tenant.caller)
    reading_house.objects.delete([f"{tenant.id}/files/{file_id}"])

    reading_house.ingesting.read(tenant.id, file_id)

    assert only_file(reading_house, tenant.caller, batch_id).error == "its stored original is missing"


def test_nothing_is_stored_when_the_end_of_the_file_is_not(
    make: Making, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(ScriptedReader(paragraphs("one")))
    batch_id, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)

    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(store, "finish", crash)
        with pytest.raises(ZeroDivisionError):
            house.ingesting.store(tenant.id, [file_id])
    assert memories_of(house, tenant.caller) == 0
    assert only_file(house, tenant.caller, batch_id).status == "processing"

    house.ingesting.store(tenant.id, [file_id])
    assert memories_of(house, tenant.caller) == 1


def test_while_the_embedder_is_down_a_file_waits(make: Making, tenant: Tenant) -> None:
    words = WordEmbedder()
    house = make(ScriptedReader(paragraphs("one")), words)
    batch_id, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)

    words.down = True
    with pytest.raises(Unavailable):
        house.ingesting.store(tenant.id, [file_id])
    assert house.batches.pending(tenant.caller, batch_id) == 1
    assert not house.ingesting.close(tenant.id, batch_id)

    words.down = False
    house.ingesting.store(tenant.id, [file_id])
    assert house.batches.pending(tenant.caller, batch_id) == 0
    assert house.ingesting.close(tenant.id, batch_id)


@pytest.mark.parametrize("deleted_before", ["read", "store"])
def test_files_of_a_deleted_collection_fail_and_leave_nothing(
    make: Making, tenant: Tenant, deleted_before: str
) -> None:
    house = make(ScriptedReader(paragraphs("one")))
    batch_id, file_id = open_one(house, tenant.caller)

    if deleted_before == "store":
        house.ingesting.read(tenant.id, file_id)
    house.collections.delete(tenant.caller, "garden")
    # One of the same name is another one.
    house.collections.create(tenant.caller, CollectionCreate(name="garden"))
    progress = work(house, tenant.caller, batch_id)

    assert (progress.files[0].status, progress.files[0].error) == ("failed", COLLECTION_DELETED)
    assert progress.collection == "garden"
    assert memories_of(house, tenant.caller) == 0
    assert objects_of(house, tenant.caller) == []


def test_a_collection_deleted_while_its_file_is_embedded_is_noticed(make: Making, tenant: Tenant) -> None:
    words = WordEmbedder()
    house = make(ScriptedReader(paragraphs("one")), words)
    batch_id, file_id = open_one(house, tenant.caller)
    house.ingesting.read(tenant.id, file_id)
    words.before_answer = lambda _: _none(house.collections.delete(tenant.caller, "garden"))

    house.ingesting.store(tenant.id, [file_id])

    assert only_file(house, tenant.caller, batch_id).error == COLLECTION_DELETED
    assert objects_of(house, tenant.caller) == []


def test_a_file_is_given_up_with_a_reason_of_bounded_length(reading_house: Services, tenant: Tenant) -> None:
    batch_id, file_id = open_one(reading_house, tenant.caller)

    reading_house.ingesting.give_up(tenant.id, file_id, "no " * 1_000)

    file = only_file(reading_house, tenant.caller, batch_id)
    assert file.status == "failed"
    assert file.error is not None
    assert len(file.error) == rules.MAX_REASON_CHARACTERS
    assert reading_house.ingesting.unfinished(tenant.id, batch_id, 100) == (0, [])


def test_small_files_share_portions_and_large_ones_do_not(reading_house: Services, tenant: Tenant) -> None:
    small = [incoming(f"{n}.txt", b"%d" % n) for n in range(40)]
    large = [incoming(f"large {n}.txt", b"%d" % n * rules.PORTION_BYTES) for n in range(2)]
    opened = reading_house.drops.open(tenant.caller, "garden", [*small, *large], DropOptions())

    _, portions = reading_house.ingesting.unfinished(tenant.id, opened.batch_id, 100)

    assert [len(portion) for portion in portions] == [5] * 8 + [1, 1]
    assert len({file_id for portion in portions for file_id in portion}) == 42
    # Few files: each by itself, so that they are worked on side by side.
    _, few = reading_house.ingesting.unfinished(tenant.id, opened.batch_id, 6)
    assert [len(portion) for portion in few] == [1] * 6


def test_without_a_reader_a_file_is_not_failed(services: Services, tenant: Tenant) -> None:
    batch_id, file_id = open_one(services, tenant.caller)

    with pytest.raises(Misconfigured):
        services.ingesting.read(tenant.id, file_id)

    assert services.batches.pending(tenant.caller, batch_id) == 1


def _none(_: object) -> None:
    return None
