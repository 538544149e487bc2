"""Fates of memories that go on or go away together: pinned, archived, moved, forgotten."""

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from memory.collections import remove_objects
from memory.embedding import Embedding
from memory.errors import Forbidden
from memory.fate_schemas import ForgetRequest, ForgetResponse, Forgettable
from memory.grants import Grants, Reach
from memory.memories import after_last_change, hold, known, linked, require
from memory.ports import ObjectStore, Vectors
from memory.schemas import Caller, Memory
from memory.statistics import Statistics
from memory.store import changes, files, memories, search
from memory.store.database import Database, Session

_PREVIEW_CHARACTERS = 200
# How many of the nearest are looked at together while pinned ones stand in the way.
_LOOK = 100
_ACTIONS = {
    ("pinned", True): "pin",
    ("pinned", False): "unpin",
    ("archived", True): "archive",
    ("archived", False): "restore",
}


class Fates:
    """What becomes of memories, besides being changed and deleted by hand.

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

    def pin(
        self, caller: Caller, collection: str, memory_id: UUID, pinned: bool, *, versions: frozenset[int] | None = None
    ) -> Memory:
        """Keeps the memory from whatever tidies up, and puts it first in listings. Raises NotFound, Forbidden."""
        return self._mark(caller, collection, memory_id, "pinned", pinned, versions)

    def archive(
        self,
        caller: Caller,
        collection: str,
        memory_id: UUID,
        archived: bool,
        *,
        versions: frozenset[int] | None = None,
    ) -> Memory:
        """Takes the memory out of search and listings, or back into them. Raises NotFound, Forbidden."""
        return self._mark(caller, collection, memory_id, "archived", archived, versions)

    def _mark(
        self,
        caller: Caller,
        collection: str,
        memory_id: UUID,
        mark: Literal["pinned", "archived"],
        value: bool,
        versions: frozenset[int] | None,
    ) -> Memory:
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            collection_id, memory = hold(session, reach, collection, memory_id, versions)
            if getattr(memory, mark) != value:
                # A restored one counts as fresh, or what archives stale memories would take it again.
                now = after_last_change(memory) if mark == "archived" and not value else None
                memories.update(session, memory_id, {mark: value}, says_something_new=False, now=now)
                action = f"memory.{_ACTIONS[mark, value]}"
                memory = memories.find_many(session, [memory_id])[0]
                changes.record(session, caller, action, f"memory {memory_id}", [collection_id])
        return linked(memory, self._objects)

    def move(
        self, caller: Caller, collection: str, memory_id: UUID, to: str, *, versions: frozenset[int] | None = None
    ) -> Memory:
        """Takes the memory to another collection, made when it is missing; to its own one nothing happens.

        Raises NotFound, Forbidden for either end, Conflict when its external id is taken there.
        """
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            reach.changeable(session, collection)
            # Before anything is made for it.
            require(known(memories.find(session, collection, memory_id)), versions)
            to_id = reach.writable(session, to)
            from_id, memory = hold(session, reach, collection, memory_id, versions)
            if from_id == to_id:
                return linked(memory, self._objects)
            memories.move(session, memory_id, to_id, now=after_last_change(memory))
            moved = memories.find_many(session, [memory_id])[0]
            changes.record(
                session, caller, "memory.move", f"memory {memory_id} to collection {to_id}", [from_id, to_id]
            )
        for collection_id in (from_id, to_id):
            self._statistics.changed(caller.tenant_id, collection_id)
        return linked(moved, self._objects)

    def forget(self, caller: Caller, collection: str, wanted: ForgetRequest) -> ForgetResponse:
        """Erases what means the same as the query, archived and superseded memories too, and leaves pinned ones.

        A dry run is a look: who may read may have it. An unknown collection has nothing to forget.
        Raises Forbidden, Unavailable.
        """
        if caller.read_only and not wanted.dry_run:
            raise Forbidden("this key is read-only: it may look with `dry_run`, not forget")
        reach = self._grants.reach(caller)
        with self._database.transaction(caller.tenant_id) as session:
            # Before anything is embedded, for nothing.
            self._end(session, reach, collection, wanted)
        vector: Vectors = self._embedding.embed([wanted.query])[0]
        model_id = self._embedding.model_id
        with self._database.transaction(caller.tenant_id) as session:
            collection_id = self._end(session, reach, collection, wanted)
            if collection_id is None:
                return ForgetResponse(dry_run=wanted.dry_run)
            found, pinned = _matching(session, collection_id, wanted, vector, model_id)
            if wanted.dry_run:
                return _would_forget(session, found, pinned)
            carried = files.hold_of_memories(session, list(found))
            gone = set(memories.delete(session, list(found), in_collection=collection_id, unpinned=True))
            keys = files.release(session, carried)
            if gone:
                resource = f"{len(gone)} in collection {collection_id}"
                changes.record(session, caller, "memory.forget", resource, [collection_id])
        remove_objects(self._objects, keys)
        self._statistics.changed(caller.tenant_id, collection_id)
        ids = [memory_id for memory_id in found if memory_id in gone]
        return ForgetResponse(dry_run=False, deleted=len(ids), ids=ids, skipped_pinned=pinned)

    def _end(self, session: Session, reach: Reach, collection: str, wanted: ForgetRequest) -> UUID | None:
        return reach.readable(session, collection) if wanted.dry_run else reach.changeable(session, collection)


def _matching(
    session: Session, collection_id: UUID, wanted: ForgetRequest, vector: Vectors, model_id: int
) -> tuple[dict[UUID, float], int]:
    """The nearest that are not pinned, with their cosines, and how many pinned ones match as well."""
    found: dict[UUID, float] = {}
    pinned: list[UUID] = []
    while True:
        filters = search.Filters(
            container_tag=wanted.container_tag,
            include_archived=True,
            include_superseded=True,
            without=[*found, *pinned],
        )
        looked = search.nearest(
            session,
            [collection_id],
            vector,
            model_id=model_id,
            min_score=wanted.min_score,
            limit=_LOOK,
            filters=filters,
        )
        marked = memories.pinned_of(session, [memory_id for memory_id, _ in looked])
        for memory_id, cosine in looked:
            if memory_id in marked:
                pinned.append(memory_id)
            else:
                found[memory_id] = cosine
            if len(found) == wanted.limit:
                return found, len(pinned)
        if len(looked) < _LOOK:
            return found, len(pinned)


def _would_forget(session: Session, found: Mapping[UUID, float], pinned: int) -> ForgetResponse:
    previews = [
        Forgettable(
            id=memory.id,
            text=memory.text[:_PREVIEW_CHARACTERS],
            score=min(found[memory.id], 1.0),
            archived=memory.archived,
            is_latest=memory.is_latest,
            created_at=memory.created_at,
        )
        for memory in memories.find_many(session, list(found))
    ]
    return ForgetResponse(
        dry_run=True, would_delete=len(previews), ids=list(found), skipped_pinned=pinned, memories=previews
    )
