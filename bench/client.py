"""A small client of the public API, for measuring it: no faster one is to be had from the standard library."""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

Json = dict[str, Any]
MOST_PER_CALL = 100
_PATIENCE_SECONDS = 300
# The server hangs up after five idle seconds; a connection that old is opened anew.
_IDLE_SECONDS = 2


class Refused(Exception):
    """The API's answer was not a success; the message says what it was."""


class Api:
    """One connection that is kept open; use one per thread."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        parts = urlsplit(url)
        connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._http = connection(parts.netloc, timeout=_PATIENCE_SECONDS)
        self._used_at = time.monotonic()

    def store(self, collection: str, memories: Sequence[Json]) -> None:
        """Stores any number of memories, 100 per call."""
        path = f"/v1/memory/collections/{collection}/memories/bulk"
        for start in range(0, len(memories), MOST_PER_CALL):
            self.call("POST", path, list(memories[start : start + MOST_PER_CALL]))

    def search(self, collection: str | None, query: str, **wanted: Any) -> Json:
        """One search; `collection` None asks all of the tenant's."""
        path = "/v1/memory/search" if collection is None else f"/v1/memory/collections/{collection}/search"
        answer: Json = self.call("POST", path, {"query": query, **wanted})
        return answer

    def drop(self, collection: str, files: Sequence[Path]) -> Json:
        """Drops files and waits until all are read."""
        return self.form(f"{collection}/drop", [(file.name, file.read_bytes()) for file in files])

    def accepted(self, collection: str, files: Sequence[tuple[str, bytes]]) -> Json:
        """Drops files without waiting for what comes of them; the answer names the batch."""
        return self.form(f"{collection}/drop?async_ingest=true", files)

    def batch(self, batch_id: str, wait_seconds: int = 0) -> Json:
        """As it stands, or once it is complete within so long."""
        answer: Json = self.call("GET", f"/v1/memory/ingest/batch/{batch_id}?wait={wait_seconds}")
        return answer

    def ended(self, batch_id: str) -> Json:
        """The batch once every file of it has ended."""
        while not (batch := self.batch(batch_id, wait_seconds=30))["complete"]:
            pass
        return batch

    def form(self, path: str, files: Sequence[tuple[str, bytes]]) -> Json:
        """Sends files to a path below the collections, a few at a time: what is sent is never all in memory."""
        boundary = uuid.uuid4().hex
        heads = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
            for name, _ in files
        ]
        end = f"--{boundary}--\r\n".encode()
        size = sum(len(head) + len(content) + 2 for head, (_, content) in zip(heads, files, strict=True)) + len(end)

        def body() -> Iterator[bytes]:
            for head, (_, content) in zip(heads, files, strict=True):
                yield head
                yield content
                yield b"\r\n"
            yield end

        kind = f"multipart/form-data; boundary={boundary}"
        answer: Json = self._send("POST", f"/v1/memory/collections/{path}", body(), kind, size)
        return answer

    def forget(self, collection: str) -> None:
        """Deletes a collection with all that it holds."""
        self.call("DELETE", f"/v1/memory/collections/{collection}")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Raises Refused."""
        return self._send(method, path, None if body is None else json.dumps(body).encode(), "application/json")

    def again(self) -> Self:
        """Another connection to the same place."""
        return type(self)(self.url, self.key)

    def _send(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, content_type: str, size: int | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        if size is not None:
            headers["Content-Length"] = str(size)
        if body is not None:
            headers["Content-Type"] = content_type
        if time.monotonic() - self._used_at > _IDLE_SECONDS:
            self._http.close()
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        content = answer.read()
        self._used_at = time.monotonic()
        if not 200 <= answer.status < 300:
            raise Refused(f"{method} {path}: {answer.status} {content[:500].decode(errors='replace')}")
        return json.loads(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
