"""Speech to text elsewhere: any endpoint that speaks OpenAI's transcriptions form."""

import io
import threading
import wave
from typing import Any

import httpx2
from pydantic import SecretStr

from memory.adapters.openai_endpoint import Endpoint, Words, while_looking
from memory.errors import Invalid, Unavailable
from memory.ports import SAMPLES_A_SECOND, Look, Said, Samples, Transcriber, Transcript, unwatched

_LONGEST_RETRY_AFTER_SECONDS = 60.0
# Some servers take as long as the recording lasts.
_SECONDS_FOR_A_SECOND = 1.0
_WORDS = Words(
    endpoint="the transcription endpoint",
    model="the transcription model",
    sent="the sound",
    form="transcriptions",
    url_setting="TRANSCRIPTION_BASE_URL",
    model_setting="TRANSCRIPTION_MODEL",
    key_setting="TRANSCRIPTION_API_KEY",
)
_CODES = {
    "arabic": "ar",
    "chinese": "zh",
    "czech": "cs",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "greek": "el",
    "hebrew": "he",
    "hindi": "hi",
    "hungarian": "hu",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "norwegian": "no",
    "polish": "pl",
    "portuguese": "pt",
    "romanian": "ro",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "thai": "th",
    "turkish": "tr",
    "ukrainian": "uk",
    "vietnamese": "vi",
}


class OpenAITranscriber(Transcriber):
    """Sends WAV, which every such server takes, to `base_url` (default: OpenAI). Safe to use from many threads."""

    def __init__(
        self, *, base_url: str | None, model: str, api_key: SecretStr | None, patience_seconds: float = 60.0
    ) -> None:
        self._name = model
        self._patience_seconds = patience_seconds
        self._endpoint = Endpoint(
            _WORDS, base_url=base_url, api_key=api_key, longest_wait_seconds=_LONGEST_RETRY_AFTER_SECONDS
        )
        self._lock = threading.Lock()
        # Some models tell no times, and refuse to be asked for them.
        self._form = "verbose_json"

    @property
    def name(self) -> str:
        return self._name

    def transcribe(self, samples: Samples, language: str | None, look: Look = unwatched) -> Transcript:
        """See Transcriber. Raises Unavailable, Misconfigured, and Invalid when the endpoint refuses the sound."""
        seconds = len(samples) / SAMPLES_A_SECOND
        form = self._form
        try:
            answer = self._request(_as_wav(samples), language, form, seconds, look)
        except Invalid:
            if form != "verbose_json":
                raise
            answer = self._request(_as_wav(samples), language, "json", seconds, look)
            with self._lock:
                self._form = "json"
        return _transcript(answer, seconds, language)

    def examine(self) -> None:
        """Who is elsewhere has to be asked."""

    def load(self) -> None:
        """Has a moment of silence transcribed, to see whether the endpoint answers."""
        self._request(_as_wav(bytes(2 * SAMPLES_A_SECOND)), None, "json", 1, unwatched)

    def close(self) -> None:
        """Gives the connections back."""
        self._endpoint.close()

    def _request(self, wav: bytes, language: str | None, form: str, seconds: float, look: Look) -> Any:
        timeout = httpx2.Timeout(self._patience_seconds + _SECONDS_FOR_A_SECOND * seconds, connect=5.0)
        wanted: dict[str, Any] = {"model": self._name, "file": ("sound.wav", wav, "audio/wav"), "response_format": form}
        wanted["timeout"] = timeout
        if language is not None and len(language) == 2:
            wanted["language"] = language
        with self._endpoint.asked():
            answer = while_looking(lambda: self._endpoint.client.audio.transcriptions.create(**wanted), look)
            # A server that speaks another form may answer with 200 all the same.
            if not isinstance(answer.text, str):
                raise TypeError
            return answer


def _transcript(answer: Any, seconds: float, language: str | None) -> Transcript:
    said: list[Said] = []
    for segment in getattr(answer, "segments", None) or []:
        try:
            text, start, end = str(segment.text).strip(), float(segment.start), float(segment.end)
        except (AttributeError, TypeError, ValueError):
            raise Unavailable("the transcription endpoint gave segments without text or time") from None
        if text:
            said.append(Said(min(max(start, 0.0), seconds), min(max(end, 0.0), seconds), text))
    if not said and (text := answer.text.strip()):
        said = [Said(0.0, seconds, text)]
    heard = _code(getattr(answer, "language", None)) or language
    return Transcript(said=said, language=heard if said else None, is_sure=heard is not None)


def _code(heard: object) -> str | None:
    """The language's code: some servers say its English name."""
    named = str(heard or "").strip().lower()
    return _CODES.get(named, named) or None


def _as_wav(samples: Samples | bytes) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLES_A_SECOND)
        file.writeframes(samples if isinstance(samples, bytes) else samples.astype("<i2").tobytes())
    return held.getvalue()
