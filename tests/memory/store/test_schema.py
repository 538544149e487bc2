"""The schema: what the migrations make, who may do what in it, and that migrating again does no harm."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import psycopg
import pytest
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import Dialect, Engine, create_engine, inspect
from sqlalchemy.types import TypeEngine
from sqlmodel.sql.sqltypes import AutoString

from memory.errors import Misconfigured, Unavailable
from memory.ports import EmbeddingModel
from memory.settings import Settings
from memory.store import schema
from memory.store.database import driver_url
from memory.store.tables import PlatformTable, TenantTable
from ops.postgres import APP, DATABASE, OWNER, EmbeddedPostgres
from tests.conftest import DatabaseUrls
from tests.memory.conftest import Connection, Tenant

_MODEL = EmbeddingModel("all-MiniLM-L6-v2", 384)
_NOT_OF_TENANTS = {"embedding_models", "open_segment", "platform_version", "tenant_version"}
_numbers = count(1)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    assert settings.database_owner_url is not None
    made = create_engine(driver_url(settings.database_owner_url.get_secret_value()))
    yield made
    made.dispose()


def _column(connection: Connection, statement: str) -> set[str]:
    return {str(row[0]) for row in connection.execute(statement).fetchall()}


def _type(column_type: TypeEngine[Any], dialect: Dialect) -> str:
    # What SQLModel makes of `str` has no length, which to Postgres is text.
    return "text" if isinstance(column_type, AutoString) else column_type.compile(dialect).lower()


_TENANT_TABLES = f"""
    select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
    and relname not in ({", ".join(f"'{name}'" for name in _NOT_OF_TENANTS)})
"""


# The tables that Python sees are those that the migrations make


def test_tables_are_what_the_migrations_make(engine: Engine) -> None:
    declared = {**PlatformTable.metadata.tables, **TenantTable.metadata.tables}
    with engine.connect() as connection:
        inspector = inspect(connection)
        made = set(inspector.get_table_names()) - {"platform_version", "tenant_version"}
        assert made == set(declared)
        for name, table in declared.items():
            columns = {column["name"]: column for column in inspector.get_columns(name)}
            dialect = connection.dialect
            assert {column.name: (_type(column.type, dialect), column.nullable) for column in table.columns} == {
                column_name: (_type(column["type"], dialect), column["nullable"])
                for column_name, column in columns.items()
            }, name
            assert [column.name for column in table.primary_key.columns] == inspector.get_pk_constraint(name)[
                "constrained_columns"
            ], name


def test_vector_types_are_compared_too(engine: Engine) -> None:
    columns = {
        column["name"]: column["type"]
        for table in ("memory_vectors", "memory_terms")
        for column in inspect(engine).get_columns(table)
    }
    assert isinstance(columns["embedding"], HALFVEC)
    assert isinstance(columns["lexical"], SPARSEVEC)
    assert columns["lexical"].dim == 1048576


def test_no_foreign_key_crosses_from_the_memories_to_the_platform(engine: Engine) -> None:
    platform = set(PlatformTable.metadata.tables)
    for table in inspect(engine).get_table_names():
        for key in inspect(engine).get_foreign_keys(table):
            assert (table in platform) == (key["referred_table"] in platform), (table, key)


# Who may do what


def test_every_table_of_tenants_is_isolated(as_owner: Connection) -> None:
    tables = _column(as_owner, _TENANT_TABLES)
    assert tables == set(PlatformTable.metadata.tables) | set(TenantTable.metadata.tables) - _NOT_OF_TENANTS
    forced = _column(
        as_owner, f"{_TENANT_TABLES} and relrowsecurity and relforcerowsecurity and relowner = '{OWNER}'::regrole"
    )
    assert forced == tables
    for table in tables:
        policies = {
            name: (roles, command, using, check)
            for name, roles, command, using, check in as_owner.execute(
                "select policyname, roles, cmd, qual, with_check from pg_policies where tablename = %s", (table,)
            ).fetchall()
        }
        column = "id" if table == "tenants" else "tenant_id"
        roles, command, using, check = policies.pop("tenant")
        assert (roles, command) == ([APP], "ALL"), table
        assert using == check, table
        assert "".join(using.replace('"', "").split()) == (
            f"({column}=(SELECT(NULLIF(current_setting('app.tenant'::text,true),''::text))::uuidASnullif))"
        ), table
        assert policies.pop("upkeep") == ([OWNER], "ALL", "true", "true"), table
        # Whatever else there is lets the functions of search read, and nobody else anything.
        assert all(policy == (["search_reader"], "SELECT", "true", None) for policy in policies.values()), table


def test_models_are_read_by_all_and_written_by_the_owner(as_app: Connection, as_owner: Connection) -> None:
    model = [(_MODEL.name, _MODEL.dimensions, True)]
    for session in (as_owner, as_app):
        assert session.execute("select name, dimensions, is_current from embedding_models").fetchall() == model
    for statement in ("update embedding_models set name = 'x'", "delete from embedding_models"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_app.execute(statement)


def test_roles_hold_nothing_more_than_they_need(as_owner: Connection) -> None:
    roles = {
        row[0]: row[1:]
        for row in as_owner.execute(
            "select rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin "
            "from pg_roles where rolname in ('rememberos_app', 'search_reader', 'rememberos_owner')"
        ).fetchall()
    }
    nothing = (False,) * 5
    assert roles == {
        APP: (*nothing, True),
        "search_reader": (*nothing, False),
        OWNER: (False, False, True, False, False, True),
    }
    memberships = set(
        as_owner.execute(
            "select m.roleid::regrole::text, m.member::regrole::text, m.inherit_option, m.set_option "
            "from pg_auth_members m where m.set_option or m.inherit_option"
        ).fetchall()
    )
    assert {row for row in memberships if row[1] in (APP, OWNER, "search_reader")} == {
        ("search_reader", OWNER, False, True)
    }
    assert as_owner.execute(f"select pg_has_role('{OWNER}', 'search_reader', 'usage')").fetchone() == (False,)


def test_the_app_owns_nothing_and_has_four_privileges(as_owner: Connection) -> None:
    assert as_owner.execute(f"select count(*) from pg_class where relowner = '{APP}'::regrole").fetchone() == (0,)
    assert as_owner.execute(f"select count(*) from pg_proc where proowner = '{APP}'::regrole").fetchone() == (0,)
    granted = as_owner.execute(
        """
        select c.relname, array_agg(a.privilege_type order by a.privilege_type)
        from pg_class c, aclexplode(c.relacl) a
        where c.relnamespace = 'public'::regnamespace and a.grantee in (0, 'rememberos_app'::regrole)
        group by 1
        """
    ).fetchall()
    four = ["DELETE", "INSERT", "SELECT", "UPDATE"]
    assert dict(granted) == {
        **dict.fromkeys(_column(as_owner, _TENANT_TABLES), four),
        "embedding_models": ["SELECT"],
        "open_segment": ["SELECT"],
    }
    for privilege, allowed in (("create", False), ("usage", True)):
        assert as_owner.execute(f"select has_schema_privilege('{APP}', 'public', '{privilege}')").fetchone() == (
            allowed,
        )
    assert as_owner.execute("select has_schema_privilege('search_reader', 'public', 'create')").fetchone() == (False,)


def test_search_reader_reads_lexemes_and_metadata_alone(as_owner: Connection) -> None:
    readable = as_owner.execute(
        """
        select table_name, array_agg(column_name::text order by column_name), array_agg(distinct privilege_type::text)
        from information_schema.column_privileges where grantee = 'search_reader' group by 1
        """
    ).fetchall()
    assert sorted(readable) == [
        ("memories", ["collection_id", "id", "metadata", "tenant_id"], ["SELECT"]),
        ("memory_terms", ["collection_id", "lexical", "memory_id", "tenant_id", "tsv"], ["SELECT"]),
    ]


def test_functions_that_run_as_somebody_else_are_pinned_and_closed(as_owner: Connection) -> None:
    functions = {
        row[0]: row[1:]
        for row in as_owner.execute(
            """
            select p.proname, p.proowner::regrole::text, p.proconfig,
                   array(select (case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
                         from aclexplode(p.proacl) a where a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner)
            from pg_proc p where p.prosecdef and p.pronamespace = 'public'::regnamespace
            """
        ).fetchall()
    }
    assert {name: row[0] for name, row in functions.items()} == {
        "search_terms": "search_reader",
        "count_terms": "search_reader",
        "find_by_metadata": "search_reader",
        "find_by_terms": "search_reader",
        # These answer across tenants, with ids alone, and read what search may not.
        "find_key": OWNER,
        "tenants_after": OWNER,
        "stalled_batches": OWNER,
        "stalled_curation": OWNER,
        "due_curation": OWNER,
        "tenants_with_expired": OWNER,
        "forget_idempotent_requests": OWNER,
    }
    for name, (_owner, settings, callers) in functions.items():
        assert "search_path=public, pg_temp" in settings, name
        assert callers == [APP], name


def test_unique_keys_of_tenants_begin_with_the_tenant(as_owner: Connection) -> None:
    unique = as_owner.execute(
        """
        select i.indrelid::regclass::text, a.attname, i.indexrelid::regclass::text
        from pg_index i join pg_class c on c.oid = i.indrelid
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indisunique and c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
        """
    ).fetchall()
    # An address has one tenant and a key one holder: without that no key could be told from another.
    across = {"tenants_pkey", "tenants_email_key", "keys_hash"}
    wrong = [row for row in unique if row[0] not in _NOT_OF_TENANTS and row[1] != "tenant_id" and row[2] not in across]
    assert wrong == []
    foreign = as_owner.execute(
        """
        select conrelid::regclass::text, conname from pg_constraint
        where contype = 'f' and connamespace = 'public'::regnamespace
        and confrelid not in ('embedding_models'::regclass, 'tenants'::regclass)
        and (select attname from pg_attribute where attrelid = conrelid and attnum = conkey[1]) <> 'tenant_id'
        """
    ).fetchall()
    assert foreign == []


def test_the_owner_sees_and_changes_all_rows_for_upkeep(
    as_owner: Connection, new_tenant: Callable[..., Tenant]
) -> None:
    ids = [new_tenant().id, new_tenant().id]
    assert as_owner.execute("select count(*) from tenants where id = any (%s)", (ids,)).fetchone() == (2,)
    assert as_owner.execute("update tenants set name = 'changed' where id = any (%s)", (ids,)).rowcount == 2


# Migrating


@pytest.fixture
def fresh(migrated: EmbeddedPostgres) -> Iterator[DatabaseUrls]:
    """A database with the extension and nothing else."""
    name = f"test_fresh_{next(_numbers)}"
    migrated.administer(f"create database {name} owner {OWNER};\n\\connect {name}\ncreate extension vector;")
    yield DatabaseUrls(*(url.replace(f"/{DATABASE}?", f"/{name}?") for url in (migrated.app_url, migrated.owner_url)))
    migrated.administer(f"drop database {name} with (force);")


def _snapshot(url: str) -> list[object]:
    with psycopg.connect(url) as connection:
        return [
            connection.execute(statement).fetchall()
            for statement in (
                "select relname, relacl::text, relowner from pg_class where relnamespace = 'public'::regnamespace "
                "order by relname",
                "select policyname, tablename, roles, qual, with_check from pg_policies order by 2, 1",
                "select proname, proacl::text, proowner, prosrc from pg_proc "
                "where pronamespace = 'public'::regnamespace and proowner <> 10 order by 1",
                "select * from embedding_models",
                "select * from platform_version union all select * from tenant_version",
            )
        ]


def test_migrating_again_changes_nothing(database: DatabaseUrls) -> None:
    before = _snapshot(database.owner_url)
    schema.migrate(database.owner_url, database.app_url, EmbeddingModel("another", 8))
    assert _snapshot(database.owner_url) == before


def test_two_migrations_at_once_are_one(fresh: DatabaseUrls) -> None:
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda _: schema.migrate(fresh.owner_url, fresh.app_url, _MODEL), range(3)):
            pass
    with psycopg.connect(fresh.app_url) as app:
        assert app.execute("select count(*) from embedding_models").fetchone() == (1,)


def test_a_failed_migration_leaves_nothing(fresh: DatabaseUrls) -> None:
    with pytest.raises(Unavailable, match=r"brought up to date: .* violates check constraint"):
        schema.migrate(fresh.owner_url, fresh.app_url, EmbeddingModel("broken", -1))
    with psycopg.connect(fresh.owner_url) as owner:
        assert owner.execute(_TENANT_TABLES).fetchall() == []


def test_a_failed_migration_says_what_the_database_said(fresh: DatabaseUrls) -> None:
    with psycopg.connect(fresh.owner_url) as owner:
        owner.execute("create table tenants (id int)")
    with pytest.raises(Unavailable, match=r'relation "tenants" already exists \(42P07\)$'):
        schema.migrate(fresh.owner_url, fresh.app_url, _MODEL)


@pytest.mark.parametrize("role", ["postgres", "rememberos_owner"])
def test_the_app_must_not_log_in_as_somebody_with_rights(database: DatabaseUrls, role: str) -> None:
    with pytest.raises(Misconfigured, match=APP):
        schema.migrate(database.owner_url, database.app_url.replace(APP, role), _MODEL)


def test_an_app_address_without_a_password_is_refused(database: DatabaseUrls) -> None:
    with pytest.raises(Misconfigured, match="password"):
        schema.migrate(database.owner_url, f"postgresql://{APP}@/{DATABASE}", _MODEL)


def test_a_database_that_does_not_answer_is_unavailable(database: DatabaseUrls) -> None:
    with pytest.raises(Unavailable):
        schema.migrate(database.owner_url.replace("host=", "host=/nowhere"), database.app_url, _MODEL)


def test_an_owner_who_may_not_make_roles_is_told_what_is_missing(
    fresh: DatabaseUrls, migrated: EmbeddedPostgres
) -> None:
    name = fresh.owner_url.partition("@/")[2].partition("?")[0]
    migrated.administer(f"create role weak login password 'weak';\nalter database {name} owner to weak;")
    try:
        weak = f"postgresql://weak:weak@{fresh.owner_url.partition('@')[2]}"
        with pytest.raises(Misconfigured, match="CREATEROLE"):
            schema.migrate(weak, fresh.app_url, _MODEL)
    finally:
        migrated.administer(f"alter database {name} owner to {OWNER};\ndrop role weak;")


def test_a_database_without_the_extension_names_it(fresh: DatabaseUrls, migrated: EmbeddedPostgres) -> None:
    name = fresh.owner_url.partition("@/")[2].partition("?")[0]
    migrated.administer(f"\\connect {name}\ndrop extension vector;")
    with pytest.raises(Misconfigured, match="create extension vector"):
        schema.migrate(fresh.owner_url, fresh.app_url, _MODEL)
