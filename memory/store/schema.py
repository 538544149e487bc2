"""Bringing a database up to date: roles, both histories, the embedding model. Runs as owner, never as the app."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from memory.errors import Misconfigured, Unavailable
from memory.ports import EmbeddingModel
from memory.store.database import driver_url

APP_ROLE = "rememberos_app"
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x72656D656D  # any constant of our own: two migrations at once wait for one another
_HISTORIES = ("platform", "tenant")
_NO_EXTENSION = "the database needs the extension vector: as a superuser, run `create extension vector` in it"


def migrate(owner_url: str, app_url: str, model: EmbeddingModel, admin_emails: frozenset[str] = frozenset()) -> None:
    """Upgrades the schema in one transaction; tenants with one of `admin_emails` become operators.

    Raises Misconfigured, Unavailable.
    """
    password = _app_password(app_url)
    engine = create_engine(driver_url(owner_url), hide_parameters=True)
    try:
        with engine.begin() as connection:
            connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            connection.execute(text("set local lock_timeout = '10s'"))
            schema = connection.execute(text("select current_schema()")).scalar_one()
            # Functions take their search path from here: our schema, and temporary objects last.
            connection.execute(text(f'set local search_path = "{schema}", pg_temp'))
            connection.execute(text("create extension if not exists vector"))
            _make_roles(connection, password)
            for history in _HISTORIES:
                _upgrade(connection, history)
            _register(connection, model)
            connection.execute(
                text("update tenants set is_admin = true where email = any (:emails) and not is_admin"),
                {"emails": list(admin_emails)},
            )
    except (DBAPIError, psycopg.Error) as error:
        raise _refusal(error) from error
    finally:
        engine.dispose()


def _refusal(error: DBAPIError | psycopg.Error) -> Exception:
    """What the operator can do about it, or at least what the database said."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.errors.InsufficientPrivilege) and "vector" in str(cause):
        return Misconfigured(_NO_EXTENSION)
    if isinstance(cause, psycopg.errors.InsufficientPrivilege):
        return Misconfigured(
            f"the role of DATABASE_OWNER_URL must own the database, have CREATEROLE and have made {APP_ROLE} and "
            f"search_reader itself: {str(cause).splitlines()[0]}"
        )
    if isinstance(cause, psycopg.errors.UndefinedFile | psycopg.errors.FeatureNotSupported):
        return Misconfigured(f"the server has no pgvector: install it. {_NO_EXTENSION}")
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        said = cause.diag.message_primary
        return Unavailable(f"the schema could not be brought up to date: {said} ({cause.sqlstate})")
    if isinstance(cause, psycopg.OperationalError):
        return Unavailable("the database does not answer or refuses the owner: see DATABASE_OWNER_URL")
    return error


def _app_password(app_url: str) -> str:
    parts = urlsplit(app_url)
    if parts.username != APP_ROLE or not parts.password:
        raise Misconfigured(f"DATABASE_URL must log in as {APP_ROLE} with a password; migrate makes that role")
    return unquote(parts.password)


def _make_roles(connection: Connection, password: str) -> None:
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError("migrations run over psycopg")
    # Encrypted here, so that the server's log never holds it.
    encrypted = raw.pgconn.encrypt_password(password.encode(), APP_ROLE.encode(), b"scram-sha-256").decode()
    for role, login in ((APP_ROLE, "login"), ("search_reader", "nologin")):
        if raw.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone() is None:
            raw.execute(sql.SQL("create role {} " + login).format(sql.Identifier(role)))
    raw.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(APP_ROLE), sql.Literal(encrypted)))
    raw.execute("grant search_reader to current_user with set true, inherit false")


def _upgrade(connection: Connection, history: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("version_locations", str(_MIGRATIONS / history / "versions"))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=connection, version_table=f"{history}_version")
    command.upgrade(config, "head")


def _register(connection: Connection, model: EmbeddingModel) -> None:
    # The first model of a database is its own; changing it later is a re-embedding, never a migration.
    connection.execute(
        text(
            """
            insert into embedding_models (name, dimensions, is_current)
            select :name, :dimensions, true where not exists (select from embedding_models)
            """
        ),
        {"name": model.name, "dimensions": model.dimensions},
    )
