"""Where originals are kept, through `obstore`: what all places have in common, and a folder of this machine."""

import hmac
import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlencode

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from memory.adapters.incoming import Incoming, left, over
from memory.errors import AppError, Forbidden, Invalid, Misconfigured, NotFound, Unavailable
from memory.ports import ListedObject, ObjectStore, StoredObject

if TYPE_CHECKING:
    # Known to type checkers only.
    from obstore import GetResult

_BLOCK_BYTES = 1024 * 1024
# The next one is read meanwhile: a larger file takes the memory of two.
_PARTS_AT_ONCE = 1
_PAGE = 1000
_KEY = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._~=-]+(?:/[A-Za-z0-9._~=-]+)+", re.ASCII)
_LONGEST_KEY = 512
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
AWAY = "the object store does not answer"
REFUSED = "the object store refuses access; check S3_ACCESS_KEY and S3_SECRET_KEY, or their permissions"


class StoredObjects(ObjectStore):
    """What both places have in common. Reading never holds more than a block, except in `get`."""

    @property
    def _store(self) -> LocalStore | S3Store:
        raise NotImplementedError

    def put(self, key: str, source: BinaryIO, *, max_bytes: int) -> StoredObject:
        """Streams `source` in; it is there whole or not at all. Raises TooLarge, Unavailable, Misconfigured."""
        path = checked_key(key)
        size = left(source) if source.seekable() else None
        if size is not None and size > max_bytes:
            raise over(max_bytes)
        incoming = Incoming(source, max_bytes)
        with self._trouble():
            self._send(path, incoming, size)
        return incoming.stored()

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound, Unavailable."""
        with self._trouble():
            return bytes(obstore.get(self._store, checked_key(key)).bytes())

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces of at most 1 MiB. Raises NotFound at once, Unavailable."""
        with self._trouble():
            found = obstore.get(self._store, checked_key(key))
        return self._pieces(found)

    def download(self, key: str, to: Path) -> None:
        """Writes the object to a local file; a part of it never stays. Raises NotFound, Unavailable."""
        pieces = self.stream(key)
        try:
            with to.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
        except BaseException:
            to.unlink(missing_ok=True)
            raise

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; one that is missing already is fine. Raises Unavailable."""
        paths = [checked_key(key) for key in keys]
        if paths:
            with self._trouble():
                self._remove(paths)

    def listed(self, prefix: str) -> Iterator[Sequence[ListedObject]]:
        """All that lies under a prefix, in pages. Raises Unavailable."""
        with self._trouble():
            for page in obstore.list(self._store, prefix, chunk_size=_PAGE):
                yield [ListedObject(one["path"], one["size"], one["last_modified"]) for one in page]

    def discard(self, keys: Sequence[str]) -> None:
        """Removes what was listed. Raises Unavailable."""
        with self._trouble():
            obstore.delete(self._store, list(keys))

    def size(self, key: str) -> int:
        """Raises NotFound, Unavailable."""
        with self._trouble():
            return obstore.head(self._store, checked_key(key))["size"]

    def copy(self, key: str, to: str) -> None:
        """Another object of the same bytes: what is put under `key` later does not reach it. Raises NotFound."""
        with self._trouble():
            obstore.copy(self._store, checked_key(key), checked_key(to))

    def _send(self, path: str, incoming: Incoming, size: int | None) -> None:
        raise NotImplementedError

    def _remove(self, paths: list[str]) -> None:
        obstore.delete(self._store, paths)

    def _pieces(self, found: "GetResult") -> Iterator[bytes]:
        with self._trouble():
            for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                whole = memoryview(block)
                for start in range(0, len(whole), _BLOCK_BYTES):
                    yield bytes(whole[start : start + _BLOCK_BYTES])

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self._missing() from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise Misconfigured(REFUSED) from error
        except BaseError as error:
            raise self._unclear() from error

    def _missing(self) -> AppError:
        return NotFound("no such file")

    def _unclear(self) -> AppError:
        return Unavailable(AWAY)


class LocalObjects(StoredObjects):
    """A folder, made when it is missing. Links lead to our own API, which asks `verify` before it serves."""

    def __init__(self, *, folder: Path, base_url: str, signing_key: bytes) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"files cannot be kept in {folder} ({error.strerror}); REMEMBEROS_DATA must name a writable folder"
            ) from error
        self._local = LocalStore(folder, automatic_cleanup=True)
        self._folder = folder
        self._base_url = base_url.rstrip("/")
        self._signing_key = signing_key

    @property
    def _store(self) -> LocalStore:
        return self._local

    def url(self, key: str, *, filename: str, content_type: str, seconds: int) -> str:
        """A link to `GET /v1/memory/files/{key}` that stops working after `seconds`."""
        expires = int(time.time()) + seconds
        query = urlencode(
            {
                "filename": filename,
                "type": content_type,
                "expires": expires,
                "signature": self._signature("GET", checked_key(key), filename, content_type, expires),
            },
            quote_via=quote,
        )
        return f"{self._base_url}/v1/memory/files/{quote(key)}?{query}"

    def listed(self, prefix: str) -> Iterator[Sequence[ListedObject]]:
        """All that lies under a prefix, in pages, with the parts of uploads that broke off, which `obstore` hides."""
        found = (
            Path(folder) / name for folder, _, names in os.walk(self._folder / prefix.rstrip("/")) for name in names
        )
        while page := list(itertools.islice(found, _PAGE)):
            yield [one for path in page if (one := self._listed(path)) is not None]

    def _listed(self, path: Path) -> ListedObject | None:
        try:
            seen = path.stat()
        except FileNotFoundError:
            return None
        key = path.relative_to(self._folder).as_posix()
        return ListedObject(key, seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC))

    def discard(self, keys: Sequence[str]) -> None:
        """Removes what was listed."""
        for key in keys:
            (self._folder / key).unlink(missing_ok=True)

    def verify(self, key: str, *, filename: str, content_type: str, expires: int, signature: str) -> None:
        """Lets a link pass that `url` made and that has not expired. Raises NotFound, whatever is wrong."""
        if not self._is_signed(signature, expires, "GET", key, filename, content_type, expires):
            raise NotFound("no such file, or the link has expired")

    def path(self, key: str) -> Path:
        """Where an object lies, whose link was verified. Raises NotFound."""
        path = self._folder / checked_key(key)
        if not path.is_file():
            raise NotFound("no such file, or the link has expired")
        return path

    def upload_url(self, key: str, *, content_type: str, size: int, seconds: int) -> str:
        """A link to `PUT /v1/memory/files/{key}`, which asks `verify_upload`."""
        expires = int(time.time()) + seconds
        signature = self._signature("PUT", checked_key(key), content_type, size, expires)
        query = urlencode({"type": content_type, "size": size, "expires": expires, "signature": signature})
        return f"{self._base_url}/v1/memory/files/{quote(key)}?{query}"

    def verify_upload(self, key: str, *, content_type: str, size: int, expires: int, signature: str) -> None:
        """Lets a link pass that `upload_url` made and that has not expired. Raises Forbidden, whatever is wrong."""
        if not self._is_signed(signature, expires, "PUT", key, content_type, size, expires):
            raise Forbidden("this link was not made for this upload, or it has expired")

    def _send(self, path: str, incoming: Incoming, size: int | None) -> None:
        is_large = size is not None and size >= _BLOCK_BYTES
        # Of what is known to be large nothing is held beyond the part that is sent.
        first = bytearray() if is_large else incoming.up_to(_BLOCK_BYTES)
        if not is_large and len(first) < _BLOCK_BYTES:
            obstore.put(self._store, path, first, use_multipart=False)
            return
        obstore.put(
            self._store,
            path,
            incoming.after(first),
            use_multipart=True,
            chunk_size=_BLOCK_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )

    def _remove(self, paths: list[str]) -> None:
        # A folder's bulk delete ends at the first one that is missing.
        for path in paths:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, path)

    def _is_signed(self, signature: str, expires: int, *said: str | int) -> bool:
        expected = self._signature(*said)
        return hmac.compare_digest(expected.encode(), signature.encode(errors="replace")) and time.time() < expires

    def _signature(self, *said: str | int) -> str:
        # JSON keeps the parts apart: no two links have the same message.
        message = json.dumps(said).encode()
        return hmac.digest(self._signing_key, message, "sha256").hex()


def checked_key(key: str) -> str:
    """`key` itself, if it is one that the house could have made. Raises Invalid."""
    if len(key) > _LONGEST_KEY or not _KEY.fullmatch(key):
        raise Invalid("not the key of a stored file")
    return key


def attachment(filename: str) -> str:
    """A Content-Disposition that downloads under `filename`, in every browser and without breaking the header."""
    plain = re.sub(r"[^\w .()+-]", "_", filename, flags=re.ASCII) or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def media_type(content_type: str) -> str:
    """`content_type` if it is a bare media type, else the type of unknown bytes."""
    return content_type if _MEDIA_TYPE.fullmatch(content_type) else "application/octet-stream"
