"""Files become memories once, whatever happens in between, and every file ends with its outcome."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from memory import drops as rules
from memory.adapters.documents import GuardedReader
from memory.drop_schemas import BatchFile, BatchProgress, DropOptions
from memory.drops import COLLECTION_DELETED, Drops, IncomingFile
from memory.embedding import Embedding
from memory.errors import Misconfigured, NotFound, RejectedFile, Unavailable
from memory.ports import Block, Document, FileReader
from memory.quotas import MAX_FILE_BYTES
from memory.schemas import Caller, CollectionCreate, MemoryFilter, SearchRequest
from memory.services import Services
from memory.store import drops as store
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection, Tenant

BEES = b"Bees dance to tell the hive where the flowers are.\n"
LONG = "\n\n".join(f"# Chapter {n}\n\n" + f"Sentence {n} about beekeeping in winter. " * 20 for n in range(5)).encode()


class ScriptedReader(FileReader):
    """Says what it is told to, and counts."""

    def __init__(self, answer: Callable[[str], Document]) -> None:
        self.answer = answer
        self.read_files: list[str] = []

    def read(self, path: Path, filename: str) -> Document:
        self.read_files.append(filename)
        return self.answer(filename)


@pytest.fixture(scope="module")
def reader() -> Iterator[GuardedReader]:
    reader = GuardedReader(ocr_engine="off")
    yield reader
    reader.close()


@pytest.fixture
def make(services: Services) -> Callable[[FileReader], Drops]:
    """Drops with meaning made of words and a reader of the test's choice."""

    def made(reader: FileReader) -> Drops:
        embedding = Embedding(services.database, WordEmbedder())
        return Drops(services.database, services.grants, embedding, services.objects, services.statistics, reader)

    return made


@pytest.fixture
def drops(services: Services, reader: GuardedReader) -> Drops:
    """The real ones."""
    embedding = Embedding(services.database, services.embedder)
    return Drops(services.database, services.grants, embedding, services.objects, services.statistics, reader)


def incoming(name: str, content: bytes = BEES, content_type: str | None = None) -> IncomingFile:
    return IncomingFile(name, content_type, io.BytesIO(content))


def paragraphs(*texts: str) -> Callable[[str], Document]:
    return lambda _: Document(content_type="text/plain", blocks=[Block(text=text) for text in texts])


def open_one(drops: Drops, caller: Caller, name: str = "bees.txt", content: bytes = BEES) -> tuple[UUID, UUID]:
    """(batch id, file id) of a drop of one file."""
    batch_id = drops.open(caller, "garden", [incoming(name, content)], DropOptions()).batch_id
    ((file_id,),) = drops.unfinished(caller.tenant_id, batch_id, 100)
    return batch_id, file_id


def work(drops: Drops, caller: Caller, batch_id: UUID) -> BatchProgress:
    """What the workflow does when nothing goes wrong."""
    for portion in drops.unfinished(caller.tenant_id, batch_id, 100):
        for file_id in portion:
            drops.read(caller.tenant_id, file_id)
        drops.store(caller.tenant_id, portion)
    assert drops.close(caller.tenant_id, batch_id)
    return drops.progress(caller, batch_id)


def only_file(drops: Drops, caller: Caller, batch_id: UUID) -> BatchFile:
    (file,) = drops.progress(caller, batch_id).files
    return file


def objects_of(services: Services, caller: Caller) -> list[str]:
    folder = services.settings.rememberos_data / "objects" / str(caller.tenant_id)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def memories_of(services: Services, caller: Caller) -> int:
    return services.memories.page(caller, "garden", MemoryFilter(limit=200))[1]


def test_a_dropped_file_becomes_a_memory_that_search_finds(services: Services, drops: Drops, tenant: Tenant) -> None:
    caller = tenant.caller
    options = DropOptions(container_tag="hive", category="nature", importance=0.9, metadata={"season": "spring"})

    opened = drops.open(caller, "garden", [incoming("bees.txt", content_type="text/plain")], options)
    progress = work(drops, caller, opened.batch_id)

    assert (opened.queued, opened.refused) == (1, [])
    assert (progress.total, progress.done, progress.failed, progress.pending, progress.complete) == (1, 1, 0, 0, True)
    assert progress.collection == "garden"
    hit = services.search.search(caller, "garden", SearchRequest(query="how do bees talk to each other")).results[0]
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


def test_a_long_file_becomes_chunks_in_order(services: Services, drops: Drops, tenant: Tenant) -> None:
    opened = drops.open(tenant.caller, "garden", [incoming("book.md", LONG)], DropOptions())
    (file,) = work(drops, tenant.caller, opened.batch_id).files

    chunks = [services.memories.get(tenant.caller, "garden", memory_id) for memory_id in file.memory_ids]
    assert file.chunks == len(chunks) > 4
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.metadata["chunk_index"] for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.metadata["chunk_count"] for chunk in chunks} == {len(chunks)}
    assert len({chunk.sequence for chunk in chunks}) == 1
    (preview,) = [result.preview for result in drops.results(tenant.caller, opened.batch_id).results]
    assert preview == chunks[0].text[:200]


def test_a_chunk_says_where_it_stood(services: Services, make: Callable[[FileReader], Drops], tenant: Tenant) -> None:
    document = Document(
        content_type="application/pdf",
        blocks=[Block(kind="heading", text="Winter"), Block(text="Feed them.", place={"page": 7})],
        metadata={"title": "The hive", "author": "Ann"},
    )
    drops = make(ScriptedReader(lambda _: document))
    options = DropOptions(metadata={"author": "the client's word", "page": 1, "file_id": "x"})

    opened = drops.open(tenant.caller, "garden", [incoming("hive.pdf")], options)
    (file,) = work(drops, tenant.caller, opened.batch_id).files

    memory = services.memories.get(tenant.caller, "garden", file.memory_ids[0])
    assert memory.metadata["heading"] == "Winter"
    assert memory.metadata["page"] == 7
    assert memory.metadata["title"] == "The hive"
    assert memory.metadata["author"] == "the client's word"
    assert memory.metadata["mime"] == "application/pdf"
    assert memory.metadata["file_id"] == memory.sequence
    assert memory.images[0].content_type == "application/pdf"


def test_ten_megabytes_are_taken_and_one_byte_more_is_refused_by_name(
    services: Services, drops: Drops, tenant: Tenant
) -> None:
    files = [incoming("full.txt", b"x" * MAX_FILE_BYTES), incoming("over.txt", b"x" * (MAX_FILE_BYTES + 1))]

    opened = drops.open(tenant.caller, "garden", files, DropOptions())

    assert opened.queued == 1
    assert [refused.filename for refused in opened.refused] == ["over.txt"]
    assert "10 MB" in opened.refused[0].reason
    assert [file.filename for file in drops.progress(tenant.caller, opened.batch_id).files] == ["full.txt"]
    assert len(objects_of(services, tenant.caller)) == 1


def test_a_drop_of_which_nothing_is_taken_is_complete_and_makes_no_collection(
    services: Services, drops: Drops, tenant: Tenant
) -> None:
    opened = drops.open(tenant.caller, "empty", [incoming("over.txt", b"x" * (MAX_FILE_BYTES + 1))], DropOptions())

    progress = drops.progress(tenant.caller, opened.batch_id)
    assert (progress.total, progress.complete) == (0, True)
    with pytest.raises(NotFound):
        services.collections.get(tenant.caller, "empty")


def test_originals_of_a_failed_transaction_do_not_stay(
    drops: Drops, services: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr("memory.store.drops.insert_batch", gone)

    with pytest.raises(Unavailable):
        drops.open(tenant.caller, "garden", [incoming("a.txt"), incoming("b.txt")], DropOptions())

    assert objects_of(services, tenant.caller) == []


def test_an_empty_file_fails_alone(drops: Drops, tenant: Tenant) -> None:
    opened = drops.open(tenant.caller, "garden", [incoming("void.txt", b""), incoming("bees.txt")], DropOptions())

    void, bees = work(drops, tenant.caller, opened.batch_id).files

    assert (void.status, void.error, void.memory_ids) == ("failed", "empty file", [])
    assert (bees.status, bees.error, bees.chunks) == ("done", None, 1)
    outcome = drops.results(tenant.caller, opened.batch_id)
    assert (outcome.stored, outcome.failed) == (1, 1)
    assert [result.status for result in outcome.results] == ["failed", "ok"]


def test_a_file_that_cannot_be_read_fails_with_its_reason(
    services: Services, make: Callable[[FileReader], Drops], tenant: Tenant
) -> None:
    def refuse(filename: str) -> Document:
        raise RejectedFile("it is encrypted")

    drops = make(ScriptedReader(refuse))
    batch_id, file_id = open_one(drops, tenant.caller)

    progress = work(drops, tenant.caller, batch_id)

    assert progress.complete
    assert (progress.files[0].status, progress.files[0].error) == ("failed", "it is encrypted")
    # The original stays, for another try.
    assert objects_of(services, tenant.caller) == [f"files/{file_id}"]


def test_a_file_without_text_is_found_by_its_name(services: Services, drops: Drops, tenant: Tenant) -> None:
    noise = bytes(range(256)) * 40

    opened = drops.open(tenant.caller, "garden", [incoming("queen bee.bin", noise)], DropOptions())
    (file,) = work(drops, tenant.caller, opened.batch_id).files

    assert (file.status, file.chunks) == ("done", 1)
    assert file.note
    (hit,) = services.search.search(tenant.caller, "garden", SearchRequest(query="queen bee", mode="text")).results
    assert hit.text == "queen bee.bin"


def test_what_was_done_is_not_done_again(
    services: Services, make: Callable[[FileReader], Drops], tenant: Tenant
) -> None:
    reader = ScriptedReader(paragraphs("one"))
    drops = make(reader)
    batch_id, file_id = open_one(drops, tenant.caller)
    work(drops, tenant.caller, batch_id)
    before = only_file(drops, tenant.caller, batch_id)

    drops.read(tenant.id, file_id)
    drops.store(tenant.id, [file_id])
    drops.give_up(tenant.id, file_id, "too late")

    assert only_file(drops, tenant.caller, batch_id) == before
    assert memories_of(services, tenant.caller) == 1
    assert reader.read_files == ["bees.txt"]
    assert objects_of(services, tenant.caller) == [f"files/{file_id}"]


def test_two_attempts_at_once_store_a_file_once(
    services: Services, make: Callable[[FileReader], Drops], tenant: Tenant
) -> None:
    drops = make(ScriptedReader(paragraphs("one", "two")))
    batch_id, file_id = open_one(drops, tenant.caller)
    drops.read(tenant.id, file_id)

    with ThreadPoolExecutor(4) as attempts:
        for attempt in [attempts.submit(drops.store, tenant.id, [file_id]) for _ in range(4)]:
            attempt.result()

    assert only_file(drops, tenant.caller, batch_id).status == "done"
    assert memories_of(services, tenant.caller) == only_file(drops, tenant.caller, batch_id).chunks


def test_a_lost_document_is_read_again(services: Services, make: Callable[[FileReader], Drops], tenant: Tenant) -> None:
    reader = ScriptedReader(paragraphs("one"))
    drops = make(reader)
    batch_id, file_id = open_one(drops, tenant.caller)
    drops.read(tenant.id, file_id)
    services.objects.delete([f"{tenant.id}/documents/{file_id}"])

    drops.store(tenant.id, [file_id])

    assert only_file(drops, tenant.caller, batch_id).status == "done"
    assert len(reader.read_files) == 2


def test_a_lost_original_is_a_reason(services: Services, drops: Drops, tenant: Tenant) -> None:
    batch_id, file_id = open_one(drops, tenant.caller)
    services.objects.delete([f"{tenant.id}/files/{file_id}"])

    drops.read(tenant.id, file_id)

    assert only_file(drops, tenant.caller, batch_id).error == "its stored original is missing"


def test_nothing_is_stored_when_the_end_of_the_file_is_not(
    services: Services, make: Callable[[FileReader], Drops], tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops = make(ScriptedReader(paragraphs("one")))
    batch_id, file_id = open_one(drops, tenant.caller)
    drops.read(tenant.id, file_id)

    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(store, "finish", crash)
        with pytest.raises(ZeroDivisionError):
            drops.store(tenant.id, [file_id])
    assert memories_of(services, tenant.caller) == 0
    assert only_file(drops, tenant.caller, batch_id).status == "processing"

    drops.store(tenant.id, [file_id])
    assert memories_of(services, tenant.caller) == 1


def test_while_the_embedder_is_down_a_file_waits(services: Services, tenant: Tenant) -> None:
    words = WordEmbedder()
    drops = Drops(
        services.database,
        services.grants,
        Embedding(services.database, words),
        services.objects,
        services.statistics,
        ScriptedReader(paragraphs("one")),
    )
    batch_id, file_id = open_one(drops, tenant.caller)
    drops.read(tenant.id, file_id)

    words.down = True
    with pytest.raises(Unavailable):
        drops.store(tenant.id, [file_id])
    assert drops.pending(tenant.caller, batch_id) == 1
    assert not drops.close(tenant.id, batch_id)

    words.down = False
    drops.store(tenant.id, [file_id])
    assert drops.pending(tenant.caller, batch_id) == 0
    assert drops.close(tenant.id, batch_id)


@pytest.mark.parametrize("deleted_before", ["read", "store"])
def test_files_of_a_deleted_collection_fail_and_leave_nothing(
    services: Services, make: Callable[[FileReader], Drops], tenant: Tenant, deleted_before: str
) -> None:
    drops = make(ScriptedReader(paragraphs("one")))
    batch_id, file_id = open_one(drops, tenant.caller)

    if deleted_before == "store":
        drops.read(tenant.id, file_id)
    services.collections.delete(tenant.caller, "garden")
    # One of the same name is another one.
    services.collections.create(tenant.caller, CollectionCreate(name="garden"))
    progress = work(drops, tenant.caller, batch_id)

    assert (progress.files[0].status, progress.files[0].error) == ("failed", COLLECTION_DELETED)
    assert progress.collection == "garden"
    assert memories_of(services, tenant.caller) == 0
    assert objects_of(services, tenant.caller) == []


def test_a_collection_deleted_while_its_file_is_embedded_is_noticed(services: Services, tenant: Tenant) -> None:
    words = WordEmbedder()
    drops = Drops(
        services.database,
        services.grants,
        Embedding(services.database, words),
        services.objects,
        services.statistics,
        ScriptedReader(paragraphs("one")),
    )
    batch_id, file_id = open_one(drops, tenant.caller)
    drops.read(tenant.id, file_id)
    words.before_answer = lambda _: _none(services.collections.delete(tenant.caller, "garden"))

    drops.store(tenant.id, [file_id])

    assert only_file(drops, tenant.caller, batch_id).error == COLLECTION_DELETED
    assert objects_of(services, tenant.caller) == []


def test_a_file_is_given_up_with_a_reason_of_bounded_length(drops: Drops, tenant: Tenant) -> None:
    batch_id, file_id = open_one(drops, tenant.caller)

    drops.give_up(tenant.id, file_id, "no " * 1_000)

    file = only_file(drops, tenant.caller, batch_id)
    assert file.status == "failed"
    assert file.error is not None
    assert len(file.error) == rules.MAX_REASON_CHARACTERS
    assert drops.unfinished(tenant.id, batch_id, 100) == []


def test_small_files_share_portions_and_large_ones_do_not(drops: Drops, tenant: Tenant) -> None:
    small = [incoming(f"{n}.txt", b"x") for n in range(40)]
    large = [incoming(f"large {n}.txt", b"x" * rules.PORTION_BYTES) for n in range(2)]
    opened = drops.open(tenant.caller, "garden", [*small, *large], DropOptions())

    portions = drops.unfinished(tenant.id, opened.batch_id, 100)

    assert [len(portion) for portion in portions] == [5] * 8 + [1, 1]
    assert len({file_id for portion in portions for file_id in portion}) == 42
    # Few files: each by itself, so that they are worked on side by side.
    assert [len(portion) for portion in drops.unfinished(tenant.id, opened.batch_id, 6)] == [1] * 6


def test_another_tenants_batch_does_not_exist(drops: Drops, new_tenant: Callable[[], Tenant]) -> None:
    mine, other = new_tenant(), new_tenant()
    batch_id, file_id = open_one(drops, mine.caller)

    for ask in (drops.progress, drops.results):
        with pytest.raises(NotFound):
            ask(other.caller, batch_id)
        with pytest.raises(NotFound):
            ask(mine.caller, uuid4())
    assert drops.unfinished(other.id, batch_id, 100) == []
    drops.read(other.id, file_id)
    drops.give_up(other.id, file_id, "not yours")
    assert only_file(drops, mine.caller, batch_id).status == "queued"


def test_open_batches_that_nothing_touches_are_stalled(drops: Drops, tenant: Tenant, as_owner: Connection) -> None:
    batch_id, file_id = open_one(drops, tenant.caller)
    assert (tenant.id, batch_id) not in drops.stalled()

    _age(as_owner, batch_id)
    assert (tenant.id, batch_id) in drops.stalled()

    drops.unfinished(tenant.id, batch_id, 100)
    assert (tenant.id, batch_id) not in drops.stalled()

    _age(as_owner, batch_id)
    drops.read(tenant.id, file_id)
    assert (tenant.id, batch_id) not in drops.stalled()

    work(drops, tenant.caller, batch_id)
    _age(as_owner, batch_id)
    assert (tenant.id, batch_id) not in drops.stalled()


def test_without_a_reader_a_file_is_not_failed(services: Services, tenant: Tenant) -> None:
    batch_id, file_id = open_one(services.drops, tenant.caller)

    with pytest.raises(Misconfigured):
        services.drops.read(tenant.id, file_id)

    assert services.drops.pending(tenant.caller, batch_id) == 1


def _age(as_owner: psycopg.Connection[tuple[object, ...]], batch_id: UUID) -> None:
    as_owner.execute("update batches set touched_at = now() - interval '1 hour' where id = %s", [batch_id])


def _none(_: object) -> None:
    return None
