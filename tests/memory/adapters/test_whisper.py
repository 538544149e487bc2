"""Speech to text on the box, with a real engine and a model made here that hears one sentence in whatever is said."""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from memory.adapters.whisper import LocalTranscriber
from memory.errors import Misconfigured, Unavailable
from memory.ports import Said
from tests import speech


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech.whisper_model(tmp_path_factory.mktemp("whisper") / "model")


def copy(model: Path, folder: Path, changed: dict[str, bytes | None]) -> str:
    """A model with some of its files replaced, or left out."""
    other = folder / "model"
    shutil.copytree(model, other)
    for name, content in changed.items():
        if content is None:
            (other / name).unlink()
        else:
            (other / name).write_bytes(content)
    return str(other)


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


@pytest.mark.parametrize("missing", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
def test_a_file_that_is_missing_is_named_before_anything_is_loaded(model: Path, tmp_path: Path, missing: str) -> None:
    ear = LocalTranscriber(model=copy(model, tmp_path, {missing: None}), cache=tmp_path)
    for look in (ear.examine, ear.load):
        with pytest.raises(Misconfigured, match=re.escape(missing)):
            look()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{nonsense"),
        ("config.json", b"[]"),
        ("config.json", b"null"),
        ("tokenizer.json", b"{nonsense"),
        ("tokenizer.json", b"{}"),
        ("vocabulary.json", b""),
        ("vocabulary.json", b'["a", "b"]'),
        ("preprocessor_config.json", b"[]"),
    ],
)
def test_a_file_that_is_broken_is_no_outage(model: Path, tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(Misconfigured, match="cannot be loaded"):
        LocalTranscriber(model=copy(model, tmp_path, {name: content}), cache=tmp_path).load()


def test_a_tokenizer_of_something_else_is_no_outage(model: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text()) | {"added_tokens": []}
    other = copy(model, tmp_path, {"tokenizer.json": json.dumps(tokenizer).encode()})
    with pytest.raises(Misconfigured, match="cannot be loaded"):
        LocalTranscriber(model=other, cache=tmp_path).load()


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("said", [None, b"{nonsense", b'{"feature_size": 80}', b'{"feature_size": 128}'])
def test_models_of_both_shapes_hear_whatever_their_optional_file_says(
    tmp_path: Path, mels: int, said: bytes | None
) -> None:
    model = speech.whisper_model(tmp_path / "model", mels=mels)
    if said is not None:
        (model / "preprocessor_config.json").write_bytes(said)
    heard = LocalTranscriber(model=str(model), cache=tmp_path).transcribe(speech.voice(2), None)
    assert heard.said == [Said(0.0, speech.SECONDS, speech.SENTENCE)]


def test_a_vocabulary_in_the_older_form_is_read(model: Path, tmp_path: Path) -> None:
    words = json.loads((model / "vocabulary.json").read_text())
    older = {"vocabulary.json": None, "vocabulary.txt": "".join(f"{word}\n" for word in words).encode()}
    heard = LocalTranscriber(model=copy(model, tmp_path, older), cache=tmp_path).transcribe(speech.voice(2), None)
    assert heard.said[0].text == speech.SENTENCE


def test_who_hears_looks_up_with_each_segment(ear: LocalTranscriber) -> None:
    def look() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ear.transcribe(speech.voice(4), "en", look)


def test_in_noise_and_tones_nothing_is_heard(ear: LocalTranscriber) -> None:
    time = np.arange(20 * 16_000) / 16_000
    noise = np.random.default_rng(1).normal(0, 2_000, len(time)).astype(np.int16)
    tone = (8_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    for sound in (noise, tone):
        assert ear.transcribe(sound, None).said == []


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
