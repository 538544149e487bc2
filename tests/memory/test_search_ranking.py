"""Ranking: the database's scores and order are those of the plain formula, computed here by hand."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import text as sql

from memory.ports import Vectors
from memory.schemas import Caller, MemoryCreate, SearchRequest
from memory.services import Services
from memory.settings import Settings
from memory.store import search as store
from memory.store import statistics
from memory.store.lexemes import EXACT_WEIGHT, exact_terms, searchable
from tests.fakes import WordEmbedder
from tests.memory.conftest import Connection

Scores = NDArray[np.float64]

_RANDOM = random.Random(20_260_101)
_SYLLABLES = ["ba", "cor", "dim", "fel", "gor", "hun", "jas", "kel", "lom", "mur", "nov", "pel"]
_VOCABULARY = ["".join(_RANDOM.choices(_SYLLABLES, k=3)) for _ in range(400)]
_COMMON = [1 / (rank + 1) for rank in range(len(_VOCABULARY))]
_K1, _B, _PIVOT, _SHARE, _DEPTH = 1.2, 0.75, 50, 0.7, 100


def _words(count: int) -> list[str]:
    return _RANDOM.choices(_VOCABULARY, weights=_COMMON, k=count)


def _text() -> str:
    words = _words(_RANDOM.choice([3, 8, 20, 60, 150]))
    if _RANDOM.random() < 0.3:
        words.insert(_RANDOM.randrange(len(words)), f"OPS-{_RANDOM.randrange(100, 140)}")
    return " ".join(words)


_TEXTS = [_text() for _ in range(300)]
_QUERIES = [" ".join(_words(_RANDOM.randint(1, 6))) for _ in range(32)] + [
    f"{' '.join(_words(_RANDOM.randint(0, 3)))} ops-{number}".strip() for number in range(100, 108)
]


@dataclass(frozen=True)
class Corpus:
    """What is stored, and everything that the formula needs of it, in the order of `ids`."""

    caller: Caller
    ids: list[UUID]
    frequencies: list[Counter[str]]
    exact: list[set[str]]
    vectors: Scores
    session: Connection

    def stems(self, text: str) -> Counter[str]:
        return _stems(self.session, text)

    def bm25(self, query: str) -> Scores:
        terms = {*self.stems(query), *exact_terms(query)}
        idf = {}
        for term in terms:
            holding = sum(
                term in stems or term in exact for stems, exact in zip(self.frequencies, self.exact, strict=True)
            )
            idf[term] = math.log(1 + (len(self.ids) - holding + 0.5) / (holding + 0.5))
        scores = []
        for stems, exact in zip(self.frequencies, self.exact, strict=True):
            norm = _K1 * (1 - _B + _B * stems.total() / _PIVOT)
            scores.append(
                sum(idf[term] * stems[term] * (_K1 + 1) / (stems[term] + norm) for term in terms if stems[term])
                + sum(idf[term] * EXACT_WEIGHT for term in terms if term in exact)
            )
        return np.array(scores)

    def cosines(self, query: str, words: WordEmbedder) -> Scores:
        vector = _halved(words.embed([query]))[0]
        similar: Scores = self.vectors @ (vector / np.linalg.norm(vector))
        return similar


def _halved(
    vectors: Vectors,
) -> Scores:
    halved = vectors.astype(np.float16).astype(np.float64)
    result: Scores = halved / np.linalg.norm(halved, axis=1, keepdims=True)
    return result


def _stems(session: Connection, text: str) -> Counter[str]:
    rows = session.execute(
        "select lexeme, cardinality(positions) from unnest(to_tsvector('english', %s))", (searchable(text),)
    ).fetchall()
    return Counter({str(lexeme): int(count) for lexeme, count in rows})


@pytest.fixture(scope="module")
def corpus(house: Services, words: WordEmbedder, settings: Settings) -> Iterator[Corpus]:
    made = house.accounts.create_tenant(email=f"{uuid4()}@example.org")
    caller = house.accounts.authenticate(made.api_key)
    ids = []
    for start in range(0, len(_TEXTS), 100):
        stored = house.memories.create_many(
            caller, "notes", [MemoryCreate(text=text) for text in _TEXTS[start : start + 100]]
        )
        ids += [memory.id for memory in stored]
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as session:
        yield Corpus(
            caller,
            ids,
            [_stems(session, text) for text in _TEXTS],
            [set(exact_terms(text)) for text in _TEXTS],
            _halved(words.embed(_TEXTS)),
            session,
        )


@pytest.mark.parametrize("query", _QUERIES)
def test_bm25_of_the_database_is_the_formula(corpus: Corpus, house: Services, query: str) -> None:
    with house.database.transaction(corpus.caller.tenant_id) as session:
        lexemes = statistics.query_lexemes(session, query)
        [collection_id] = [row[0] for row in session.execute(sql("select id from collections")).all()]
        counts = statistics.count(session, [collection_id], lexemes)
        idf = {
            lexeme: math.log(1 + (counts.documents - holding + 0.5) / (holding + 0.5))
            for lexeme, holding in counts.holding.items()
        }
        found = store.candidates(
            session,
            store.Query(
                collection_ids=[collection_id],
                filters=store.Filters(),
                vector=None,
                model_id=0,
                min_score=0,
                weights=idf,
                depth=len(corpus.ids),
            ),
        )
    expected = {memory_id: score for memory_id, score in zip(corpus.ids, corpus.bm25(query), strict=True) if score > 0}
    assert {candidate.memory_id: candidate.bm25 for candidate in found} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("mode", "min_score"),
    [("hybrid", 0), ("hybrid", 0.3), ("hybrid", 0.9), ("vector", 0), ("vector", 0.3), ("text", 0.9)],
)
def test_scores_and_order_are_those_of_a_plain_computation(
    corpus: Corpus, house: Services, words: WordEmbedder, mode: str, min_score: float
) -> None:
    for query in _QUERIES:
        cosines, bm25 = corpus.cosines(query, words), corpus.bm25(query)
        near, near_or_tied = _cut(cosines, cosines >= min_score)
        matching, matching_or_tied = _cut(bm25, bm25 > 0)
        surely = {"hybrid": near | matching, "vector": near, "text": matching}[mode]
        possibly = {"hybrid": near_or_tied | matching_or_tied, "vector": near_or_tied, "text": matching_or_tied}[mode]
        best = max((bm25[row] for row in possibly), default=0.0)
        text = bm25 / best if best else bm25
        fused = {"hybrid": (cosines + _SHARE * text) / (1 + _SHARE), "vector": cosines, "text": text}[mode]
        hits = house.search.search(
            corpus.caller,
            "notes",
            SearchRequest.model_validate({"query": query, "mode": mode, "min_score": min_score, "limit": 50}),
        ).results
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert min(len(surely), 50) <= len(hits) <= min(len(possibly), 50)
        rows = [corpus.ids.index(hit.id) for hit in hits]
        assert len(set(rows)) == len(rows)
        assert possibly >= set(rows)
        for hit, row in zip(hits, rows, strict=True):
            assert hit.score == pytest.approx(max(fused[row], 0), abs=1e-3), query
            assert hit.vector_score == (None if mode == "text" else pytest.approx(max(cosines[row], 0), abs=1e-3))
            assert hit.text_score == (None if mode == "vector" else pytest.approx(text[row], abs=1e-3))
        # Nothing better was left out.
        assert all(row in rows for row in surely if fused[row] > scores[-1] + 1e-3), query


def _cut(scores: Scores, wanted: NDArray[np.bool_]) -> tuple[set[int], set[int]]:
    """The best hundred: those that are surely among them, and these with all that tie with the last."""
    in_order = sorted((row for row in range(len(scores)) if wanted[row]), key=lambda row: -scores[row])
    if len(in_order) <= _DEPTH:
        return set(in_order), set(in_order)
    last = scores[in_order[_DEPTH - 1]]
    return (
        {row for row in in_order if scores[row] > last + 1e-3},
        {row for row in in_order if scores[row] >= last - 1e-3},
    )
