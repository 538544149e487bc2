"""A small client of the public API, for the demonstration: nothing but the standard library."""

import http.client
import json
import mimetypes
import secrets
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memory.errors import Unavailable

# This machine's own addresses are never asked for through a proxy that the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Client:
    """One tenant's calls. Every refusal is Unavailable with the API's own words."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def get(self, path: str) -> Any:
        return self._call("GET", path, None, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json.dumps(body).encode(), "application/json")

    def drop(self, path: str, files: Sequence[Path]) -> Any:
        """Sends files as one multipart form."""
        boundary = secrets.token_hex(16)
        parts = []
        for file in files:
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            name = file.name.replace('"', "%22")
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            parts.append(f"{head}Content-Type: {kind}\r\n\r\n".encode() + file.read_bytes() + b"\r\n")
        parts.append(f"--{boundary}--\r\n".encode())
        return self._call("POST", path, b"".join(parts), f"multipart/form-data; boundary={boundary}")

    def _call(self, method: str, path: str, body: bytes | None, kind: str | None) -> Any:
        request = urllib.request.Request(f"{self._url}{path}", data=body, method=method)  # noqa: S310
        request.add_header("Authorization", f"Bearer {self._key}")
        if kind is not None:
            request.add_header("Content-Type", kind)
        try:
            with DIRECT.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise Unavailable(f"{method} {path}: {error.code} {_detail(error.read())}") from error
        except (OSError, http.client.error) as error:
            raise Unavailable(f"{method} {path}: {error}") from error


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
