"""A small client of the public API, for the commands that use it: nothing but the standard library."""

import http.client
import json
import mimetypes
import secrets
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memory.errors import (
    AppError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)

# This machine's own addresses are never asked for through a proxy that the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_TIMEOUT_SECONDS = 60.0
_REFUSALS: dict[int, type[AppError]] = {
    error.status: error for error in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, TooLarge, Invalid)
}
_HEAL_BY_THEMSELVES = (429, 502, 503, 504)
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_LONGEST_WAIT_SECONDS = 120.0
# As browsers write them into a form's header, which is one line in double quotes.
_IN_A_HEADER = {ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A", 0: "%00"}


class Client:
    """One tenant's calls, from any number of threads. A refusal has the API's own words.

    With patience, what is over soon (a lost connection, 429, 503) is tried again for that long; a POST is carried out
    once all the same. `on_wait` hears of each pause: why, and how many seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience_seconds: float = 0.0,
        on_wait: Callable[[AppError, float], None] = lambda _why, _seconds: None,
    ) -> None:
        self._address = urlsplit(url)
        if self._address.scheme not in ("http", "https") or not self._address.hostname:
            raise Invalid(f"{url}: not an address of the form https://host")
        if not key or not all("!" <= character <= "~" for character in key):
            raise Invalid("the key holds characters that no key has")
        self._key = key
        self._patience_seconds = patience_seconds
        self._on_wait = on_wait
        self._closed = threading.Event()

    def get(self, path: str) -> Any:
        """Raises Unavailable, or the refusal that the status stands for; so do the others."""
        return self._call("GET", path, None, {})

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def drop(self, path: str, files: Sequence[Path]) -> Any:
        """Sends files as one multipart form."""
        return self.form(path, {}, [(file.name, file.read_bytes()) for file in files])

    def form(self, path: str, fields: Mapping[str, str], files: Sequence[tuple[str, bytes]]) -> Any:
        """Sends a multipart form of fields, and of files by name."""
        boundary = secrets.token_hex(16)
        lines = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        for name, content in files:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            named = f'name="files"; filename="{name.translate(_IN_A_HEADER)}"'
            head = f"--{boundary}\r\nContent-Disposition: form-data; {named}\r\nContent-Type: {kind}\r\n\r\n"
            lines += [head.encode(), content, b"\r\n"]
        body = b"".join([*lines, f"--{boundary}--\r\n".encode()])
        return self._call("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def close(self) -> None:
        """Nobody waits for another try any more."""
        self._closed.set()

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", **headers}
        if method == "POST" and self._patience_seconds:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        deadline = time.monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            wait = pause
            try:
                status, retry_after, content = self._exchange(method, path, body, headers)
            except (OSError, http.client.error) as error:
                refusal: AppError = Unavailable(f"{method} {path}: {error or type(error).__name__}")
            else:
                if 200 <= status < 300:
                    return json.loads(content)
                refusal = _REFUSALS.get(status, Unavailable)(f"{method} {path}: {status} {_detail(content)}")
                if status not in _HEAL_BY_THEMSELVES:
                    raise refusal
                wait = retry_after or pause
            if time.monotonic() + wait > deadline or self._closed.is_set():
                raise refusal
            self._on_wait(refusal, wait)
            if self._closed.wait(wait):
                raise refusal
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, float | None, bytes]:
        secure = self._address.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self._address.netloc.rpartition("@")[2], timeout=_TIMEOUT_SECONDS)
        try:
            try:
                connection.request(method, f"{self._address.path.rstrip('/')}{path}", body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # Who is refused early is answered before all is sent.
                if connection.sock is None:
                    raise
            response = connection.getresponse()
            return response.status, _seconds(response.headers.get("Retry-After")), response.read()
        finally:
            connection.close()


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not retry_after.isdecimal():
        return None
    return min(float(retry_after), _LONGEST_WAIT_SECONDS)


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
