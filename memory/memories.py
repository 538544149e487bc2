"""Memories: what agents and people tell the house, and its fate."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from memory.collections import remove_objects
from memory.embedding import Embedding
from memory.errors import BadRequest, Invalid, NotFound
from memory.grants import Grants, Reach
from memory.ports import ObjectStore, Vectors
from memory.schemas import Author, Caller, Memory, MemoryCreate, MemoryFilter, MemoryPatch
from memory.statistics import Statistics
from memory.store import changes as kept
from memory.store import files, memories
from memory.store.database import Database
from memory.store.memories import NewMemory

FILE_LINK_SECONDS = 3600
_NOT_HERE = "no such memory in this collection"
_NEVER_NULL = frozenset({"text", "importance", "category", "metadata"})


class Memories:
    """Create, read, change and delete memories."""

    def __init__(
        self,
        database: Database,
        grants: Grants,
        embedding: Embedding,
        objects: ObjectStore,
        statistics: Statistics,
    ) -> None:
        self._database = database
        self._grants = grants
        self._embedding = embedding
        self._objects = objects
        self._statistics = statistics

    def create(self, caller: Caller, collection: str, wanted: MemoryCreate) -> Memory:
        """Stores one memory; the collection is made when it is missing. Raises Unavailable."""
        return self.create_many(caller, collection, [wanted])[0]

    def create_many(self, caller: Caller, collection: str, wanted: Sequence[MemoryCreate]) -> list[Memory]:
        """Stores all or none, in one embed batch; answers in input order. Raises Unavailable."""
        reach = self._grants.reach(caller)
        vectors = self._embedding.embed([item.text for item in wanted])
        new = [
            NewMemory(id=uuid4(), vector=vector, **item.model_dump())
            for item, vector in zip(wanted, vectors, strict=True)
        ]
        model_id = self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.writable(session, collection)
            memories.insert(
                session,
                caller.tenant_id,
                collection_id,
                new,
                model_id=model_id,
                author=_author(caller),
                now=datetime.now(UTC),
            )
            stored = memories.find_many(session, [memory.id for memory in new])
            kept.record(session, caller, "memory.create", f"{len(new)} in collection {collection_id}", [collection_id])
        self._statistics.changed(caller.tenant_id, collection_id)
        return stored

    def page(self, caller: Caller, collection: str, wanted: MemoryFilter) -> tuple[list[Memory], int]:
        """A page, pinned first, then newest, and how many there are; an unknown collection is empty."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            if collection_id is None:
                return [], 0
            found, total = memories.listed(session, collection_id, wanted)
        return [linked(memory, self._objects) for memory in found], total

    def get(self, caller: Caller, collection: str, memory_id: UUID) -> Memory:
        """Raises NotFound, also for an expired one and under another collection's path, and Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            reach.readable(session, collection)
            memory = _known(memories.find(session, collection, memory_id))
        return linked(memory, self._objects)

    def patch(self, caller: Caller, collection: str, memory_id: UUID, wanted: MemoryPatch) -> Memory:
        """Sets the fields that were sent; a changed text is embedded anew and the old one kept as history.

        Raises NotFound, BadRequest when there is nothing to change, Invalid for a null where none may be, Unavailable.
        """
        changes = wanted.model_dump(exclude_unset=True)
        for name in sorted(_NEVER_NULL & changes.keys()):
            if changes[name] is None:
                raise Invalid(f"{name} must not be null")
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            reach.changeable(session, collection)
            before = _known(memories.find(session, collection, memory_id))
        if not changes:
            raise BadRequest("nothing to change: send at least one field of a memory")
        rewritten = None if changes.get("text", before.text) == before.text else self._rewritten(changes["text"])
        after = self._changed(reach, collection, memory_id, changes, rewritten)
        if after is None:
            # Another PATCH came between with another text, so that ours is a change after all.
            after = self._changed(reach, collection, memory_id, changes, self._rewritten(changes["text"]))
        return linked(_known(after), self._objects)

    def _rewritten(self, text: str) -> "_Rewritten":
        return _Rewritten(text, self._embedding.embed([text])[0], self._embedding.model_id)

    def _changed(
        self,
        reach: Reach,
        collection: str,
        memory_id: UUID,
        changes: dict[str, Any],
        rewritten: "_Rewritten | None",
    ) -> Memory | None:
        """The memory after `changes`; None when they change its text and nothing is ready for that."""
        caller = reach.caller
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            before = _known(memories.find(session, collection, memory_id, for_update=True))
            # Never before the last change: the clocks of two machines differ, and history has no negative spans.
            now = max(datetime.now(UTC), before.updated_at + timedelta(microseconds=1))
            says_something_new = changes.get("text", before.text) != before.text
            if says_something_new:
                if rewritten is None or collection_id is None:
                    return None
                memories.keep_version(session, caller.tenant_id, memory_id, author=_author(caller), now=now)
                memories.write_vectors(
                    session,
                    caller.tenant_id,
                    collection_id,
                    [(memory_id, rewritten.vector)],
                    model_id=rewritten.model_id,
                )
                memories.write_terms(session, caller.tenant_id, collection_id, [(memory_id, rewritten.text)])
            memories.update(session, memory_id, changes, says_something_new=says_something_new, now=now)
            after = memories.find_many(session, [memory_id])[0]
            kept.record(
                session, caller, "memory.update", f"memory {memory_id}", [collection_id] if collection_id else ()
            )
        if collection_id is not None:
            self._statistics.changed(caller.tenant_id, collection_id)
        return after

    def delete(self, caller: Caller, collection: str, memory_id: UUID) -> None:
        """Removes the memory and the files that only it carried. Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            _known(memories.find(session, collection, memory_id))
            held = files.hold_of_memories(session, [memory_id])
            if not memories.delete(session, [memory_id]):
                # Of two deletions at once one came too late.
                raise NotFound(_NOT_HERE)
            keys = files.release(session, held)
            kept.record(
                session, caller, "memory.delete", f"memory {memory_id}", [collection_id] if collection_id else ()
            )
        remove_objects(self._objects, keys)
        if collection_id is not None:
            self._statistics.changed(caller.tenant_id, collection_id)


@dataclass(frozen=True)
class _Rewritten:
    """A new text with its vector, made before any transaction is open."""

    text: str
    vector: Vectors
    model_id: int


def linked(memory: Memory, objects: ObjectStore) -> Memory:
    """The memory with links to its files that work for an hour."""
    if not memory.images:
        return memory

    def link(key: str, filename: str, content_type: str) -> str:
        return objects.url(key, filename=filename, content_type=content_type, seconds=FILE_LINK_SECONDS)

    return memory.model_copy(update={"images": [file.linked(link) for file in memory.images]})


def _author(caller: Caller) -> Author:
    return Author(id=caller.key_id, label=caller.label)


def _known(memory: Memory | None) -> Memory:
    if memory is None:
        raise NotFound(_NOT_HERE)
    return memory
