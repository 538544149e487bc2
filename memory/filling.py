"""Filling: what is read of an uploaded file becomes the text of the memory that carries it, in place of its name."""

from typing import Any
from uuid import UUID

from memory.attachments import UPLOADED
from memory.embedding import Embedding
from memory.errors import Unavailable
from memory.filenames import clean_filename, clean_path
from memory.memories import after_last_change
from memory.ports import Block, Document, Vectors
from memory.schemas import MAX_TEXT_CHARACTERS, Memory
from memory.statistics import Statistics
from memory.store import changes, collections, files, ingesting, memories
from memory.store.database import Database, Session
from memory.store.ingesting import FileToStore

# Where a memory's metadata says what came of its files, by their names.
NOTES = "file_notes"
NO_CARRIER = "the memory that carried it is gone"
# Each time somebody else changed the memory while its new text was embedded.
_TRIES = 10
_UNOPENED = "what lies in it is not read here; drop it, and each becomes a file of its own"
# Less of a text is worth less than the name that it would stand for.
_SHORTEST_CUT = 200


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
                before = self._carrier(session, file.id)
            if before is not None:
                text, _note = with_what_was_read(before.text, file.filename, document)
                said = (before.text, text, self._embedding.embed([text])[0]) if text != before.text else None
            # Asked before the transaction: who waits for a second connection while holding one may wait for ever.
            model_id = self._embedding.model_id
            kept = self._kept(tenant_id, file, document, said, model_id)
            if kept is not None:
                return kept
        raise Unavailable("the memory keeps being changed by others")

    def explain(self, session: Session, tenant_id: UUID, file_id: UUID, reason: str) -> None:
        """Lets the memory that carries a file say why that was not read; a file of a drop has its batch for that."""
        for file in ingesting.pending(session, [file_id]):
            if file.source != UPLOADED or file.collection_id is None:
                return
            # The collection before the memory: its deletion takes locks in this order too.
            memory = self._carrier(session, file_id) if collections.keep(session, file.collection_id) else None
            if memory is not None:
                self._write(session, tenant_id, memory, _noted(memory, file.filename, f"not read: {reason}"))

    def _carrier(self, session: Session, file_id: UUID) -> Memory | None:
        held = files.carrier(session, file_id)
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
            memory = self._carrier(session, file.id)
            if not ingesting.hold_pending(session, file.id):
                return True
            if memory is None:
                ingesting.fail(session, file.id, NO_CARRIER)
                return True
            text, note = with_what_was_read(memory.text, file.filename, document)
            changed = _noted(memory, file.filename, note) if note else {}
            if text != memory.text:
                if said is None or said[0] != memory.text:
                    return None
                changed["text"] = text
                self._write_text(session, tenant_id, memory, text, said[2], model_id)
            if changed:
                self._write(session, tenant_id, memory, changed)
            ingesting.finish(session, file.id, chunks=0, content_type=document.content_type, note=note)
        self._statistics.changed(tenant_id, collection_id)
        return True

    def _write_text(
        self, session: Session, tenant_id: UUID, memory: Memory, text: str, vector: Vectors, model_id: int
    ) -> None:
        collection_id = _held_collection(session, memory)
        memories.write_vectors(session, tenant_id, collection_id, [(memory.id, vector)], model_id=model_id)
        memories.write_terms(session, tenant_id, collection_id, [(memory.id, text)])

    def _write(self, session: Session, tenant_id: UUID, memory: Memory, changed: dict[str, Any]) -> None:
        memories.update(session, memory.id, changed, says_something_new=False, now=after_last_change(memory))
        changes.raise_versions(session, tenant_id, [_held_collection(session, memory)])


def _held_collection(session: Session, memory: Memory) -> UUID:
    # Wherever it was moved meanwhile.
    collection_id = collections.find_id(session, memory.collection)
    assert collection_id is not None  # noqa: S101 - it is held
    return collection_id


def _noted(memory: Memory, filename: str, note: str) -> dict[str, Any]:
    noted = memory.metadata.get(NOTES)
    return {"metadata": {**memory.metadata, NOTES: {**(noted if isinstance(noted, dict) else {}), filename: note}}}


def with_what_was_read(text: str, filename: str, document: Document) -> tuple[str, str | None]:
    """`text` with the first line that is only this name replaced, the same where nothing was read or no line is; and
    what is to be said of that.

    Beside the names of the files that are still to be read there is room for so much.
    """
    read, notes = text_of(document), [document.note] if document.note else []
    lines = text.split("\n")
    if read and filename in lines:
        room = MAX_TEXT_CHARACTERS - (len(text) - len(filename))
        fitting = read[: room if len(read) <= room or room >= _SHORTEST_CUT else 0].strip()
        if len(fitting) < len(read):
            notes.append(f"only the first {len(fitting)} of its {len(read)} characters are in the text")
        lines[lines.index(filename)] = fitting or filename
        text = "\n".join(lines).strip()
    return text, "; ".join(notes) or None


def unopened(document: Document, filename: str) -> Document:
    """The document of a file of which what lies in it stays there: an archive says the names of that."""
    if not document.members:
        return document
    names = ", ".join(clean_path(one.name) or clean_filename(one.name) for one in document.members)
    note = "; ".join(filter(None, [document.note, _UNOPENED]))
    blocks = document.blocks or [Block(text=f"{filename}: {names}")]
    return document.model_copy(update={"note": note, "blocks": blocks, "members": []})


def text_of(document: Document) -> str:
    """All that a document says, in its order; a table's header stands once above its rows."""
    lines: list[str] = []
    header: str | None = None
    for block in document.blocks:
        if block.kind == "row" and block.header and block.header != header:
            lines.append(block.header)
        header = block.header if block.kind == "row" else None
        lines.append(block.text)
    return "\n".join(lines).replace("\x00", "").strip()
