"""The whole API on real services, once for all its tests; each test has tenants of its own."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from memory.schemas import Caller
from memory.services import Services, build
from memory.settings import Settings
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres

_DATABASE = "test_api"
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


@pytest.fixture(scope="session")
def app(settings: Settings, services: Services) -> FastAPI:
    return create_app(settings, services)


class NoTemporal:
    """What the front door sees of a Temporal server that is down, without the wait."""

    async def start_drop(self, tenant_id: str, batch_id: str) -> bool:
        return False


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        app.state.workflows = NoTemporal()
        yield client


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
