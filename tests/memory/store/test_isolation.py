"""Isolation by direct SQL, as the app role: what a session may see, write, learn and shadow."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from psycopg import sql

from memory.embedding import Embedding
from memory.memories import Memories
from memory.schemas import CollectionCreate, MemoryCreate, MemoryPatch
from memory.services import Services
from memory.settings import Settings
from memory.statistics import Statistics
from memory.store.tables import PlatformTable, TenantTable
from tests.memory.conftest import Connection

_TABLES = sorted(
    (set(PlatformTable.metadata.tables) | set(TenantTable.metadata.tables)) - {"embedding_models", "open_segment"}
)
_SECRET = "Kumquat"


@dataclass(frozen=True)
class Rows:
    """What a tenant has: one row, or more, in every table."""

    tenant_id: UUID
    name: str
    collection_id: UUID
    memory_id: UUID
    batch_id: UUID
    file_id: UUID
    run_id: UUID


@pytest.fixture(scope="module")
def mine(house: Services, settings: Settings) -> Rows:
    return _filled(house, settings, "mine")


@pytest.fixture(scope="module")
def theirs(house: Services, settings: Settings) -> Rows:
    return _filled(house, settings, "theirs")


def _filled(house: Services, settings: Settings, name: str) -> Rows:
    made = house.accounts.create_tenant(email=f"{uuid4()}@example.org")
    caller = house.accounts.authenticate(made.api_key)
    collection_id = house.collections.create(caller, CollectionCreate(name=name)).id
    # Stopped, or the background would forget the statistics of so small a collection.
    statistics = Statistics(house.database)
    statistics.close()
    memories = Memories(
        house.database, house.grants, Embedding(house.database, house.embedder), house.objects, statistics
    )
    memory = memories.create(caller, name, MemoryCreate(text=f"A {_SECRET} tree", metadata={"secret": _SECRET}))
    memories.patch(caller, name, memory.id, MemoryPatch(text=f"A {_SECRET} tree, {memory.id}"))
    rows = Rows(made.tenant_id, name, collection_id, memory.id, uuid4(), uuid4(), uuid4())
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        for statement in (
            "update memories set external_id = %(name)s where id = %(memory_id)s",
            "insert into memories (tenant_id, id, collection_id, text, importance, category, source, valid_from, "
            "created_at, updated_at, expires_at) "
            "values (%(tenant_id)s, %(file_id)s, %(collection_id)s, '', 0, '', '', now(), now(), now(), now())",
            "insert into collection_statistics values (%(tenant_id)s, %(collection_id)s, 1, 1, now())",
            "insert into collection_terms values (%(tenant_id)s, %(collection_id)s, %(name)s, 1)",
            "insert into vector_indexes (tenant_id, model_id, collections, memories, first_segment, last_segment) "
            "values (%(tenant_id)s, 1, array[%(collection_id)s], array[1], 0, 0)",
            "insert into batches (tenant_id, id, collection_id, collection, category, importance, source, touched_at) "
            "values (%(tenant_id)s, %(batch_id)s, %(collection_id)s, '', '', 0.5, '', now() - interval '1 day')",
            "insert into files (tenant_id, id, batch_id, filename, content_type, size, sha256, key, status) "
            "values (%(tenant_id)s, %(file_id)s, %(batch_id)s, %(name)s, 'text/plain', 1, '\\x00', 'k', 'done')",
            "insert into memory_files values (%(tenant_id)s, %(memory_id)s, %(file_id)s, 0)",
            "insert into curation_runs (tenant_id, id, kind, state, collection_id, collection, scheduled, touched_at) "
            "values (%(tenant_id)s, %(run_id)s, 'dedup', 'queued', %(collection_id)s, '', true, "
            "now() - interval '1 day')",
            "insert into curation_items values (%(tenant_id)s, %(run_id)s, %(memory_id)s, null, 1, 'pending')",
            "insert into curation_policies values (%(tenant_id)s, %(collection_id)s, 0.9, 9, 9, now())",
            "insert into idempotent_requests (tenant_id, key_id, path, token, body, attempt) "
            "values (%(tenant_id)s, %(memory_id)s, '/', '\\x00', '\\x00', %(memory_id)s)",
            "insert into grants select tenant_id, %(collection_id)s, id, true, true from keys "
            "where tenant_id = %(tenant_id)s",
        ):
            owner.execute(statement, asdict(rows))
    return rows


@pytest.fixture
def as_me(settings: Settings, mine: Rows) -> Iterator[Connection]:
    """A direct session of the app role in which my tenant is set."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant', %s, false)", (str(mine.tenant_id),))
        yield connection


_QUERY = "'kumquat'::tsquery"
_WEIGHTS = "'{1:1}/1048576'::sparsevec"
_FUNCTIONS = {
    "search_terms": f"select memory_id from search_terms({_QUERY}, {_WEIGHTS}, %(collections)s, %(ids)s, 10)",
    "search_terms, all": f"select memory_id from search_terms({_QUERY}, {_WEIGHTS}, %(collections)s, null, 10)",
    "count_terms": f"select 1 from count_terms(array[{_QUERY}], %(collections)s) where documents > 0",
    "find_by_metadata": "select memory_id from find_by_metadata(%(collections)s, %(contained)s, 10)",
    "find_by_terms": f"select memory_id from find_by_terms(%(collections)s, {_QUERY}, 10)",
}


def _asked(rows: Rows) -> dict[str, Any]:
    return {
        "collections": [rows.collection_id],
        "ids": [rows.memory_id],
        "contained": f'{{"secret": "{_SECRET}"}}',
    }


@pytest.mark.parametrize("table", _TABLES)
def test_without_a_tenant_there_is_no_row_to_read_change_or_remove(
    theirs: Rows, as_app: Connection, as_owner: Connection, table: str
) -> None:
    column = "id" if table == "tenants" else "tenant_id"
    counted = f"select count(*) from {table} where {column} = %s"
    assert as_owner.execute(counted, (theirs.tenant_id,)).fetchone() != (0,), "the test's own rows"
    for unset in ("reset app.tenant", "set app.tenant = ''"):
        as_app.execute(unset)
        assert as_app.execute(f"select * from {table}").fetchall() == []
        assert as_app.execute(f"select * from {table} for update").fetchall() == []
        assert as_app.execute(f"update {table} set {column} = {column}").rowcount == 0
        assert as_app.execute(f"delete from {table}").rowcount == 0
    assert as_owner.execute(counted, (theirs.tenant_id,)).fetchone() != (0,)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_without_a_tenant_search_finds_nothing(theirs: Rows, as_app: Connection, function: str) -> None:
    assert as_app.execute(_FUNCTIONS[function], _asked(theirs)).fetchall() == []


def test_a_tenant_that_is_no_id_sees_nothing(theirs: Rows, as_app: Connection) -> None:
    as_app.execute("set app.tenant = 'everyone'")
    for statement in ("select * from memories", _FUNCTIONS["search_terms"]):
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            as_app.execute(statement, _asked(theirs))


@pytest.mark.parametrize("table", _TABLES)
def test_with_my_tenant_i_see_my_rows_alone(mine: Rows, theirs: Rows, as_me: Connection, table: str) -> None:
    column = "id" if table == "tenants" else "tenant_id"
    assert as_me.execute(f"select distinct {column} from {table}").fetchall() == [(mine.tenant_id,)]
    assert as_me.execute(f"delete from {table} where {column} = %s", (theirs.tenant_id,)).rowcount == 0


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_search_finds_my_rows_and_none_of_theirs(mine: Rows, theirs: Rows, as_me: Connection, function: str) -> None:
    assert as_me.execute(_FUNCTIONS[function], _asked(theirs)).fetchall() == []
    assert len(as_me.execute(_FUNCTIONS[function], _asked(mine)).fetchall()) == 1
    both = {**_asked(mine), "collections": [mine.collection_id, theirs.collection_id], "ids": None}
    assert len(as_me.execute(_FUNCTIONS[function], both).fetchall()) == 1


def _copied(connection: Connection, table: str, **changes: Any) -> None:
    """Inserts a row of mine again, with some columns changed."""
    names = [
        str(row[0])
        for row in connection.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (table,),
        ).fetchall()
    ]
    chosen = sql.SQL(", ").join(
        sql.SQL("%({})s").format(sql.SQL(name)) if name in changes else sql.Identifier(name) for name in names
    )
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    connection.execute(
        sql.SQL("insert into {table} ({columns}) select {chosen} from {table} limit 1").format(
            table=sql.Identifier(table), columns=columns, chosen=chosen
        ),
        changes,
    )


@pytest.mark.parametrize("table", _TABLES)
def test_a_row_for_another_tenant_is_refused(mine: Rows, theirs: Rows, as_me: Connection, table: str) -> None:
    column = "id" if table == "tenants" else "tenant_id"
    for tenant_id in (theirs.tenant_id, uuid4()):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            _copied(as_me, table, **{column: tenant_id})
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            as_me.execute(f"update {table} set {column} = %s", (tenant_id,))


# Another tenant's id, and an id that nobody has, must be refused in the same words.
_ATTACHED = {
    "memory to collection": ("memories", "collection_id", "id"),
    "version to memory": ("memory_versions", "memory_id", "version"),
    "vector to memory": ("memory_vectors", "memory_id", None),
    "terms to memory": ("memory_terms", "memory_id", None),
    "statistics to collection": ("collection_statistics", "collection_id", None),
    "term to collection": ("collection_terms", "collection_id", None),
    "batch to collection": ("batches", "collection_id", "id"),
    "file to batch": ("files", "batch_id", "id"),
    "run to collection": ("curation_runs", "collection_id", "id"),
    "item to run": ("curation_items", "run_id", None),
    "policy to collection": ("curation_policies", "collection_id", None),
    "carried file to memory": ("memory_files", "memory_id", None),
    "memory to carried file": ("memory_files", "file_id", None),
}


@pytest.mark.parametrize("attachment", _ATTACHED)
def test_nothing_of_mine_can_hang_on_theirs(mine: Rows, theirs: Rows, as_me: Connection, attachment: str) -> None:
    table, column, own = _ATTACHED[attachment]
    said = []
    for foreign in (getattr(theirs, column), uuid4()):
        fresh = {} if own is None else {own: 99 if own == "version" else uuid4()}
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
            _copied(as_me, table, **{column: foreign}, **fresh)
        said.append(str(refused.value).replace(str(foreign), "?"))
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            as_me.execute(f"update {table} set {column} = %s", (foreign,))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("table", "fresh"),
    [
        ("collections", {"name": "other"}),
        ("memories", {"external_id": None}),
        ("batches", {}),
        ("files", {}),
        ("keys", {"hash": b"other", "is_main": False}),
    ],
)
def test_their_ids_are_free_for_me(
    mine: Rows, theirs: Rows, as_me: Connection, as_owner: Connection, table: str, fresh: dict[str, Any]
) -> None:
    # An id that were taken would tell that it exists.
    found = as_owner.execute(f"select id from {table} where tenant_id = %s", (theirs.tenant_id,)).fetchone()
    assert found is not None
    with as_me.transaction(force_rollback=True):
        _copied(as_me, table, id=found[0], **fresh)
        assert as_me.execute(f"select count(*) from {table} where id = %s", found).fetchone() == (1,)


def test_their_names_and_external_ids_are_free_for_me(mine: Rows, theirs: Rows, as_me: Connection) -> None:
    with as_me.transaction(force_rollback=True):
        assert as_me.execute("update collections set name = %s", (theirs.name,)).rowcount == 1
        assert (
            as_me.execute("update memories set external_id = %s where id = %s", (theirs.name, mine.memory_id)).rowcount
            == 1
        )


def test_what_answers_across_tenants_tells_no_content(theirs: Rows, as_app: Connection, as_owner: Connection) -> None:
    stalled = as_app.execute("select * from stalled_batches(now(), 1000000)").fetchall()
    assert (theirs.tenant_id, theirs.batch_id) in stalled
    assert {type(value) for row in stalled for value in row} == {UUID}
    expired = as_app.execute("select * from tenants_with_expired(1000000)").fetchall()
    assert (theirs.tenant_id,) in expired
    assert {tuple(map(type, row)) for row in expired} == {(UUID,)}
    runs = as_app.execute("select * from stalled_curation(now(), 1000000)").fetchall()
    assert (theirs.tenant_id, theirs.run_id, "dedup") in runs
    assert {tuple(map(type, row)) for row in runs} == {(UUID, UUID, str)}
    due = as_app.execute("select * from due_curation(now(), 1000000)").fetchall()
    assert (theirs.tenant_id, theirs.collection_id) in due
    assert {tuple(map(type, row)) for row in due} == {(UUID, UUID)}
    key = as_owner.execute("select hash from keys where tenant_id = %s and is_main", (theirs.tenant_id,)).fetchone()
    assert key is not None
    columns = as_app.execute("select * from find_key(%s)", key).description
    assert columns is not None
    assert [column.name for column in columns] == [
        "tenant_id",
        "key_id",
        "label",
        "read_only",
        "is_main",
        "tenant_is_admin",
        "tier",
        "has_grants",
    ]
    for guess in (b"", b"\x00" * 32, key[0][:31], key[0] + b"\x00"):
        assert as_app.execute("select * from find_key(%s)", (guess,)).fetchall() == []


_SHADOWS = {
    "a table": "create temp table memory_terms as select * from public.memory_terms",
    "another table": "create temp table memories as select * from public.memories",
    "a view": "create temp view memory_terms as select * from public.memory_terms",
    "current_setting": """
        create function pg_temp.current_setting(text, boolean) returns text language sql as $$ select '{their_id}' $$
    """,
    "nullif by operator": """
        create function pg_temp.never(text, text) returns boolean language sql as $$ select false $$;
        create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.never)
    """,
    "equality of ids": """
        create function pg_temp.always(uuid, uuid) returns boolean language sql as $$ select true $$;
        create operator pg_temp.= (leftarg = uuid, rightarg = uuid, function = pg_temp.always)
    """,
    "the match": """
        create function pg_temp.matches(tsvector, tsquery) returns boolean language plpgsql
        as $$ begin raise notice '{secret} %', $1; return true; end $$;
        create operator pg_temp.@@ (leftarg = tsvector, rightarg = tsquery, function = pg_temp.matches)
    """,
    "the distance": """
        create function pg_temp.near(sparsevec, sparsevec) returns float8 language plpgsql
        as $$ begin raise notice '{secret} %', $1; return 0; end $$;
        create operator pg_temp.<#> (leftarg = sparsevec, rightarg = sparsevec, function = pg_temp.near)
    """,
    "containment": """
        create function pg_temp.holds(jsonb, jsonb) returns boolean language plpgsql
        as $$ begin raise notice '{secret} %', $1; return true; end $$;
        create operator pg_temp.@> (leftarg = jsonb, rightarg = jsonb, function = pg_temp.holds)
    """,
    "a type": "create domain pg_temp.uuid as text",
    "count": "create aggregate pg_temp.count(*) (sfunc = int8inc, stype = int8, initcond = '1000')",
}


@pytest.mark.parametrize("path", ["pg_temp, public", "pg_temp, pg_catalog, public", "pg_temp"])
@pytest.mark.parametrize("shadow", _SHADOWS)
def test_shadowed_names_do_not_reach_into_the_functions(
    mine: Rows, theirs: Rows, as_me: Connection, shadow: str, path: str
) -> None:
    notices: list[str] = []
    as_me.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
    statement = _SHADOWS[shadow].replace("{their_id}", str(theirs.tenant_id)).replace("{secret}", _SECRET)
    as_me.execute(statement)
    as_me.execute(f"set search_path = {path}")
    for function, statement in _FUNCTIONS.items():
        call = statement.replace("from ", "from public.", 1).replace("sparsevec", "public.sparsevec")
        assert as_me.execute(call, _asked(theirs)).fetchall() == [], function
    assert not [notice for notice in notices if str(theirs.memory_id) in notice]


@pytest.mark.parametrize("role", ["search_reader", "rememberos_owner", "postgres"])
def test_the_app_becomes_nobody_else(as_me: Connection, role: str) -> None:
    for statement in (f"set role {role}", f"set session authorization {role}", f"grant {role} to rememberos_app"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_me.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "truncate memories",
        "truncate memory_terms cascade",
        "drop table memories",
        "alter table memories disable row level security",
        "alter table memories no force row level security",
        "drop policy tenant on memories",
        "create policy mine on memories using (true)",
        "create table public.stolen (a int)",
        "create function public.stolen() returns int language sql as 'select 1'",
        "create schema stolen",
        "create trigger stolen before update on memories for each row "
        "execute function pg_catalog.suppress_redundant_updates_trigger()",
        "alter function search_terms security invoker",
        "alter function search_terms set search_path = pg_temp",
        "create or replace function search_terms(wanted tsquery, weights sparsevec, in_collections uuid[], "
        "allowed_ids uuid[], most integer) returns table (memory_id uuid, bm25 double precision) language sql "
        "as 'select null::uuid, 1.0'",
        "alter role rememberos_app bypassrls",
        "create role stolen",
        "insert into embedding_models (name, dimensions, is_current) values ('a', 1, false)",
        "copy memories to program 'cat'",
        "select pg_read_file('/etc/passwd')",
        "select * from pg_statistic",
        "set session_replication_role = replica",
        "alter database rememberos set row_security = off",
        "comment on table memories is 'mine'",
        "create index on memories (text)",
    ],
)
def test_what_an_owner_may_is_not_for_the_app(as_me: Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_me.execute(f"begin; {statement}; rollback")


def test_row_security_that_is_switched_off_is_an_error_not_a_door(as_me: Connection) -> None:
    as_me.execute("set row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_me.execute("select * from memories")


def test_a_cheap_and_chatty_predicate_sees_my_rows_alone(mine: Rows, theirs: Rows, as_me: Connection) -> None:
    notices: list[str] = []
    as_me.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
    as_me.execute(
        "create function pg_temp.chatty(text) returns boolean language plpgsql cost 0.0000001 "
        "as $$ begin raise notice '%', $1; return true; end $$"
    )
    as_me.execute("select count(*) from memories where pg_temp.chatty(id::text) and text <> ''")
    as_me.execute("select count(*) from memory_terms where pg_temp.chatty(tsv::text)")
    as_me.execute(
        f"select count(*) from search_terms({_QUERY}, {_WEIGHTS}, %(collections)s, null, 10) "
        "where pg_temp.chatty(memory_id::text)",
        {"collections": [mine.collection_id, theirs.collection_id]},
    )
    assert any(str(mine.memory_id) in notice for notice in notices)
    assert not any(str(theirs.memory_id) in notice for notice in notices)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_me.execute("create function pg_temp.silent(text) returns boolean language sql leakproof as 'select true'")


def test_statistics_of_the_planner_show_no_values(as_owner: Connection, as_me: Connection, theirs: Rows) -> None:
    as_owner.execute("analyze memories, memory_terms, collections, files, collection_terms")
    assert (
        as_me.execute(
            "select * from pg_stats where schemaname = 'public' and tablename <> 'embedding_models'"
        ).fetchall()
        == []
    )


def test_sizes_of_search_say_nothing_about_others(mine: Rows, theirs: Rows, as_me: Connection) -> None:
    counted = as_me.execute(
        f"select documents from count_terms(array[{_QUERY}], %s)", ([mine.collection_id, theirs.collection_id],)
    ).fetchall()
    assert counted == [(1,)]


def test_vectors_of_others_are_not_near(mine: Rows, theirs: Rows, as_me: Connection) -> None:
    near = as_me.execute(
        "select memory_id from memory_vectors order by embedding::halfvec(384) <=> %s::halfvec(384) limit 10",
        (HalfVector(np.ones(384)).to_text(),),
    ).fetchall()
    assert near == [(mine.memory_id,)]
