"""Text to vectors on this machine: all-MiniLM-L6-v2 on CTranslate2."""

import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from ctranslate2 import Encoder

from memory.adapters import minilm
from memory.errors import Misconfigured, Unavailable
from memory.ports import Embedder, EmbeddingModel, Vectors

# Small batches of like length waste nothing on padding and stay in the processor's cache:
# on long texts this alone is worth a factor of two over 32 texts a batch.
BATCH_TOKENS = 512


class LocalEmbedder(Embedder):
    """The on-box model; safe to use from many threads, never across a fork.

    `cache`: folder for the converted model. `threads`: how many batches the engine computes at once; with one more
    than there are cores a single text is answered at once while bulk work goes on.
    """

    def __init__(self, *, cache: Path, compute_type: str = "int8", threads: int) -> None:
        self._cache = cache
        self._compute_type = compute_type
        self._threads = threads
        self._bulk_threads = max(1, min(threads, len(os.sched_getaffinity(0))))
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._folder = minilm.model_folder()
        self._tokenizer = minilm.load_tokenizer(self._folder)
        self._pool = ThreadPoolExecutor(self._bulk_threads, thread_name_prefix="embed")

    @property
    def model(self) -> EmbeddingModel:
        return EmbeddingModel(minilm.NAME, minilm.DIMENSIONS)

    @property
    def max_tokens(self) -> int:
        return minilm.MAX_TOKENS

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` without the special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), 384), float32, of length 1, in input order. Raises Unavailable."""
        vectors = np.empty((len(texts), minilm.DIMENSIONS), dtype=np.float32)
        if not texts:
            # An empty batch would end the whole process inside the engine.
            return vectors
        tokens = [_cut(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        for rows, result in self._in_flight(batches_of([len(ids) for ids in tokens]), tokens):
            vectors[rows] = result
        return vectors

    def _in_flight(self, batches: list[list[int]], tokens: list[list[int]]) -> Iterator[tuple[list[int], Vectors]]:
        if len(batches) == 1:
            yield batches[0], self._forward([tokens[row] for row in batches[0]])
            return
        # A bounded window per call: two bulk calls take turns instead of queueing one behind the other.
        waiting: deque[tuple[list[int], Future[Vectors]]] = deque()
        for rows in batches:
            waiting.append((rows, self._pool.submit(self._forward, [tokens[row] for row in rows])))
            if len(waiting) > 2 * self._bulk_threads:
                done, future = waiting.popleft()
                yield done, future.result()
        for rows, future in waiting:
            yield rows, future.result()

    def _forward(self, batch: list[list[int]]) -> Vectors:
        try:
            hidden = np.asarray(self._engine().forward_batch(batch).last_hidden_state)
        except RuntimeError as error:
            raise Unavailable(f"the embedding engine failed: {error}") from error
        # Padding stays out of the mean: each row is cut to its own tokens.
        pooled = np.stack([row[: len(ids)].mean(axis=0) for row, ids in zip(hidden, batch, strict=True)])
        return unit_length(pooled)

    def _engine(self) -> Encoder:
        if self._encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._load()
        return self._encoder

    def _load(self) -> Encoder:
        folder = minilm.converted(self._folder, self._cache, self._compute_type)
        try:
            return self._open(folder)
        except RuntimeError:
            # A damaged copy (a full disk, a power cut) is made anew from the package.
            shutil.rmtree(folder, ignore_errors=True)
        try:
            return self._open(minilm.converted(self._folder, self._cache, self._compute_type))
        except RuntimeError as error:
            raise Misconfigured(f"the embedding model cannot be loaded: {error}") from error

    def _open(self, folder: Path) -> Encoder:
        return Encoder(str(folder), compute_type=self._compute_type, inter_threads=self._threads, intra_threads=1)


def batches_of(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices in batches of like length, longest first, each of at most `budget` tokens with its padding."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def unit_length(vectors: Vectors) -> Vectors:
    """Each row divided by its length; float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vectors = (vectors / lengths).astype(np.float32)
    return result


def _cut(ids: list[int]) -> list[int]:
    # The last token closes the text and survives the cut.
    return ids if len(ids) <= minilm.MAX_TOKENS else [*ids[: minilm.MAX_TOKENS - 1], ids[-1]]
