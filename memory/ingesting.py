"""Ingesting: dropped files read, chunked, embedded and stored once, or failed with their reason."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from memory.attachments import UPLOADED
from memory.chunking import Chunk, chunk
from memory.collections import remove_objects
from memory.documents import Documents
from memory.embedding import Embedding
from memory.errors import Misconfigured, RejectedFile
from memory.filling import Filling, unopened
from memory.members import Members
from memory.perceiving import Perceiving
from memory.ports import Document, FileReader, ObjectStore, Senses, Vectors
from memory.statistics import Statistics
from memory.store import batches, changes, collections, contents, files, ingesting, memories
from memory.store.database import Database
from memory.store.ingesting import FileToRead, FileToStore
from memory.store.memories import NewMemory

MAX_REASON_CHARACTERS = 500
COLLECTION_DELETED = "collection deleted"

# Small files share an activity, which costs the Temporal server about 10 ms whatever it carries.
PORTION_FILES = 12
PORTION_BYTES = 256 * 1024
# With fewer portions than this, files of a small drop would wait for each other while a core is free.
PORTIONS_A_LISTING = 8

# Short, so that what Temporal missed goes on with the sweep's next round; a start too many does no harm.
STALLED_AFTER = timedelta(seconds=20)
STALLED_AT_MOST = 500


class Ingesting:
    """Works through the files of batches. Without a reader it cannot read one."""

    def __init__(
        self,
        database: Database,
        embedding: Embedding,
        objects: ObjectStore,
        statistics: Statistics,
        reader: FileReader | None = None,
        senses: Senses | None = None,
    ) -> None:
        self._database = database
        self._embedding = embedding
        self._objects = objects
        self._members = Members(database, objects)
        self._statistics = statistics
        self._reader = reader
        self._documents = Documents(objects)
        self._perceiving = Perceiving(database, self._documents, senses)
        self._filling = Filling(database, embedding, statistics)

    def unfinished(
        self, tenant_id: UUID, batch_id: UUID, limit: int, without: Sequence[UUID] = ()
    ) -> tuple[int, list[list[UUID]]]:
        """The next files that are neither done nor failed, in portions that are worked on together; `without` some that
        are being worked on already. Before them stands how often failed files of the batch were taken up again.
        """
        with self._database.transaction(tenant_id) as session:
            found = ingesting.unfinished(session, batch_id, limit, without)
        return found.round, _portions(found.files)

    def read(self, tenant_id: UUID, file_id: UUID) -> Literal["transcript", "caption"] | None:
        """Makes a document of the original and keeps it as an object; files inside of it join its batch. A file that
        has ended is left alone.

        Tells what is to be added to it before it is stored. A file that cannot be read ends as failed with its reason.
        Raises Unavailable.
        """
        with self._database.transaction(tenant_id) as session:
            claimed = ingesting.claim(session, file_id)
            twin = None if claimed is None or claimed.force else contents.stored_twin(session, file_id)
            gone = [] if twin is None else ingesting.end_as_duplicate(session, file_id, twin)
        remove_objects(self._objects, gone)
        if claimed is None or twin is not None:
            return None
        if claimed.collection_id is None:
            self._fail_without_collection(tenant_id, file_id)
            return None
        try:
            document = self._perceiving.expected(self._document_of(claimed))
            if claimed.source == UPLOADED:
                document = unopened(document, claimed.filename)
            else:
                document = document.model_copy(update={"note": self._members.take(tenant_id, claimed, document)})
        except RejectedFile as error:
            self.give_up(tenant_id, file_id, error.detail)
            return None
        self._documents.keep(tenant_id, file_id, document)
        return document.awaits

    def perceive(self, tenant_id: UUID, file_id: UUID, awaited: Literal["transcript", "caption"]) -> None:
        """Adds to a file's document what only a model can tell; one that has it, or has ended, stays as it is.

        A file that cannot be decoded ends as failed with its reason. Raises Unavailable, Misconfigured.
        """
        try:
            if awaited == "transcript":
                self._perceiving.transcribe(tenant_id, file_id)
            else:
                self._perceiving.caption(tenant_id, file_id)
        except RejectedFile as error:
            self.give_up(tenant_id, file_id, error.detail)

    def go_without_caption(self, tenant_id: UUID, file_id: UUID) -> None:
        """Ends the wait for a caption: what is written on the picture has to do."""
        self._perceiving.go_without_caption(tenant_id, file_id)

    def store(self, tenant_id: UUID, file_ids: Sequence[UUID]) -> None:
        """Makes memories of documents, each file in one transaction of its own; a file that has ended is left alone.

        All texts are embedded together: many small ones cost less so. Raises Unavailable, Misconfigured.
        """
        with self._database.transaction(tenant_id) as session:
            pending = ingesting.pending(session, file_ids)
        for file in pending:
            if file.source == UPLOADED:
                self._fill(tenant_id, file)
        dropped = [file for file in pending if file.source != UPLOADED]
        prepared = [ready for file in dropped if (ready := self._prepare(tenant_id, file)) is not None]
        texts = [piece.embedded for ready in prepared for piece in ready.chunks]
        vectors = iter(self._embedding.embed(texts) if texts else ())
        for ready in prepared:
            self._keep(tenant_id, ready, list(itertools.islice(vectors, len(ready.chunks))))
        self._documents.drop(tenant_id, file_ids)

    def give_up(self, tenant_id: UUID, file_id: UUID, reason: str) -> None:
        """Ends a file as failed; its original stays, for another try. One that has ended is left alone."""
        with self._database.transaction(tenant_id) as session:
            self._filling.explain(session, tenant_id, file_id, reason[:MAX_REASON_CHARACTERS])
            ingesting.fail(session, file_id, reason[:MAX_REASON_CHARACTERS])
        self._documents.drop(tenant_id, [file_id])

    def close(self, tenant_id: UUID, batch_id: UUID) -> bool:
        """Completes a batch of which every file has ended; false while one has not."""
        with self._database.transaction(tenant_id) as session:
            return batches.close(session, batch_id)

    def stalled(self) -> list[tuple[UUID, UUID]]:
        """(tenant id, batch id) of open batches, of all tenants, that nothing has touched for a while."""
        with self._database.across() as session:
            return batches.stalled(session, datetime.now(UTC) - STALLED_AFTER, STALLED_AT_MOST)

    def _document_of(self, claimed: FileToRead) -> Document:
        if self._reader is None:
            raise Misconfigured("this process has no reader of files; the worker has one")
        if claimed.size == 0:
            raise RejectedFile("empty file")
        with self._documents.original(claimed.key) as original:
            return self._reader.read(original, claimed.filename)

    def _fill(self, tenant_id: UUID, file: FileToStore) -> None:
        document = self._read_document(tenant_id, file)
        if document is not None and not self._filling.fill(tenant_id, file, document):
            self._fail_without_collection(tenant_id, file.id)

    def _prepare(self, tenant_id: UUID, file: FileToStore) -> "_Prepared | None":
        document = self._read_document(tenant_id, file)
        if document is None:
            return None
        embedder = self._embedding.embedder
        chunks = chunk(document, count_tokens=embedder.count_tokens, max_tokens=embedder.max_tokens)
        return _Prepared(file, document, chunks or [Chunk(text=file.filename, embedded=file.filename, metadata={})])

    def _read_document(self, tenant_id: UUID, file: FileToStore) -> Document | None:
        document = self._documents.find(tenant_id, file.id)
        if document is None:
            # Another attempt may have stored the file and cleared up since; else it was never read.
            awaited = self.read(tenant_id, file.id)
            if awaited is not None:
                self.perceive(tenant_id, file.id, awaited)
            document = self._documents.find(tenant_id, file.id)
        if document is not None and document.awaits is not None and file.collection_id is not None:
            # Cancelled while a model was at work on it, and taken up again since: it is listed once more.
            return None
        return document

    def _keep(self, tenant_id: UUID, ready: "_Prepared", vectors: Sequence[Vectors]) -> None:
        collection_id = ready.file.collection_id
        if collection_id is None or not self._insert(tenant_id, collection_id, ready, vectors):
            self._fail_without_collection(tenant_id, ready.file.id)
        else:
            self._statistics.changed(tenant_id, collection_id)

    def _insert(self, tenant_id: UUID, collection_id: UUID, ready: "_Prepared", vectors: Sequence[Vectors]) -> bool:
        """Memories and the end of the file in one transaction; False when the collection is gone.

        Of files with the same content the first one to come here is stored, the others are its duplicates.
        """
        file = ready.file
        model_id = self._embedding.model_id
        duplicate: list[str] = []
        with self._database.transaction(tenant_id) as session:
            # The collection before the file: its deletion takes locks in this order too.
            if not collections.keep(session, collection_id):
                return False
            twin = None
            if not file.options.force:
                ingesting.hold_content(session, file)
                twin = contents.stored_twin(session, file.id)
            if twin is not None:
                duplicate = ingesting.end_as_duplicate(session, file.id, twin)
            elif ingesting.hold_pending(session, file.id):
                memories.insert(
                    session,
                    tenant_id,
                    collection_id,
                    [_memory(ready, index, vector) for index, vector in enumerate(vectors)],
                    model_id=model_id,
                    author=file.author,
                    now=datetime.now(UTC),
                )
                ingesting.finish(
                    session,
                    file.id,
                    chunks=len(ready.chunks),
                    content_type=ready.document.content_type,
                    note=ready.document.note,
                )
                changes.raise_versions(session, tenant_id, [collection_id])
        remove_objects(self._objects, duplicate)
        return True

    def _fail_without_collection(self, tenant_id: UUID, file_id: UUID) -> None:
        # Its collection went with all files, so this one goes too.
        with self._database.transaction(tenant_id) as session:
            ingesting.fail(session, file_id, COLLECTION_DELETED)
            gone = files.release(session, [file_id])
        self._objects.delete(gone)
        self._documents.drop(tenant_id, [file_id])


@dataclass(frozen=True)
class _Prepared:
    file: FileToStore
    document: Document
    chunks: list[Chunk]


def _memory(ready: _Prepared, index: int, vector: Vectors) -> NewMemory:
    file, piece = ready.file, ready.chunks[index]
    return NewMemory(
        id=uuid4(),
        text=piece.text,
        vector=vector,
        importance=file.options.importance,
        category=file.options.category,
        source=file.source,
        metadata={
            **file.inherited,
            **ready.document.metadata,
            **file.options.metadata,
            **piece.metadata,
            "filename": file.filename,
            **({"path": file.path} if file.path else {}),
            "mime": ready.document.content_type,
            "chunk_index": index,
            "chunk_count": len(ready.chunks),
            "file_id": str(file.id),
        },
        container_tag=file.options.container_tag,
        sequence=str(file.id),
        position=index,
        file_ids=[file.id],
    )


def _portions(listed: Sequence[tuple[UUID, int]]) -> list[list[UUID]]:
    most = min(PORTION_FILES, max(1, len(listed) // PORTIONS_A_LISTING))
    portions: list[list[UUID]] = []
    weight = 0
    for file_id, size in listed:
        if not portions or len(portions[-1]) == most or weight + size > PORTION_BYTES:
            portions.append([])
            weight = 0
        portions[-1].append(file_id)
        weight += size
    return portions
