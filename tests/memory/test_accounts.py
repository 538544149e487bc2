"""Accounts: keys are known by their hash alone, and an address has one tenant."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from memory.errors import AppError, Conflict, Invalid, Unauthorized
from memory.services import Services, build, migrate
from memory.settings import Settings
from tests.conftest import DatabaseUrls
from tests.memory.conftest import Connection, Tenant


def _address() -> str:
    return f"{uuid4()}@example.org"


def test_a_made_key_names_its_tenant(services: Services) -> None:
    made = services.accounts.create_tenant(email=_address(), name="Ada", admin=True, tier="pro")
    caller = services.accounts.authenticate(made.api_key)
    assert caller.tenant_id == made.tenant_id
    assert caller.label == "main"
    assert (caller.is_main, caller.is_admin, caller.read_only) == (True, True, False)
    assert made.api_key.startswith("mv_")
    assert len(made.api_key) == len("mv_") + 43


def test_a_given_key_is_taken_as_it_is(services: Services) -> None:
    key = f"mv_{uuid4().hex}"
    made = services.accounts.create_tenant(email=_address(), api_key=key)
    assert made.api_key == key
    assert services.accounts.authenticate(key).tenant_id == made.tenant_id


def test_only_the_hash_of_a_key_is_stored(services: Services, as_owner: Connection) -> None:
    key = services.accounts.create_tenant(email=_address()).api_key
    tables = as_owner.execute(
        "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    ).fetchall()
    dump = "".join(str(as_owner.execute(f"select * from {table}").fetchall()) for (table,) in tables)
    assert key not in dump
    assert key[len("mv_") :] not in dump
    stored = as_owner.execute("select prefix from keys where hash = %s", (hashlib.sha256(key.encode()).digest(),))
    assert stored.fetchone() == (key[:8],)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "mv_",
        "mv_short",
        f"mv_{'a' * 43}",
        f"mv_{'a' * 257}",
        f"xx_{'a' * 43}",
        f"mv_{'a' * 42}é",
        f"mv_{'a' * 43}\n",
        f"mv_{'a' * 42}\x00",
        "\ud800" * 50,
    ],
)
def test_a_key_that_nobody_holds_is_refused(services: Services, token: str) -> None:
    with pytest.raises(Unauthorized):
        services.accounts.authenticate(token)


@pytest.mark.parametrize(
    "fate", ["revoked_at = now()", "expires_at = now()", "expires_at = now() - interval '1 microsecond'"]
)
def test_a_revoked_or_expired_key_is_refused(services: Services, as_owner: Connection, fate: str) -> None:
    made = services.accounts.create_tenant(email=_address())
    as_owner.execute(f"update keys set {fate} where tenant_id = %s", (made.tenant_id,))
    with pytest.raises(Unauthorized):
        services.accounts.authenticate(made.api_key)


def test_a_key_works_until_it_expires(services: Services, as_owner: Connection) -> None:
    made = services.accounts.create_tenant(email=_address())
    as_owner.execute("update keys set expires_at = now() + interval '1 hour' where tenant_id = %s", (made.tenant_id,))
    assert services.accounts.authenticate(made.api_key).tenant_id == made.tenant_id


def test_every_refused_key_gets_the_same_words(services: Services, as_owner: Connection) -> None:
    made = services.accounts.create_tenant(email=_address())
    as_owner.execute("update keys set revoked_at = now() where tenant_id = %s", (made.tenant_id,))
    said = set()
    for token in (made.api_key, f"mv_{'z' * 43}", "nonsense"):
        with pytest.raises(Unauthorized) as refused:
            services.accounts.authenticate(token)
        said.add(refused.value.detail)
    assert len(said) == 1


def test_an_address_has_one_tenant_however_it_is_written(services: Services, as_owner: Connection) -> None:
    address = _address()
    first = services.accounts.create_tenant(email=address)
    with pytest.raises(Conflict):
        services.accounts.create_tenant(email=f"  {address.upper()} ")
    held = as_owner.execute("select id from tenants where email = %s", (address,)).fetchall()
    assert held == [(first.tenant_id,)]


def test_a_key_of_another_tenant_is_refused_and_nothing_is_made(services: Services, as_owner: Connection) -> None:
    key = f"mv_{uuid4().hex}"
    first = services.accounts.create_tenant(email=_address(), api_key=key)
    address = _address()
    with pytest.raises(Conflict) as refused:
        services.accounts.create_tenant(email=address, api_key=key)
    assert key not in refused.value.detail
    assert as_owner.execute("select id from tenants where email = %s", (address,)).fetchall() == []
    assert services.accounts.authenticate(key).tenant_id == first.tenant_id


@pytest.mark.parametrize("conflict", ["email", "api_key"])
def test_of_tenants_made_at_once_one_is_made(services: Services, conflict: str) -> None:
    shared = {"email": _address(), "api_key": f"mv_{uuid4().hex}"}[conflict]

    def make(_number: int) -> UUID | AppError:
        values: dict[str, Any] = {"email": _address(), conflict: shared}
        try:
            return services.accounts.create_tenant(**values).tenant_id
        except AppError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(make, range(8)))
    assert sum(isinstance(outcome, UUID) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 7


@pytest.mark.parametrize(
    "values",
    [
        {"email": "nobody"},
        {"email": "a b@example.org"},
        {"email": ""},
        {"email": "a@example.org", "tier": "gold"},
        {"email": "a@example.org", "api_key": "mv_short"},
        {"email": "a@example.org", "api_key": "a" * 46},
        {"email": "a@example.org", "name": "a\x00b"},
    ],
)
def test_a_tenant_that_makes_no_sense_is_refused(services: Services, values: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        services.accounts.create_tenant(**values)


def test_keys_of_tenants_are_told_apart(services: Services, new_tenant: Callable[..., Tenant]) -> None:
    first, second = new_tenant(), new_tenant(admin=True)
    read_only = services.accounts.authenticate(second.read_only["Authorization"].removeprefix("Bearer "))
    assert read_only.tenant_id == second.id != first.id
    assert (read_only.read_only, read_only.is_main, read_only.is_admin) == (True, False, True)


def test_tenants_with_an_operators_address_are_operators(database: DatabaseUrls) -> None:
    def migrated(emails: str) -> Services:
        settings = Settings(
            _env_file=None,
            database_url=database.app_url,
            database_owner_url=database.owner_url,
            admin_emails=emails,
        )
        migrate(settings)
        return build(settings)

    first = migrated("")
    earlier = first.accounts.create_tenant(email="earlier@example.org").api_key
    other = first.accounts.create_tenant(email="other@example.org").api_key
    first.close()
    second = migrated("Earlier@example.org, later@example.org")
    later = second.accounts.create_tenant(email="later@example.org").api_key

    assert [second.accounts.authenticate(key).is_admin for key in (earlier, other, later)] == [True, False, True]
    second.close()
