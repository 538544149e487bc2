"""The client of transcription endpoints against a server that misbehaves as they do."""

import io
import wave
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from memory.adapters.transcription_endpoint import OpenAITranscriber
from memory.errors import AppError, Invalid, Misconfigured, Slow, Unavailable
from memory.ports import Said
from tests import speech
from tests.fakes import Answer, TranscriptionEndpoint, refusal

KEY = "sk-very-secret-0123456789"
SOUND = speech.voice(4)


@pytest.fixture
def endpoint() -> Iterator[TranscriptionEndpoint]:
    with TranscriptionEndpoint() as server:
        yield server


@pytest.fixture
def ear(endpoint: TranscriptionEndpoint) -> Iterator[OpenAITranscriber]:
    client = OpenAITranscriber(
        base_url=f"{endpoint.url}/v1", model="whisper-1", api_key=SecretStr(KEY), patience_seconds=-3.0
    )
    yield client
    client.close()


def test_the_sound_travels_as_wav_and_comes_back_as_what_was_said(
    endpoint: TranscriptionEndpoint, ear: OpenAITranscriber
) -> None:
    heard = ear.transcribe(SOUND, None)
    assert heard.said == [Said(0.0, 1.0, "good"), Said(1.5, 2.5, "morning"), Said(3.0, 4.0, "from the harbour")]
    assert (heard.language, heard.is_sure) == ("en", True)
    (request,) = endpoint.received
    assert request.path == "/v1/audio/transcriptions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    fields = endpoint.fields(request)
    assert fields["model"] == b"whisper-1"
    assert "language" not in fields
    with wave.open(io.BytesIO(fields["file"])) as sent:
        assert (sent.getnchannels(), sent.getframerate(), sent.getnframes()) == (1, 16_000, len(SOUND))
        assert sent.readframes(len(SOUND)) == SOUND.tobytes()


def test_a_language_that_is_known_is_told(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    ear.transcribe(SOUND, "de")
    assert endpoint.fields(endpoint.received[0])["language"] == b"de"


def test_a_model_that_knows_no_times_is_asked_for_none(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    endpoint.knows_times = False
    for _ in range(2):
        assert ear.transcribe(SOUND, None).said == [Said(0.0, 4.0, endpoint.said)]
    assert len(endpoint.received) == 3


def test_times_beyond_the_sound_are_cut(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    endpoint.said = "one two three"
    endpoint.script.append(
        Answer(body=b'{"text": "x", "language": "xx", "segments": [{"start": -3, "end": 99, "text": " x "}]}')
    )
    heard = ear.transcribe(SOUND, None)
    assert heard.said == [Said(0.0, 4.0, "x")]
    assert heard.language == "xx"


def test_nothing_said_is_nothing_said(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    endpoint.script.append(Answer(body=b'{"text": " ", "segments": []}'))
    heard = ear.transcribe(SOUND, None)
    assert (heard.said, heard.language) == ([], None)


def test_a_busy_server_is_asked_again(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    endpoint.script += [refusal(429, "slow down", retry_after="0"), refusal(503, "warming up", retry_after="0")]
    assert ear.transcribe(SOUND, None).said
    assert len(endpoint.received) == 3


@pytest.mark.parametrize(
    "answer",
    [
        refusal(500, "oops", retry_after="0"),
        refusal(429, "tomorrow", retry_after="86400"),
        Answer(body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
        Answer(body=b'{"text": "cut o'),
        Answer(body=b"[]"),
        Answer(body=b"null"),
        Answer(body=b'{"text": null}'),
        Answer(body=b'{"segments": []}'),
        Answer(body=b'{"text": "x", "segments": [{"text": "x", "start": "soon", "end": 1}]}'),
        Answer(body=b'{"text": "x", "segments": [1]}'),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
def test_an_unusable_answer_is_unavailable(
    endpoint: TranscriptionEndpoint, ear: OpenAITranscriber, answer: Answer
) -> None:
    endpoint.script += [answer] * 3
    with pytest.raises(Unavailable):
        ear.transcribe(SOUND, None)


@pytest.mark.parametrize("answer", [Answer(after_seconds=1.5), Answer(body=b"{}" + b" " * 1000, drip_bytes=1)])
def test_who_keeps_silent_or_never_comes_to_the_end_is_slow(
    endpoint: TranscriptionEndpoint, ear: OpenAITranscriber, answer: Answer
) -> None:
    endpoint.script += [answer] * 3
    with pytest.raises(Slow, match="in time"):
        ear.transcribe(SOUND, None)


def test_of_a_refused_key_not_even_a_part_is_quoted(endpoint: TranscriptionEndpoint, ear: OpenAITranscriber) -> None:
    endpoint.script.append(refusal(401, f"Incorrect API key provided: {KEY[:7]}****{KEY[-4:]}"))
    with pytest.raises(Misconfigured) as caught:
        ear.transcribe(SOUND, None)
    assert KEY[:7] not in caught.value.detail
    assert KEY[-4:] not in caught.value.detail


def test_a_request_is_left_behind_when_nobody_wants_its_answer(
    endpoint: TranscriptionEndpoint, ear: OpenAITranscriber
) -> None:
    def look() -> None:
        raise InterruptedError

    endpoint.gate.clear()
    try:
        with pytest.raises(InterruptedError):
            ear.transcribe(SOUND, None, look)
    finally:
        endpoint.gate.set()


@pytest.mark.parametrize(
    ("status", "kind", "names"),
    [
        (401, Misconfigured, "TRANSCRIPTION_API_KEY"),
        (404, Misconfigured, "TRANSCRIPTION_MODEL"),
        (307, Misconfigured, "TRANSCRIPTION_BASE_URL"),
        (413, Invalid, "refused"),
    ],
)
def test_a_refusal_is_told_without_the_key(
    endpoint: TranscriptionEndpoint, ear: OpenAITranscriber, status: int, kind: type[AppError], names: str
) -> None:
    endpoint.script += [refusal(status, f"no, dear {KEY}")] * 2
    with pytest.raises(kind, match=names) as caught:
        ear.transcribe(SOUND, None)
    assert KEY not in caught.value.detail
    assert caught.value.__cause__ is None


def test_whoever_is_not_there_is_unavailable(endpoint: TranscriptionEndpoint) -> None:
    gone = OpenAITranscriber(base_url="http://127.0.0.1:9/v1", model="m", api_key=None)
    with pytest.raises(Unavailable, match="reached"):
        gone.load()
    gone.close()
