"""Names and types of files as strangers give them, made safe to keep, show and send back."""

import mimetypes
import re
import unicodedata

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
UNNAMED = "file"
BINARY = "application/octet-stream"

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,62}/[A-Za-z0-9][\w!#$&^.+-]{0,62}", re.ASCII)
# Marks that turn the reading direction can make `gpj.exe` look like `exe.jpg`.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_UNSHOWN = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})


def clean_filename(given: str | None) -> str:
    """The last part of a path, without control characters, at most 255 bytes with its ending kept; never empty."""
    last = unicodedata.normalize("NFC", given or "").replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(c for c in last if c not in _TURNING and unicodedata.category(c) not in _UNSHOWN).strip()
    return UNNAMED if shown in ("", ".", "..") else _fitting(shown)


def clean_path(given: str | None) -> str | None:
    """The name with the folders before it, each cleaned like a name; None when it names no folder, or too many."""
    parts = [part for part in (given or "").replace("\\", "/").split("/") if part.strip() not in ("", ".", "..")]
    path = "/".join(clean_filename(part) for part in parts)
    return path if len(parts) > 1 and len(path.encode()) <= MAX_PATH_BYTES else None


def clean_content_type(given: str | None, filename: str) -> str:
    """The given media type without parameters; where it says nothing, what the name's ending says."""
    bare = (given or "").split(";", 1)[0].strip().lower()
    if _MEDIA_TYPE.fullmatch(bare) and bare != BINARY:
        return bare
    return mimetypes.guess_type(filename, strict=False)[0] or BINARY


def _fitting(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > 32:
        stem, dot, ending = name, "", ""
    room = MAX_NAME_BYTES - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + ending
