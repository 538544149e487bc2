"""Filling: what is read of an uploaded file becomes the text of the memory that carries it, in place of its name."""

from uuid import UUID

from memory.embedding import Embedding
from memory.errors import Unavailable
from memory.memories import after_last_change
from memory.ports import Document, Vectors
from memory.schemas import MAX_TEXT_CHARACTERS, Memory
from memory.statistics import Statistics
from memory.store import changes, collections, files, ingesting, memories
from memory.store.database import Database, Session
from memory.store.ingesting import FileToStore

NO_CARRIER = "the memory that carried it is gone"
# Each time somebody else changed the memory while its new text was embedded.
_TRIES = 10


class Filling:
    """Gives memories the texts of their files, each file once."""

    def __init__(self, database: Database, embedding: Embedding, statistics: Statistics) -> None:
        self._database = database
        self._embedding = embedding
        self._statistics = statistics

    def fill(self, tenant_id: UUID, file: FileToStore, document: Document) -> bool:
        """The text and the end of the file in one transaction; False when the collection is gone. Raises Unavailable.

        A memory whose text was changed by hand meanwhile keeps that.
        """
        said: tuple[str, str, Vectors] | None = None
        for _ in range(_TRIES):
            with self._database.transaction(tenant_id) as session:
                before = self._carrier(session, file)
            if before is not None and (text := with_what_was_read(before.text, file.filename, document)) != before.text:
                said = (before.text, text, self._embedding.embed([text])[0])
            # Asked before the transaction: who waits for a second connection while holding one may wait for ever.
            model_id = self._embedding.model_id
            kept = self._kept(tenant_id, file, document, said, model_id)
            if kept is not None:
                return kept
        raise Unavailable("the memory keeps being changed by others")

    def _carrier(self, session: Session, file: FileToStore) -> Memory | None:
        held = files.carrier(session, file.id)
        return None if held is None else memories.find_many(session, [held])[0]

    def _kept(
        self,
        tenant_id: UUID,
        file: FileToStore,
        document: Document,
        said: tuple[str, str, Vectors] | None,
        model_id: int,
    ) -> bool | None:
        """None when the memory says something else than what `said` was made from."""
        collection_id = file.collection_id
        with self._database.transaction(tenant_id) as session:
            if collection_id is None or not collections.keep(session, collection_id):
                return False
            memory = self._carrier(session, file)
            if not ingesting.hold_pending(session, file.id):
                return True
            if memory is None:
                ingesting.fail(session, file.id, NO_CARRIER)
                return True
            if with_what_was_read(memory.text, file.filename, document) != memory.text:
                if said is None or said[0] != memory.text:
                    return None
                self._write(session, tenant_id, memory, said[1], said[2], model_id)
            ingesting.finish(session, file.id, chunks=0, content_type=document.content_type, note=document.note)
        self._statistics.changed(tenant_id, collection_id)
        return True

    def _write(
        self, session: Session, tenant_id: UUID, memory: Memory, text: str, vector: Vectors, model_id: int
    ) -> None:
        # Wherever it was moved meanwhile.
        collection_id = collections.find_id(session, memory.collection)
        assert collection_id is not None  # noqa: S101 - it is held
        memories.write_vectors(session, tenant_id, collection_id, [(memory.id, vector)], model_id=model_id)
        memories.write_terms(session, tenant_id, collection_id, [(memory.id, text)])
        memories.update(session, memory.id, {"text": text}, says_something_new=False, now=after_last_change(memory))
        changes.raise_versions(session, tenant_id, [collection_id])


def with_what_was_read(text: str, filename: str, document: Document) -> str:
    """`text` with the first line that is only this name replaced; the same where nothing was read, or no line is."""
    read = text_of(document)
    lines = text.split("\n")
    if not read or filename not in lines:
        return text
    lines[lines.index(filename)] = read
    return "\n".join(lines)[:MAX_TEXT_CHARACTERS].strip()


def text_of(document: Document) -> str:
    """All that a document says, in its order; a table's header stands once above its rows."""
    lines: list[str] = []
    header: str | None = None
    for block in document.blocks:
        if block.kind == "row" and block.header and block.header != header:
            lines.append(block.header)
        header = block.header if block.kind == "row" else None
        lines.append(block.text)
    return "\n".join(lines).replace("\x00", "").strip()[:MAX_TEXT_CHARACTERS]
