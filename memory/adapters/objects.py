"""Where originals are kept: a folder of this machine, or a bucket that speaks S3; both through `obstore`."""

import hmac
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlencode

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store
from pydantic import SecretStr

from memory.adapters.buckets import USUAL_REGION, Addressing, address, region_of
from memory.adapters.incoming import Incoming, left, over
from memory.adapters.presign import presigned
from memory.errors import AppError, Forbidden, Invalid, Misconfigured, NotFound, Unavailable
from memory.ports import ListedObject, ObjectStore, StoredObject

if TYPE_CHECKING:
    # Known to type checkers only.
    from obstore import GetResult

_BLOCK_BYTES = 1024 * 1024
# S3's smallest part; what is smaller goes in one request.
_S3_PART_BYTES = 5 * 1024 * 1024
# The next one is read meanwhile: a larger file takes the memory of two.
_PARTS_AT_ONCE = 1
_PAGE = 1000
_KEY = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._~=-]+(?:/[A-Za-z0-9._~=-]+)+", re.ASCII)
_LONGEST_KEY = 512
_AUTO = "auto"
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)


class _Objects(ObjectStore):
    """What both places have in common. Memory stays bounded whatever the size of an object, except in `get`."""

    _part_bytes = _S3_PART_BYTES

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
        is_large = size is not None and size >= self._part_bytes
        # Of what is known to be large nothing is held beyond the part that is sent.
        first = b"" if is_large else incoming.up_to(self._part_bytes)
        with self._trouble(missing=Misconfigured("the bucket named by S3_BUCKET does not exist")):
            if is_large or len(first) >= self._part_bytes:
                self._put_in_parts(path, incoming.after(first), is_at_hand=size is not None)
            else:
                obstore.put(self._store, path, first, use_multipart=False)
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

    def _put_in_parts(self, path: str, source: Iterator[bytes], *, is_at_hand: bool) -> None:  # noqa: ARG002
        self._send_in_parts(path, source)

    def _send_in_parts(self, path: str, source: Iterator[bytes] | BinaryIO) -> None:
        obstore.put(
            self._store,
            path,
            source,
            use_multipart=True,
            chunk_size=self._part_bytes,
            max_concurrency=_PARTS_AT_ONCE,
        )

    def _remove(self, paths: list[str]) -> None:
        obstore.delete(self._store, paths)

    def _pieces(self, found: "GetResult") -> Iterator[bytes]:
        with self._trouble():
            for block in found.stream(min_chunk_size=_BLOCK_BYTES):
                whole = memoryview(block)
                for start in range(0, len(whole), _BLOCK_BYTES):
                    yield bytes(whole[start : start + _BLOCK_BYTES])

    @contextmanager
    def _trouble(self, missing: AppError | None = None) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing or NotFound("no such file") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise Misconfigured("the object store refuses access; check its credentials or permissions") from error
        except BaseError as error:
            raise Unavailable("the object store does not answer") from error


class LocalObjects(_Objects):
    """A folder, made when it is missing. Links lead to our own API, which asks `verify` before it serves."""

    _part_bytes = _BLOCK_BYTES

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


class S3Objects(_Objects):
    """A bucket of any store that speaks S3. Links lead straight to the store.

    The region `auto` is what the store names when it is first asked for something.
    """

    def __init__(
        self,
        *,
        bucket: str,
        endpoint_url: str | None,
        region: str,
        access_key: SecretStr | None,
        secret_key: SecretStr | None,
        addressing: Addressing = "path",
    ) -> None:
        if access_key is None or secret_key is None:
            raise Misconfigured("S3_BUCKET is set, so S3_ACCESS_KEY and S3_SECRET_KEY must be set too")
        aws = f"https://s3.{USUAL_REGION if region == _AUTO else region}.amazonaws.com"
        self._bucket, self._addressing = bucket, addressing
        self._base = address((endpoint_url or aws).rstrip("/"), bucket, addressing)
        self._access_key, self._secret_key = access_key, secret_key
        self._lock = threading.Lock()
        self._known_region = None if region == _AUTO else region
        self._connected: S3Store | None = None

    @property
    def _region(self) -> str:
        if self._known_region is None:
            self._known_region = region_of(self._base)
        # Until it answers, whatever is signed is of no use anyway.
        return self._known_region or USUAL_REGION

    @property
    def _store(self) -> S3Store:
        with self._lock:
            if self._connected is None:
                store = self._connect(self._region)
                if self._known_region is None:
                    return store
                self._connected = store
            return self._connected

    def _connect(self, region: str) -> S3Store:
        is_virtual = self._addressing == "virtual"
        return S3Store(
            self._bucket,
            endpoint=self._base if is_virtual else self._base.rpartition("/")[0],
            region=region,
            access_key_id=self._access_key.get_secret_value(),
            secret_access_key=self._secret_key.get_secret_value(),
            virtual_hosted_style_request=is_virtual,
            client_options={
                "allow_http": self._base.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=20),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=30)},
        )

    def url(self, key: str, *, filename: str, content_type: str, seconds: int) -> str:
        """A presigned GET that downloads as `filename` and stops working after `seconds` (at most a week)."""
        return presigned(
            "GET",
            self._address(key),
            region=self._region,
            access_key=self._access_key.get_secret_value(),
            secret_key=self._secret_key.get_secret_value(),
            seconds=seconds,
            answer_headers={
                "response-content-disposition": attachment(filename),
                "response-content-type": media_type(content_type),
            },
        )

    def upload_url(self, key: str, *, content_type: str, size: int, seconds: int) -> str:
        """A presigned PUT; type and length are part of what is signed."""
        return presigned(
            "PUT",
            self._address(key),
            region=self._region,
            access_key=self._access_key.get_secret_value(),
            secret_key=self._secret_key.get_secret_value(),
            seconds=seconds,
            headers={"Content-Type": content_type, "Content-Length": str(size)},
        )

    def _address(self, key: str) -> str:
        return f"{self._base}/{quote(checked_key(key), safe='/~')}"

    def _put_in_parts(self, path: str, source: Iterator[bytes], *, is_at_hand: bool) -> None:
        if is_at_hand:
            self._send_in_parts(path, source)
            return
        # Read to its end first: an upload that is given up while a part is on its way leaves that part in the bucket.
        with TemporaryFile() as whole:
            for block in source:
                whole.write(block)
            whole.seek(0)
            self._send_in_parts(path, whole)


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
