"""What a reader does where a picture stands instead of text: read it here, leave it to the OCR process, or leave it."""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image

from memory.adapters import ocr

# Beyond this side an engine only becomes slower.
MAX_SIDE = 4_000


class NeedsOcr(Exception):
    """The file holds pictures of text; the process that has the OCR engine must read it."""


class Ocr(Protocol):
    """Reads pictures within one file."""

    @property
    def why_not(self) -> str:
        """Why a picture was not read, to go into a note."""
        ...

    def text_on(self, picture: Callable[[], Image.Image], /) -> str | None:
        """The text, empty when there is none; None when it is not read. `picture` is called only to be read."""
        ...


class OcrOff:
    """No picture is read."""

    why_not = "OCR is off"

    def text_on(self, _picture: Callable[[], Image.Image], /) -> str | None:
        return None


class OcrElsewhere:
    """Stops at the first picture."""

    why_not = "OCR is elsewhere"

    def text_on(self, _picture: Callable[[], Image.Image], /) -> str | None:
        raise NeedsOcr


class OcrHere:
    """Reads pictures until the time for one file is used up."""

    def __init__(self, engine: ocr.Engine, seconds: float) -> None:
        self._engine = engine
        self._deadline = time.monotonic() + seconds
        self.why_not = f"only {seconds:.0f} seconds of OCR are spent on one file"

    def text_on(self, picture: Callable[[], Image.Image], /) -> str | None:
        if time.monotonic() > self._deadline:
            return None
        return self._engine.read(on_white(picture(), MAX_SIDE))


def on_white(image: Image.Image, max_side: int) -> Image.Image:
    """RGB of a bounded size; what is transparent is white, as text there is mostly dark."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = _in_eight_bits(image)
    elif image.mode not in ("RGB", "RGBA", "L"):
        # Scaled in a palette, colours would be mixed with their neighbours in the table.
        image = image.convert("RGBA" if _is_transparent(image) else "RGB")
    if max(image.size) > max_side:
        image.thumbnail((max_side, max_side))
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        image = white
    return image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, spread over what eight can tell apart; the library would cut it off."""
    grey = np.asarray(image, dtype=np.float32)
    low, high = float(grey.min()), float(grey.max())
    spread = (grey - low) * (255 / (high - low)) if high > low else np.full_like(grey, 255 if low > 0 else 0)
    return Image.fromarray(spread.astype(np.uint8))
