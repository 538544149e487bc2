"""Collections of any size to measure with: texts that are the same at every run, stored past HTTP by the product's own
code, with vectors that are made once and kept."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.texts import chunks, sentences
from memory.embedding import Embedding
from memory.memories import Memories
from memory.ports import Embedder, EmbeddingModel, Vectors
from memory.schemas import Caller, MemoryCreate
from memory.services import Services

BLOCK = 10_000
# What filters choose by: one memory in twenty, in a hundred, in a thousand.
CATEGORIES, TAGS, NUMBERS = 20, 100, 1_000

_TOKENS = 40
_TOGETHER = 500
_SHARE_OF_OTHER_WORDS = 0.2
# Embedding a million texts takes the better part of an hour: beyond this many blocks a text is the halves of two
# others, and its vector lies near the middle of theirs.
_EMBEDDED_BLOCKS = 10
_AWAY_FROM_THE_MIDDLE = 0.3


class Blocks:
    """Ten thousand texts at a time, with their vectors; embedded ones are kept in `folder` for the next run."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self._folder = folder
        self._words = sorted({word for sentence in sentences() for word in re.findall(r"[a-z]{5,}", sentence)})
        self._made: dict[int, tuple[list[str], Vectors]] = {}

    def block(self, number: int) -> tuple[list[str], Vectors]:
        """Texts, and their vectors of shape (BLOCK, dimensions), float32."""
        if number >= _EMBEDDED_BLOCKS:
            return self._mixed(number)
        if number not in self._made:
            generator = random.Random(number)
            made = chunks(BLOCK, tokens=_TOKENS, count_tokens=self._embedder.count_tokens, seed=number)
            texts = [self._varied(text, generator) for text in made]
            self._made[number] = texts, self._embedded(number, texts)
        return self._made[number]

    def _embedded(self, number: int, texts: Sequence[str]) -> Vectors:
        path = self._folder / f"{self._embedder.model.name}-{number}.npy"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, self._embedder.embed(texts).astype(np.float16))
            unfinished.rename(path)
        kept: Vectors = np.load(path).astype(np.float32)
        return kept

    def _mixed(self, number: int) -> tuple[list[str], Vectors]:
        generator = np.random.default_rng(number)
        sides = []
        for side in generator.choice(_EMBEDDED_BLOCKS, 2, replace=False):
            texts, vectors = self.block(int(side))
            order = generator.permutation(BLOCK)
            sides.append(([texts[place].split() for place in order], vectors[order]))
        (first, near), (second, far) = sides
        away = generator.standard_normal(near.shape, dtype=np.float32)
        away *= _AWAY_FROM_THE_MIDDLE / np.linalg.norm(away, axis=1, keepdims=True)
        middle = (near + far) / np.linalg.norm(near + far, axis=1, keepdims=True) + away
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        texts = [
            " ".join([*one[: len(one) // 2], *other[len(other) // 2 :]])
            for one, other in zip(first, second, strict=True)
        ]
        return texts, middle

    def _varied(self, text: str, generator: random.Random) -> str:
        # Sentences alone come together too often: among a million no two would be far apart.
        return " ".join(
            generator.choice(self._words) if generator.random() < _SHARE_OF_OTHER_WORDS else word
            for word in text.split()
        )


class _Made:
    """An embedder that knows its texts beforehand."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.known: dict[str, Vectors] = {}

    @property
    def model(self) -> EmbeddingModel:
        return self._embedder.model

    @property
    def max_tokens(self) -> int:
        return self._embedder.max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.known[text] for text in texts])

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)


def fill(services: Services, blocks: Blocks, numbers: Sequence[int], owners: Sequence[tuple[Caller, str]]) -> None:
    """Stores these blocks of texts, dealt out to collections of callers in turn."""
    made = _Made(services.embedder)
    embedding = Embedding(services.database, made)
    store = Memories(services.database, services.grants, embedding, services.objects, services.statistics)
    turn = 0
    for number in numbers:
        texts, vectors = blocks.block(number)
        made.known = dict(zip(texts, vectors, strict=True))
        for start in range(0, BLOCK, _TOGETHER):
            caller, collection = owners[turn % len(owners)]
            turn += 1
            memories = [_memory(text, start + place) for place, text in enumerate(texts[start : start + _TOGETHER])]
            store.create_many(caller, collection, memories)


def nearest(blocks: Blocks, numbers: Sequence[int], queries: Vectors, count: int) -> Vectors:
    """The cosines of each query's `count` nearest texts, found by looking at all; shape (queries, count)."""
    best = np.full((len(queries), count), -1.0, dtype=np.float32)
    for number in numbers:
        _, vectors = blocks.block(number)
        cosines = np.concatenate([best, queries @ vectors.T], axis=1)
        best = -np.sort(-cosines, axis=1)[:, :count]
    return best


def _memory(text: str, number: int) -> MemoryCreate:
    return MemoryCreate(
        text=text,
        category=f"category {number % CATEGORIES}",
        container_tag=f"tag {number % TAGS}",
        metadata={"number": number % NUMBERS},
    )
