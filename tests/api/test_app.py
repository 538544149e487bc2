"""The application as a whole: what it starts with, what it survives."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from starlette.testclient import TestClient

from api.app import create_app
from memory.adapters.local_cache import LocalCache
from memory.cache import CachedSearch
from memory.embedding import Embedding
from memory.ports import Embedder, EmbeddingModel, Vectors
from memory.search import Search
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant

SLOW_CALLS = 60


class SlowEmbedder(Embedder):
    """Holds every caller until it is released, as a model far away would."""

    def __init__(self, behind: Embedder) -> None:
        self._behind = behind
        self._released = threading.Event()
        self.waiting = threading.Semaphore(0)

    @property
    def model(self) -> EmbeddingModel:
        return self._behind.model

    @property
    def max_tokens(self) -> int:
        return self._behind.max_tokens

    def embed(self, texts: Sequence[str]) -> Vectors:
        # Those who ask at the same time come together.
        self.waiting.release(len(texts))
        assert self._released.wait(60)
        return self._behind.embed(texts)

    def count_tokens(self, text: str) -> int:
        return self._behind.count_tokens(text)

    @contextmanager
    def holding(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._released.set()


def test_sixty_slow_calls_keep_nobody_else_waiting(settings: Settings, services: Services, tenant: Tenant) -> None:
    embedder = SlowEmbedder(services.embedder)
    embedding = Embedding(services.database, embedder)
    searching = Search(services.database, embedding, services.objects, services.statistics)
    cached = CachedSearch(
        searching, database=services.database, grants=services.grants, objects=services.objects, cache=LocalCache()
    )
    slow = replace(services, search=cached)

    def search(client: TestClient) -> int:
        return client.post("/v1/memory/search", headers=tenant.headers, json={"query": "tea"}).status_code

    with TestClient(create_app(settings, slow)) as client, ThreadPoolExecutor(SLOW_CALLS) as callers:
        with embedder.holding():
            answers = [callers.submit(search, client) for _ in range(SLOW_CALLS)]
            # With fewer threads than callers the last of them never get as far as the embedder.
            assert all(embedder.waiting.acquire(timeout=30) for _ in range(SLOW_CALLS))

            assert client.get("/v1/memory/health").status_code == 200
            assert client.get("/v1/memory/collections", headers=tenant.headers).status_code == 200
            text_search = {"query": "tea", "mode": "text"}
            assert client.post("/v1/memory/search", headers=tenant.headers, json=text_search).status_code == 200
            assert not any(answer.done() for answer in answers)
        assert [answer.result() for answer in answers] == [200] * SLOW_CALLS


def test_it_starts_and_lives_without_database_and_temporal(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        rememberos_data=tmp_path,
        database_url=f"postgresql://app:secret@/nothing?host={tmp_path}",
        temporal_address="127.0.0.1:1",
    )

    with TestClient(create_app(settings)) as client:
        assert client.get("/v1/memory/health").json() == {"status": "healthy"}
        assert client.get("/openapi.json").json()["servers"] == [{"url": "http://127.0.0.1:8000"}]
        answer = client.get("/v1/memory/collections", headers={"Authorization": "Bearer mv_0123456789abcdef"})

    assert answer.status_code == 503
    assert "secret" not in answer.text


def test_services_that_were_given_stay_open(settings: Settings, services: Services, tenant: Tenant) -> None:
    for _ in range(2):
        with TestClient(create_app(settings, services)) as client:
            assert client.get("/v1/memory/collections", headers=tenant.headers).status_code == 200
