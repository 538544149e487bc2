"""Loads what reads, hears and sees for a worker, and says how that went; `rememberos doctor` runs it as a process.

Run as `python -m memory.adapters.checkup PART` with the settings as JSON on the standard input; the answer is JSON too.
"""

import io
import json
import sys
import tempfile

from memory.adapters import confinement, ocr, senses
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
    taken = {
        "the network": confinement.leave_network(),
        "foreign files": confinement.leave_files(tempfile.gettempdir()),
        "system calls": confinement.leave_calls(programs=False),
    }
    kept = [name for name, is_gone in taken.items() if not is_gone]
    if not kept:
        return "confined: no network, no foreign files, no other processes"
    return f"limited in memory, time and disk; this kernel does not let them give up {', '.join(kept)}"


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
