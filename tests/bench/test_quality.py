"""Search over the public API ranks as the formula does: our own retrieval set against the plain numpy ranking."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn

from api.app import create_app
from bench import quality
from bench.client import Api
from bench.metrics import averaged
from bench.ranking import Document, rank
from memory.services import Services, build
from memory.settings import Settings
from memory.store.lexemes import EXACT_WEIGHT, exact_terms, searchable
from tests.conftest import DatabaseUrls

CLOSE_ENOUGH = 0.005
EMBEDDED_TOGETHER = 100


@pytest.fixture
def services(database: DatabaseUrls, tmp_path: Path) -> Iterator[Services]:
    settings = Settings(
        _env_file=None, rememberos_data=tmp_path, database_url=database.app_url, database_owner_url=database.owner_url
    )
    built = build(settings)
    yield built
    built.close()


@pytest.fixture
def api(services: Services) -> Iterator[Api]:
    """The product on a real port, and a tenant's key for it."""
    listener = socket.create_server(("127.0.0.1", 0))
    # Otherwise each answer waits 40 ms for the acknowledgement of its first part.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(create_app(services.settings, services), log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    key = services.accounts.create_tenant(email="bench@example.org").api_key
    with Api(f"http://127.0.0.1:{listener.getsockname()[1]}", key) as client:
        yield client
    server.should_exit = True
    thread.join()
    listener.close()


def lexemes(connection: psycopg.Connection[Any], text: str) -> dict[str, int]:
    rows = connection.execute(
        "select lexeme, cardinality(positions) from unnest(to_tsvector('english', %s))", [searchable(text)]
    )
    return dict(rows.fetchall())


class Plain:
    """The same ranking without the product: numpy over what Postgres' parser and the embedder say."""

    def __init__(self, retrieval: quality.RetrievalSet, services: Services, database_url: str) -> None:
        texts = [quality.text_of(document) for document in retrieval.corpus]
        parts = [texts[start : start + EMBEDDED_TOGETHER] for start in range(0, len(texts), EMBEDDED_TOGETHER)]
        vectors = [vector for part in parts for vector in services.embedder.embed(part)]
        with psycopg.connect(database_url) as connection:
            self.documents = [
                Document(
                    document["_id"], lexemes(connection, text), vector, dict.fromkeys(exact_terms(text), EXACT_WEIGHT)
                )
                for document, text, vector in zip(retrieval.corpus, texts, vectors, strict=True)
            ]
            self.queries = {
                query["_id"]: (
                    [*lexemes(connection, query["text"]), *exact_terms(query["text"])],
                    services.embedder.embed([query["text"]])[0],
                )
                for query in retrieval.queries
            }

    def rankings(self, mode: str, product: dict[str, list[str]]) -> dict[str, list[str]]:
        """By query id; documents of equal score come in the product's order, which is its own affair."""
        result = {}
        for query, (terms, vector) in self.queries.items():
            places = {document: place for place, document in enumerate(product[query])}
            documents = sorted(self.documents, key=lambda document: places.get(document.id, len(places)))
            result[query] = rank(mode, terms, vector, documents)
        return result


def test_search_ranks_as_the_formula_does(api: Api, services: Services, database: DatabaseUrls) -> None:
    retrieval = quality.read(quality.OWN_SET)
    plain = Plain(retrieval, services, database.app_url)
    product = {}
    with quality.loaded(api, retrieval.corpus) as names:
        for mode in quality.MODES:
            ranked = quality.rankings(api, names, retrieval.queries, mode)
            product[mode] = averaged(ranked, retrieval.judged)
            reference = averaged(plain.rankings(mode, ranked), retrieval.judged)
            assert product[mode] == pytest.approx(reference, abs=CLOSE_ENOUGH), mode
    assert min(values["nDCG@10"] for values in product.values()) > 0.5
    assert api.call("GET", "/v1/memory/collections") == []


def test_each_query_asks_its_own_collection(api: Api) -> None:
    corpus: list[quality.Json] = [
        {"_id": "1", "title": "", "text": "The ferry leaves at seven.", "collection": "north", "sequence": "s"},
        {"_id": "2", "title": None, "text": "The ferry leaves at nine.", "collection": "south", "position": 3},
    ]
    queries = [
        {"_id": "q", "text": "ferry", "collection": "south"},
        {"_id": "all", "text": "ferry"},
    ]
    with quality.loaded(api, corpus) as names:
        found = quality.rankings(api, names, queries, "hybrid")
    assert found["q"] == ["2"]
    assert sorted(found["all"]) == ["1", "2"]


def test_a_folder_is_read_in_either_layout(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d", "title": "T", "text": "x" * 20_000}) + "\n\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n{"_id": "unjudged", "text": "b"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t2\n")
    retrieval = quality.read(tmp_path)
    assert retrieval.judged == {"q": {"d": 2}}
    assert [query["_id"] for query in retrieval.queries] == ["q"]
    assert len(quality.memory_of(retrieval.corpus[0])["text"]) == 10_000


def test_our_own_set_is_sound() -> None:
    retrieval = quality.read(quality.OWN_SET)
    known = {document["_id"] for document in retrieval.corpus}
    assert len(known) == len(retrieval.corpus) > 100
    assert {query["_id"] for query in retrieval.queries} == retrieval.judged.keys()
    assert {document for judged in retrieval.judged.values() for document in judged} <= known
