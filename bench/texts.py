"""Texts to measure with: English made of the sentences of our own retrieval set, the same at every run."""

import random
import re
from collections.abc import Callable

from bench.quality import OWN_SET, read, text_of


def sentences() -> list[str]:
    """Every sentence and title of the set."""
    texts = [text_of(document) for document in read(OWN_SET).corpus]
    return [sentence for text in texts for sentence in re.split(r"(?<=[.;:])\s+", text)]


def chunks(number: int, *, tokens: int, count_tokens: Callable[[str], int], seed: int = 1) -> list[str]:
    """`number` different texts of about `tokens` tokens each."""
    source = [(sentence, count_tokens(sentence)) for sentence in sentences()]
    generator = random.Random(seed)
    return [_chunk(source, tokens * generator.uniform(0.85, 1.15), generator) for _ in range(number)]


def _chunk(source: list[tuple[str, int]], tokens: float, generator: random.Random) -> str:
    taken: list[str] = []
    length = 0
    while length < tokens:
        sentence, longer_by = generator.choice(source)
        taken.append(sentence)
        length += longer_by
    return " ".join(taken)
