"""A small client of the public API, for measuring it; nothing here knows how the product works inside."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

Json = dict[str, Any]
MOST_PER_CALL = 100


class Refused(Exception):
    """The API's answer was not a success; the message is its `detail`."""


class Api:
    """One connection that is kept open; use one per thread when measuring."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self._http = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300, trust_env=False
        )

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
        form = [("files", (file.name, file.read_bytes())) for file in files]
        answer: Json = self._decoded(self._http.post(f"/v1/memory/collections/{collection}/drop", files=form))
        return answer

    def forget(self, collection: str) -> None:
        """Deletes a collection with all that it holds."""
        self.call("DELETE", f"/v1/memory/collections/{collection}")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Raises Refused."""
        return self._decoded(self._http.request(method, path, json=body))

    def again(self) -> Self:
        """Another connection to the same place."""
        return type(self)(self.url, self.key)

    @staticmethod
    def _decoded(answer: httpx2.Response) -> Any:
        if not answer.is_success:
            raise Refused(f"{answer.request.method} {answer.url.path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
