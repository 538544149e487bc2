"""Which models a worker perceives with, by the settings."""

from pathlib import Path
from typing import Any, cast

import pytest

from memory.adapters import senses
from memory.adapters.caption_endpoint import OpenAICaptioner
from memory.adapters.transcription_endpoint import OpenAITranscriber
from memory.adapters.whisper import LocalTranscriber
from memory.ports import MediaReader
from memory.settings import Settings
from tests.fakes import TranscriptionEndpoint


def chosen(**settings: Any) -> tuple[object, object]:
    built = senses.build(Settings(_env_file=None, **settings), cast("MediaReader", None))
    return type(built.transcriber), type(built.captioner)


@pytest.mark.parametrize(
    ("settings", "transcriber", "captioner"),
    [
        ({}, type(None), type(None)),
        ({"transcription_model": "small"}, LocalTranscriber, type(None)),
        ({"transcription_model": "openai:whisper-1"}, OpenAITranscriber, type(None)),
        ({"caption_model": "seer"}, type(None), OpenAICaptioner),
        ({"extraction_model": "writer"}, type(None), OpenAICaptioner),
        ({"extraction_base_url": "http://here"}, type(None), type(None)),
    ],
)
def test_the_settings_decide(settings: dict[str, str], transcriber: type, captioner: type) -> None:
    assert chosen(**settings) == (transcriber, captioner)


@pytest.mark.parametrize("same", [True, False])
def test_the_key_of_one_address_is_never_sent_to_another(same: bool, tmp_path: Path) -> None:
    with TranscriptionEndpoint() as endpoint:
        settings = Settings(
            _env_file=None,
            rememberos_data=tmp_path,
            transcription_model="openai:whisper-1",
            transcription_base_url=endpoint.url,
            extraction_base_url=endpoint.url if same else "http://elsewhere.test",
            extraction_api_key="sk-of-the-extraction",
        )
        transcriber = senses.transcriber(settings)
        assert isinstance(transcriber, OpenAITranscriber)
        transcriber.load()
        transcriber.close()
        assert ("sk-of-the-extraction" in endpoint.received[0].headers["authorization"]) == same
