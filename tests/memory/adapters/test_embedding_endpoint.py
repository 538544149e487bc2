"""The client of embedding endpoints against a server that misbehaves in every way seen so far."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr

from memory.adapters.embedding_endpoint import OpenAIEmbedder
from memory.errors import AppError, Invalid, Misconfigured, Unavailable
from memory.ports import EmbeddingModel
from tests.fakes import Answer, EmbeddingEndpoint, embeddings, refusal

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def endpoint() -> Iterator[EmbeddingEndpoint]:
    with EmbeddingEndpoint() as server:
        yield server


@pytest.fixture
def embedder(endpoint: EmbeddingEndpoint) -> Iterator[OpenAIEmbedder]:
    client = OpenAIEmbedder(
        base_url=f"{endpoint.url}/v1", model="bge-small", api_key=SecretStr(KEY), patience_seconds=0.5
    )
    yield client
    client.close()


def expected(endpoint: EmbeddingEndpoint, texts: list[str]) -> NDArray[np.float64]:
    vectors = np.array([endpoint.vector(text) for text in texts])
    result: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def test_unit_vectors_in_input_order(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    texts = ["harbour", "an orchard in rain", "x"]
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(endpoint, texts), atol=1e-6)
    (request,) = endpoint.received
    assert request.path == "/v1/embeddings"
    assert request.json["model"] == "bge-small"
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_many_texts_travel_in_bounded_batches(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    texts = [f"text {number}" for number in range(300)]
    np.testing.assert_allclose(embedder.embed(texts), expected(endpoint, texts), atol=1e-6)
    sizes = [len(request.json["input"]) for request in endpoint.received]
    assert sum(sizes) == 300
    assert max(sizes) <= 256


def test_model_learns_its_dimensions_once(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    assert embedder.model == EmbeddingModel("bge-small", 8)
    assert embedder.model.dimensions == 8
    assert len(endpoint.received) == 1
    assert embedder.embed([]).shape == (0, 8)
    assert len(endpoint.received) == 1


def test_nothing_from_the_environment_is_sent(endpoint: EmbeddingEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    client = OpenAIEmbedder(base_url=endpoint.url, model="m", api_key=None)
    client.embed(["hello"])
    client.close()
    (request,) = endpoint.received
    assert "leaked" not in str(request.headers)


def test_floats_in_place_of_base64(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    endpoint.script.append(lambda texts: embeddings([endpoint.vector(text) for text in texts]))
    np.testing.assert_allclose(embedder.embed(["a", "b"]), expected(endpoint, ["a", "b"]), atol=1e-6)


def test_answers_out_of_order_are_sorted(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    def backwards(texts: list[str]) -> Answer:
        content = json.loads(embeddings([endpoint.vector(text) for text in texts]).body)
        content["data"].reverse()
        return Answer(body=json.dumps(content).encode())

    endpoint.script.append(backwards)
    np.testing.assert_allclose(embedder.embed(["a", "b", "c"]), expected(endpoint, ["a", "b", "c"]), atol=1e-6)


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(429, "slow down", retry_after="0.05"),
        refusal(429, "slow down", retry_after_ms="20"),
        refusal(500, "oops"),
        Answer(503, b"<html>gateway</html>"),
        Answer(after_seconds=1.0),
    ],
    ids=["429", "429 in ms", "500", "503 page", "slow"],
)
def test_passing_trouble_is_outlived(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder, trouble: Answer) -> None:
    endpoint.script.append(trouble)
    np.testing.assert_allclose(embedder.embed(["a"]), expected(endpoint, ["a"]), atol=1e-6)
    assert len(endpoint.received) == 2


@pytest.mark.parametrize(
    "answer",
    [refusal(500, "oops"), refusal(429, "slow down", retry_after="0.01"), Answer(after_seconds=1.0)],
    ids=["500", "429", "slow"],
)
def test_lasting_trouble_ends_after_three_requests(
    endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder, answer: Answer
) -> None:
    endpoint.script.extend([answer] * 10)
    with pytest.raises(Unavailable):
        embedder.embed(["a"])
    assert len(endpoint.received) == 3


@pytest.mark.parametrize(
    "header", ["600", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)], ids=["seconds", "date"]
)
def test_a_long_wait_is_not_waited_for(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder, header: str) -> None:
    endpoint.script.extend([refusal(429, "quota", retry_after=header)] * 3)
    with pytest.raises(Unavailable, match="429"):
        embedder.embed(["a"])
    assert len(endpoint.received) == 1


def test_nobody_listens() -> None:
    with EmbeddingEndpoint() as server:
        address = server.url
    client = OpenAIEmbedder(base_url=address, model="m", api_key=None)
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.embed(["a"])
    with pytest.raises(Unavailable, match="cannot be reached"):
        _ = client.model
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        embeddings([[1.0, 2.0]]),
        embeddings([[1.0, 2.0]] * 3),
        embeddings([]),
        embeddings([[1.0, float("nan")], [1.0, 1.0]]),
        embeddings([[1.0, float("inf")], [1.0, 1.0]]),
        embeddings([[0.0, 0.0], [1.0, 1.0]]),
        embeddings([[1.0, 2.0], [1.0]]),
        embeddings([[], []]),
        embeddings(["not base64!", "?"]),
        embeddings([None, None]),
        embeddings([[1.0, 2.0], [1.0, 2.0]], data=None),
        embeddings([[1.0, 2.0], [1.0, 2.0]], data=[{"embedding": [1.0]}, {"embedding": [1.0]}]),
        Answer(body=b"<html>welcome</html>", headers={"content-type": "text/html"}),
        Answer(body=b"{"),
        Answer(body=b"[]"),
    ],
    ids=[
        "too few",
        "too many",
        "none",
        "nan",
        "infinite",
        "zero",
        "ragged",
        "empty vectors",
        "broken base64",
        "null vectors",
        "null data",
        "no index",
        "html",
        "broken json",
        "a list",
    ],
)
def test_an_unusable_answer_is_unavailable(
    endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder, answer: Answer
) -> None:
    endpoint.script.append(answer)
    with pytest.raises(Unavailable):
        embedder.embed(["a", "b"])


@pytest.mark.parametrize(
    ("status", "kind", "names"),
    [
        (400, Invalid, "maximum length"),
        (413, Invalid, "maximum length"),
        (401, Misconfigured, "EMBEDDING_API_KEY"),
        (403, Misconfigured, "EMBEDDING_API_KEY"),
        (404, Misconfigured, "EMBEDDING_MODEL"),
        (405, Misconfigured, "EMBEDDING_BASE_URL"),
    ],
)
def test_a_refusal_is_told_without_the_key(
    endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder, status: int, kind: type[AppError], names: str
) -> None:
    endpoint.script.append(refusal(status, f"over the maximum length, dear {KEY}" + "!" * 5000))
    with pytest.raises(kind) as caught:
        embedder.embed(["a"])
    assert type(caught.value) is kind
    assert names in caught.value.detail
    assert KEY not in caught.value.detail
    assert caught.value.__cause__ is None
    assert len(caught.value.detail) < 500
    assert len(endpoint.received) == 1


def test_a_redirect_gets_neither_texts_nor_key(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    with EmbeddingEndpoint() as elsewhere:
        for status in (301, 302, 307, 308):
            endpoint.script.append(Answer(status, headers={"location": f"{elsewhere.url}/v1/embeddings"}))
            with pytest.raises(Misconfigured, match="EMBEDDING_BASE_URL"):
                embedder.embed(["private"])
        assert elsewhere.received == []


def test_another_model_under_the_same_name_is_noticed(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    embedder.embed(["a"])
    endpoint.dimensions = 12
    with pytest.raises(Misconfigured, match="12 dimensions"):
        embedder.embed(["a"])


def test_tokens_are_counted_without_asking(endpoint: EmbeddingEndpoint, embedder: OpenAIEmbedder) -> None:
    assert embedder.count_tokens("one two three") == 3
    assert embedder.max_tokens == 256
    assert endpoint.received == []
