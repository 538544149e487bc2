"""Every route by every kind of key, on a restricted collection: who may, who may not; a refusal does nothing."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api import events
from memory.agents import GrantWanted, KeyCreate, NewKey
from memory.drop_schemas import DropOptions
from memory.intake import IncomingFile
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant, carrying, without_links
from tests.api.routes import GUARDED, ROWS, Outcomes, Route, request_of
from tests.conftest import Headers

SECRET = "the harbour master keeps the spare key under the anchor"
REVOKED = "revoked"
EXPIRED = "expired"
REFUSED = (REVOKED, EXPIRED)


@dataclass(frozen=True)
class World:
    """A restricted collection with a memory and a batch in it, and the headers of every kind of key."""

    keys: dict[str, Headers]
    names: dict[str, str]

    def holder(self) -> Headers:
        """Who may see everything in it."""
        return self.keys["writer"]


@pytest.fixture
def world(
    services: Services, settings: Settings, new_tenant: Callable[..., Tenant], monkeypatch: pytest.MonkeyPatch
) -> World:
    # Nobody works on the batch: its events would go on and on.
    monkeypatch.setattr(events, "LASTS_SECONDS", 0.0)
    tenant, stranger = new_tenant(), new_tenant()

    def key(**wanted: Any) -> NewKey:
        return services.accounts.create_key(tenant.caller, KeyCreate(**wanted))

    kinds = (*Outcomes._fields[1:5], REVOKED, EXPIRED)
    made = {kind: key(label=kind, read_only=kind == "read_only") for kind in kinds}
    spare = key(label="spare")
    for kind in ("reader", "writer", "read_only", REVOKED, EXPIRED):
        wanted = GrantWanted(agent_key_id=made[kind].id, can_read=True, can_write=kind != "reader")
        services.grants.put(tenant.caller, "harbour", wanted)
    writer = services.accounts.authenticate(made["writer"].api_key)
    memory = carrying(services, writer, "harbour", SECRET)
    file = IncomingFile("anchor.txt", "text/plain", io.BytesIO(SECRET.encode()))
    batch = services.drops.open(writer, "harbour", [file], DropOptions())
    services.accounts.revoke_key(tenant.caller, made[REVOKED].id)
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        owner.execute("update keys set expires_at = now() where id = %s", (made[EXPIRED].id,))
    keys = {kind: {"Authorization": f"Bearer {new.api_key}"} for kind, new in made.items()}
    return World(
        {**keys, "main": tenant.headers, "stranger": stranger.headers},
        {
            "memory_id": str(memory.id),
            "batch_id": str(batch.batch_id),
            "key_id": str(spare.id),
            "agent_key_id": str(made["reader"].id),
        },
    )


@pytest.mark.parametrize("kind", [*Outcomes._fields, *REFUSED])
@pytest.mark.parametrize("route", GUARDED, ids=str)
def test_every_route_by_every_key(client: TestClient, world: World, route: Route, kind: str) -> None:
    row = ROWS[route.method, route.path]
    expected = 401 if kind in REFUSED else getattr(row.outcomes, kind)
    before = _state(client, world)

    answer = client.request(**request_of(route, **world.names), headers=world.keys[kind])

    assert answer.status_code == expected, answer.text
    if kind in {"main", "ungranted", "stranger", *REFUSED}:
        assert SECRET not in answer.text
        assert "anchor.txt" not in answer.text
    if expected >= 400 or kind == "stranger":
        assert _state(client, world) == before


def _state(client: TestClient, world: World) -> list[Any]:
    paths = (
        "/v1/memory/collections",
        "/v1/memory/collections/harbour/memories",
        "/v1/memory/collections/harbour/grants",
        "/v1/memory/agents",
        f"/v1/memory/ingest/batch/{world.names['batch_id']}",
    )
    answers = [client.get(path, headers=world.holder()) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return [without_links(answer) for answer in answers]
