"""Memories: what agents and people tell the house, read and changed again."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from memory import quotas
from memory.collections import remove_objects
from memory.embedding import Embedding
from memory.errors import BadRequest, Conflict, Invalid, NotFound, PreconditionFailed
from memory.fate_schemas import HistoryPage, MemoryVersion, RelatedWanted
from memory.grants import Grants, Reach
from memory.ports import ObjectStore, Vectors
from memory.schemas import (
    Author,
    Caller,
    Memory,
    MemoryCreate,
    MemoryFilter,
    MemoryPatch,
    SearchHit,
)
from memory.statistics import Statistics
from memory.store import changes as kept
from memory.store import files, history, memories, search
from memory.store.database import Database, Session
from memory.store.memories import NewMemory

FILE_LINK_SECONDS = 3600
_NOT_HERE = "no such memory in this collection"
_NEVER_NULL = frozenset({"text", "importance", "category", "metadata"})
# Each time somebody else was quicker; who is overtaken that often may come again.
_TRIES = 10

# (container tag, external id): what names a memory within its collection.
_Key = tuple[str | None, str]


class Memories:
    """Create, read, change and delete memories.

    Where `versions` is given, the memory must be in one of them, or PreconditionFailed is raised and nothing changes.
    """

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
        """Stores one memory, or changes the one with its `external_id`; the collection is made when it is missing.

        What is new is in version 1, what was there in a later one. Raises Forbidden, Unavailable.
        """
        return self.create_many(caller, collection, [wanted])[0]

    def create_many(self, caller: Caller, collection: str, wanted: Sequence[MemoryCreate]) -> list[Memory]:
        """The same for many: all or none, in one embed batch; answers in input order.

        Raises Invalid for an `external_id` that occurs twice, Forbidden, Unavailable.
        """
        named = _named(wanted)
        reach = self._grants.reach(caller)
        vectors: dict[int, Vectors] = {}
        for _ in range(_TRIES):
            unchanged = self._unchanged(reach, collection, wanted, named) if named else set()
            missing = [number for number in range(len(wanted)) if number not in vectors and number not in unchanged]
            if missing:
                vectors |= zip(missing, self._embedding.embed([wanted[number].text for number in missing]), strict=True)
            try:
                return self._stored(reach, collection, wanted, named, vectors)
            except _Overtaken:
                continue
        raise Conflict("other writers keep changing memories with these external ids; try again")

    def _unchanged(
        self, reach: Reach, collection: str, wanted: Sequence[MemoryCreate], named: dict[int, _Key]
    ) -> set[int]:
        """Which of them say what their memory says already: a repeated import need not be embedded again."""
        with self._database.transaction(reach.caller.tenant_id) as session:
            collection_id = reach.changeable(session, collection)
            if collection_id is None:
                return set()
            texts = memories.texts_by_external_id(session, collection_id, list(named.values()))
        return {number for number, key in named.items() if texts.get(key) == wanted[number].text}

    def _stored(
        self,
        reach: Reach,
        collection: str,
        wanted: Sequence[MemoryCreate],
        named: dict[int, _Key],
        vectors: dict[int, Vectors],
    ) -> list[Memory]:
        caller, model_id = reach.caller, self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.writable(session, collection)
            held = memories.hold_by_external_id(session, collection_id, list(named.values())) if named else {}
            found = {number: held[key] for number, key in named.items() if key in held}
            new = {number: item for number, item in enumerate(wanted) if number not in found}
            if new.keys() - vectors.keys():
                raise _Overtaken
            quotas.room_for_memories(session, caller, len(new))
            ids = {number: found[number].id if number in found else uuid4() for number in range(len(wanted))}
            if new:
                rows = [
                    NewMemory(id=ids[number], vector=vectors[number], **item.model_dump())
                    for number, item in new.items()
                ]
                now = datetime.now(UTC)
                try:
                    memories.insert(
                        session,
                        caller.tenant_id,
                        collection_id,
                        rows,
                        model_id=model_id,
                        author=author(caller),
                        now=now,
                    )
                except Conflict:
                    raise _Overtaken from None
            for number, before in found.items():
                self._change(session, caller, collection_id, before, _sent(before, wanted[number]), vectors.get(number))
            stored = memories.find_many(session, list(ids.values()))
            _record_stored(session, caller, collection_id, created=len(new), updated=len(found))
        self._statistics.changed(caller.tenant_id, collection_id)
        return [linked(memory, self._objects) for memory in stored]

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
            memory = known(memories.find(session, collection, memory_id))
        return linked(memory, self._objects)

    def history(
        self, caller: Caller, collection: str, memory_id: UUID, wanted: HistoryPage
    ) -> tuple[list[MemoryVersion], int]:
        """What the memory and the others of its chain said, newest first, and how much there is.

        Raises NotFound, Forbidden.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            reach.readable(session, collection)
            known(memories.find(session, collection, memory_id))
            return history.listed(session, memory_id, limit=wanted.limit, offset=wanted.offset)

    def related(self, caller: Caller, collection: str, memory_id: UUID, wanted: RelatedWanted) -> list[SearchHit]:
        """The current memories of the same collection that mean the most alike, the memory itself left out.

        Raises NotFound, Forbidden.
        """
        reach = self._grants.reach(caller)
        model_id = self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = reach.readable(session, collection)
            known(memories.find(session, collection, memory_id))
            vector = search.vector_of(session, memory_id, model_id=model_id)
            if collection_id is None or vector is None:
                return []
            scores = dict(
                search.nearest(
                    session,
                    [collection_id],
                    vector,
                    model_id=model_id,
                    # A score is never below 0, so that 0 asks for nothing.
                    min_score=wanted.min_score or -1,
                    limit=wanted.limit,
                    filters=search.Filters(without=[memory_id]),
                )
            )
            found = memories.find_many(session, list(scores))
        return [_hit(linked(memory, self._objects), scores[memory.id]) for memory in found]

    def patch(
        self,
        caller: Caller,
        collection: str,
        memory_id: UUID,
        wanted: MemoryPatch,
        *,
        versions: frozenset[int] | None = None,
    ) -> Memory:
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
            before = known(memories.find(session, collection, memory_id))
            require(before, versions)
        if not changes:
            raise BadRequest("nothing to change: send at least one field of a memory")
        vector = (
            None if changes.get("text", before.text) == before.text else self._embedding.embed([changes["text"]])[0]
        )
        try:
            return self._patched(reach, collection, memory_id, changes, vector, versions)
        except _Overtaken:
            # Another PATCH came between with another text, so that ours is a change after all.
            vector = self._embedding.embed([changes["text"]])[0]
            return self._patched(reach, collection, memory_id, changes, vector, versions)

    def _patched(
        self,
        reach: Reach,
        collection: str,
        memory_id: UUID,
        changes: dict[str, Any],
        vector: Vectors | None,
        versions: frozenset[int] | None,
    ) -> Memory:
        caller = reach.caller
        if vector is not None:
            # Asked before the transaction: who waits for a second connection while holding one may wait for ever.
            _ = self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id, before = hold(session, reach, collection, memory_id, versions)
            self._change(session, caller, collection_id, before, changes, vector)
            after = memories.find_many(session, [memory_id])[0]
            kept.record(session, caller, "memory.update", f"memory {memory_id}", [collection_id])
        self._statistics.changed(caller.tenant_id, collection_id)
        return linked(after, self._objects)

    def _change(
        self,
        session: Session,
        caller: Caller,
        collection_id: UUID,
        before: Memory,
        changes: dict[str, Any],
        vector: Vectors | None,
    ) -> None:
        """Sets `changes` on a memory that is held. Raises _Overtaken when they need a vector and there is none."""
        now = after_last_change(before)
        says_something_new = changes.get("text", before.text) != before.text
        if says_something_new:
            if vector is None:
                raise _Overtaken
            history.keep_version(session, caller.tenant_id, before.id, author=author(caller), now=now)
            memories.write_vectors(
                session, caller.tenant_id, collection_id, [(before.id, vector)], model_id=self._embedding.model_id
            )
            memories.write_terms(session, caller.tenant_id, collection_id, [(before.id, changes["text"])])
        memories.update(session, before.id, changes, says_something_new=says_something_new, now=now)

    def delete(
        self, caller: Caller, collection: str, memory_id: UUID, *, versions: frozenset[int] | None = None
    ) -> None:
        """Removes the memory and the files that only it carried. Raises NotFound, Forbidden."""
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            reach.changeable(session, collection)
            known(memories.find(session, collection, memory_id))
            carried = files.hold_of_memories(session, [memory_id])
            collection_id, _ = hold(session, reach, collection, memory_id, versions)
            memories.delete(session, [memory_id])
            keys = files.release(session, carried)
            kept.record(session, caller, "memory.delete", f"memory {memory_id}", [collection_id])
        remove_objects(self._objects, keys)
        self._statistics.changed(caller.tenant_id, collection_id)


class _Overtaken(Exception):
    """Another writer was quicker: what was prepared does not fit any more."""


def hold(
    session: Session, reach: Reach, collection: str, memory_id: UUID, versions: frozenset[int] | None
) -> tuple[UUID, Memory]:
    """Locks a memory, and its collection against deletion. Raises NotFound, Forbidden, PreconditionFailed."""
    collection_id = reach.changeable(session, collection)
    memory = memories.find(session, collection, memory_id, for_update=True)
    if collection_id is None or memory is None:
        raise NotFound(_NOT_HERE)
    require(memory, versions)
    return collection_id, memory


def require(memory: Memory, versions: frozenset[int] | None) -> None:
    """Raises PreconditionFailed when the memory is in none of these versions; None is any."""
    if versions is not None and memory.version not in versions:
        raise PreconditionFailed(f"the memory has changed: it is in version {memory.version} now")


def known(memory: Memory | None) -> Memory:
    if memory is None:
        raise NotFound(_NOT_HERE)
    return memory


def after_last_change(memory: Memory) -> datetime:
    """Now, and never before the last change: the clocks of two machines differ, and history has no negative spans."""
    return max(datetime.now(UTC), memory.updated_at + timedelta(microseconds=1))


def author(caller: Caller) -> Author:
    return Author(id=caller.key_id, label=caller.label)


def linked(memory: Memory, objects: ObjectStore) -> Memory:
    """The memory with links to its files that work for an hour."""
    if not memory.images:
        return memory

    def link(key: str, filename: str, content_type: str) -> str:
        return objects.url(key, filename=filename, content_type=content_type, seconds=FILE_LINK_SECONDS)

    return memory.model_copy(update={"images": [file.linked(link) for file in memory.images]})


def _named(wanted: Sequence[MemoryCreate]) -> dict[int, _Key]:
    """Which of them carry an external id. Raises Invalid when two are the same."""
    named = {
        number: (item.container_tag, item.external_id)
        for number, item in enumerate(wanted)
        if item.external_id is not None
    }
    if len(set(named.values())) < len(named):
        twice = next(key for key in named.values() if list(named.values()).count(key) > 1)
        raise Invalid(f"external_id: {twice[1]!r} stands twice in one bulk")
    return named


def _sent(before: Memory, item: MemoryCreate) -> dict[str, Any]:
    """What a repeated write changes: the fields that were sent, and whatever hid the memory."""
    changes = item.model_dump(include=item.model_fields_set - {"external_id", "container_tag"})
    if before.archived:
        changes["archived"] = False
    if before.expires_at is not None and before.expires_at <= datetime.now(UTC):
        changes.setdefault("expires_at", None)
    return changes


def _record_stored(session: Session, caller: Caller, collection_id: UUID, *, created: int, updated: int) -> None:
    for action, count in (("memory.create", created), ("memory.update", updated)):
        if count:
            kept.record(session, caller, action, f"{count} in collection {collection_id}", [collection_id])


def _hit(memory: Memory, cosine: float) -> SearchHit:
    score = min(max(cosine, 0.0), 1.0)
    return SearchHit(**dict(memory), score=score, vector_score=score, text_score=None)
