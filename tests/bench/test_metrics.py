"""The measures by values computed by hand."""

from math import log2

import pytest

from bench import metrics

JUDGED = {"a": 1, "b": 1, "c": 1, "x": 0}
RANKED = ["x", "a", "y", "b", "z"]


def test_recall_is_the_share_found() -> None:
    assert metrics.recall(RANKED, JUDGED, 5) == pytest.approx(2 / 3)
    assert metrics.recall(RANKED, JUDGED, 2) == pytest.approx(1 / 3)
    assert metrics.recall([], JUDGED, 5) == 0
    assert metrics.recall(["a", "b", "c"], JUDGED, 5) == 1


def test_ndcg_discounts_by_place() -> None:
    ideal = 1 + 1 / log2(3) + 1 / log2(4)
    assert metrics.ndcg(RANKED, JUDGED, 10) == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert metrics.ndcg(RANKED, JUDGED, 2) == pytest.approx((1 / log2(3)) / (1 + 1 / log2(3)))
    assert metrics.ndcg(["c", "b", "a"], JUDGED, 10) == pytest.approx(1)
    assert metrics.ndcg(["x"], JUDGED, 10) == 0


def test_ndcg_knows_grades() -> None:
    judged = {"good": 2, "fair": 1, "bad": -1}
    assert metrics.ndcg(["fair", "bad", "good"], judged, 10) == pytest.approx((1 + 2 / log2(4)) / (2 + 1 / log2(3)))


def test_reciprocal_rank_is_of_the_first_hit() -> None:
    assert metrics.reciprocal_rank(RANKED, JUDGED) == 0.5
    assert metrics.reciprocal_rank(["x", "y"], JUDGED) == 0


def test_average_precision_counts_what_is_missing() -> None:
    assert metrics.average_precision(RANKED, JUDGED) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert metrics.average_precision(["a", "b", "c"], JUDGED) == 1


def test_averages_leave_out_what_nobody_judged() -> None:
    judged = {"one": {"a": 1}, "two": {"b": 1}, "none": {"c": 0}}
    result = metrics.averaged({"one": ["a"], "none": ["c"]}, judged)
    assert result.keys() == metrics.MEASURES.keys()
    assert set(result.values()) == {0.5}
