"""A thousand small files of every kind that people drop, no two alike, among them some that nobody can read."""

import io
import math
import struct
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.files import KINDS, archive

# So many of what takes a second or more to read.
_PICTURES = 6
_ARCHIVE_MEMBERS = 2


def text_of(number: int) -> str:
    return f"Note {number} of the harbour: berth {number * 7} is free. " + "The tide turns twice a day. " * 12


def picture(number: int) -> bytes:
    shown = Image.new("RGB", (640, 120), "white")
    ImageDraw.Draw(shown).text((20, 40), f"BERTH {number} IS FREE", "black", ImageFont.load_default(36))
    return _kept(lambda held: shown.save(held, "PNG"))


def sound(number: int) -> bytes:
    """A tenth of a second of a tone."""
    held = io.BytesIO()
    with wave.open(held, "wb") as written:
        written.setparams((1, 2, 8000, 800, "NONE", ""))
        written.writeframes(
            b"".join(struct.pack("<h", int(9000 * math.sin(step * (number + 40) / 400))) for step in range(800))
        )
    return held.getvalue()


def program(number: int) -> bytes:
    return f"def berth_{number}() -> int:\n    return {number}\n".encode()


def unknown(number: int) -> bytes:
    return bytes((number * step) % 251 for step in range(1, 400)) + number.to_bytes(4)


def broken(number: int) -> bytes:
    whole = KINDS["docx"]([text_of(number)])
    return whole[: len(whole) // 2] + number.to_bytes(4)


def make(folder: Path, numbers: Sequence[int]) -> list[Path]:
    """Writes one file for each number, kind after kind; the same for the same number."""
    makers = _makers()
    made = []
    for number in numbers:
        ending, content = makers[number % len(makers)]
        if ending == "png" and number // len(makers) >= _PICTURES:
            ending, content = "txt", makers[0][1]
        file = folder / f"shelf-{number % 10}" / f"note-{number:04}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(number))
        made.append(file)
    return made


def _makers() -> list[tuple[str, Callable[[int], bytes]]]:
    def of(kind: str) -> Callable[[int], bytes]:
        return lambda number: KINDS[kind]([text_of(number)])

    def packed(number: int) -> bytes:
        return archive([f"Member {member} of {text_of(number)}" for member in range(_ARCHIVE_MEMBERS)])

    return [
        *((kind, of(kind)) for kind in KINDS),
        ("png", picture),
        ("wav", sound),
        ("py", program),
        ("zip", packed),
        ("bin", unknown),
        ("docx", broken),
    ]


def _kept(save: Callable[[io.BytesIO], object]) -> bytes:
    held = io.BytesIO()
    save(held)
    return held.getvalue()
