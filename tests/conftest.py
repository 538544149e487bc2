"""Real servers for every test that needs one: Postgres with migrated databases, and a Temporal dev server."""

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
import pytest

from memory.errors import Misconfigured
from memory.schemas import Caller
from memory.services import Services, build, migrate
from memory.settings import Settings
from ops import launch
from ops.ports import free_port
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres
from ops.temporal import environment, find_server, is_serving, server_command
from tests import s3_server

_SHARED = "test_shared"
_numbers = count(1)


class DatabaseUrls(NamedTuple):
    """A migrated database of one test's own: as the app role and as the owner."""

    app_url: str
    owner_url: str


Headers = dict[str, str]


@dataclass(frozen=True)
class Tenant:
    """A tenant with two keys, as request headers."""

    id: UUID
    email: str
    headers: Headers
    read_only: Headers
    caller: Caller


def pytest_sessionstart(session: pytest.Session) -> None:
    """Programs that may have to be built first are made once for all processes, before the clock of any test runs. Who
    runs a few tests in one process waits for them where they are needed."""
    if not session.config.getoption("numprocesses", None):
        return
    # Where none can be made, the tests that need it say so.
    with suppress(Misconfigured):
        find_server(lambda _: None)
    s3_server.make_program()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> None:
    """What the developer's shell sets must not change what a test sees."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running Postgres with the owner role and an empty database, for the whole session."""
    folder = Path(tempfile.mkdtemp(prefix="rememberos-test-"))
    server = EmbeddedPostgres(folder, settings={"fsync": "off", "synchronous_commit": "off"})
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """The same server after `migrate`: its database is the template of every test's own."""
    migrate(Settings(_env_file=None, database_url=postgres.app_url, database_owner_url=postgres.owner_url))
    return postgres


@pytest.fixture
def database(migrated: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    """A migrated, empty database for one test; gone after it."""
    name = f"test_{next(_numbers)}"
    migrated.administer(f"CREATE DATABASE {name} TEMPLATE {DATABASE} OWNER {OWNER};")
    app_url, owner_url = (url.replace(f"/{DATABASE}?", f"/{name}?") for url in (migrated.app_url, migrated.owner_url))
    yield DatabaseUrls(app_url, owner_url)
    migrated.administer(f"DROP DATABASE {name} WITH (FORCE);")


@pytest.fixture(scope="session")
def temporal() -> Iterator[str]:
    """Address of a Temporal dev server with its state in memory, for the whole session."""
    said: list[str] = []
    program = find_server(said.append)
    port = free_port()
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="rememberos-temporal-") as home:
        server = subprocess.Popen(
            launch.command(server_command(program, port=port, ui_port=None, database=None), death=signal.SIGKILL),
            env=environment(Path(home)),
            stdout=log,
            stderr=log,
        )
        try:
            address = f"127.0.0.1:{port}"
            for _ in range(100):
                if is_serving(program, address):
                    break
            else:
                log.seek(0)
                pytest.fail(f"Temporal does not answer: {log.read().decode()}")
            yield address
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def settings(migrated: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    migrated.administer(f"CREATE DATABASE {_SHARED} TEMPLATE {DATABASE} OWNER {OWNER};")
    app_url, owner_url = (
        url.replace(f"/{DATABASE}?", f"/{_SHARED}?") for url in (migrated.app_url, migrated.owner_url)
    )
    folder: Path = tmp_path_factory.mktemp("data")
    yield Settings(
        _env_file=None,
        rememberos_data=folder,
        database_url=app_url,
        database_owner_url=owner_url,
        public_base_url="http://api.test",
        rate_limit_per_minute=0,
        public_rate_limit_per_minute=0,
    )
    migrated.administer(f"DROP DATABASE {_SHARED} WITH (FORCE);")


@pytest.fixture(scope="session")
def services(settings: Settings) -> Iterator[Services]:
    built = build(settings)
    yield built
    built.close()


@pytest.fixture
def new_tenant(services: Services, settings: Settings) -> Callable[..., Tenant]:
    assert settings.database_owner_url is not None
    owner_url = settings.database_owner_url.get_secret_value()

    def make(*, admin: bool = False) -> Tenant:
        number = next(_numbers)
        made = services.accounts.create_tenant(email=f"tenant-{number}@example.org", admin=admin)
        read_only = f"mv_read-only-{number:020}"
        with psycopg.connect(owner_url) as owner:
            owner.execute(
                "insert into keys (tenant_id, id, hash, prefix, label, is_main, read_only) "
                "values (%s, gen_random_uuid(), %s, 'mv_read-', 'dashboard', false, true)",
                (made.tenant_id, hashlib.sha256(read_only.encode()).digest()),
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
