"""The models that hear and see for a worker, chosen by the settings."""

import structlog

from memory.errors import Misconfigured
from memory.ports import Captioner, MediaReader, Senses, Transcriber
from memory.settings import Settings

ELSEWHERE = "openai:"

log = structlog.stdlib.get_logger(__name__)


def build(settings: Settings, media: MediaReader) -> Senses:
    """Nothing is loaded and nobody asked yet. The client library is imported only where it is needed."""
    return Senses(
        media=media,
        transcriber=transcriber(settings),
        captioner=captioner(settings),
        max_minutes=settings.transcription_max_minutes,
    )


def examine(perceiving: Senses) -> None:
    """Says in the log, at a worker's start, what else the first recording would show."""
    try:
        if perceiving.transcriber is not None:
            perceiving.transcriber.examine()
    except Misconfigured as error:
        log.error("recordings cannot be transcribed", reason=error.detail)


def transcriber(settings: Settings) -> Transcriber | None:
    """Whoever turns speech into text; None when it is not set up."""
    model = settings.transcription_model
    if model is None:
        return None
    if model.startswith(ELSEWHERE):
        from memory.adapters.transcription_endpoint import OpenAITranscriber

        key = settings.transcription_api_key
        if key is None and settings.transcription_base_url == settings.extraction_base_url:
            # The same host, and so the same account.
            key = settings.extraction_api_key
        return OpenAITranscriber(
            base_url=settings.transcription_base_url, model=model.removeprefix(ELSEWHERE), api_key=key
        )
    from memory.adapters.whisper import LocalTranscriber

    return LocalTranscriber(model=model, cache=settings.rememberos_data / "models")


def captioner(settings: Settings) -> Captioner | None:
    """Whoever says what pictures show; None when it is not set up."""
    model = settings.caption_model or settings.extraction_model
    if model is None:
        return None
    from memory.adapters.caption_endpoint import OpenAICaptioner

    return OpenAICaptioner(
        base_url=settings.extraction_base_url,
        model=model,
        api_key=settings.extraction_api_key,
        may_be_blind=settings.caption_model is None,
    )
