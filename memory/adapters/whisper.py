"""Speech to text on this machine: a Whisper model on CTranslate2, by faster-whisper."""

import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from memory.errors import Misconfigured, Unavailable
from memory.ports import SAMPLES_A_SECOND, Look, Said, Samples, Transcriber, Transcript, unwatched

# Two recordings side by side, so that a short one need not wait for the end of a long one.
AT_ONCE = 2
# Surer than this, the language of one piece is that of the following ones.
_SURE = 0.6
# What a directory must hold, each under one of these names. Without its tokenizer the library would fetch another.
_FILES = (("model.bin",), ("config.json",), ("tokenizer.json",), ("vocabulary.json", "vocabulary.txt"))
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

    def transcribe(self, samples: Samples, language: str | None, look: Look = unwatched) -> Transcript:
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
            said: list[Said] = []
            # They are heard one after the other, as they are taken.
            for segment in segments:
                look()
                if text := segment.text.strip():
                    said.append(Said(float(segment.start), float(segment.end), text))
        except RuntimeError as error:
            raise Unavailable(f"the transcription engine failed: {error}"[:300]) from error
        is_sure = language is not None or float(info.language_probability) >= _SURE
        return Transcript(said=said, language=str(info.language) if said else None, is_sure=is_sure)

    def examine(self) -> None:
        """See Transcriber."""
        # Here, because it takes a second to import, which only a worker with recordings need pay.
        from faster_whisper.utils import available_models

        folder = self._directory()
        if folder is not None:
            missing = [" or ".join(names) for names in _FILES if not any((folder / name).is_file() for name in names)]
            if missing:
                raise Misconfigured(
                    f"TRANSCRIPTION_MODEL: {folder} holds no {', no '.join(missing)}, so no model of faster-whisper"
                )
        elif self._name not in available_models() and not _REPOSITORY.fullmatch(self._name):
            raise Misconfigured(
                f"TRANSCRIPTION_MODEL: there is no directory {self._name}, and no size of that name; "
                "sizes are tiny, base, small, medium, large-v3, turbo"
            )

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

    def _directory(self) -> Path | None:
        folder = Path(self._name).expanduser()
        return folder if folder.is_dir() else None

    def _folder(self) -> str:
        from faster_whisper.utils import download_model

        self.examine()
        folder = self._directory()
        if folder is not None:
            return str(folder)
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
            model = WhisperModel(
                folder,
                compute_type="int8",
                cpu_threads=max(1, math.ceil(threads / AT_ONCE)),
                num_workers=AT_ONCE,
                local_files_only=True,
            )
            _rehearse(model)
            return model
        except Exception as error:  # broken files of all kinds, each with an error of its own
            raise Misconfigured(f"the transcription model in {folder} cannot be loaded: {error}"[:300]) from error


def _rehearse(model: Any) -> None:
    """Has a second of silence transcribed: what is wrong with a model mostly shows when it is used."""
    from faster_whisper.feature_extractor import FeatureExtractor

    wanted = model.model.n_mels
    if model.feature_extractor.mel_filters.shape[0] != wanted:
        # Its preprocessor_config.json is missing, or another model's.
        model.feature_extractor = FeatureExtractor(feature_size=wanted)
    silence = np.zeros(SAMPLES_A_SECOND, dtype=np.float32)
    segments, _ = model.transcribe(silence, temperature=0.0, beam_size=1, max_new_tokens=4)
    list(segments)
