"""Text to vectors elsewhere: any endpoint that speaks OpenAI's embeddings form."""

import threading
from collections.abc import Sequence
from typing import Any

import httpx2
import numpy as np
from pydantic import SecretStr
from tokenizers import Tokenizer

from memory.adapters import minilm
from memory.adapters.openai_endpoint import Endpoint, Words
from memory.errors import Misconfigured, Unavailable
from memory.ports import Embedder, EmbeddingModel, Vectors

DEFAULT_MODEL = "text-embedding-3-small"

_BATCH_TEXTS = 128
# Someone waits for the answer: a server that asks for more patience than this counts as down.
_LONGEST_RETRY_AFTER_SECONDS = 10.0
_WORDS = Words(
    endpoint="the embedding endpoint",
    model="the embedding model",
    sent="the text",
    form="embeddings",
    url_setting="EMBEDDING_BASE_URL",
    model_setting="EMBEDDING_MODEL",
    key_setting="EMBEDDING_API_KEY",
)


class OpenAIEmbedder(Embedder):
    """Embeddings from `base_url` (default: OpenAI). Safe to use from many threads.

    Texts are sent whole, 128 at a time; redirects are refused, since they would hand the texts to another host.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        model: str | None,
        api_key: SecretStr | None,
        max_tokens: int = minilm.MAX_TOKENS,
        patience_seconds: float = 10.0,
    ) -> None:
        self._name = model or DEFAULT_MODEL
        self._max_tokens = max_tokens
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._dimensions: int | None = None
        self._tokenizer: Tokenizer | None = None
        self._endpoint = Endpoint(
            _WORDS, base_url=base_url, api_key=api_key, longest_wait_seconds=_LONGEST_RETRY_AFTER_SECONDS
        )

    @property
    def model(self) -> EmbeddingModel:
        """The dimensions are learned from the first answer. Raises Unavailable, Misconfigured."""
        if self._dimensions is None:
            self.embed(["dimensions"])
        assert self._dimensions is not None  # noqa: S101 - embed has set it or raised
        return EmbeddingModel(self._name, self._dimensions)

    @property
    def max_tokens(self) -> int:
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by the on-box tokenizer: near enough to cut chunks by."""
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = minilm.load_tokenizer(minilm.model_folder())
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, float32, in input order.

        Raises Unavailable (time may heal it), Misconfigured (address, key or model), Invalid (the texts).
        """
        parts = [
            self._checked(self._request(texts[start : start + _BATCH_TEXTS]), len(texts[start : start + _BATCH_TEXTS]))
            for start in range(0, len(texts), _BATCH_TEXTS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.model.dimensions), dtype=np.float32)

    def close(self) -> None:
        """Gives the connections back."""
        self._endpoint.close()

    def _request(self, texts: Sequence[str]) -> list[Any]:
        # One text may be a search that somebody waits for; a full batch on a small machine takes its time.
        timeout = httpx2.Timeout(self._patience_seconds + 0.5 * (len(texts) - 1), connect=5.0)
        with self._endpoint.asked():
            answer = self._endpoint.client.embeddings.create(model=self._name, input=list(texts), timeout=timeout)
            return sorted(answer.data, key=lambda item: item.index)

    def _checked(self, items: list[Any], expected: int) -> Vectors:
        if [item.index for item in items] != list(range(expected)):
            raise Unavailable(f"the embedding endpoint was asked for {expected} vectors and gave {len(items)}")
        try:
            vectors = np.array([item.embedding for item in items], dtype=np.float64)
        except (AttributeError, TypeError, ValueError):
            raise Unavailable("the embedding endpoint gave something that is no list of vectors") from None
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise Unavailable("the embedding endpoint gave something that is no list of vectors")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise Unavailable("the embedding endpoint gave vectors that are zero or not finite")
        self._remember(vectors.shape[1])
        result: Vectors = (vectors / lengths).astype(np.float32)
        return result

    def _remember(self, dimensions: int) -> None:
        with self._lock:
            if self._dimensions is None:
                self._dimensions = dimensions
        if dimensions != self._dimensions:
            raise Misconfigured(
                f"the embedding endpoint gave vectors of {dimensions} dimensions, before it were {self._dimensions}: "
                f"another model answers to the name {self._name} now"
            )
