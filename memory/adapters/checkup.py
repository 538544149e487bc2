"""Loads what reads, hears and sees for a worker, and says how that went; `rememberos doctor` runs it as a process.

Run as `python -m memory.adapters.checkup PART` with the settings as JSON on the standard input; the answer is JSON too.
"""

import io
import json
import sys
from contextlib import closing
from pathlib import Path

from memory.adapters import ocr, senses
from memory.adapters.documents import GuardedReader
from memory.errors import AppError, Invalid
from memory.settings import Settings


def check_ocr(settings: Settings) -> str:
    name = ocr.choose(settings.ocr_engine)
    engine = ocr.load(name)
    if engine is None:
        switched = "switched off" if settings.ocr_engine == "off" else "no engine is installed"
        return f"{switched}: images and scans are kept and found by name alone"
    return f"{name} is loaded and reads"


def check_transcription(settings: Settings) -> str:
    transcriber = senses.transcriber(settings)
    if transcriber is None:
        return "TRANSCRIPTION_MODEL is not set: recordings are kept and found by name alone"
    try:
        transcriber.load()
    finally:
        transcriber.close()
    return f"{transcriber.name} is loaded" if not _is_elsewhere(settings) else f"{transcriber.name} answers"


def check_captions(settings: Settings) -> str:
    captioner = senses.captioner(settings)
    if captioner is None:
        return "CAPTION_MODEL is not set: pictures are found by the text on them alone"
    picture = io.BytesIO()
    ocr.specimen().save(picture, "JPEG")
    try:
        captioner.caption(picture.getvalue())
    except Invalid:
        if settings.caption_model is not None:
            raise
        return (
            f"{captioner.name} takes no pictures: they are found by the text on them alone; CAPTION_MODEL names another"
        )
    finally:
        captioner.close()
    return f"{captioner.name} describes pictures"


def check_readers(_settings: Settings) -> str:
    with closing(GuardedReader(ocr_engine="off", concurrency=1)) as reader:
        kept = reader.kept()
        reader.read(Path(__file__), "specimen.txt")
    if not kept:
        return "a file was read; confined: no network, no foreign files, no other processes"
    return f"a file was read; limited in time and disk, but this system does not take from them: {', '.join(kept)}"


def _is_elsewhere(settings: Settings) -> bool:
    return (settings.transcription_model or "").startswith(senses.ELSEWHERE)


PARTS = {"OCR": check_ocr, "transcription": check_transcription, "captions": check_captions, "readers": check_readers}


def main(part: str, given: str) -> None:
    settings = Settings(_env_file=None, **json.loads(given))
    try:
        answer = {"is_well": True, "text": PARTS[part](settings)}
    except AppError as error:
        answer = {"is_well": False, "text": error.detail}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.read())
