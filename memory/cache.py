"""The cache of search: the same question about the same state of the same collections has the same answer."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from pydantic import BaseModel, ValidationError

from memory.grants import Grants
from memory.memories import FILE_LINK_SECONDS
from memory.ports import Cache, ObjectStore
from memory.schemas import Caller, MemoryFile, SearchRequest, SearchResponse
from memory.store import answers
from memory.store.answers import State
from memory.store.database import Database

KEEP_SECONDS = 3600.0
# Raise it with whatever makes another answer out of the same question and the same memories.
_RANKING = 2


class Searching(Protocol):
    """Search with or without a cache before it."""

    def search(self, caller: Caller, collection: str | None, wanted: SearchRequest) -> SearchResponse: ...


class CachedSearch:
    """A search that answers a repeated question from a cache, until what it looked through changes.

    Everything that an answer depends on is part of its key, so that nothing has to be invalidated: a key once written
    is never asked for again after a change. The state is read before the search reads: an answer may be newer than
    its key says, never older.
    """

    def __init__(
        self, search: Searching, *, database: Database, grants: Grants, objects: ObjectStore, cache: Cache
    ) -> None:
        self._search = search
        self._database = database
        self._grants = grants
        self._objects = objects
        self._cache = cache

    def search(self, caller: Caller, collection: str | None, wanted: SearchRequest) -> SearchResponse:
        """As `Search.search`, with the links to files made anew. Raises Forbidden, Unavailable."""
        started = time.perf_counter()
        states = self._states(caller, collection)
        if not states:
            return self._search.search(caller, collection, wanted)
        key = _key(caller, collection, wanted, states)
        kept = self._found(key)
        if kept is not None:
            kept.search_ms = round((time.perf_counter() - started) * 1000, 3)
            return kept
        answer = self._search.search(caller, collection, wanted)
        if not answer.degraded:
            self._cache.put(key, _packed(answer), seconds=KEEP_SECONDS)
        return answer

    def _states(self, caller: Caller, collection: str | None) -> list[State]:
        reach = self._grants.reach(caller)
        states = answers.states(self._database, caller.tenant_id, collection)
        if collection is not None and states:
            reach.check_readable(states[0].collection_id, collection)
        return [state for state in states if reach.can_read(state.collection_id)]

    def _found(self, key: str) -> SearchResponse | None:
        value = self._cache.get(key)
        if value is None:
            return None
        try:
            kept = _Kept.model_validate_json(value)
        except ValidationError:
            # Another release has written it, or somebody else.
            return None
        for file, object_key in zip(_files(kept.answer), kept.object_keys, strict=False):
            linked = MemoryFile.stored(object_key, file.filename, file.content_type, file.size).linked(self._link)
            file.url = linked.url
        kept.answer.cached = True
        kept.answer.query_embedding_ms = 0.0
        return kept.answer

    def _link(self, key: str, filename: str, content_type: str) -> str:
        return self._objects.url(key, filename=filename, content_type=content_type, seconds=FILE_LINK_SECONDS)


class _Kept(BaseModel):
    """An answer without links, and where its files lie, in the order in which `_files` finds them."""

    answer: SearchResponse
    object_keys: list[str | None]


def _key(caller: Caller, collection: str | None, wanted: SearchRequest, states: Sequence[State]) -> str:
    """The states name the collections that this caller may read, so callers with the same reach share answers."""
    depends_on = [
        _RANKING,
        str(caller.tenant_id),
        collection is None,
        wanted.model_dump(mode="json"),
        [[str(state.collection_id), state.version, str(state.next_expiry)] for state in states],
    ]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _packed(answer: SearchResponse) -> bytes:
    files = list(_files(answer))
    if files:
        # The links are made for whoever asks, when they ask.
        answer = answer.model_copy(deep=True)
        for file in _files(answer):
            file.url = ""
    return _Kept(answer=answer, object_keys=[file.key for file in files]).model_dump_json().encode()


def _files(answer: SearchResponse) -> Iterator[MemoryFile]:
    """Every file in an answer, those of what stands around its results included."""
    for hit in answer.results:
        around = [] if hit.context is None else [*hit.context.before, *hit.context.after]
        for memory in (hit, *around, *(hit.before or ()), *(hit.after or ())):
            yield from memory.images
