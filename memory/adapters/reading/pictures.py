"""Pictures: what is written on them, frame by frame."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pi_heif
from PIL import Image, ImageOps, ImageSequence

from memory.adapters.reading.collector import Collector
from memory.adapters.reading.scans import Ocr
from memory.errors import RejectedFile

MAX_PIXELS = 40_000_000
MAX_FRAMES = 100
TOO_LARGE = f"kept; not read, as it has more than {MAX_PIXELS // 1_000_000} million pixels; found by its name"

# We check the size ourselves; but of formats that take their room when they are opened the library must, at twice this.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
Image.init()
pi_heif.register_heif_opener()


def read_picture(data: bytes, found: Collector, ocr: Ocr) -> None:
    """The frames of a scanned TIFF are its pages; of an animation only the first frame is read."""
    try:
        _read_frames(data, found, ocr)
    except Image.DecompressionBombError:
        found.note(TOO_LARGE)


def _read_frames(data: bytes, found: Collector, ocr: Ocr) -> None:
    with _opened(data) as image:
        if image.width * image.height > MAX_PIXELS:
            found.note(TOO_LARGE)
            return
        found.awaits = "caption"
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        for number, frame in enumerate(ImageSequence.Iterator(image), 1):
            if frame.width * frame.height > MAX_PIXELS or number > MAX_FRAMES:
                found.note(f"only the pages before page {number} were read")
                break
            text = ocr.text_on(partial(_upright, frame))
            if text is None:
                found.note(f"not read from page {number} on: {ocr.why_not}" if number > 1 else _unread(ocr))
                break
            if pages == 1:
                found.text(text)
                break
            found.text(text, page=number)


def first_frame(data: bytes) -> Image.Image:
    """The picture, or its first frame, the right way up. Raises RejectedFile."""
    try:
        with _opened(data) as image:
            if image.width * image.height <= MAX_PIXELS:
                return _upright(image)
    except Image.DecompressionBombError:
        pass
    raise RejectedFile(TOO_LARGE)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise RejectedFile("it is damaged: the picture cannot be decoded") from error


def _upright(frame: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(frame)


def _unread(ocr: Ocr) -> str:
    return f"kept; its text was not read ({ocr.why_not}), found by its name"
