"""The cache of search: the same question about the same state of the same collections has the same answer."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import TypeAdapter

from memory.grants import Grants
from memory.memories import FILE_LINK_SECONDS
from memory.ports import Cache, ObjectStore
from memory.schemas import Caller, MemoryFile, SearchHit, SearchRequest, SearchResponse
from memory.store import answers
from memory.store.answers import State
from memory.store.database import Database

KEEP_SECONDS = 3600.0
# Raise it with whatever makes another answer out of the same question and the same memories.
_RANKING = 2
# Answers of another release are not ours to give.
_FORM = hashlib.sha256(json.dumps(SearchResponse.model_json_schema()).encode()).hexdigest()
_DIGEST_BYTES = 16

Link = Callable[[str, str, str], str]
_results = TypeAdapter(list[SearchHit])


class Searching(Protocol):
    """Search without a cache."""

    def search(self, caller: Caller, among: Sequence[UUID], wanted: SearchRequest) -> SearchResponse: ...


@dataclass(frozen=True)
class Kept:
    """An answer that was kept: its results as JSON, without links to files, and where those lie.

    `object_keys`: in the order in which `_files` finds them; None for what is no longer there. `search_ms`: how long
    it took to find.
    """

    results: bytes
    object_keys: Sequence[str | None]
    link: Link
    search_ms: float

    def response(self) -> SearchResponse:
        """The answer, with links made anew."""
        answer = self._without_results()
        answer.results = _results.validate_json(self.results)
        for file, object_key in zip(_files(answer.results), self.object_keys, strict=True):
            linked = MemoryFile.stored(object_key, file.filename, file.content_type, file.size).linked(self.link)
            file.url = linked.url
        return answer

    def json(self) -> str:
        """The same as JSON; without files there is nothing to be made anew."""
        if self.object_keys:
            return self.response().model_dump_json()
        return self._without_results().model_dump_json().replace("[]", self.results.decode(), 1)

    def _without_results(self) -> SearchResponse:
        return SearchResponse(results=[], query_embedding_ms=0.0, search_ms=self.search_ms, cached=True)


@dataclass(frozen=True)
class Asked:
    """A question that has been looked up. `kept`: the answer, where there is one already; `key`: where it is kept."""

    caller: Caller
    among: Sequence[UUID]
    wanted: SearchRequest
    key: str | None
    kept: Kept | None


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
        """The best memories of one collection, or of all with None, with links to files made anew. An unknown one is
        empty. Raises Forbidden, Unavailable."""
        states = answers.states(self._database, caller.tenant_id, collection)
        asked = self.look(caller, collection, wanted, states)
        return self.answer(asked) if asked.kept is None else asked.kept.response()

    def look(self, caller: Caller, collection: str | None, wanted: SearchRequest, states: Sequence[State]) -> Asked:
        """The question with the answer that is kept for these states, if one is. Raises Forbidden."""
        started = time.perf_counter()
        reach = self._grants.reach(caller)
        if collection is not None and states:
            reach.check_readable(states[0].collection_id, collection)
        states = [state for state in states if reach.can_read(state.collection_id)]
        key = _key(caller, collection, wanted, states) if states else None
        found = None if key is None else _unpacked(self._cache.get(key))
        kept = None
        if found is not None:
            kept = Kept(*found, self._link, round((time.perf_counter() - started) * 1000, 3))
        return Asked(caller, [state.collection_id for state in states], wanted, key, kept)

    def answer(self, asked: Asked) -> SearchResponse:
        """Searches, and keeps what was found. Raises Unavailable."""
        answer = self._search.search(asked.caller, asked.among, asked.wanted)
        if asked.key is not None and not answer.degraded:
            self._cache.put(asked.key, _packed(answer.results), seconds=KEEP_SECONDS)
        return answer

    def _link(self, key: str, filename: str, content_type: str) -> str:
        return self._objects.url(key, filename=filename, content_type=content_type, seconds=FILE_LINK_SECONDS)


def _key(caller: Caller, collection: str | None, wanted: SearchRequest, states: Sequence[State]) -> str:
    """The states name the collections that this caller may read, so callers with the same reach share answers."""
    depends_on = [
        _RANKING,
        _FORM,
        str(caller.tenant_id),
        collection is None,
        wanted.model_dump(mode="json"),
        [[str(state.collection_id), state.version, str(state.next_expiry)] for state in states],
    ]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _packed(results: Sequence[SearchHit]) -> bytes:
    """A line with where the files lie, the results, and before them what shows that both are whole."""
    files = list(_files(results))
    if files:
        # The links are made for whoever asks, when they ask.
        results = [hit.model_copy(deep=True) for hit in results]
        for file in _files(results):
            file.url = ""
    packed = json.dumps([file.key for file in files]).encode() + b"\n" + _results.dump_json(list(results))
    return _digest(packed) + packed


def _unpacked(value: bytes | None) -> tuple[bytes, list[str | None]] | None:
    """Results and where their files lie; None for what was not packed here."""
    if value is None or value[:_DIGEST_BYTES] != _digest(value[_DIGEST_BYTES:]):
        return None
    object_keys, _, results = value[_DIGEST_BYTES:].partition(b"\n")
    return results, json.loads(object_keys)


def _digest(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:_DIGEST_BYTES]


def _files(results: Sequence[SearchHit]) -> Iterator[MemoryFile]:
    """Every file in an answer, those of what stands around its results included."""
    for hit in results:
        around = [] if hit.context is None else [*hit.context.before, *hit.context.after]
        for memory in (hit, *around, *(hit.before or ()), *(hit.after or ())):
            yield from memory.images
