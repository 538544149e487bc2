"""Every kind of search among 100,000 memories, before and after they are indexed: nothing is read from end to end."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from pydantic import SecretStr
from sqlalchemy import Connection, event

from memory.embedding import Embedding
from memory.indexes import Indexes
from memory.ports import Vectors
from memory.schemas import Caller, SearchRequest
from memory.search import Search
from memory.services import Services, build
from memory.settings import Settings
from memory.store import lexemes, search, statistics
from tests.conftest import DatabaseUrls
from tests.fakes import WordEmbedder

ROWS = 100_000
_DIFFERENT = 500
_TABLES = ("memories", "memory_terms", "memory_vectors")
_RANDOM = random.Random(7)
_WORDS = [f"w{chr(97 + number % 26)}{chr(97 + number // 26)}x" for number in range(600)]
_COMMON = [1 / (rank + 1) for rank in range(len(_WORDS))]

Statement = tuple[str, Any]


@dataclass
class Large:
    """The services on the filled database, and what the last searches sent to it and read of it."""

    search: Search
    services: Services
    caller: Caller
    collection_id: UUID
    is_indexed: bool = False
    sent: list[Statement] = field(default_factory=list)
    scanned: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def urls(migrated: Any) -> Iterator[DatabaseUrls]:
    name = "test_plans_large"
    migrated.administer(f"CREATE DATABASE {name} TEMPLATE rememberos OWNER rememberos_owner;")
    yield DatabaseUrls(*(url.replace("/rememberos?", f"/{name}?") for url in (migrated.app_url, migrated.owner_url)))
    migrated.administer(f"DROP DATABASE {name} WITH (FORCE);")


@pytest.fixture(scope="module", params=["scanned", "indexed"])
def large(request: pytest.FixtureRequest, filled: Large, urls: DatabaseUrls) -> Large:
    filled.is_indexed = request.param == "indexed"
    if filled.is_indexed:
        indexes = Indexes(SecretStr(urls.owner_url))
        assert indexes.advance(lambda: False)
        assert not indexes.advance(lambda: False)
    return filled


@pytest.fixture(scope="module")
def filled(urls: DatabaseUrls, settings: Settings) -> Iterator[Large]:
    values = {**settings.model_dump(), "database_url": urls.app_url, "database_owner_url": urls.owner_url}
    services = build(Settings(_env_file=None, **values))
    words = WordEmbedder()
    embedding = Embedding(services.database, words)
    made = services.accounts.create_tenant(email="large@example.org")
    caller = services.accounts.authenticate(made.api_key)
    _fill(urls.owner_url, made.tenant_id, words)
    with services.database.transaction(made.tenant_id) as session:
        collection_id = (
            session.connection().exec_driver_sql("select id from collections where name = 'large'").scalar_one()
        )
        statistics.refresh(session, made.tenant_id, collection_id, ROWS)
    found = Large(
        Search(services.database, embedding, services.objects, services.statistics),
        services,
        caller,
        collection_id,
    )
    engine = services.database._engine

    def sent(_c: Connection, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if "pg_stat_xact" not in statement and not statement.startswith("explain"):
            found.sent.append((statement, values))

    def committed(connection: Connection) -> None:
        rows = connection.exec_driver_sql(
            "select relname, seq_scan from pg_stat_xact_user_tables where relname = any (%s)", (list(_TABLES),)
        )
        for name, scans in rows:
            found.scanned[name] = found.scanned.get(name, 0) + scans

    event.listen(engine, "before_cursor_execute", sent)
    event.listen(engine, "commit", committed)
    yield found
    services.close()


def _text() -> str:
    return " ".join(_RANDOM.choices(_WORDS, weights=_COMMON, k=20))


def _fill(owner_url: str, tenant_id: UUID, words: WordEmbedder) -> None:
    """A few hundred different texts, each of them many times over, of all sorts otherwise."""
    texts = [f"{_text()} OPS-{number}" for number in range(_DIFFERENT)]
    with psycopg.connect(owner_url, autocommit=True) as owner:
        register_vector(owner)
        owner.execute("create temp table seeds (n integer, text text, vector halfvec, tsv tsvector, lexical sparsevec)")
        vectors = words.embed(texts)
        with owner.cursor() as cursor:
            cursor.executemany(
                "insert into seeds select %s, %s, %s, tsv, lexical from terms_of(%s, array[%s], 0.5, '{}', 0.05)",
                [
                    (number, text, HalfVector(vector), lexemes.searchable(text), f"=ops-{number}")
                    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
                ],
            )
        owner.execute("drop index memory_terms_tsv")
        values = {"tenant": tenant_id, "rows": ROWS, "different": _DIFFERENT}
        owner.execute(
            "insert into collections (tenant_id, id, name) values (%(tenant)s, gen_random_uuid(), 'large')", values
        )
        owner.execute(
            """
            create temp table rows as
            select gen_random_uuid() as id, g as n, (g / 7) %% %(different)s as seed, c.id as collection_id
            from generate_series(1, %(rows)s) as g, collections c
            """,
            values,
        )
        owner.execute(
            """
            insert into memories (tenant_id, id, collection_id, text, importance, category, source, metadata,
                container_tag, sequence, position, valid_from, created_at, updated_at, archived)
            select %(tenant)s, r.id, r.collection_id, s.text, 0.5, 'category ' || r.n %% 50, 'api',
                   jsonb_build_object('n', r.n %% 1000, 'half', r.n %% 2), 'tag ' || r.n %% 2000,
                   case when r.n %% 2 = 0 then 'thread ' || r.n / 100 end, r.n, now(), now(), now(), r.n %% 20 = 0
            from rows r join seeds s on s.n = r.seed
            """,
            values,
        )
        _fill_vectors(owner, values, np.array([np.asarray(vector) for vector in vectors]))
        owner.execute(
            "insert into memory_terms (tenant_id, memory_id, collection_id, tsv, lexical) "
            "select %(tenant)s, r.id, r.collection_id, s.tsv, s.lexical from rows r join seeds s on s.n = r.seed",
            values,
        )
        owner.execute("create index memory_terms_tsv on memory_terms using gin (tsv)")
        owner.execute("analyze")


def _fill_vectors(owner: psycopg.Connection[Any], values: dict[str, Any], seeds: Vectors) -> None:
    """Each near that of its text, and none like another."""
    noise = np.random.default_rng(7)
    for start in range(1, ROWS, 5_000):
        numbers = np.arange(start, start + 5_000)
        near = seeds[(numbers // 7) % len(seeds)] + noise.normal(0, 0.02, (len(numbers), seeds.shape[1]))
        owner.execute(
            "insert into memory_vectors (tenant_id, memory_id, model_id, collection_id, embedding) "
            "select %(tenant)s, r.id, 1, r.collection_id, vector "
            "from unnest(%(numbers)s::integer[], %(vectors)b::halfvec[]) as given (n, vector) join rows r using (n)",
            {**values, "numbers": numbers.tolist(), "vectors": [HalfVector(vector) for vector in near]},
        )


_COMMON_QUERY = " ".join(_WORDS[:8])
_SEARCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "common words": {"query": _COMMON_QUERY},
    "a code": {"query": "OPS-77"},
    "a category": {"category": "category 7"},
    "a tag": {"container_tag": "tag 7"},
    "metadata": {"metadata_filter": {"n": 7}},
    "metadata of half": {"metadata_filter": {"half": 1}},
    "a narrow filter": {"filter": {"field": "metadata.n", "op": "eq", "value": 7}},
    "a range": {"filter": {"field": "metadata.n", "op": "lt", "value": 3}},
    "a wide filter": {"filter": {"not": {"field": "category", "op": "eq", "value": "category 7"}}},
    "nothing fits": {"filter": {"field": "source", "op": "eq", "value": "nowhere"}},
    "a phrase": {"query": f'{_COMMON_QUERY} "OPS-77"'},
    "a phrase of common words": {"query": f'"{_WORDS[0]}" {_WORDS[1]}'},
    "a phrase inside a word": {"query": '"PS-77" x'},
    "as of": {"as_of": "2100-01-01"},
    "archived ones": {"include_archived": True},
    "context": {"context": 3, "explain": True},
}


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
@pytest.mark.parametrize("name", _SEARCHES)
def test_no_table_is_read_from_end_to_end(large: Large, name: str, mode: str) -> None:
    large.sent.clear()
    large.scanned.clear()
    wanted = SearchRequest.model_validate(
        {"query": f"{_WORDS[3]} {_WORDS[200]}", "mode": mode, "min_score": 0, **_SEARCHES[name]}
    )
    found = large.search.search(large.caller, [large.collection_id], wanted)
    # What was really read, inside functions, too.
    assert large.scanned == dict.fromkeys(_TABLES, 0)
    assert bool(found.results) == (name != "nothing fits") or mode == "text"
    for statement, values in list(large.sent):
        assert _read_whole(large, statement, values) == set(), statement


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_nearest_vectors_come_from_their_index_once_there_is_one(large: Large) -> None:
    large.sent.clear()
    large.search.search(large.caller, [large.collection_id], SearchRequest(query=_COMMON_QUERY, min_score=0))
    [(statement, values)] = [one for one in large.sent if "vector_read" in one[0]]
    assert any("memory_vectors_near_" in str(node.get("Index Name")) for node in _plan(large, statement, values)) == (
        large.is_indexed
    )


def _read_whole(large: Large, statement: str, values: Any) -> set[str]:
    """The tables that a statement, as it is planned for the app role, reads from end to end."""
    if not statement.lstrip().startswith(("select", "with")):
        return set()
    nodes = _plan(large, statement, values)
    return {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"} & set(_TABLES)


def _plan(large: Large, statement: str, values: Any) -> list[dict[str, Any]]:
    with large.services.database.transaction(large.caller.tenant_id) as session:
        search.prepare(session)
        plan = session.connection().exec_driver_sql(f"explain (format json) {statement}", values).scalar_one()
    parsed = json.loads(plan) if isinstance(plan, str) else plan
    return list(_nodes(parsed[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
