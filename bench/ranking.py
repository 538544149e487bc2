"""The product's ranking once more in plain numpy, without Postgres: what its answers are compared with."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
B = 0.75
PIVOT = 50
TEXT_SHARE = 0.7

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Document:
    """What ranking knows of one text.

    `lexemes`: each with the number of its positions, as `to_tsvector('english', …)` gives them. `exact`: further terms
    of fixed weight that count neither for the length nor by their frequency. `vector`: of unit length.
    """

    id: str
    lexemes: Mapping[str, int]
    vector: NDArray[np.float32]
    exact: Mapping[str, float] = field(default_factory=dict)

    def weight(self, term: str) -> float:
        """BM25's part of this term that does not depend on the rest of the collection."""
        if term in self.exact:
            return self.exact[term]
        frequency = self.lexemes.get(term, 0)
        length = sum(self.lexemes.values())
        return frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / PIVOT))


def bm25(terms: Sequence[str], documents: Sequence[Document]) -> Scores:
    """BM25 of every document for a query's distinct terms, with a fixed pivot instead of the mean length."""
    held_by = Counter(term for document in documents for term in {*document.lexemes, *document.exact})
    idf = {term: math.log(1 + (len(documents) - held_by[term] + 0.5) / (held_by[term] + 0.5)) for term in set(terms)}
    return np.array([sum(idf[term] * document.weight(term) for term in idf) for document in documents])


def cosines(vector: NDArray[np.float32], documents: Sequence[Document]) -> Scores:
    """Cosine of every document with a query of unit length."""
    return np.array([float(np.dot(document.vector, vector)) for document in documents])


def fused(cosine: Scores, text: Scores) -> Scores:
    """Both arms as one score: every document has its true score on both."""
    best = text.max(initial=0.0)
    share = text / best if best > 0 else np.zeros_like(text)
    result: Scores = (cosine + TEXT_SHARE * share) / (1 + TEXT_SHARE)
    return result


def rank(
    mode: str, terms: Sequence[str], vector: NDArray[np.float32], documents: Sequence[Document], limit: int = 50
) -> list[str]:
    """Ids of the best documents; `text` mode gives only those that hold a term of the query.

    Documents whose scores agree to six digits stay in the order in which they are given.
    """
    text = bm25(terms, documents)
    scores = {"text": text, "vector": cosines(vector, documents)}
    scores["hybrid"] = fused(scores["vector"], text)
    chosen = scores[mode].round(6)
    order = np.argsort(-chosen, kind="stable")[:limit]
    return [documents[place].id for place in order if mode != "text" or chosen[place] > 0]
