"""Connections and transactions: the tenant of each transaction is set here, and here alone is committed."""

import re
import select
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, cast
from uuid import UUID

import psycopg
from pgvector.psycopg import register_vector
from psycopg.rows import namedtuple_row
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from memory.errors import Misconfigured, Unavailable

__all__ = ["Database", "Session"]

# A generic plan ignores how large a tenant is and costs a small one a hundredfold; times travel as UTC. An index of
# vectors is read on for as long as a search needs more of it, and each time that wide.
OPTIONS = (
    "-c plan_cache_mode=force_custom_plan -c timezone=UTC -c hnsw.ef_search=200 -c hnsw.iterative_scan=relaxed_order "
    "-c hnsw.max_scan_tuples=1000000 -c hnsw.scan_mem_multiplier=16"
)
_WAIT_FOR_CONNECTION_SECONDS = 5
_NO_SCHEMA = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedColumn)
WITHOUT_SCHEMA = "the database's schema is missing or older than this program: run `rememberos migrate`"


class Database:
    """The app role's connections to one Postgres. Postgres allows about 100 of them, so a pool is small and shared."""

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self._engine = _engine(url, pool_size)

    @contextmanager
    def transaction(self, tenant_id: UUID) -> Iterator[Session]:
        """One use case of one tenant: commits at the end, rolls back on any error. Raises Unavailable."""
        with self._session() as session:
            session.execute(text("select set_config('app.tenant', :tenant, true)"), {"tenant": str(tenant_id)})
            yield session

    @contextmanager
    def across(self) -> Iterator[Session]:
        """No tenant: only the functions that answer across tenants, and tables that belong to none, show anything."""
        with self._session() as session:
            yield session

    def glance(self, tenant_id: UUID | None, statement: str, values: Mapping[str, Any]) -> list[Any]:
        """The rows, as named tuples, of one statement that reads: for what every request asks, at a fifth of the work
        of a use case's transaction. Raises Unavailable.
        """
        with _our_errors(), closing(self._engine.raw_connection()) as pooled:
            connection = cast("psycopg.Connection[Any]", pooled.driver_connection)
            connection.autocommit = True
            try:
                with psycopg.ClientCursor(connection, row_factory=namedtuple_row) as cursor:
                    # What is sent together is one transaction, at whose end the tenant is forgotten.
                    tenant = "" if tenant_id is None else str(tenant_id)
                    cursor.execute(
                        f"select set_config('app.tenant', %(tenant)s, true); {statement}", {**values, "tenant": tenant}
                    )
                    cursor.nextset()
                    return cursor.fetchall()
            finally:
                if connection.closed:
                    pooled.invalidate()
                else:
                    connection.autocommit = False

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        # Objects stay readable after the commit: store functions give schemas, and nothing reloads behind them.
        with _our_errors(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable("the database is busy; try again in a moment") from error
    except (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError) as error:
        # The driver's own come from preparing a new connection, and from glances.
        raise Unavailable("the database does not answer") from error
    except ProgrammingError as error:
        if isinstance(error.orig, _NO_SCHEMA):
            raise Misconfigured(WITHOUT_SCHEMA) from error
        raise
    except _NO_SCHEMA as error:
        raise Misconfigured(WITHOUT_SCHEMA) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the database does not answer") from error
        raise


def driver_url(url: str) -> str:
    """A Postgres address, in either spelling of its scheme, as SQLAlchemy wants it."""
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)


def _engine(url: str, pool_size: int) -> Engine:
    engine = create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_WAIT_FOR_CONNECTION_SECONDS,
        hide_parameters=True,
        connect_args={"options": OPTIONS, "connect_timeout": _WAIT_FOR_CONNECTION_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection[Any], _record: object) -> None:
        # Looks the types up once per connection; the transaction it opens must not stay open.
        try:
            register_vector(connection)
            connection.rollback()
        except psycopg.ProgrammingError as error:
            connection.close()
            raise Misconfigured(WITHOUT_SCHEMA) from error
        except psycopg.Error:
            connection.close()
            raise

    @event.listens_for(engine, "checkout")
    def look(connection: psycopg.Connection[Any], _record: object, _pooled: object) -> None:
        # A server that was not asked has nothing to say but its farewell; looking for it costs no round trip.
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        if waiting.poll(0):
            raise DisconnectionError

    return engine
