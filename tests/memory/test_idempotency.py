"""A request is carried out once, wherever it dies: its mark is committed with its change or not at all."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from memory.errors import Conflict, Repeated
from memory.idempotency import Answer, Unanswered, repeatable
from memory.schemas import Caller, CollectionCreate, MemoryCreate, MemoryFilter
from memory.services import Services
from memory.settings import Settings
from tests.memory.conftest import Tenant


def _marked(caller: Caller, token: str = "token", body: bytes = b"the same", path: str = "/people/memories") -> Caller:
    return replace(caller, once=repeatable(path=path, key=token, body=body).once)


def _count(house: Services, tenant: Tenant) -> int:
    return house.memories.page(tenant.caller, "people", MemoryFilter())[1]


def test_what_was_done_is_not_done_again(house: Services, tenant: Tenant) -> None:
    house.memories.create(_marked(tenant.caller), "people", MemoryCreate(text="Ada"))

    with pytest.raises(Repeated):
        house.memories.create(_marked(tenant.caller), "people", MemoryCreate(text="Ada"))

    assert _count(house, tenant) == 1


def test_one_request_may_change_things_in_several_transactions(house: Services, tenant: Tenant) -> None:
    caller = _marked(tenant.caller)

    house.collections.create(caller, CollectionCreate(name="people"))
    house.memories.create(caller, "people", MemoryCreate(text="Ada"))

    assert _count(house, tenant) == 1


def test_nothing_is_remembered_of_what_failed(house: Services, tenant: Tenant) -> None:
    house.collections.create(tenant.caller, CollectionCreate(name="people"))
    request = repeatable(path="/collections", key="token", body=b"")
    with pytest.raises(Conflict):
        house.collections.create(replace(tenant.caller, once=request.once), CollectionCreate(name="people"))

    assert house.idempotency.recall(tenant.caller, request) is None


def test_an_answer_is_found_by_the_same_request_alone(
    house: Services, tenant: Tenant, new_tenant: Callable[..., Tenant]
) -> None:
    request = repeatable(path="/people/memories", key="token", body=b"the same")
    house.memories.create(replace(tenant.caller, once=request.once), "people", MemoryCreate(text="Ada"))
    waiting = house.idempotency.recall(tenant.caller, request)
    assert isinstance(waiting, Unanswered)
    assert waiting.age_seconds >= 0
    assert waiting.resource is not None
    assert "Ada" not in waiting.resource
    answer = Answer(201, {"etag": '"1"'}, b'{"text":"Ada\n"}')
    house.idempotency.keep(tenant.caller, request, answer)

    def recalled(caller: Caller = tenant.caller, **changes: object) -> object:
        same = {"path": "/people/memories", "key": "token", "body": b"the same", **changes}
        return house.idempotency.recall(caller, repeatable(**same))  # type: ignore[arg-type]

    assert recalled() == answer
    assert recalled(path="/others/memories") is None
    assert recalled(key="other") is None
    assert recalled(new_tenant().caller) is None
    with pytest.raises(Conflict):
        recalled(body=b"another")


def test_an_answer_without_a_mark_is_not_kept(house: Services, tenant: Tenant) -> None:
    request = repeatable(path="/people/memories", key="token", body=b"")

    house.idempotency.keep(tenant.caller, request, Answer(200, {}, b"{}"))

    assert house.idempotency.recall(tenant.caller, request) is None


def test_a_late_answer_of_another_attempt_does_not_count(house: Services, tenant: Tenant) -> None:
    first, second = (repeatable(path="/a", key="token", body=b"") for _ in range(2))
    house.collections.create(replace(tenant.caller, once=first.once), CollectionCreate(name="people"))

    house.idempotency.keep(tenant.caller, second, Answer(201, {}, b"theirs"))

    assert isinstance(house.idempotency.recall(tenant.caller, first), Unanswered)


def test_a_request_that_is_killed_anywhere_is_carried_out_once(
    house: Services, tenant: Tenant, settings: Settings
) -> None:
    assert settings.database_url is not None
    environment = {
        "PATH": os.defpath,
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REMEMBEROS_DATA": str(settings.rememberos_data),
    }
    key = tenant.headers["Authorization"].removeprefix("Bearer ")
    command = [sys.executable, "-m", "tests.memory.dying_request", key]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    killed = int(done.stdout)
    assert killed > 5

    repeated = []
    for number in range(1, killed + 1):
        try:
            house.memories.create(_marked(tenant.caller, str(number)), "people", MemoryCreate(text="Ada"))
        except Repeated:
            repeated.append(number)

    # The last was killed after its commit; of all others there was nothing left.
    assert repeated == [killed]
    assert _count(house, tenant) == killed
