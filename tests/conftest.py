"""Real servers for every test that needs one: Postgres with migrated databases, and a Temporal dev server."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from memory.settings import Settings
from ops import launch
from ops.ports import free_port
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres
from ops.temporal import environment, find_server, is_serving, server_command

_numbers = count(1)


class DatabaseUrls(NamedTuple):
    """A migrated database of one test's own: as the app role and as the owner."""

    app_url: str
    owner_url: str


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
    from memory.services import migrate

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
    with tempfile.TemporaryFile() as log:
        command = server_command(program, port=port, ui_port=None, database=None)
        server = subprocess.Popen(
            launch.command(command, death=signal.SIGKILL), env=environment(), stdout=log, stderr=log
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
