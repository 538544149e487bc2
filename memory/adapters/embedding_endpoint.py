"""Text to vectors elsewhere: any endpoint that speaks OpenAI's embeddings form."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import numpy as np
import openai
from pydantic import SecretStr
from tokenizers import Tokenizer

from memory.adapters import minilm
from memory.errors import AppError, Invalid, Misconfigured, Unavailable
from memory.ports import Embedder, EmbeddingModel, Vectors

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_MODEL = "text-embedding-3-small"

_BATCH_TEXTS = 128
_RETRIES = 2
# Someone waits for the answer: a server that asks for more patience than this counts as down.
_LONGEST_RETRY_AFTER_SECONDS = 10.0
_KEYLESS = "none"


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
        self._key = api_key.get_secret_value() if api_key else ""
        self._lock = threading.Lock()
        self._dimensions: int | None = None
        self._tokenizer: Tokenizer | None = None
        self._http = httpx2.Client(follow_redirects=False, event_hooks={"response": [_refuse_long_waits]})
        self._client = openai.OpenAI(
            base_url=base_url or DEFAULT_BASE_URL,
            # Local servers need no key, the library insists on one.
            api_key=self._key or _KEYLESS,
            max_retries=_RETRIES,
            http_client=self._http,
        )
        # The library takes these from the environment; no other host has any business with them.
        self._client.organization = self._client.project = self._client.admin_api_key = None

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
        self._client.close()

    def _request(self, texts: Sequence[str]) -> list[Any]:
        # One text may be a search that somebody waits for; a full batch on a small machine takes its time.
        timeout = httpx2.Timeout(self._patience_seconds + 0.5 * (len(texts) - 1), connect=5.0)
        try:
            answer = self._client.embeddings.create(model=self._name, input=list(texts), timeout=timeout)
            return sorted(answer.data, key=lambda item: item.index)
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIConnectionError as error:
            raise Unavailable(f"the embedding endpoint cannot be reached: {error.message}") from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            raise Unavailable("the embedding endpoint did not answer in OpenAI's embeddings form") from None

    def _refusal(self, error: openai.APIStatusError) -> AppError:
        status, said = error.status_code, self._cleaned(error.message)
        if status >= 500 or status in {408, 409, 425, 429}:
            return Unavailable(f"the embedding endpoint answered {status}: {said}")
        if status in {400, 413, 422}:
            return Invalid(f"the embedding model refused the text ({status}): {said}")
        if status in {401, 403}:
            return Misconfigured(f"the embedding endpoint refused the key ({status}); check EMBEDDING_API_KEY: {said}")
        if 300 <= status < 400:
            return Misconfigured("the embedding endpoint redirects; set EMBEDDING_BASE_URL to its final address")
        return Misconfigured(
            f"the embedding endpoint answered {status}; check EMBEDDING_BASE_URL and EMBEDDING_MODEL: {said}"
        )

    def _cleaned(self, message: str) -> str:
        without_key = message.replace(self._key, "[key]") if self._key else message
        return " ".join(without_key.split())[:300]

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


def _refuse_long_waits(response: httpx2.Response) -> None:
    if _seconds_to_wait(response.headers) > _LONGEST_RETRY_AFTER_SECONDS:
        response.headers["x-should-retry"] = "false"


def _seconds_to_wait(headers: httpx2.Headers) -> float:
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers.get("retry-after", 0))
    except ValueError:
        pass
    try:
        # The other form of the header: a date.
        return (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
