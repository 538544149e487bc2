"""What an operator does to an installation from outside: migrate it, add a tenant."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr

from memory import services
from memory.errors import Misconfigured
from memory.logs import configure_logging
from memory.settings import Settings
from ops.bootstrap import first_tenant
from ops.postgres import EmbeddedPostgres
from ops.runtime import Runtime


@contextmanager
def with_database(settings: Settings) -> Iterator[Settings]:
    """Settings whose database answers: the one set, a running `up`'s, or the embedded one started for the moment."""
    configure_logging(settings)
    if settings.database_url is not None:
        yield settings
        return
    server = EmbeddedPostgres(settings.rememberos_data / "postgres")
    runtime = Runtime.read(settings.rememberos_data)
    if not (server.data / "PG_VERSION").exists():
        if runtime is None:
            raise Misconfigured(
                f"there is no database in {settings.rememberos_data}: run `rememberos up` first, name its folder with "
                "--data, or set DATABASE_URL"
            )
        # That `up` was told to use another database, and its owner's address stands nowhere.
        yield settings.model_copy(update={"database_url": SecretStr(runtime.database_url)})
        return
    embedded = {"database_url": SecretStr(server.app_url), "database_owner_url": SecretStr(server.owner_url)}
    if server.is_ready():
        yield settings.model_copy(update=embedded)
        return
    server.start()
    try:
        yield settings.model_copy(update=embedded)
    finally:
        server.stop()


def migrate(settings: Settings) -> None:
    """Upgrades the schema as its owner; makes the first tenant where both BOOTSTRAP_ settings name it.

    Raises Invalid, Misconfigured, Unavailable.
    """
    services.migrate(settings)
    if settings.bootstrap_email is not None and settings.bootstrap_key is not None:
        first_tenant(settings)


def create_tenant(settings: Settings, *, email: str, name: str | None, admin: bool, tier: str) -> dict[str, Any]:
    """The new tenant as `{"tenant_id", "email", "api_key"}`. Raises Conflict, Invalid, Unavailable."""
    built = services.build(settings)
    try:
        made = built.accounts.create_tenant(email=email, name=name, admin=admin, tier=tier)
    finally:
        built.close()
    return made.model_dump(mode="json")
