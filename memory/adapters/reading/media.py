"""The work of the fork server that decodes for models: the sound of a recording, a picture of bounded size."""

import io
from collections.abc import Iterable
from typing import Any, BinaryIO

from PIL import Image

from memory.adapters.forkserver import Work
from memory.adapters.reading.pictures import first_frame
from memory.adapters.reading.scans import on_white
from memory.adapters.reading.sounds import decoded

# What vision models look at; anything larger they scale down themselves, after it was sent.
MAX_PICTURE_SIDE = 1_568
_MIN_PICTURE_SIDE = 32
_QUALITY = 85


def decoder(_argument: str) -> Work:
    """The work: samples of 16 bits, or a JPEG, as the request wants."""

    def decode(source: BinaryIO, request: dict[str, Any]) -> bytes | Iterable[bytes]:
        if request["want"] == "sound":
            return decoded(source, request["max_samples"])
        return _small(first_frame(source.read()))

    return decode


def _small(frame: Image.Image) -> bytes:
    picture = on_white(frame, MAX_PICTURE_SIDE)
    if min(picture.size) < _MIN_PICTURE_SIDE:
        # Some models refuse what is smaller than their patches.
        room = Image.new(
            "RGB", (max(_MIN_PICTURE_SIDE, picture.width), max(_MIN_PICTURE_SIDE, picture.height)), "white"
        )
        room.paste(picture)
        picture = room
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=_QUALITY)
    return held.getvalue()
