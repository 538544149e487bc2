"""Recordings made here, and a Whisper model of two megabytes that always hears the same sentence."""

import io
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from ctranslate2 import specs
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

SENTENCE = "this is a scripted transcript"
SECONDS = 2.0
RATE = 16_000

Waves = NDArray[np.int16]

# Container and codec of each kind of recording, as PyAV calls them.
KINDS = {
    "wav": ("wav", "pcm_s16le"),
    "mp3": ("mp3", "mp3"),
    "m4a": ("ipod", "aac"),
    "ogg": ("ogg", "libopus"),
    "opus": ("opus", "libopus"),
    "flac": ("flac", "flac"),
    "webm": ("webm", "libopus"),
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "aac"),
    "aac": ("adts", "aac"),
    "3gp": ("3gp", "aac"),
    "amr": ("amr", "libopencore_amrnb"),
    "aiff": ("aiff", "pcm_s16be"),
    "mka": ("matroska", "libopus"),
}
# More of what lies about, with what its players call it.
RARER = {
    "wav of 24 bits": ("wav", "pcm_s24le"),
    "wav of floats": ("wav", "pcm_f32le"),
    "wav of 8 bits": ("wav", "pcm_u8"),
    "wav in A-law": ("wav", "pcm_alaw"),
    "wav in mu-law": ("wav", "pcm_mulaw"),
    "wav in ADPCM": ("wav", "adpcm_ms"),
    "wav of mp3": ("wav", "mp3"),
    "wav beyond 4 GB": ("w64", "pcm_s16le"),
    "m4a without loss": ("ipod", "alac"),
    "ogg vorbis": ("ogg", "vorbis"),
    "webm vorbis": ("webm", "vorbis"),
    "mkv": ("matroska", "aac"),
    "mkv of a DVD": ("matroska", "ac3"),
    "avi": ("avi", "mp3"),
    "wma": ("asf", "wmav2"),
    "amr in 3gp": ("3gp", "libopencore_amrnb"),
    "3g2": ("3g2", "aac"),
    "caf": ("caf", "pcm_s16be"),
    "au": ("au", "pcm_mulaw"),
    "mp2": ("mp2", "mp2"),
    "ts": ("mpegts", "aac"),
    "flv": ("flv", "aac"),
    "wavpack": ("wv", "wavpack"),
    "tta": ("tta", "tta"),
    "voc": ("voc", "pcm_u8"),
}
WITH_PICTURES = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx"}


def voice(seconds: float) -> Waves:
    """What a detector of speech takes for a voice: harmonics of a low tone that swell and move with the syllables."""
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formant = 700 + 300 * np.sin(2 * np.pi * 1.5 * time)
    tones = [np.exp(-(((n * pitch - formant) / 500) ** 2)) * np.sin(n * phase) for n in range(1, 25)]
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 3.5 * time)
    wave = np.sum(tones, axis=0) * syllables
    result: Waves = (12_000 * wave / np.abs(wave).max()).astype(np.int16)
    return result


def silence(seconds: float) -> Waves:
    return np.zeros(int(seconds * RATE), dtype=np.int16)


def recording(
    kind: str,
    *tracks: Waves,
    pictures: bool = False,
    rate: int | None = None,
    layout: str = "mono",
    starts: float = 0.0,
) -> bytes:
    """The waves in a file of that kind, one after the other as tracks of their own; the sound `starts` so late."""
    container_format, codec = (KINDS | RARER)[kind]
    rate = rate or {"libopus": 48_000, "libopencore_amrnb": 8_000, "ac3": 48_000, "wmav2": 44_100}.get(codec, RATE)
    layout = "stereo" if codec == "vorbis" else layout
    held = io.BytesIO()
    with av.open(held, "w", format=container_format) as container:
        video: Any = _video(container, WITH_PICTURES[kind]) if pictures else None
        streams: list[Any] = [container.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for stream in streams:
            stream.bit_rate = 64_000
            stream.codec_context.options = {"strict": "experimental"}
        if video is not None:
            _film(container, video)
        for stream, waves in zip(streams, tracks, strict=True):
            _spoken(container, stream, waves, starts)
    return held.getvalue()


def _spoken(container: Any, stream: Any, waves: Waves, starts: float) -> None:
    resampler = av.AudioResampler(
        format=stream.format, layout=stream.layout, rate=stream.rate, frame_size=stream.frame_size or 0
    )
    frame = av.AudioFrame.from_ndarray(waves.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = RATE
    frame.time_base = Fraction(1, RATE)
    frame.pts = round(starts * RATE)
    for part in (frame, None):
        for made in resampler.resample(part):
            container.mux(stream.encode(made))
    container.mux(stream.encode(None))


def silent_film(kind: str = "mp4") -> bytes:
    """Pictures without a sound track."""
    held = io.BytesIO()
    with av.open(held, "w", format=KINDS[kind][0]) as container:
        _film(container, _video(container, WITH_PICTURES[kind]))
    return held.getvalue()


def _video(container: Any, codec: str) -> Any:
    stream = container.add_stream(codec, rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    return stream


def _film(container: Any, stream: Any) -> None:
    for number in range(5):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, dtype=np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def whisper_model(folder: Path, *, mels: int = 80) -> Path:
    """Writes a model that hears SENTENCE in whatever is said, from 0.0 to 2.0 seconds.

    Every layer passes its input on unchanged, so each token depends on the one before it alone: the projection prefers
    the token that follows in the script.
    """
    tokens, script = _vocabulary()
    width = 64
    spec = specs.WhisperSpec(1, 1, 1, 1)
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(len(tokens), width)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    projection = np.zeros_like(embeddings)
    for before, after in pairwise(script):
        projection[tokens[after]] += _normalised(embeddings[tokens[before]])
    _fill(spec, width, mels, embeddings, projection)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = []
    spec.config.alignment_heads = []
    spec.register_vocabulary(list(tokens))
    spec.validate()
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(tokens)))
    return folder


def _fill(spec: Any, width: int, mels: int, embeddings: NDArray[np.float32], projection: NDArray[np.float32]) -> None:
    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = _zeros(width, mels, 3), _zeros(width)
    encoder.conv2.weight, encoder.conv2.bias = _zeros(width, width, 3), _zeros(width)
    encoder.position_encodings.encodings = _zeros(1500, width)
    decoder.position_encodings.encodings = _zeros(448, width)
    decoder.embeddings.weight = embeddings
    decoder.projection.weight = projection
    for norm in (encoder.layer_norm, decoder.layer_norm):
        norm.gamma, norm.beta = np.ones(width, dtype=np.float32), _zeros(width)
    for layer in (*encoder.layer, *decoder.layer):
        attentions = [layer.self_attention, *([layer.attention] if hasattr(layer, "attention") else [])]
        for attention in attentions:
            attention.layer_norm.gamma, attention.layer_norm.beta = np.ones(width, dtype=np.float32), _zeros(width)
            shares = (3, 1) if attention is layer.self_attention else (1, 2, 1)
            for linear, share in zip(attention.linear, shares, strict=True):
                linear.weight, linear.bias = _zeros(share * width, width), _zeros(share * width)
        layer.ffn.layer_norm.gamma, layer.ffn.layer_norm.beta = np.ones(width, dtype=np.float32), _zeros(width)
        layer.ffn.linear_0.weight, layer.ffn.linear_0.bias = _zeros(4 * width, width), _zeros(4 * width)
        layer.ffn.linear_1.weight, layer.ffn.linear_1.bias = _zeros(width, 4 * width), _zeros(width)


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, dtype=np.float32)


def _normalised(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = vector - vector.mean()
    result: NDArray[np.float32] = (centred / centred.std()).astype(np.float32)
    return result


def _vocabulary() -> tuple[dict[str, int], list[str]]:
    """Tokens in the order of the English models, and the script that each token leads through."""
    words = [f"Ġ{word}" for word in SENTENCE.split()]
    special = "endoftext startoftranscript en translate transcribe startoflm startofprev nocaptions notimestamps"
    times = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    # What the engine looks up to leave it out.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *words, *(f"<|{name}|>" for name in special.split()), *times]
    tokens = {name: number for number, name in enumerate(names)}
    end = f"<|{SECONDS:.2f}|>"
    return tokens, ["<|startoftranscript|>", "<|0.00|>", *words, end, "<|endoftext|>"]


def _tokenizer(tokens: dict[str, int]) -> dict[str, Any]:
    added = [
        {"id": number, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for name, number in tokens.items()
        if name.startswith("<|")
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {name: number for name, number in tokens.items() if not name.startswith("<|")},
            "merges": [],
        },
    }
