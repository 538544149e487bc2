"""Recordings: what container it is, by its first bytes; and the sound in it, decoded piece by piece."""

import re
from codecs import BOM_UTF16_LE
from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import av.error

from memory.errors import RejectedFile
from memory.ports import SAMPLES_A_SECOND

# A stream in which nothing but this many packets in a row can be decoded is no sound.
_MAX_BROKEN = 2_000
# Less is how formats count; more is a clock that was set while it ran.
_GAP_SECONDS = 0.2
_JUMP_SECONDS = 3_600.0
_SILENT_SAMPLES = 65_536

_STARTS = (
    (b"fLaC\x00\x00\x00\x22", "audio/flac"),
    (b"fLaC\x80\x00\x00\x22", "audio/flac"),
    (b"#!AMR-WB\n", "audio/amr-wb"),
    (b"#!AMR\n", "audio/amr"),
    (b"caff\x00\x01", "audio/x-caf"),
    (b".snd\x00\x00\x00", "audio/basic"),
    (b"wvpk", "audio/x-wavpack"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"TTA1", "audio/x-tta"),
    (b"Creative Voice File\x1a", "audio/x-voc"),
    (b"riff\x2e\x91\xcf\x11", "audio/wav"),
)
_FTYP = {b"M4A ": "audio/mp4", b"M4B ": "audio/mp4", b"qt  ": "video/quicktime"}
_HAS_VIDEO = re.compile(rb"hdlr.{8}vide", re.S)
_VIDEO_TRACK = re.compile(rb"V_(?:VP|AV1|MPEG|MS|THEORA|UNCOMPRESSED|FFV1)")
_SOUND_TRACK = re.compile(rb"A_(?:OPUS|VORBIS|AAC|FLAC|MPEG|AC3|EAC3|DTS|PCM|ALAC|MS)")
_HAS_SOUND = re.compile(rb"hdlr.{8}soun", re.S)
_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_OGG = ((b"OpusHead", "audio/ogg"), (b"theora", "video/ogg"), (b"vorbis", "audio/ogg"), (b"Speex", "audio/ogg"))

_MP3_KBPS = {
    (3, 3): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def recording_type(data: bytes) -> str | None:
    """The media type of a recording; None when it is none."""
    for start, media_type in _STARTS:
        if data.startswith(start):
            return media_type
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] in (b"WAVE", b"AVI "):
        return "audio/wav" if data[8:12] == b"WAVE" else "video/x-msvideo"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if data[:5] == b"OggS\x00":
        return next((media_type for codec, media_type in _OGG if codec in data[:256]), "audio/ogg")
    if data[:4] == b"\x1aE\xdf\xa3":
        return _matroska(data[:65_536])
    return _boxes(data) or _frames(data)


def _matroska(head: bytes) -> str:
    kind = "webm" if b"webm" in head[:128] else "x-matroska"
    return f"video/{kind}" if _VIDEO_TRACK.search(head) or not _SOUND_TRACK.search(head) else f"audio/{kind}"


def _boxes(data: bytes) -> str | None:
    """MP4 and its family; pictures are kept in the same container and are looked for before."""
    name, brand = data[4:8], data[8:12]
    if name == b"ftyp":
        if brand in _FTYP:
            return _FTYP[brand]
        medium = "audio" if _HAS_SOUND.search(data) and not _HAS_VIDEO.search(data) else "video"
        return f"{medium}/3gpp" if brand.startswith((b"3gp", b"3g2")) else f"{medium}/mp4"
    size = int.from_bytes(data[:4], "big")
    is_quicktime = name in _QUICKTIME and size >= 8 and (b"moov" in data or b"mdat" in data)
    return "video/quicktime" if is_quicktime else None


def _frames(data: bytes) -> str | None:
    """Formats without a beginning of their own: several frames in a row tell them."""
    start = 0
    if data.startswith(b"ID3") and len(data) > 10 and data[3] in (2, 3, 4):
        start = 10 + ((data[6] & 0x7F) << 21 | (data[7] & 0x7F) << 14 | (data[8] & 0x7F) << 7 | data[9] & 0x7F)
        if data[5] & 0x10:
            start += 10
        if data[start : start + 4] == b"fLaC":
            return "audio/flac"
        return "audio/aac" if _in_a_row(data, start, _adts_length) else "audio/mpeg"
    # The mark of UTF-16 looks like a frame of a layer that nobody uses, with a checksum that nobody wrote.
    if not data.startswith(BOM_UTF16_LE) and _in_a_row(data, start, _mp3_length):
        return "audio/mpeg"
    if _in_a_row(data, start, _adts_length):
        return "audio/aac"
    if len(data) > 3 * 188 and all(data[n * 188] == 0x47 for n in range(min(5, len(data) // 188))):
        return "video/mp2t"
    return None


def _in_a_row(data: bytes, position: int, length: Any) -> bool:
    for number in range(3):
        size = length(data[position : position + 7])
        if size < 1:
            # A recording may be that short.
            return number > 0 and position == len(data)
        position += size
    return position <= len(data) + 7


def _mp3_length(header: bytes) -> int:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate, hertz = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 0 or rate in (0, 15) or hertz == 3:
        return 0
    kbps = _MP3_KBPS[(3 if version == 3 else 2, layer if version == 3 or layer == 3 else 2)][rate]
    frequency, padding = _MP3_HERTZ[version][hertz], header[2] >> 1 & 1
    if layer == 3:
        return int((12_000 * kbps // frequency + padding) * 4)
    return int((144_000 if version == 3 or layer == 2 else 72_000) * kbps // frequency + padding)


def _adts_length(header: bytes) -> int:
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else 0


def decoded(source: BinaryIO, max_samples: int) -> Iterator[bytes]:
    """One sound track as 16-bit samples of one channel, a little more than `max_samples` where there are more: the one
    that a player would choose. What is missing in it is silent, so that times are those of the recording.

    Nothing at all when there is no sound. Raises RejectedFile when nothing of it can be decoded.
    """
    try:
        with av.open(source, mode="r", metadata_errors="ignore") as container:
            stream = container.streams.best("audio")
            if stream is None:
                return
            track = _Track(container, stream)
            given = 0
            for piece in track.samples(max_samples):
                given += len(piece) // 2
                yield piece
                if given > max_samples:
                    return
    except (av.error.FFmpegError, IndexError, ValueError, EOFError) as error:
        raise RejectedFile(f"it is damaged: its sound cannot be decoded ({type(error).__name__})") from error
    if not given and track.broken:
        raise RejectedFile("it is damaged: its sound cannot be decoded")


class _Track:
    """A sound track while it is decoded; `broken` counts what of it could not be."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container = container
        self._stream = stream
        self.broken = 0

    def samples(self, most: int) -> Iterator[bytes]:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLES_A_SECOND)
        seconds = (self._container.start_time or 0) / av.time_base
        for frame in self._frames():
            missing = 0.0 if frame.time is None else frame.time - seconds
            if _GAP_SECONDS < missing < _JUMP_SECONDS:
                silent = min(round(missing * SAMPLES_A_SECOND), most)
                yield from (bytes(2 * _SILENT_SAMPLES) for _ in range(silent // _SILENT_SAMPLES))
                yield bytes(2 * (silent % _SILENT_SAMPLES))
                seconds += missing
            seconds += frame.samples / frame.sample_rate
            frame.pts = None  # the resampler would fill gaps in ways of its own
            for made in resampler.resample(frame):
                yield _bytes(made)
        for made in resampler.resample(None):
            yield _bytes(made)

    def _frames(self) -> Iterator[Any]:
        """Those that can be decoded: damage in the middle costs what is damaged."""
        in_a_row = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.error.FFmpegError:
                self.broken += 1
                in_a_row += 1
                if in_a_row > _MAX_BROKEN:
                    return
                continue
            if frames:
                in_a_row = 0
            yield from frames


def _bytes(frame: Any) -> bytes:
    return bytes(frame.to_ndarray().astype("<i2").tobytes())
