"""Recordings of every kind: known by their content, decoded in a guarded child, never more than asked for."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memory.adapters.documents import PIECE_SECONDS, GuardedReader
from memory.adapters.guard import Limits
from memory.errors import RejectedFile
from memory.ports import SAMPLES_A_SECOND, Samples
from tests import speech
from tests.memory.adapters.conftest import Read
from tests.memory.adapters.paper import saved

TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "webm": "audio/webm",
    "mp4": "audio/mp4",
    "mov": "video/quicktime",
    "aac": "audio/aac",
    "3gp": "audio/3gpp",
    "amr": "audio/amr",
    "aiff": "audio/aiff",
    "mka": "audio/x-matroska",
    "m4a without loss": "audio/mp4",
    "ogg vorbis": "audio/ogg",
    "webm vorbis": "audio/webm",
    "mkv": "audio/x-matroska",
    "mkv of a DVD": "audio/x-matroska",
    "avi": "video/x-msvideo",
    "wma": "video/x-ms-asf",
    "amr in 3gp": "audio/3gpp",
    "3g2": "audio/3gpp",
    "caf": "audio/x-caf",
    "au": "audio/basic",
    "mp2": "audio/mpeg",
    "ts": "video/mp2t",
    "flv": "video/x-flv",
    "wavpack": "audio/x-wavpack",
    "tta": "audio/x-tta",
    "voc": "audio/x-voc",
}
TYPES |= {kind: "audio/wav" for kind in speech.RARER if kind.startswith("wav ")}

Hear = Callable[..., tuple[float, bool, list[Samples]] | None]


@pytest.fixture
def hear(reader: GuardedReader, tmp_path: Path) -> Hear:
    """Length, whether that is all, and pieces of what is on a recording; None where nothing is."""

    def heard(data: bytes, *, max_seconds: int = 600) -> tuple[float, bool, list[Samples]] | None:
        path = tmp_path / "stored"
        path.write_bytes(data)
        with reader.sound(path, max_seconds=max_seconds) as sound:
            return None if sound is None else (sound.seconds, sound.is_whole, list(sound.pieces))

    return heard


@pytest.mark.parametrize("kind", [*speech.KINDS, *speech.RARER])
def test_every_kind_is_known_under_a_wrong_name_and_decoded(read: Read, hear: Hear, kind: str) -> None:
    data = speech.recording(kind, speech.voice(3))
    document = read("notes.txt", data)
    assert (document.content_type, document.awaits, document.blocks) == (TYPES[kind], "transcript", [])
    heard = hear(data)
    assert heard is not None
    seconds, is_whole, pieces = heard
    assert seconds == pytest.approx(3, abs=0.1)
    assert is_whole
    samples = np.concatenate(pieces)
    assert len(samples) == round(seconds * SAMPLES_A_SECOND)
    # The voice came through: about as loud as it was.
    assert 0.5 < samples.std() / speech.voice(3).std() < 2


@pytest.mark.parametrize("kind", speech.WITH_PICTURES)
def test_of_a_film_the_sound_is_heard(read: Read, hear: Hear, kind: str) -> None:
    data = speech.recording(kind, speech.voice(3), pictures=True)
    assert read("film", data).content_type == ("video/quicktime" if kind == "mov" else f"video/{kind}")
    heard = hear(data)
    assert heard is not None
    assert heard[0] == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("kind", "rate", "layout"), [("wav", 8_000, "mono"), ("flac", 96_000, "5.1"), ("m4a", 48_000, "5.1")]
)
def test_from_every_rate_and_channel_the_voice_is_heard(hear: Hear, kind: str, rate: int, layout: str) -> None:
    heard = hear(speech.recording(kind, speech.voice(3), rate=rate, layout=layout))
    assert heard is not None
    assert heard[0] == pytest.approx(3, abs=0.1)
    assert np.concatenate(heard[2]).std() > 0.2 * speech.voice(3).std()


def test_times_are_those_of_the_film_where_its_sound_begins_late(hear: Hear) -> None:
    heard = hear(speech.recording("mp4", speech.voice(2), pictures=True, starts=4))
    assert heard is not None
    assert heard[0] == pytest.approx(6, abs=0.1)
    samples = np.concatenate(heard[2])
    assert np.abs(samples[: int(3.9 * SAMPLES_A_SECOND)]).max() < 50
    assert samples[int(4.1 * SAMPLES_A_SECOND) :].std() > 1_000


def test_a_clock_that_was_set_while_it_ran_adds_no_hours(hear: Hear) -> None:
    heard = hear(speech.recording("mp4", speech.voice(2), pictures=True, starts=30_000))
    assert heard is not None
    assert heard[0] == pytest.approx(2, abs=0.2)


def test_of_several_tracks_one_is_heard(hear: Hear) -> None:
    heard = hear(speech.recording("mka", speech.voice(3), speech.voice(3)))
    assert heard is not None
    assert heard[0] == pytest.approx(3, abs=0.1)


def test_a_picture_of_the_cover_is_no_film(read: Read, hear: Hear) -> None:
    cover = b"\0image/png\0\x03\0" + saved(Image.new("RGB", (40, 40), "red"), "PNG")
    tag = b"APIC" + len(cover).to_bytes(4, "big") + b"\0\0" + cover
    size = bytes(len(tag) >> shift & 0x7F for shift in (21, 14, 7, 0))
    for kind, media_type in (("mp3", "audio/mpeg"), ("flac", "audio/flac")):
        data = b"ID3\x04\0\0" + size + tag + speech.recording(kind, speech.voice(2))
        assert read("song", data).content_type == media_type
        heard = hear(data)
        assert heard is not None
        assert heard[0] == pytest.approx(2, abs=0.1)


def test_a_recording_of_no_length_has_no_sound(hear: Hear) -> None:
    whole = speech.recording("wav", speech.silence(1))
    assert hear(whole[: whole.index(b"data") + 4] + bytes(4)) is None


def test_a_silent_film_has_no_sound(hear: Hear) -> None:
    assert hear(speech.silent_film()) is None


def test_an_mp3_is_known_with_and_without_a_tag(read: Read) -> None:
    tagged = speech.recording("mp3", speech.voice(2))
    assert tagged.startswith(b"ID3")
    bare = tagged[tagged.index(b"\xff\xf3") :]
    assert read("a", bare).content_type == "audio/mpeg"


@pytest.mark.parametrize("text", ["ID3 tags explained", "OggSome text", "RIFF raff", "fLaC is a format", "#!AMR"])
def test_a_text_that_begins_like_a_recording_is_a_text(read: Read, text: str) -> None:
    document = read("note.txt", text.encode())
    assert (document.awaits, document.blocks[0].text) == (None, text)


KOREAN = "따르면 다람쥐 분기 퍼센트 십이 수익이 쳇바퀴에 증가했습니다. 보고서에 타고파. 헌 ko0."


@pytest.mark.parametrize("text", ["Grüße aus dem Süden. " * 50, KOREAN])
def test_utf_16_is_no_recording(read: Read, text: str) -> None:
    document = read("note.txt", text.encode("utf-16"))
    assert document.awaits is None
    assert document.blocks[0].text == text.strip()


def test_long_recordings_come_in_pieces_that_end_where_it_is_quiet(hear: Hear) -> None:
    voice = np.tile(speech.voice(10), PIECE_SECONDS // 10 + 3)
    pause = (PIECE_SECONDS - 10) * SAMPLES_A_SECOND
    voice[pause : pause + SAMPLES_A_SECOND] = 0
    heard = hear(speech.recording("wav", voice))
    assert heard is not None
    first, second = heard[2]
    assert pause <= len(first) <= pause + SAMPLES_A_SECOND
    assert np.array_equal(np.concatenate([first, second]), voice)


@pytest.fixture(scope="module")
def three_hours() -> bytes:
    """Of silence."""
    return speech.recording("flac", speech.silence(3 * 3600))


def test_no_more_is_decoded_than_asked_for(hear: Hear, three_hours: bytes) -> None:
    heard = hear(three_hours, max_seconds=600)
    assert heard is not None
    assert heard[:2] == (600.0, False)
    assert sum(map(len, heard[2])) == 600 * SAMPLES_A_SECOND


def test_hours_of_silence_in_a_small_file_stay_within_the_limits(tmp_path: Path, three_hours: bytes) -> None:
    path = tmp_path / "stored"
    path.write_bytes(three_hours)
    assert path.stat().st_size < 3_000_000
    reader = GuardedReader(ocr_engine="off", limits=Limits(memory_bytes=128 * 1024**2))
    try:
        with reader.sound(path, max_seconds=4 * 3600) as sound:
            assert sound is not None
            assert sound.seconds == 3 * 3600
    finally:
        reader.close()


def test_damage_in_the_middle_costs_what_is_damaged(hear: Hear) -> None:
    data = speech.recording("mp3", speech.voice(8))
    heard = hear(data[:8_000] + bytes(3_000) + data[11_000:])
    assert heard is not None
    assert 5 < heard[0] < 8


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "ogg"])
def test_what_is_left_of_a_recording_that_was_cut_off_is_heard(hear: Hear, kind: str) -> None:
    data = speech.recording(kind, speech.voice(8))
    heard = hear(data[: len(data) // 2])
    assert heard is not None
    assert 1.5 < heard[0] < 6


def test_a_length_that_is_claimed_is_not_believed(hear: Hear) -> None:
    data = bytearray(speech.recording("wav", speech.voice(2)))
    start = data.index(b"data") + 4
    data[start : start + 4] = b"\xff\xff\xff\xff"
    heard = hear(bytes(data))
    assert heard is not None
    assert heard[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "start",
    [
        b"fLaC\0\0\0\x22",
        b"OggS\0",
        b"ID3\x04\0\0\0\0\0\0",
        b"\x1aE\xdf\xa3",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x20ftypM4A ",
    ],
)
def test_what_only_looks_like_a_recording_is_rejected(hear: Hear, start: bytes) -> None:
    with pytest.raises(RejectedFile, match="damaged"):
        # The same each time: now and then something can be decoded of others.
        hear(start + random.Random(7).randbytes(1 << 18))


def test_a_film_whose_index_is_missing_is_rejected(hear: Hear) -> None:
    data = speech.recording("mp4", speech.voice(8))
    with pytest.raises(RejectedFile, match="damaged"):
        hear(data[: len(data) // 2])
