"""The whole API on real services, once for all its tests; each test has tenants of its own."""

import asyncio
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from temporalio.client import Client

import worker
from api.app import create_app
from memory.intake import IncomingFile, stored
from memory.schemas import Caller, Memory, MemoryCreate
from memory.services import Services
from memory.settings import Settings
from tests.conftest import Tenant as Tenant


@pytest.fixture(scope="session")
def app(settings: Settings, services: Services) -> FastAPI:
    return create_app(settings, services)


class NoTemporal:
    """What the front door sees of a Temporal server that is down, without the wait."""

    async def start_drop(self, tenant_id: str, batch_id: str, anew: bool = False) -> bool:
        return False

    async def start_curation(self, kind: str, tenant_id: str, run_id: str) -> bool:
        return False


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        app.state.workflows = NoTemporal()
        yield client


@contextmanager
def at_work(built: Services, temporal: str) -> Iterator[None]:
    """A worker with these services, in a thread of its own, for as long as the block runs."""
    runner = asyncio.Runner()
    stop = asyncio.Event()

    async def work() -> None:
        await worker.serve(await Client.connect(temporal), built, stop)

    thread = threading.Thread(target=lambda: runner.run(work()))
    thread.start()
    yield
    runner.get_loop().call_soon_threadsafe(stop.set)
    thread.join()
    runner.close()
    built.close()


@pytest.fixture(scope="module")
def live(settings: Settings, services: Services, temporal: str, working: None) -> Iterator[TestClient]:
    """The API with a Temporal server that is up; which worker is `working` there each module says."""
    with TestClient(create_app(settings.model_copy(update={"temporal_address": temporal}), services)) as client:
        yield client


def carrying(services: Services, caller: Caller, collection: str, text: str) -> Memory:
    """A memory that carries a file."""
    memory = services.memories.create(caller, collection, MemoryCreate(text=text))
    with services.intake.of(caller.tenant_id) as taking:
        file = taking.take(IncomingFile("anchor.txt", "text/plain", io.BytesIO(text.encode())))
        return services.attachments.attach(caller, collection, memory.id, stored([file]))


def without_links(answer: Any) -> Any:
    """What an answer says, without the links that are made anew each time."""
    return json.loads(re.sub(r'"url": ?"[^"]*"', '"url":""', answer.text))
