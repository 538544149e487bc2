"""Speech to text on the box, with a real engine and a model made here that hears one sentence in whatever is said."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest

from memory.adapters.whisper import LocalTranscriber
from memory.errors import Misconfigured, Unavailable
from memory.ports import Said
from tests import speech


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech.whisper_model(tmp_path_factory.mktemp("whisper") / "model")


@pytest.fixture
def ear(model: Path, tmp_path: Path) -> LocalTranscriber:
    return LocalTranscriber(model=str(model), cache=tmp_path)


def test_speech_is_heard_with_its_time_and_language(ear: LocalTranscriber) -> None:
    heard = ear.transcribe(speech.voice(4), None)
    assert heard.said == [Said(0.0, speech.SECONDS, speech.SENTENCE)]
    assert (heard.language, heard.is_sure) == ("en", True)


def test_in_silence_nothing_is_heard(ear: LocalTranscriber) -> None:
    heard = ear.transcribe(speech.silence(30), None)
    assert (heard.said, heard.language) == ([], None)


def test_the_model_is_loaded_once_for_all_threads(ear: LocalTranscriber) -> None:
    with patch.object(ear, "_load", wraps=ear._load) as load, ThreadPoolExecutor(4) as threads:
        heard = list(threads.map(lambda _: ear.transcribe(speech.voice(2), "en"), range(4)))
    assert {transcript.said[0].text for transcript in heard} == {speech.SENTENCE}
    assert load.call_count == 1


@pytest.mark.parametrize("name", ["/no/such/directory", "./here", "enormous"])
def test_a_model_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misconfigured, match="TRANSCRIPTION_MODEL") as caught:
        LocalTranscriber(model=name, cache=tmp_path).load()
    assert name in caught.value.detail


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"model\.bin"):
        LocalTranscriber(model=str(tmp_path), cache=tmp_path).load()


def test_a_broken_model_says_so_and_can_be_mended(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.bin").write_bytes(b"nonsense")
    ear = LocalTranscriber(model=str(broken), cache=tmp_path)
    with pytest.raises(Misconfigured, match="cannot be loaded"):
        ear.load()
    shutil.copy(model / "model.bin", broken / "model.bin")
    assert ear.transcribe(speech.voice(2), None).said


def test_without_internet_a_size_is_unavailable_and_not_lost(tmp_path: Path) -> None:
    offline = patch("huggingface_hub.snapshot_download", side_effect=OSError("no route to host"))
    with offline, pytest.raises(Unavailable, match="TRANSCRIPTION_MODEL"):
        LocalTranscriber(model="tiny", cache=tmp_path).load()
