"""What is written on a picture: tesseract as a subprocess, or rapidocr, whose models lie in its wheel."""

import io
import re
import shutil
import subprocess
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from memory.errors import Misconfigured

_MAX_LANGUAGES = 6
_NO_LANGUAGES = frozenset({"osd", "equ", "snum"})


class Engine(Protocol):
    """Reads text off a picture."""

    def read(self, image: Image.Image) -> str:
        """The lines in reading order; empty when there is no text. Takes RGB."""
        ...


def choose(setting: str) -> str:
    """The engine that the setting `OCR_ENGINE` means on this machine: tesseract, rapidocr or off. Raises
    Misconfigured when the one it names is not installed.
    """
    installed = {"tesseract": shutil.which("tesseract") is not None, "rapidocr": find_spec("rapidocr") is not None}
    if setting == "auto":
        return next((name for name, is_there in installed.items() if is_there), "off")
    if not installed.get(setting, True):
        raise Misconfigured(f"OCR_ENGINE is {setting}, which is not installed; set it to auto or off, or install it")
    return setting


def load(engine: str) -> Engine | None:
    """The engine by its name, ready to read; None for `off`.

    This is the one place where an engine is loaded: rapidocr takes seconds and some 350 MB, so it is called in the
    warm process, and every child that is forked from it finds the engine ready.
    """
    if engine == "tesseract":
        return Tesseract()
    if engine == "rapidocr":
        return Rapid()
    return None


class Tesseract:
    """The tesseract command, with every language that is installed."""

    def __init__(self) -> None:
        self._command = shutil.which("tesseract") or "tesseract"
        listed = subprocess.run([self._command, "--list-langs"], capture_output=True, check=True, text=True)  # noqa: S603
        installed = listed.stdout.splitlines()[1:]
        languages = [name for name in installed if name not in _NO_LANGUAGES and "/" not in name]
        # English first: the first language decides doubts. Without the orientation data, --psm 1 is an error.
        languages.sort(key=lambda name: name != "eng")
        self._options = ["--psm", "1" if "osd" in installed else "3"]
        if languages:
            self._options += ["-l", "+".join(languages[:_MAX_LANGUAGES])]

    def read(self, image: Image.Image) -> str:
        png = io.BytesIO()
        image.save(png, "PNG", compress_level=1)
        command = [self._command, "stdin", "stdout", *self._options]
        done = subprocess.run(command, input=png.getvalue(), capture_output=True, check=False)  # noqa: S603
        # It also fails on pictures that are too small or empty to hold text.
        text = done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else ""
        return _without_specks(text)


class Rapid:
    """rapidocr on one thread: with more, an engine that was loaded before a fork would not run after it."""

    def __init__(self) -> None:
        # They take seconds to import and are needed only where this engine is.
        import cv2
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)
        self._engine: Any = RapidOCR(
            params={
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Global.log_level": "critical",
            }
        )
        # The models are loaded at the first reading.
        self.read(specimen())

    def read(self, image: Image.Image) -> str:
        result = self._engine(np.asarray(image)[:, :, ::-1])
        if result is None or result.txts is None or result.boxes is None:
            return ""
        return _without_specks(_in_lines(result.boxes, result.txts))


def specimen() -> Image.Image:
    image = Image.new("RGB", (320, 80), "white")
    ImageDraw.Draw(image).text((20, 20), "Specimen 123", fill="black", font=ImageFont.load_default(size=32))
    return image


def _in_lines(boxes: Any, texts: tuple[str, ...]) -> str:
    """Puts boxes that stand side by side onto one line; the engine gives them from top to bottom."""
    lines: list[list[tuple[float, float, float, str]]] = []
    for box, text in zip(boxes, texts, strict=True):
        left, top, bottom = float(box[:, 0].min()), float(box[:, 1].min()), float(box[:, 1].max())
        if lines:
            _, line_top, line_bottom, _ = lines[-1][-1]
            shared = min(bottom, line_bottom) - max(top, line_top)
            if shared > 0.6 * min(bottom - top, line_bottom - line_top):
                lines[-1].append((left, top, bottom, text))
                continue
        lines.append([(left, top, bottom, text)])
    return "\n".join(" ".join(text for *_, text in sorted(line)) for line in lines)


def _without_specks(text: str) -> str:
    """Drops lines without a letter or digit, which are what engines make of dirt and rules."""
    lines = [line.strip() for line in text.replace("\x0c", "\n").splitlines()]
    kept = [line if not line or re.search(r"[^\W_]", line) else "" for line in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
