"""Collections to measure with hold what they should, with the vectors that were kept."""

from pathlib import Path

import numpy as np
import pytest

from bench import filling
from bench.filling import Blocks, fill, nearest
from memory.schemas import MemoryFilter, SearchRequest
from memory.services import Services
from tests.conftest import Tenant
from tests.fakes import WordEmbedder

_BLOCK = 60


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BLOCK", _BLOCK)
    monkeypatch.setattr(filling, "_TOGETHER", 20)


def test_texts_are_the_same_at_every_run_and_vectors_are_made_once(tmp_path: Path) -> None:
    embedder = WordEmbedder()
    texts, vectors = Blocks(embedder, tmp_path).block(3)
    assert len(set(texts)) == _BLOCK
    assert np.allclose(vectors, embedder.embed(texts), atol=1e-3)
    others, _ = Blocks(embedder, tmp_path).block(4)
    assert set(texts).isdisjoint(others)
    embedder.down = True
    same, kept = Blocks(embedder, tmp_path).block(3)
    assert same == texts
    assert np.array_equal(kept, vectors)


def test_texts_that_are_too_many_to_embed_lie_near_what_they_are_made_of(tmp_path: Path) -> None:
    embedder = WordEmbedder()
    blocks = Blocks(embedder, tmp_path)
    texts, vectors = blocks.block(10)
    again, same = Blocks(embedder, tmp_path).block(10)
    assert texts == again
    assert np.array_equal(vectors, same)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near = (vectors * embedder.embed(texts)).sum(axis=1)
    assert near.mean() > 0.6
    assert not np.array_equal(vectors, blocks.block(11)[1])


def test_all_are_stored_in_turn_and_searched_as_if_they_had_come_over_http(
    services: Services, tenant: Tenant, tmp_path: Path
) -> None:
    blocks = Blocks(services.embedder, tmp_path)
    fill(services, blocks, range(2), [(tenant.caller, "red"), (tenant.caller, "blue")])
    for collection in ("red", "blue"):
        _, total = services.memories.page(tenant.caller, collection, MemoryFilter(limit=1))
        assert total == _BLOCK
    [text, *_] = blocks.block(1)[0]
    found = services.search.search(tenant.caller, None, SearchRequest(query=text, mode="vector", limit=10, min_score=0))
    assert found.results[0].text == text
    best = nearest(blocks, range(2), services.embedder.embed([text]), 10)
    assert np.allclose([hit.vector_score or 0 for hit in found.results], best[0], atol=2e-3)
