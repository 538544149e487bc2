"""What `rememberos doctor` says of the models that read, hear and see: whether they load."""

from pathlib import Path
from typing import Any

from memory.settings import Settings
from ops.doctor import Finding, examine
from tests import speech
from tests.fakes import TranscriptionEndpoint, VisionEndpoint, refusal


def finding(part: str, folder: Path, **settings: Any) -> Finding:
    (found,) = examine(Settings(_env_file=None, rememberos_data=folder, **settings), only=part)
    return found


def test_what_is_not_set_is_said_and_no_complaint(tmp_path: Path) -> None:
    transcription = finding("transcription", tmp_path)
    captions = finding("captions", tmp_path)
    ocr = finding("OCR", tmp_path, ocr_engine="off")
    assert (transcription.remedy, captions.remedy, ocr.remedy) == (None, None, None)
    assert "TRANSCRIPTION_MODEL is not set" in transcription.text
    assert "CAPTION_MODEL is not set" in captions.text
    assert "switched off" in ocr.text


def test_an_engine_that_reads_is_named(tmp_path: Path) -> None:
    assert finding("OCR", tmp_path, ocr_engine="rapidocr") == Finding("OCR", "rapidocr is loaded and reads")


def test_a_model_that_loads_is_named_and_one_that_does_not_has_a_remedy(tmp_path: Path) -> None:
    model = speech.whisper_model(tmp_path / "model")
    assert finding("transcription", tmp_path, transcription_model=str(model)).text == f"{model} is loaded"
    (model / "model.bin").write_bytes(b"nonsense")
    broken = finding("transcription", tmp_path, transcription_model=str(model))
    missing = finding("transcription", tmp_path, transcription_model="/no/such/directory")
    assert "cannot be loaded" in broken.text
    assert "/no/such/directory" in missing.text
    assert broken.remedy is not None
    assert missing.remedy is not None


def test_endpoints_are_asked(tmp_path: Path) -> None:
    with TranscriptionEndpoint() as ear, VisionEndpoint() as eye:
        elsewhere = {"transcription_model": "openai:hearer", "transcription_base_url": f"{ear.url}/v1"}
        seeing = {"extraction_base_url": f"{eye.url}/v1", "extraction_api_key": "sk-secret-key"}
        assert finding("transcription", tmp_path, **elsewhere).text == "hearer answers"
        assert finding("captions", tmp_path, caption_model="seer", **seeing).text == "seer describes pictures"
        eye.script.append(refusal(401, "no sk-secret-key"))
        refused = finding("captions", tmp_path, caption_model="seer", **seeing)
        eye.script.append(refusal(400, "no pictures, please"))
        blind = finding("captions", tmp_path, extraction_model="writer", **seeing)
    assert refused.remedy is not None
    assert "sk-secret-key" not in refused.text
    assert (blind.remedy, "takes no pictures" in blind.text) == (None, True)


def test_how_far_readers_are_confined_is_said(tmp_path: Path) -> None:
    found = finding("readers", tmp_path)
    assert found.remedy is None
    assert found.text.startswith("a file was read; ")
