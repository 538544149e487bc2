"""Speech to text on this machine: a Whisper model on CTranslate2, by faster-whisper."""

import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from memory.errors import Misconfigured, Unavailable
from memory.ports import Said, Samples, Transcriber, Transcript

# Two recordings side by side, so that a short one need not wait for the end of a long one.
AT_ONCE = 2
# Surer than this, the language of one piece is that of the following ones.
_SURE = 0.6
_MODEL_FILE = "model.bin"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class LocalTranscriber(Transcriber):
    """`model` is a directory, a size such as `small`, or a repository of the Hugging Face hub; the latter two are
    fetched once into `cache`. Loaded with the first recording; safe to use from many threads, never across a fork.
    """

    def __init__(self, *, model: str, cache: Path) -> None:
        self._name = model
        self._cache = cache
        self._loading = threading.Lock()
        self._loaded: Any = None

    @property
    def name(self) -> str:
        return self._name

    def transcribe(self, samples: Samples, language: str | None) -> Transcript:
        """See Transcriber. Raises Unavailable, Misconfigured."""
        sound = samples.astype(np.float32) / 32768
        try:
            segments, info = self._model().transcribe(
                sound,
                language=language,
                # Silence is left out before the model sees it: it is apt to hear something in it.
                vad_filter=True,
                # With it one wrong guess is repeated to the end.
                condition_on_previous_text=False,
            )
            said = [Said(float(s.start), float(s.end), s.text.strip()) for s in segments if s.text.strip()]
        except RuntimeError as error:
            raise Unavailable(f"the transcription engine failed: {error}"[:300]) from error
        is_sure = language is not None or float(info.language_probability) >= _SURE
        return Transcript(said=said, language=str(info.language) if said else None, is_sure=is_sure)

    def load(self) -> None:
        """Loads the model now. Raises Misconfigured when it cannot be, Unavailable when it cannot be fetched."""
        self._model()

    def close(self) -> None:
        """Forgets the model; transcriptions under way keep it until they are done."""
        with self._loading:
            self._loaded = None

    def _model(self) -> Any:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load(self._folder())
            return self._loaded

    def _folder(self) -> str:
        # Here, because it takes a second to import, which only a worker with recordings need pay.
        from faster_whisper.utils import available_models, download_model

        folder = Path(self._name).expanduser()
        if folder.is_dir():
            if not (folder / _MODEL_FILE).is_file():
                raise Misconfigured(
                    f"TRANSCRIPTION_MODEL: {folder} holds no {_MODEL_FILE}, so no model of faster-whisper"
                )
            return str(folder)
        if self._name not in available_models() and not _REPOSITORY.fullmatch(self._name):
            raise Misconfigured(
                f"TRANSCRIPTION_MODEL: there is no directory {self._name}, and no size of that name; "
                "sizes are tiny, base, small, medium, large-v3, turbo"
            )
        try:
            return str(download_model(self._name, cache_dir=str(self._cache), local_files_only=True))
        except OSError:
            pass  # not there yet
        try:
            return str(download_model(self._name, cache_dir=str(self._cache)))
        except Exception as error:  # the library wraps what its HTTP client raises, in changing ways
            raise Unavailable(
                f"the transcription model {self._name} cannot be fetched ({type(error).__name__}); "
                "without internet, set TRANSCRIPTION_MODEL to a directory that holds one"
            ) from error

    def _load(self, folder: str) -> Any:
        from faster_whisper import WhisperModel

        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            return WhisperModel(
                folder,
                compute_type="int8",
                cpu_threads=max(1, math.ceil(threads / AT_ONCE)),
                num_workers=AT_ONCE,
                local_files_only=True,
            )
        except Exception as error:  # broken files of all kinds, each with an error of its own
            raise Misconfigured(f"the transcription model in {folder} cannot be loaded: {error}"[:300]) from error
