"""What an operator does from outside while nothing runs: the embedded database is started for the moment."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from memory.errors import Conflict, Misconfigured
from memory.settings import Settings
from ops import upkeep
from ops.bootstrap import first_tenant
from ops.postgres import EmbeddedPostgres
from tests.conftest import DatabaseUrls

COMMAND = Path(sys.executable).with_name("rememberos")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rememberos-upkeep-"))
    yield made
    shutil.rmtree(made)


def _settings(database: DatabaseUrls, **more: str) -> Settings:
    return Settings(
        _env_file=None,
        database_url=SecretStr(database.app_url),
        database_owner_url=SecretStr(database.owner_url),
        **more,  # type: ignore[arg-type]
    )


def _rememberos(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return subprocess.run(
        [str(COMMAND), *arguments],
        env=environment,
        cwd=arguments[-1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_migrate_and_a_tenant_while_nothing_runs(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"})
    server.start()
    server.stop()
    migrated = _rememberos("migrate", "--data", str(folder))
    assert migrated.returncode == 0, migrated.stderr
    made = _rememberos("create-tenant", "--email", "A@example.org", "--admin", "--data", str(folder))
    assert made.returncode == 0, made.stderr
    tenant = json.loads(made.stdout.splitlines()[-1])
    assert tenant["email"] == "a@example.org"
    server.start()
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", [tenant["tenant_id"]])
        rows = connection.execute("select email, is_admin from tenants").fetchall()
    server.stop()
    assert rows == [("a@example.org", True)]


def test_without_a_database_it_says_where_one_comes_from(folder: Path) -> None:
    settings = Settings(_env_file=None, rememberos_data=folder)
    with pytest.raises(Misconfigured, match="run `rememberos up` first"), upkeep.with_database(settings):
        pytest.fail("there is no database")
    assert list(folder.iterdir()) == []


def test_migrate_makes_the_first_tenant_that_is_named(database: DatabaseUrls) -> None:
    settings = _settings(database, bootstrap_email="first@example.org", bootstrap_key="mv_0123456789abcdef")
    upkeep.migrate(settings)
    assert first_tenant(settings) == {"created": False, "works": True}
    with pytest.raises(Conflict):
        upkeep.create_tenant(settings, email="first@example.org", name=None, admin=False, tier="free")


def test_a_key_that_is_not_the_first_tenants_is_told_apart(database: DatabaseUrls) -> None:
    assert first_tenant(_settings(database, bootstrap_key="mv_the-first-one-is-this")) == {
        "created": True,
        "works": True,
    }
    assert first_tenant(_settings(database, bootstrap_key="mv_another-one-is-this")) == {
        "created": False,
        "works": False,
    }


def test_the_doctor_says_what_is_wrong_and_what_to_do(folder: Path) -> None:
    done = _rememberos("doctor", "--data", str(folder))
    assert done.returncode == 1
    assert "BAD  installation: no `rememberos up` runs on this folder\n     -> run `rememberos up`" in done.stdout
    assert "ok   data folder" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_doctor_can_look_at_one_part(folder: Path) -> None:
    done = _rememberos("doctor", "--only", "data folder", "--data", str(folder))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    unknown = _rememberos("doctor", "--only", "heart", "--data", str(folder))
    assert unknown.returncode == 1
    assert "no such part: heart" in unknown.stderr
