"""Files as memories carry them: sent together with a memory, attached to one, detached from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from memory import quotas
from memory.collections import remove_objects
from memory.drop_schemas import UploadOptions
from memory.embedding import Embedding
from memory.errors import BadRequest, NotFound
from memory.grants import Grants
from memory.intake import StoredFile
from memory.memories import after_last_change, author, hold, linked
from memory.ports import ObjectStore, Vectors
from memory.schemas import MAX_TEXT_CHARACTERS, Caller, Memory
from memory.statistics import Statistics
from memory.store import changes, drops, files, memories
from memory.store.database import Database, Session
from memory.store.memories import NewMemory

MOST_FILES = 20
# The source of a batch whose files memories carry already: what is read of them becomes the text of those.
UPLOADED = "upload"


@dataclass(frozen=True)
class Uploaded:
    """New memories with their files. With a batch, their text is the names until the files have been read."""

    ids: list[UUID]
    batch_id: UUID | None


class Attachments:
    """Where `versions` is given, the memory must be in one of them, or PreconditionFailed is raised."""

    def __init__(
        self, database: Database, grants: Grants, embedding: Embedding, objects: ObjectStore, statistics: Statistics
    ) -> None:
        self._database = database
        self._grants = grants
        self._embedding = embedding
        self._objects = objects
        self._statistics = statistics

    def upload(
        self,
        caller: Caller,
        collection: str,
        wanted: UploadOptions,
        sent: Sequence[Sequence[StoredFile]],
        *,
        of_a_folder: bool = False,
    ) -> Uploaded:
        """One memory for each group of files, all or none; the collection is made if missing. Where the files are
        those `of_a_folder`, each memory says where its file lay, also at the top.

        Without a text they say the names of their files, so that they are found at once, and a batch that has them read
        is opened. Raises Forbidden, Unavailable.
        """
        reach = self._grants.reach(caller)
        vectors = self._embedding.embed([_text(wanted, group) for group in sent])
        model_id = self._embedding.model_id
        every = [file for group in sent for file in group]
        batch_id = uuid4() if wanted.text is None else None
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.writable(session, collection)
            quotas.room_for_memories(session, caller, len(sent))
            quotas.room_for_files(session, caller, sum(file.size for file in every))
            if batch_id is None:
                drops.insert_files(session, caller.tenant_id, every, batch_id=None, status="done")
            else:
                _open_batch(session, caller, batch_id, collection_id, collection, wanted, every)
            rows = [_memory(wanted, group, vector, of_a_folder) for group, vector in zip(sent, vectors, strict=True)]
            memories.insert(
                session,
                caller.tenant_id,
                collection_id,
                rows,
                model_id=model_id,
                author=author(caller),
                now=datetime.now(UTC),
            )
            changes.record(
                session, caller, "memory.upload", f"{len(rows)} in collection {collection_id}", [collection_id]
            )
        self._statistics.changed(caller.tenant_id, collection_id)
        return Uploaded([row.id for row in rows], batch_id)

    def shown(self, caller: Caller, memory_ids: Sequence[UUID]) -> list[Memory]:
        """Memories that the caller has just made, as they are now; one that is gone is left out."""
        with self._database.transaction(caller.tenant_id) as session:
            found = memories.find_many(session, memory_ids)
        return [linked(memory, self._objects) for memory in found]

    def attach(
        self,
        caller: Caller,
        collection: str,
        memory_id: UUID,
        sent: Sequence[StoredFile],
        *,
        versions: frozenset[int] | None = None,
    ) -> Memory:
        """Adds files behind those that the memory carries. Raises NotFound, Forbidden, BadRequest over 20 files."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id, memory = hold(session, reach, collection, memory_id, versions)
            carried = files.count_carried(session, memory_id)
            if carried + len(sent) > MOST_FILES:
                raise BadRequest(f"a memory carries at most {MOST_FILES} files; this one has {carried}")
            quotas.room_for_files(session, caller, sum(file.size for file in sent))
            drops.insert_files(session, caller.tenant_id, sent, batch_id=None, status="done")
            files.carry(session, caller.tenant_id, memory_id, [file.id for file in sent])
            after = _changed(session, caller, collection_id, memory, "memory.attach")
        return linked(after, self._objects)

    def detach(
        self,
        caller: Caller,
        collection: str,
        memory_id: UUID,
        index: int,
        *,
        versions: frozenset[int] | None = None,
    ) -> Memory:
        """Takes one file off the memory; it is removed unless other memories carry it too.

        Raises NotFound, also when no file has this index, and Forbidden.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id, memory = hold(session, reach, collection, memory_id, versions)
            taken = files.take_off(session, memory_id, index)
            if not taken:
                raise NotFound(f"the memory has no file with the index {index}")
            keys = files.release(session, taken)
            after = _changed(session, caller, collection_id, memory, "memory.detach")
        remove_objects(self._objects, keys)
        return linked(after, self._objects)


def _open_batch(
    session: Session,
    caller: Caller,
    batch_id: UUID,
    collection_id: UUID,
    collection: str,
    wanted: UploadOptions,
    sent: Sequence[StoredFile],
) -> None:
    drops.insert_batch(
        session,
        caller.tenant_id,
        batch_id,
        collection_id=collection_id,
        collection=collection,
        # Whatever else has the same bytes, each memory says its own.
        options=wanted.model_copy(update={"force": True}),
        author=author(caller),
        files=sent,
        source=UPLOADED,
    )


def _changed(session: Session, caller: Caller, collection_id: UUID, memory: Memory, action: str) -> Memory:
    """The held memory with the files that it carries now, in its next version."""
    memories.update(session, memory.id, {}, says_something_new=False, now=after_last_change(memory))
    changes.record(session, caller, action, f"memory {memory.id}", [collection_id])
    return memories.find_many(session, [memory.id])[0]


def _text(wanted: UploadOptions, group: Sequence[StoredFile]) -> str:
    return wanted.text or "\n".join(file.filename for file in group)[:MAX_TEXT_CHARACTERS]


def _memory(wanted: UploadOptions, group: Sequence[StoredFile], vector: Vectors, of_a_folder: bool) -> NewMemory:
    path = group[0].path or (group[0].filename if of_a_folder else None) if len(group) == 1 else None
    return NewMemory(
        id=uuid4(),
        text=_text(wanted, group),
        vector=vector,
        importance=wanted.importance,
        category=wanted.category,
        source=wanted.source,
        metadata={**wanted.metadata, **({"path": path} if path else {})},
        container_tag=wanted.container_tag,
        file_ids=[file.id for file in group],
    )
