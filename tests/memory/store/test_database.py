"""Transactions: one tenant each, all or nothing, and what a caller sees when Postgres is not there."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from memory.errors import Misconfigured, NotFound, Unavailable
from memory.services import migrate
from memory.settings import Settings
from memory.store import database as database_module
from memory.store.database import Database
from ops.postgres import DATABASE, OWNER, EmbeddedPostgres
from tests.conftest import DatabaseUrls

_numbers = count(1)
_TENANT = text("select nullif(current_setting('app.tenant', true), '')")


@pytest.fixture
def one_connection(database: DatabaseUrls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(database_module, "_WAIT_FOR_CONNECTION_SECONDS", 1)
    made = Database(database.app_url, pool_size=1)
    yield made
    made.close()


def _insert_tenant(made: Database, tenant_id: UUID, *, then: Exception | None = None) -> None:
    with made.transaction(tenant_id) as session:
        session.execute(
            text("insert into tenants (id, name, email, tier) values (:id, 'a', :email, 'free')"),
            {"id": tenant_id, "email": str(tenant_id)},
        )
        if then is not None:
            raise then


def _tenants(made: Database, tenant_id: UUID) -> int:
    with made.transaction(tenant_id) as session:
        found: int = session.execute(text("select count(*) from tenants")).scalar_one()
        return found


def test_a_tenant_is_set_for_one_transaction_alone(one_connection: Database) -> None:
    first, second = uuid4(), uuid4()
    seen = []
    for tenant_id in (first, second):
        with one_connection.transaction(tenant_id) as session:
            seen.append(session.execute(_TENANT).scalar_one())
        with one_connection.across() as session:
            seen.append(session.execute(_TENANT).scalar_one())
    assert seen == [str(first), None, str(second), None]


def test_a_tenant_does_not_outlive_a_failed_transaction(one_connection: Database) -> None:
    with pytest.raises(NotFound):
        _insert_tenant(one_connection, uuid4(), then=NotFound("gone"))
    with one_connection.across() as session:
        assert session.execute(_TENANT).scalar_one() is None


def test_an_error_takes_everything_back(one_connection: Database) -> None:
    tenant_id = uuid4()
    with pytest.raises(NotFound):
        _insert_tenant(one_connection, tenant_id, then=NotFound("gone"))
    assert _tenants(one_connection, tenant_id) == 0
    _insert_tenant(one_connection, tenant_id)
    assert _tenants(one_connection, tenant_id) == 1


def test_times_travel_as_utc(one_connection: Database) -> None:
    with one_connection.across() as session:
        assert session.execute(text("select current_setting('timezone')")).scalar_one() == "UTC"


def test_a_pool_that_stays_empty_is_unavailable_and_recovers(one_connection: Database) -> None:
    with one_connection.across() as session:
        session.execute(text("select 1"))
        with pytest.raises(Unavailable, match="busy"), one_connection.across() as second:
            second.execute(text("select 1"))
    assert _tenants(one_connection, uuid4()) == 0


def test_those_who_wait_for_a_connection_get_it(one_connection: Database) -> None:
    together = Barrier(8)

    def work(_number: int) -> int:
        together.wait()
        return _tenants(one_connection, uuid4())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [0] * 8


def test_a_session_ended_by_the_server_is_unavailable_once(
    one_connection: Database, database: DatabaseUrls, migrated: EmbeddedPostgres
) -> None:
    def work(*, ended_before: bool) -> int:
        with one_connection.across() as session:
            own: int = session.execute(text("select pg_backend_pid()")).scalar_one()
            if ended_before:
                migrated.administer(f"select pg_terminate_backend({own}, 5000);")
            session.execute(text("select 1"))
        return own

    with pytest.raises(Unavailable):
        work(ended_before=True)
    # Ended while it lies in the pool: nobody notices.
    migrated.administer(f"select pg_terminate_backend({work(ended_before=False)}, 5000);")
    assert _tenants(one_connection, uuid4()) == 0


def test_a_glance_sees_its_tenant_alone_and_leaves_nothing_behind(one_connection: Database) -> None:
    tenant_id = uuid4()
    _insert_tenant(one_connection, tenant_id)
    for asking, tenants in ((tenant_id, 1), (uuid4(), 0), (None, 0)):
        [row] = one_connection.glance(asking, "select count(*) as tenants from tenants", {})
        assert row.tenants == tenants
    with pytest.raises(psycopg.errors.DivisionByZero):
        one_connection.glance(tenant_id, "select 1 / %(zero)s", {"zero": 0})
    with one_connection.across() as session:
        assert session.execute(_TENANT).scalar_one() is None


def test_what_is_glanced_for_is_never_taken_for_a_statement(one_connection: Database) -> None:
    given = {"text": "'; select set_config('app.tenant', 'x', false); --\\' %(tenant)s", "bytes": b"\x00'\\"}
    [row] = one_connection.glance(None, "select %(text)s as text, %(bytes)s::bytea as bytes", given)
    assert row._asdict() == given


def test_a_glance_at_a_server_that_hung_up_is_unavailable_once(
    one_connection: Database, migrated: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    [own] = one_connection.glance(None, "select pg_backend_pid() as pid", {})
    migrated.administer(f"select pg_terminate_backend({own.pid}, 5000);")
    # Ended while it lay in the pool: nobody notices.
    one_connection.glance(None, "select 1", {})
    with pytest.raises(Unavailable):
        one_connection.glance(None, "select pg_terminate_backend(pg_backend_pid()), pg_sleep(5)", {})
    one_connection.glance(None, "select 1", {})
    assert not caplog.records


def test_a_glance_without_a_free_connection_is_unavailable(one_connection: Database) -> None:
    with one_connection.across() as session:
        session.execute(text("select 1"))
        with pytest.raises(Unavailable, match="busy"):
            one_connection.glance(None, "select 1", {})


def test_an_address_without_a_server_is_unavailable(tmp_path: Path) -> None:
    nowhere = Database(f"postgresql://rememberos_app:secret@/{DATABASE}?host={tmp_path}")
    with pytest.raises(Unavailable) as refused, nowhere.across() as session:
        session.execute(text("select 1"))
    assert "secret" not in str(refused.value)
    with pytest.raises(Unavailable):
        nowhere.glance(None, "select 1", {})


def test_the_short_scheme_names_postgres_too(database: DatabaseUrls) -> None:
    made = Database(database.app_url.replace("postgresql://", "postgres://"))
    assert _tenants(made, uuid4()) == 0
    made.close()


@pytest.mark.parametrize("extension", ["", "create extension vector;"], ids=["empty", "with vector"])
def test_a_database_without_its_schema_says_what_to_do(migrated: EmbeddedPostgres, extension: str) -> None:
    name = f"test_bare_{next(_numbers)}"
    migrated.administer(f"create database {name} owner {OWNER};\n\\connect {name}\n{extension}")
    bare = Database(migrated.app_url.replace(f"/{DATABASE}?", f"/{name}?"))
    try:
        for _ in range(2):
            with pytest.raises(Misconfigured, match="rememberos migrate"):
                _tenants(bare, uuid4())
            with pytest.raises(Misconfigured, match="rememberos migrate"):
                bare.glance(None, "select * from find_key('')", {})
    finally:
        bare.close()
        migrated.administer(f"drop database {name} with (force);")


def test_a_restarted_server_is_found_again() -> None:
    folder = Path(tempfile.mkdtemp(prefix="rememberos-test-"))
    server = EmbeddedPostgres(folder, settings={"fsync": "off"})
    made = None
    try:
        server.start()
        migrate(Settings(_env_file=None, database_url=server.app_url, database_owner_url=server.owner_url))
        made = Database(server.app_url, pool_size=2)
        tenant_id = uuid4()
        _insert_tenant(made, tenant_id)
        server.stop()
        for _ in range(3):
            with pytest.raises(Unavailable):
                _tenants(made, tenant_id)
        server.start()
        assert _tenants(made, tenant_id) == 1
    finally:
        if made is not None:
            made.close()
        server.stop()
        shutil.rmtree(folder)
