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


class Questions:
    """Queries of a few words, none of which comes twice; the same at every run."""

    def __init__(self) -> None:
        self._generator = random.Random(7)
        self._words = [sentence.split() for sentence in sentences()]
        self._asked: set[str] = set()

    def next(self, number: int) -> list[str]:
        found: list[str] = []
        while len(found) < number:
            sentence = self._generator.choice(self._words)
            length = self._generator.randint(3, 9)
            start = self._generator.randrange(max(1, len(sentence) - length))
            query = " ".join([*sentence[start : start + length], self._generator.choice(self._words)[0]])
            if query not in self._asked:
                self._asked.add(query)
                found.append(query)
        return found


def _chunk(source: list[tuple[str, int]], tokens: float, generator: random.Random) -> str:
    taken: list[str] = []
    length = 0
    while length < tokens:
        sentence, longer_by = generator.choice(source)
        taken.append(sentence)
        length += longer_by
    return " ".join(taken)
