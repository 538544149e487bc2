"""A batch is known to its tenant alone, and never left lying."""

from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import pytest

from memory.errors import NotFound
from memory.services import Services
from tests.memory.conftest import Connection, Tenant
from tests.memory.dropping import only_file, open_one, work


def test_another_tenants_batch_does_not_exist(reading_house: Services, new_tenant: Callable[[], Tenant]) -> None:
    mine, other = new_tenant(), new_tenant()
    batch_id, file_id = open_one(reading_house, mine.caller)

    asked = reading_house.batches
    for ask in (asked.progress, asked.results, asked.counts, asked.retry, asked.cancel):
        with pytest.raises(NotFound):
            ask(other.caller, batch_id)
        with pytest.raises(NotFound):
            ask(mine.caller, uuid4())
    assert reading_house.ingesting.unfinished(other.id, batch_id, 100) == (0, [])
    reading_house.ingesting.read(other.id, file_id)
    reading_house.ingesting.give_up(other.id, file_id, "not yours")
    assert only_file(reading_house, mine.caller, batch_id).status == "queued"


def test_open_batches_that_nothing_touches_are_stalled(
    reading_house: Services, tenant: Tenant, as_owner: Connection
) -> None:
    batch_id, file_id = open_one(reading_house, tenant.caller)
    assert (tenant.id, batch_id) not in reading_house.ingesting.stalled()

    _age(as_owner, batch_id)
    assert (tenant.id, batch_id) in reading_house.ingesting.stalled()

    reading_house.ingesting.unfinished(tenant.id, batch_id, 100)
    assert (tenant.id, batch_id) not in reading_house.ingesting.stalled()

    _age(as_owner, batch_id)
    reading_house.ingesting.read(tenant.id, file_id)
    assert (tenant.id, batch_id) not in reading_house.ingesting.stalled()

    work(reading_house, tenant.caller, batch_id)
    _age(as_owner, batch_id)
    assert (tenant.id, batch_id) not in reading_house.ingesting.stalled()


def _age(as_owner: psycopg.Connection[tuple[object, ...]], batch_id: UUID) -> None:
    as_owner.execute("update batches set touched_at = now() - interval '1 hour' where id = %s", [batch_id])
