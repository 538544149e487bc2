"""The plain ranking by values computed by hand."""

from math import log

import numpy as np
import pytest

from bench.ranking import Document, bm25, cosines, fused, rank

EAST, NORTH = np.array([1, 0], dtype=np.float32), np.array([0, 1], dtype=np.float32)
HALFWAY = np.array([0.6, 0.8], dtype=np.float32)

DOCUMENTS = [
    Document("both", {"harbour": 2, "crane": 1}, EAST),
    Document("one", {"crane": 1, "wing": 49}, NORTH),
    Document("none", {"wing": 1}, HALFWAY, exact={"=kst-7": 0.5}),
]


def test_bm25_by_hand() -> None:
    harbour, crane = log(1 + 2.5 / 1.5), log(1 + 1.5 / 2.5)
    length_of_three = 0.25 + 0.75 * 3 / 50
    expected = [
        harbour * 2 * 2.2 / (2 + 1.2 * length_of_three) + crane * 2.2 / (1 + 1.2 * length_of_three),
        crane * 2.2 / (1 + 1.2 * 1.0),
        0,
    ]
    assert bm25(["harbour", "crane", "crane", "unknown"], DOCUMENTS) == pytest.approx(expected)


def test_an_exact_term_has_a_fixed_weight() -> None:
    assert bm25(["=kst-7"], DOCUMENTS) == pytest.approx([0, 0, 0.5 * log(1 + 2.5 / 1.5)])


def test_scores_are_fused_with_the_best_text_score_as_one() -> None:
    text = np.array([4.0, 1.0, 0.0])
    assert fused(cosines(EAST, DOCUMENTS), text) == pytest.approx([1.0, 0.175 / 1.7, 0.6 / 1.7])
    assert fused(np.array([0.5]), np.array([0.0])) == pytest.approx([0.5 / 1.7])


def test_each_mode_ranks_by_its_own_score() -> None:
    assert rank("vector", ["crane"], HALFWAY, DOCUMENTS) == ["none", "one", "both"]
    assert rank("text", ["crane"], HALFWAY, DOCUMENTS) == ["both", "one"]
    assert rank("hybrid", ["crane"], EAST, DOCUMENTS) == ["both", "none", "one"]
    assert rank("hybrid", ["crane"], EAST, DOCUMENTS, limit=1) == ["both"]
