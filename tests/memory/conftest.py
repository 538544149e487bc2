"""The rules on a real Postgres, shared by the tests below; each has tenants of its own, or a database of its own."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import psycopg
import pytest

from memory.adapters.documents import GuardedReader
from memory.adapters.local_cache import LocalCache
from memory.adapters.redis_cache import RedisCache
from memory.cache import CachedSearch
from memory.embedding import Embedding
from memory.fates import Fates
from memory.ingesting import Ingesting
from memory.memories import Memories
from memory.ports import Cache, FileReader
from memory.schemas import Caller
from memory.search import Search
from memory.services import Services
from memory.settings import Settings
from tests.conftest import Tenant as Tenant
from tests.fakes import WordEmbedder
from tests.memory.processes import Processes, two_processes
from tests.redis_server import redis_server

Connection = psycopg.Connection[tuple[Any, ...]]


class Making(Protocol):
    def __call__(self, reader: FileReader, words: WordEmbedder | None = None) -> Services: ...


@pytest.fixture(scope="session")
def words() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture(scope="session")
def house(services: Services, words: WordEmbedder) -> Services:
    """The same services, with meaning made of words: quick, and computable by hand."""
    embedding = Embedding(services.database, words)
    return dataclasses.replace(
        services,
        embedder=words,
        memories=Memories(services.database, services.grants, embedding, services.objects, services.statistics),
        fates=Fates(services.database, services.grants, embedding, services.objects, services.statistics),
        search=CachedSearch(
            Search(services.database, embedding, services.objects, services.statistics),
            database=services.database,
            grants=services.grants,
            objects=services.objects,
            cache=LocalCache(max_bytes=0),
        ),
    )


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    return tenant.caller


@pytest.fixture(scope="session")
def reader() -> Iterator[GuardedReader]:
    reader = GuardedReader(ocr_engine="off")
    yield reader
    reader.close()


@pytest.fixture
def reading_house(services: Services, reader: GuardedReader) -> Services:
    """The services of a worker, which reads files."""
    embedding = Embedding(services.database, services.embedder)
    ingesting = Ingesting(services.database, embedding, services.objects, services.statistics, reader)
    return dataclasses.replace(services, ingesting=ingesting)


@pytest.fixture
def make(services: Services) -> Making:
    """Services of a worker with meaning made of words and a reader of the test's choice."""

    def made(reader: FileReader, words: WordEmbedder | None = None) -> Services:
        embedding = Embedding(services.database, words or WordEmbedder())
        ingesting = Ingesting(services.database, embedding, services.objects, services.statistics, reader)
        return dataclasses.replace(services, ingesting=ingesting)

    return made


@pytest.fixture(scope="session", params=["in the process", "Redis"])
def processes(
    request: pytest.FixtureRequest, house: Services, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    """Two processes that search, each with a cache of its own or both with one Redis."""
    with ExitStack() as stack:
        make: Callable[[], Cache] = LocalCache
        if request.param == "Redis":
            server = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
            # A busy machine is no outage.
            make = partial(RedisCache, server.url, wait_seconds=30)
        yield stack.enter_context(two_processes(house, settings, make))


@pytest.fixture
def as_app(settings: Settings) -> Iterator[Connection]:
    """A direct session of the app role, each statement its own transaction; no tenant is set."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def as_owner(settings: Settings) -> Iterator[Connection]:
    """A direct session of the owner, who sees all rows for upkeep."""
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value(), autocommit=True) as connection:
        yield connection
