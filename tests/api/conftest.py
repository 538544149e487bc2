"""The whole API on real services, once for all its tests; each test has tenants of its own."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from memory.services import Services
from memory.settings import Settings
from tests.conftest import Tenant as Tenant


@pytest.fixture(scope="session")
def app(settings: Settings, services: Services) -> FastAPI:
    return create_app(settings, services)


class NoTemporal:
    """What the front door sees of a Temporal server that is down, without the wait."""

    async def start_drop(self, tenant_id: str, batch_id: str) -> bool:
        return False

    async def start_curation(self, kind: str, tenant_id: str, run_id: str) -> bool:
        return False


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        app.state.workflows = NoTemporal()
        yield client
