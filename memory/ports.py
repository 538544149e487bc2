"""What the house needs from outside, as Protocols; `services` decides which adapter stands behind each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingModel:
    """Which model made a vector: a stable name and the number of dimensions."""

    name: str
    dimensions: int


class Embedder(Protocol):
    """Turns text into vectors of unit length."""

    @property
    def model(self) -> EmbeddingModel: ...

    @property
    def max_tokens(self) -> int:
        """What the model reads of one text; the rest is ignored."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), dimensions), float32, each of length 1, in input order. Raises Unavailable."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` without the special ones."""
        ...


@dataclass(frozen=True)
class StoredObject:
    """What a store knows of one object: its size in bytes and the SHA-256 of its bytes."""

    size: int
    sha256: bytes


class Cache(Protocol):
    """Keeps bytes for a while; may forget any of them at any time, and never fails: what cannot be had is None."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes, *, seconds: float) -> None: ...

    def close(self) -> None: ...


class ObjectStore(Protocol):
    """Keeps originals by key. Keys are `<tenant id>/…`, made by the house, never by a client."""

    def put(self, key: str, source: BinaryIO, *, max_bytes: int) -> StoredObject:
        """Streams `source` in; over `max_bytes` nothing stays behind and TooLarge is raised. Raises Unavailable."""
        ...

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound, Unavailable."""
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces of at most 1 MiB. Raises NotFound, Unavailable."""
        ...

    def download(self, key: str, to: Path) -> None:
        """Writes the object to a local file. Raises NotFound, Unavailable."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; one that is missing already is fine. Raises Unavailable."""
        ...

    def url(self, key: str, *, filename: str, content_type: str, seconds: int) -> str:
        """A link that serves the object as a download under `filename` and stops working after `seconds`."""
        ...


class Sealer(Protocol):
    """Keeps content unreadable to all who do not bring the secret."""

    def seal(self, secret: bytes, content: bytes) -> bytes: ...

    def open(self, secret: bytes, sealed: bytes) -> bytes:
        """Raises Invalid when it was sealed with another secret, or is damaged."""
        ...


class Block(BaseModel):
    """One piece of a document in reading order, as a reader found it.

    `heading`: a title of `level` 1 (top) and deeper. `text`: a paragraph, list item or caption. `row`: one row of a
    table, with the table's header line in `header`. `place` says where in the source, for people: any of `page`,
    `slide`, `sheet`, `row`.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["heading", "text", "row"] = "text"
    text: str
    level: int = 1
    header: str | None = None
    place: dict[str, int | str] = Field(default_factory=dict)


class Document(BaseModel):
    """What a reader made of one file. No blocks and a `note` means: kept, but not readable as text, and why."""

    model_config = ConfigDict(frozen=True)

    content_type: str
    blocks: list[Block]
    metadata: dict[str, str] = Field(default_factory=dict)
    note: str | None = None


class FileReader(Protocol):
    """Reads a dropped file into a Document, contained: whatever the file holds, the caller survives."""

    def read(self, path: Path, filename: str) -> Document:
        """Type by content first, name second. Raises RejectedFile with a reason for people; Unavailable."""
        ...
