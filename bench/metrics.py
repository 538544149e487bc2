"""How good a ranking is: the usual measures, over one query's ranked ids or averaged over all queries."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

Relevance = Mapping[str, int]
Measure = Callable[[Sequence[str], Relevance], float]


def recall(ranked: Sequence[str], relevance: Relevance, at: int) -> float:
    """Share of the relevant documents that stand among the first `at`."""
    relevant = _relevant(relevance)
    return len(relevant & set(ranked[:at])) / len(relevant)


def ndcg(ranked: Sequence[str], relevance: Relevance, at: int) -> float:
    """Discounted gain of the first `at` against the best order there could be; gains are the judged scores."""
    gains = [max(relevance.get(document, 0), 0) for document in ranked[:at]]
    ideal = sorted((max(score, 0) for score in relevance.values()), reverse=True)[:at]
    return _discounted(gains) / _discounted(ideal)


def reciprocal_rank(ranked: Sequence[str], relevance: Relevance) -> float:
    """One over the place of the first relevant document; 0 when there is none."""
    relevant = _relevant(relevance)
    return next((1 / place for place, document in enumerate(ranked, 1) if document in relevant), 0.0)


def average_precision(ranked: Sequence[str], relevance: Relevance) -> float:
    """Mean, over all relevant documents, of the precision at the place of each; one that is not found counts 0."""
    relevant = _relevant(relevance)
    found = 0
    total = 0.0
    for place, document in enumerate(ranked, 1):
        if document in relevant:
            found += 1
            total += found / place
    return total / len(relevant)


MEASURES: dict[str, Measure] = {
    "recall@5": lambda ranked, relevance: recall(ranked, relevance, 5),
    "recall@10": lambda ranked, relevance: recall(ranked, relevance, 10),
    "recall@20": lambda ranked, relevance: recall(ranked, relevance, 20),
    "nDCG@10": lambda ranked, relevance: ndcg(ranked, relevance, 10),
    "MRR": reciprocal_rank,
    "MAP": average_precision,
}


def averaged(rankings: Mapping[str, Sequence[str]], judged: Mapping[str, Relevance]) -> dict[str, float]:
    """Each measure's mean over the queries that have at least one relevant document; a missing ranking is empty."""
    queries = [query for query, relevance in judged.items() if _relevant(relevance)]
    return {
        name: fmean(measure(rankings.get(query, ()), judged[query]) for query in queries)
        for name, measure in MEASURES.items()
    }


def _relevant(relevance: Relevance) -> set[str]:
    return {document for document, score in relevance.items() if score > 0}


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))
