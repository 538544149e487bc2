"""Search: what is true now and answers the query best, among what the caller may see."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from memory.embedding import Embedding
from memory.errors import Unavailable
from memory.grants import Grants, Reach
from memory.memories import linked
from memory.ports import ObjectStore, Vectors
from memory.schemas import Caller, Memory, SearchHit, SearchRequest, SearchResponse
from memory.statistics import SMALL, Statistics
from memory.store import memories, search, statistics
from memory.store.database import Database, Session
from memory.store.statistics import TermCounts

_log = logging.getLogger(__name__)

# Scores are fused, not ranks: rank fusion throws away how good each arm is.
TEXT_SHARE = 0.7
_DEPTH = 100


class Search:
    """Hybrid, vector and text search over one collection or all."""

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

    def search(self, caller: Caller, collection: str | None, wanted: SearchRequest) -> SearchResponse:
        """The best `limit` current memories; `collection` None searches all. An unknown collection is empty.

        Raises Unavailable when mode is `vector` and the embedder does not answer; hybrid falls back to text.
        """
        reach = self._grants.reach(caller)
        started = time.perf_counter()
        vector = self._embedded(wanted)
        mode = "text" if vector is None else wanted.mode
        # Asked before the transaction: who waits for a second connection while holding one may wait for ever.
        model_id = 0 if vector is None else self._embedding.model_id
        embedded = time.perf_counter()
        with self._database.transaction(caller.tenant_id) as session:
            collection_ids = _collection_ids(session, reach, collection)
            counts = _counts(session, wanted.query, collection_ids) if mode != "vector" else TermCounts()
            query = search.Query(
                collection_ids=collection_ids,
                filters=search.Filters(
                    category=wanted.category,
                    container_tag=wanted.container_tag,
                    metadata=wanted.metadata_filter,
                    include_archived=wanted.include_archived,
                ),
                vector=vector,
                model_id=model_id,
                min_score=wanted.min_score,
                weights=_weights(counts),
                depth=_DEPTH,
            )
            ranked = _ranked(search.candidates(session, query), mode)
            # Ties are broken by importance and age, which only the memories know: read a few more than are asked for.
            ranked = _with_ties(ranked, wanted.limit)
            found = memories.find_many(session, [hit.memory_id for hit in ranked])
        for collection_id, documents in counts.counted_now.items():
            if documents >= SMALL:
                # Whoever wrote them went down before their terms were counted: without that every search is slow.
                self._statistics.changed(caller.tenant_id, collection_id)
        hits = _hits(found, ranked, mode, wanted.limit)
        done = time.perf_counter()
        return SearchResponse(
            results=[hit.model_copy(update={"images": linked(hit, self._objects).images}) for hit in hits],
            query_embedding_ms=round((embedded - started) * 1000, 3),
            search_ms=round((done - embedded) * 1000, 3),
        )

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


@dataclass(frozen=True)
class _Scored:
    memory_id: UUID
    fused: float
    cosine: float
    text: float


def _collection_ids(session: Session, reach: Reach, collection: str | None) -> list[UUID]:
    if collection is None:
        return reach.all_readable(session)
    found = reach.readable(session, collection)
    return [] if found is None else [found]


def _counts(session: Session, query: str, collection_ids: Sequence[UUID]) -> TermCounts:
    lexemes = statistics.query_lexemes(session, query)
    return statistics.count(session, collection_ids, lexemes) if lexemes and collection_ids else TermCounts()


def _weights(counts: TermCounts) -> dict[str, float]:
    """Inverse document frequency of each lexeme of the query; one that no statistics know is as rare as can be."""
    return {
        lexeme: math.log(1 + (max(counts.documents - holding, 0) + 0.5) / (holding + 0.5))
        for lexeme, holding in counts.holding.items()
    }


def _ranked(candidates: Sequence[search.Candidate], mode: str) -> list[_Scored]:
    best = max((candidate.bm25 for candidate in candidates), default=0.0)
    scored = []
    for candidate in candidates:
        text = candidate.bm25 / best if best > 0 else 0.0
        if mode == "hybrid":
            fused = (candidate.cosine + TEXT_SHARE * text) / (1 + TEXT_SHARE)
        else:
            fused = text if mode == "text" else candidate.cosine
        scored.append(_Scored(candidate.memory_id, fused, candidate.cosine, text))
    return sorted(scored, key=lambda hit: hit.fused, reverse=True)


def _with_ties(ranked: Sequence[_Scored], limit: int) -> list[_Scored]:
    """The first `limit`, and those that score as much as the last of them."""
    return [hit for number, hit in enumerate(ranked) if number < limit or hit.fused == ranked[limit - 1].fused]


def _hits(found: Sequence[Memory], ranked: Sequence[_Scored], mode: str, limit: int) -> list[SearchHit]:
    scores = {hit.memory_id: hit for hit in ranked}
    in_order = sorted(
        found,
        key=lambda memory: (scores[memory.id].fused, memory.importance, memory.created_at, memory.id),
        reverse=True,
    )
    return [
        SearchHit(
            **dict(memory),
            score=_clamped(scores[memory.id].fused),
            vector_score=None if mode == "text" else _clamped(scores[memory.id].cosine),
            text_score=None if mode == "vector" else _clamped(scores[memory.id].text),
        )
        for memory in in_order[:limit]
    ]


def _clamped(score: float) -> float:
    return min(max(score, 0.0), 1.0)
