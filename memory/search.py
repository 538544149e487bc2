"""Search: what is true now and answers the query best, among what the caller may see."""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from memory import ranking
from memory.embedding import Embedding
from memory.errors import Unavailable
from memory.memories import linked
from memory.ports import ObjectStore, Vectors
from memory.ranking import Mode, Scored
from memory.schemas import Caller, Context, Memory, SearchHit, SearchRequest, SearchResponse
from memory.statistics import SMALL, Statistics
from memory.store import memories, neighbours, search, statistics
from memory.store.database import Database, Session
from memory.store.neighbours import Neighbour
from memory.store.statistics import TermCounts

_log = logging.getLogger(__name__)

_DEPTH = 100
# More at once would only take the database's processors from one another: all would be slower, together, too.
_AT_ONCE = 2 * (os.cpu_count() or 1)
_PHRASE = re.compile(r'"([^"]*)"')
_MOST_PHRASES = 20


class Search:
    """Hybrid, vector and text search over any number of collections."""

    def __init__(self, database: Database, embedding: Embedding, objects: ObjectStore, statistics: Statistics) -> None:
        self._database = database
        self._embedding = embedding
        self._objects = objects
        self._statistics = statistics
        self._room = threading.BoundedSemaphore(_AT_ONCE)

    def search(self, caller: Caller, among: Sequence[UUID], wanted: SearchRequest) -> SearchResponse:
        """The best `limit` current memories of the collections `among` which to look.

        Their ids come from who has just looked them up and seen that the caller may read them. Raises Unavailable when
        mode is `vector` and the embedder does not answer; hybrid falls back to text.
        """
        started = time.perf_counter()
        vector = self._embedded(wanted)
        mode: Mode = "text" if vector is None else wanted.mode
        # Asked before the transaction: who waits for a second connection while holding one may wait for ever.
        model_id = 0 if vector is None else self._embedding.model_id
        embedded = time.perf_counter()
        with self._room, self._database.transaction(caller.tenant_id) as session:
            search.prepare(session)
            counts = _counts(session, wanted.query, among, mode)
            found = _found(session, _query(wanted, among, vector, model_id, counts), mode, wanted)
        for collection_id, documents in counts.counted_now.items():
            if documents >= SMALL:
                # Whoever wrote them went down before their terms were counted: without that every search is slow.
                self._statistics.changed(caller.tenant_id, collection_id)
        hits = self._within(_hits(found, mode, wanted), wanted.max_tokens)
        done = time.perf_counter()
        answer = SearchResponse(
            results=[self._linked(hit) for hit in hits],
            query_embedding_ms=round((embedded - started) * 1000, 3),
            search_ms=round((done - embedded) * 1000, 3),
        )
        # No language model is asked yet: whoever wants its help gets the plain search, and better once there is one.
        degraded = mode != wanted.mode or wanted.rewrite or wanted.rerank
        return answer.as_degraded() if degraded else answer

    def _embedded(self, wanted: SearchRequest) -> Vectors | None:
        if wanted.mode == "text":
            return None
        try:
            vector: Vectors = self._embedding.embed([wanted.query])[0]
        except Unavailable:
            if wanted.mode == "vector":
                raise
            # Hybrid without vectors is text search: worse, but an answer.
            _log.warning("query not embedded; searching by text alone")
            return None
        return vector

    def _within(self, hits: list[SearchHit], max_tokens: int | None) -> list[SearchHit]:
        """The best of them that fit together; the first always does."""
        if max_tokens is None:
            return hits
        left = max_tokens
        for number, hit in enumerate(hits):
            left -= self._embedding.embedder.count_tokens(hit.text)
            if left < 0:
                return hits[: max(number, 1)]
        return hits

    def _linked(self, hit: SearchHit) -> SearchHit:
        update: dict[str, object] = {"images": linked(hit, self._objects).images}
        if hit.context is not None:
            update |= Context(
                before=[linked(memory, self._objects) for memory in hit.context.before],
                after=[linked(memory, self._objects) for memory in hit.context.after],
            ).fields()
        return hit.model_copy(update=update)


@dataclass(frozen=True)
class _Found:
    """What the transaction read: scores by memory, the memories themselves, and what stands around them."""

    scores: Mapping[UUID, Scored]
    memories: Sequence[Memory]
    context: Sequence[Neighbour]
    around: Mapping[UUID, Memory]


def _counts(session: Session, query: str, collection_ids: Sequence[UUID], mode: Mode) -> TermCounts:
    if mode == "vector" or not collection_ids:
        return TermCounts()
    # Words that say nothing are looked for when there is nothing else to go by: no other words, and no meaning.
    lexemes = statistics.query_lexemes(session, query, stop_words=mode == "text")
    return statistics.count(session, collection_ids, lexemes) if lexemes else TermCounts()


def _query(
    wanted: SearchRequest, collection_ids: Sequence[UUID], vector: Vectors | None, model_id: int, counts: TermCounts
) -> search.Query:
    return search.Query(
        collection_ids=collection_ids,
        filters=search.Filters(
            category=wanted.category,
            container_tag=wanted.container_tag,
            metadata=wanted.metadata_filter,
            filter=wanted.filter,
            phrases=_phrases(wanted.query),
            as_of=wanted.as_of,
            include_archived=wanted.include_archived,
        ),
        vector=vector,
        model_id=model_id,
        min_score=wanted.min_score,
        weights=ranking.weights(counts),
        depth=_DEPTH,
        rarest=ranking.rarest(counts),
    )


def _phrases(query: str) -> list[str]:
    """What stands in double quotes has to occur as it is."""
    quoted = (match.group(1).strip() for match in _PHRASE.finditer(query))
    return [phrase for phrase in quoted if phrase][:_MOST_PHRASES]


def _found(session: Session, query: search.Query, mode: Mode, wanted: SearchRequest) -> _Found:
    candidates = search.candidates(session, query)
    hits = ranking.ranked(candidates, mode)
    if mode == "hybrid":
        hits = _with_neighbours(session, query, hits, [one.memory_id for one in candidates if one.in_sequence])
    # Ties are broken by importance and age, which only the memories know: read a few more than are asked for.
    hits = ranking.with_ties(hits, wanted.limit)
    scores = {hit.memory_id: hit for hit in hits}
    found = sorted(
        memories.find_many(session, list(scores)),
        key=lambda memory: (scores[memory.id].score, memory.importance, memory.created_at, memory.id),
        reverse=True,
    )[: wanted.limit]
    context: list[Neighbour] = []
    if wanted.context:
        context = neighbours.around(
            session, [memory.id for memory in found], query.collection_ids, query.filters, steps=wanted.context
        )
    ids = {neighbour.memory_id for neighbour in context}
    around = memories.find_many(session, list(ids)) if ids else []
    return _Found(scores, found, context, {memory.id: memory for memory in around})


def _with_neighbours(
    session: Session, query: search.Query, hits: list[Scored], in_sequence: Sequence[UUID]
) -> list[Scored]:
    if not in_sequence:
        return hits
    around = neighbours.around(
        session, in_sequence, query.collection_ids, query.filters, steps=len(ranking.NEIGHBOUR_SHARES)
    )
    strangers = {neighbour.memory_id for neighbour in around} - {hit.memory_id for hit in hits}
    scored = neighbours.scored(session, list(strangers), query) if strangers else {}
    return ranking.with_neighbours(hits, around, scored)


def _hits(found: _Found, mode: Mode, wanted: SearchRequest) -> list[SearchHit]:
    return [
        SearchHit(
            **dict(memory),
            score=_clamped(scored.score),
            vector_score=None if mode == "text" else _clamped(scored.cosine),
            text_score=None if mode == "vector" else _clamped(scored.text),
            explain=ranking.explanation(scored, mode) if wanted.explain else None,
            **(_context(found, memory.id).fields() if wanted.context else {}),
        )
        for memory in found.memories
        for scored in [found.scores[memory.id]]
    ]


def _context(found: _Found, memory_id: UUID) -> Context:
    """In the order of the sequence, whatever the order in which the neighbours were found."""
    mine = sorted((one for one in found.context if one.of == memory_id), key=lambda one: one.step)
    return Context(
        before=[found.around[one.memory_id] for one in mine if one.step < 0],
        after=[found.around[one.memory_id] for one in mine if one.step > 0],
    )


def _clamped(score: float) -> float:
    return min(max(score, 0.0), 1.0)
