"""The rules on a real Postgres, shared by the tests below; each has tenants of its own, or a database of its own."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from memory.embedding import Embedding
from memory.memories import Memories
from memory.schemas import Caller
from memory.search import Search
from memory.services import Services, build
from memory.settings import Settings
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres
from tests.fakes import WordEmbedder

_DATABASE = "test_memory"
_numbers = count(1)

Headers = dict[str, str]


@dataclass(frozen=True)
class Tenant:
    """A tenant with two keys, as request headers."""

    id: UUID
    email: str
    headers: Headers
    read_only: Headers
    caller: Caller


@pytest.fixture(scope="session")
def settings(migrated: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    migrated.administer(f"CREATE DATABASE {_DATABASE} TEMPLATE {DATABASE} OWNER {OWNER};")
    app_url, owner_url = (
        url.replace(f"/{DATABASE}?", f"/{_DATABASE}?") for url in (migrated.app_url, migrated.owner_url)
    )
    folder: Path = tmp_path_factory.mktemp("data")
    yield Settings(
        _env_file=None,
        rememberos_data=folder,
        database_url=app_url,
        database_owner_url=owner_url,
        public_base_url="http://api.test",
    )
    migrated.administer(f"DROP DATABASE {_DATABASE} WITH (FORCE);")


@pytest.fixture(scope="session")
def services(settings: Settings) -> Iterator[Services]:
    built = build(settings)
    yield built
    built.close()


@pytest.fixture
def new_tenant(services: Services, migrated: EmbeddedPostgres) -> Callable[..., Tenant]:
    def make(*, admin: bool = False) -> Tenant:
        number = next(_numbers)
        made = services.accounts.create_tenant(email=f"tenant-{number}@example.org", admin=admin)
        read_only = f"mv_read-only-{number:020}"
        migrated.administer(
            f"\\connect {_DATABASE}\n"
            "insert into keys (tenant_id, id, hash, prefix, label, is_main, read_only) values "
            f"('{made.tenant_id}', gen_random_uuid(), '\\x{hashlib.sha256(read_only.encode()).hexdigest()}', "
            "'mv_read-', 'dashboard', false, true);"
        )
        return Tenant(
            id=made.tenant_id,
            email=made.email,
            headers=_bearer(made.api_key),
            read_only=_bearer(read_only),
            caller=services.accounts.authenticate(made.api_key),
        )

    return make


@pytest.fixture
def tenant(new_tenant: Callable[..., Tenant]) -> Tenant:
    return new_tenant()


def _bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


Connection = psycopg.Connection[tuple[Any, ...]]


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
        memories=Memories(services.database, embedding, services.objects, services.statistics),
        search=Search(services.database, embedding, services.objects),
    )


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
