"""What the house needs from outside, as Protocols; `services` decides which adapter stands behind each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Vectors = NDArray[np.float32]

# Sound as whoever turns speech into text takes it: one channel, 16 bits.
Samples = NDArray[np.int16]
SAMPLES_A_SECOND = 16_000


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


@dataclass(frozen=True)
class ListedObject:
    """What lies in a store under a key; `modified` is when it was last written."""

    key: str
    size: int
    modified: datetime


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

    def listed(self, prefix: str) -> Iterator[Sequence[ListedObject]]:
        """All that lies under a prefix, in pages and in no order, with what broken uploads left. Raises Unavailable."""
        ...

    def discard(self, keys: Sequence[str]) -> None:
        """Removes what was listed, whatever its key looks like. Raises Unavailable."""
        ...

    def size(self, key: str) -> int:
        """How many bytes the object has. Raises NotFound, Unavailable."""
        ...

    def copy(self, key: str, to: str) -> None:
        """Makes another object of the same bytes, which later changes of the first do not reach. Raises NotFound."""
        ...

    def upload_url(self, key: str, *, content_type: str, size: int, seconds: int) -> str:
        """A link under which whoever has it may PUT the object: with this Content-Type, of this size, for `seconds`."""
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
    table, with the table's header line in `header`. `speech`: what is said from second `start` to `end`. `place` says
    where in the source, for people: any of `page`, `slide`, `sheet`, `row`; or, of a picture, which of its texts it is:
    `origin`, `caption` or `ocr`.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["heading", "text", "row", "speech"] = "text"
    text: str
    level: int = 1
    header: str | None = None
    place: dict[str, int | str] = Field(default_factory=dict)
    start: float = 0.0
    end: float = 0.0


@dataclass(frozen=True)
class Member:
    """A file inside of another: an attachment, or one of an archive. Its name is as it stands there, with its folders;
    `refused` says why its content was not taken.
    """

    name: str
    content: bytes
    refused: str | None = None


class Document(BaseModel):
    """What a reader made of one file. No blocks and a `note` means: kept, but not readable as text, and why.

    `awaits` is what only a model can add, where there is one: the transcript of a recording, the caption of a picture.
    `members` are the files inside of it; they are no part of its JSON.
    """

    model_config = ConfigDict(frozen=True)

    content_type: str
    blocks: list[Block]
    metadata: dict[str, str | float] = Field(default_factory=dict)
    note: str | None = None
    awaits: Literal["transcript", "caption"] | None = None
    members: list[Member] = Field(default_factory=list, exclude=True)


class FileReader(Protocol):
    """Reads a dropped file into a Document, contained: whatever the file holds, the caller survives."""

    def read(self, path: Path, filename: str) -> Document:
        """Type by content first, name second. Raises RejectedFile with a reason for people; Unavailable."""
        ...


@dataclass(frozen=True)
class Sound:
    """The sound of a recording: how long it is, whether that is all of it, and it, in pieces of some minutes."""

    seconds: float
    is_whole: bool
    pieces: Iterator[Samples]


class MediaReader(Protocol):
    """Decodes recordings and pictures, contained: whatever the file holds, the caller survives."""

    def sound(self, path: Path, *, max_seconds: int) -> AbstractContextManager[Sound | None]:
        """The sound of a recording up to a length; None when it has none. Raises RejectedFile, Unavailable."""
        ...

    def small_picture(self, path: Path) -> bytes:
        """The first frame as a JPEG of a size that a model takes. Raises RejectedFile, Unavailable."""
        ...


@dataclass(frozen=True)
class Said:
    """What is said between two moments, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What is said in a piece of sound, and the code of its language where it is known; whether that is sure."""

    said: list[Said]
    language: str | None = None
    is_sure: bool = False


# Called now and then by whoever is at something for long; what it raises ends that.
Look = Callable[[], None]


def unwatched() -> None:
    """For what nobody ends."""


class Transcriber(Protocol):
    """Turns speech into text."""

    @property
    def name(self) -> str: ...

    def transcribe(self, samples: Samples, language: str | None, look: Look = unwatched) -> Transcript:
        """Times count from the beginning of the samples. `language` is what is spoken, where it is known already.

        Raises Unavailable; Misconfigured; Invalid when this sound is refused.
        """
        ...

    def examine(self) -> None:
        """What can be seen without loading or asking anything. Raises Misconfigured."""
        ...

    def load(self) -> None:
        """Makes sure that it can work. Raises Unavailable, Misconfigured."""
        ...

    def close(self) -> None: ...


class Captioner(Protocol):
    """Says in words what a picture shows."""

    @property
    def name(self) -> str: ...

    @property
    def sees(self) -> bool:
        """False once it has turned out that it takes no pictures."""
        ...

    def caption(self, jpeg: bytes, look: Look = unwatched) -> str:
        """Raises Unavailable; Misconfigured; Invalid when this picture is refused."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Senses:
    """What a worker perceives with; a model that is None is not set up."""

    media: MediaReader
    transcriber: Transcriber | None = None
    captioner: Captioner | None = None
    max_minutes: int = 240

    def close(self) -> None:
        """Gives back what the models hold; the media reader belongs to whoever made it."""
        for model in (self.transcriber, self.captioner):
            if model is not None:
                model.close()
