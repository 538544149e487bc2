"""Recordings and pictures whose models do not answer, answer nonsense, or are no longer wanted, with a real worker."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from memory.adapters.caption_endpoint import OpenAICaptioner
from memory.adapters.documents import GuardedReader
from memory.adapters.transcription_endpoint import OpenAITranscriber
from memory.ports import Senses
from memory.services import build
from memory.settings import Settings
from tests import speech
from tests.api.conftest import Tenant, at_work
from tests.fakes import HUNG_UP, Answer, LocalServer, TranscriptionEndpoint, VisionEndpoint, refusal
from tests.memory.adapters.paper import saved, written
from workflows import policies

DROP = "/v1/memory/collections/garden/drop"
BATCH = "/v1/memory/ingest/batch"
KEY = "sk-very-secret-0123456789"
# As long as the sound, and no longer.
PATIENCE_SECONDS = 1.0
HUGE = b'{"text": "' + b"a" * 70 * 1024**2 + b'"}'


@pytest.fixture(scope="module")
def ear() -> Iterator[TranscriptionEndpoint]:
    with TranscriptionEndpoint() as server:
        yield server


@pytest.fixture(scope="module")
def eye() -> Iterator[VisionEndpoint]:
    with VisionEndpoint() as server:
        yield server


@pytest.fixture(scope="module")
def working(settings: Settings, temporal: str, ear: TranscriptionEndpoint, eye: VisionEndpoint) -> Iterator[None]:
    key = SecretStr(KEY)
    with closing(GuardedReader(ocr_engine="off")) as reader, pytest.MonkeyPatch.context() as patch:
        patience = policies.TRANSCRIBE["retry_policy"]
        assert patience is not None
        brief = dataclasses.replace(patience, initial_interval=timedelta(milliseconds=100), maximum_attempts=2)
        patch.setitem(policies.TRANSCRIBE, "retry_policy", brief)
        models = Senses(
            media=reader,
            transcriber=OpenAITranscriber(
                base_url=f"{ear.url}/v1", model="hearer", api_key=key, patience_seconds=PATIENCE_SECONDS
            ),
            captioner=OpenAICaptioner(base_url=f"{eye.url}/v1", model="seer", api_key=key),
        )
        with closing(models), at_work(build(settings, reader=reader, senses=models), temporal):
            yield


def memo(seconds: float = 1.0) -> tuple[str, tuple[str, bytes]]:
    return "files", ("memo.wav", speech.recording("wav", speech.voice(seconds)))


def dropped(client: TestClient, tenant: Tenant, *files: tuple[str, tuple[str, bytes]]) -> str:
    answer = client.post(DROP, headers=tenant.headers, files=list(files), params={"async_ingest": "true"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


def ended(client: TestClient, tenant: Tenant, batch_id: str) -> list[dict[str, Any]]:
    progress = client.get(f"{BATCH}/{batch_id}", headers=tenant.headers, params={"wait": 55}).json()
    assert progress["complete"]
    files: list[dict[str, Any]] = progress["files"]
    return files


def wait_for(server: LocalServer, requests: int) -> None:
    pause = threading.Event()
    while len(server.received) < requests:
        pause.wait(0.02)


def test_what_is_cancelled_is_not_heard_or_seen_to_its_end(
    live: TestClient, tenant: Tenant, ear: TranscriptionEndpoint, eye: VisionEndpoint
) -> None:
    ear.gate.clear()
    eye.gate.clear()
    try:
        heard, seen = len(ear.received), len(eye.received)
        photo = ("files", ("photo.png", saved(written("x"), "PNG")))
        batch_id = dropped(live, tenant, memo(3), memo(4), photo)
        wait_for(ear, heard + 2)
        wait_for(eye, seen + 1)

        answer = live.post(f"{BATCH}/{batch_id}/cancel", headers=tenant.headers).json()

        assert (answer["cancelled"], answer["pending"], answer["complete"]) == (3, 0, True)
        assert {(file["status"], file["error"]) for file in ended(live, tenant, batch_id)} == {("failed", "cancelled")}
        # Both places are free again, although nobody was answered.
        others = dropped(live, tenant, memo(5))
        wait_for(ear, heard + 3)
    finally:
        ear.gate.set()
        eye.gate.set()
    assert [file["status"] for file in ended(live, tenant, others)] == ["done"]
    # Whatever came back too late is not stored.
    assert {(file["status"], file["chunks"]) for file in ended(live, tenant, batch_id)} == {("failed", 0)}
    found = live.get("/v1/memory/collections/garden/memories", headers=tenant.headers).json()
    assert [memory["metadata"]["filename"] for memory in found] == ["memo.wav"]
    assert live.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers).json()["queued"] == 3
    assert {file["status"] for file in ended(live, tenant, batch_id)} == {"done"}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Answer(HUNG_UP), "cannot be reached"),
        (refusal(429, "slow down", retry_after="0"), "answered 429"),
        (refusal(429, "come back tomorrow", retry_after="86400"), "answered 429"),
        (refusal(401, f"Incorrect API key provided: {KEY[:8]}*****{KEY[-4:]}"), "TRANSCRIPTION_API_KEY"),
        (refusal(500, f"oops, {KEY}", retry_after="0"), "answered 500"),
        (Answer(body=b'{"text": "cut o', headers={"retry-after": "0"}), "OpenAI's transcriptions form"),
        (Answer(body=b'{"text": "slow"}', after_seconds=2.5), "did not answer in time"),
        (Answer(body=HUGE), "more than 64 MB"),
    ],
    ids=["down", "busy", "busy for long", "wrong key", "broken", "garbage", "hangs", "floods"],
)
def test_a_transcription_in_trouble_says_why_and_is_taken_up_again(
    live: TestClient, tenant: Tenant, ear: TranscriptionEndpoint, trouble: Answer, reason: str
) -> None:
    ear.script.extend([trouble] * 50)
    try:
        batch_id = dropped(live, tenant, memo(), ("files", ("bees.txt", b"Bees dance.")))
        recording, text = ended(live, tenant, batch_id)
    finally:
        ear.script.clear()
    assert (recording["status"], text["status"]) == ("failed", "done")
    assert reason in recording["error"]
    assert "it can be tried again" in recording["error"]
    assert not any(part in recording["error"] for part in (KEY, KEY[:8], KEY[-4:]))

    assert live.post(f"{BATCH}/{batch_id}/retry", headers=tenant.headers).json()["queued"] == 1

    recording, _ = ended(live, tenant, batch_id)
    assert (recording["status"], recording["error"], recording["chunks"]) == ("done", None, 1)


def test_trouble_that_passes_is_waited_for(live: TestClient, tenant: Tenant, ear: TranscriptionEndpoint) -> None:
    # As many as the client asks in one attempt, so that a second one is needed.
    ear.script.extend([refusal(503, "warming up", retry_after="0")] * 3)

    (recording,) = ended(live, tenant, dropped(live, tenant, memo()))

    assert (recording["status"], recording["chunks"]) == ("done", 1)
