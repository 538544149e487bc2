"""Measuring texts and queries are the same at every run, different from one another, and of the size they claim."""

import os
import subprocess
import sys
from statistics import fmean

from bench.start import memory
from bench.texts import Questions, chunks


def words(text: str) -> int:
    return len(text.split())


def test_chunks_are_of_the_size_asked_for() -> None:
    texts = chunks(200, tokens=100, count_tokens=words)
    assert 100 <= fmean(map(words, texts)) <= 120
    assert len(set(texts)) == 200
    assert texts == chunks(200, tokens=100, count_tokens=words)


def test_questions_are_all_different() -> None:
    questions = Questions()
    asked = questions.next(300) + questions.next(200)
    assert len({question.lower() for question in asked}) > 490
    assert len(set(asked)) == 500
    assert asked == Questions().next(500)
    assert all(question.strip() for question in asked)


def test_memory_counts_children_with_their_part_and_once() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "block = bytes(range(256)) * 200_000; input()"], stdin=subprocess.PIPE
    )
    try:
        together = memory({"up": os.getpid(), "part": child.pid})
        assert together["part"]["rss"] >= together["part"]["pss"] > 0
        assert together["up"]["rss"] > 0
        alone = memory({"up": os.getpid()})
        # Without a part of its own the child belongs to `up`.
        assert alone["up"]["rss"] > together["up"]["rss"]
    finally:
        child.communicate(b"\n")
