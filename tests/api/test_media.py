"""Recordings and pictures through the front door and out of search again, with real engines and a real worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from memory.adapters import senses
from memory.adapters.documents import GuardedReader
from memory.services import build
from memory.settings import Settings
from tests import speech
from tests.api.conftest import at_work
from tests.conftest import Tenant
from tests.fakes import VisionEndpoint
from tests.memory.adapters.paper import saved, written

DROP = "/v1/memory/collections/garden/drop"


@pytest.fixture(scope="module")
def vision() -> Iterator[VisionEndpoint]:
    with VisionEndpoint() as server:
        yield server


@pytest.fixture(scope="module")
def working(
    settings: Settings, temporal: str, vision: VisionEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A worker that hears by the generated model, and sees by an endpoint."""
    model: Path = speech.whisper_model(tmp_path_factory.mktemp("whisper") / "model")
    perceiving = settings.model_copy(
        update={
            "transcription_model": str(model),
            "caption_model": "seer",
            "extraction_base_url": f"{vision.url}/v1",
        }
    )
    reader = GuardedReader(ocr_engine="off")
    models = senses.build(perceiving, reader)
    with at_work(build(perceiving, reader=reader, senses=models), temporal):
        yield
    models.close()
    reader.close()


def test_recordings_and_pictures_are_found_by_what_is_said_and_shown(
    live: TestClient, tenant: Tenant, vision: VisionEndpoint
) -> None:
    files = [
        ("files", ("memo.mp3", speech.recording("mp3", speech.voice(4)), "audio/mpeg")),
        ("files", ("film.mp4", speech.recording("mp4", speech.voice(4), pictures=True), "video/mp4")),
        ("files", ("mute.mp4", speech.silent_film(), "video/mp4")),
        ("files", ("photo.png", saved(written("x").resize((3000, 2000)), "PNG"), "image/png")),
        ("files", ("bees.txt", b"Bees dance to tell the hive where the flowers are.", "text/plain")),
    ]

    answer = live.post(DROP, headers=tenant.headers, files=files)

    assert answer.status_code == 201
    memo, film, mute, photo, bees = answer.json()["results"]
    assert {outcome["status"] for outcome in (memo, film, mute, photo, bees)} == {"ok"}
    assert (memo["preview"], film["preview"]) == (speech.SENTENCE, speech.SENTENCE)
    assert (mute["preview"], mute["note"]) == ("mute.mp4", "kept; it has no sound, found by its name")
    assert photo["preview"] == vision.caption
    asked = {"query": "scripted transcript", "mode": "text"}
    found = live.post("/v1/memory/search", headers=tenant.headers, json=asked).json()["results"]
    assert {hit["metadata"]["filename"] for hit in found} == {"memo.mp3", "film.mp4"}
    assert {(hit["metadata"]["start"], hit["metadata"]["end"], hit["metadata"]["language"]) for hit in found} == {
        (0.0, speech.SECONDS, "en")
    }
    seen = live.post("/v1/memory/search", headers=tenant.headers, json={"query": "bicycle", "mode": "text"}).json()
    assert [hit["text"] for hit in seen["results"]] == [vision.caption]
