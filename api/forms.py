"""Forms with files of any number: each goes to the store while the rest still arrives, and what is held is bounded."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import to_thread
from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from api.arriving import Arriving, Room, pieces
from api.errors import ErrorAnswer
from api.multipart import Event, Part, Parts
from memory.drop_schemas import FileRefused
from memory.errors import BadRequest, Invalid, TooLarge
from memory.filenames import clean_filename
from memory.intake import IncomingFile, StoredFile, Taken, Taking, too_large
from memory.quotas import MAX_FILE_BYTES

MOST_FILES = 10_000
MOST_FIELDS = 10_000
MOST_FIELD_BYTES = 1024 * 1024
REFUSALS: dict[int | str, dict[str, Any]] = {
    408: {"model": ErrorAnswer, "description": "Nothing arrived for a minute"},
}

_FILE_FIELDS = frozenset({"file", "files"})

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class FormLimits:
    """What a route takes: so many files, and whether one that is too large fails alone or with all of the request."""

    most_files: int = MOST_FILES
    fails_alone: bool = True


_limits: dict[Callable[..., Any], FormLimits] = {}


def takes_files(most: int, *, fails_alone: bool) -> Callable[[Endpoint], Endpoint]:
    """For a route whose form holds fewer files than a drop may. Stands below the router's decorator."""

    def remember(endpoint: Endpoint) -> Endpoint:
        _limits[endpoint] = FormLimits(most, fails_alone)
        return endpoint

    return remember


def limits_of(endpoint: Callable[..., Any]) -> FormLimits:
    return _limits.get(endpoint, FormLimits())


class TakenUpload(UploadFile):
    """A file of a form; its bytes lie in the store already, or nowhere because it is too large."""

    def __init__(self, taken: Taken, *, name: str) -> None:
        super().__init__(io.BytesIO(), filename=name, size=taken.size if isinstance(taken, StoredFile) else None)
        self.taken = taken

    @property
    def digest(self) -> bytes:
        return self.taken.sha256 if isinstance(self.taken, StoredFile) else self.taken.reason.encode()


class FormRequest(Request):
    """A request whose form is taken apart while it arrives, in whatever order its parts come."""

    async def take(self, taking: Taking, room: Room, limits: FormLimits) -> None:
        """Reads the body. Raises BadRequest when it is no such form, TooLarge, Invalid, SlowRequest, Unavailable."""
        self._items: list[tuple[str, UploadFile | str]] = []
        content_type = self.headers.get("content-type", "")
        if not content_type.strip().lower().startswith("multipart/form-data"):
            # There is no file in it, which the route knows how to say.
            return
        parts = Parts(content_type)
        form = _Form(self._items, taking, room, limits)
        try:
            async for piece in pieces(self):
                for event in parts.split(piece):
                    await form.follow(event)
            parts.check_end()
        finally:
            await form.close()

    async def form(self, **_: Any) -> FormData:  # type: ignore[override]
        return FormData(self._items)


class _Form:
    """The parts of one form, each to where it belongs."""

    def __init__(
        self, items: list[tuple[str, UploadFile | str]], taking: Taking, room: Room, limits: FormLimits
    ) -> None:
        self._items = items
        self._taking = taking
        self._room = room
        self._limits = limits
        self._fields = self._field_bytes = self._files = 0
        self._part = Part("", None, None)
        self._value = bytearray()
        self._file: _File | None = None

    async def follow(self, event: Event) -> None:
        if isinstance(event, bytes):
            await self._add(event)
        elif isinstance(event, Part):
            self._begin(event)
        else:
            await self._end()

    async def close(self) -> None:
        if self._file is not None:
            await self._file.close()

    def _begin(self, part: Part) -> None:
        self._part, self._value, self._file = part, bytearray(), None
        if part.filename is None:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise TooLarge(f"more than {MOST_FIELDS} fields in one form")
        elif part.name in _FILE_FIELDS:
            self._files += bool(part.filename)
            if self._files > self._limits.most_files:
                raise BadRequest(f"at most {self._limits.most_files} files at once")
            self._file = _File(part, self._taking, self._room, self._limits)

    async def _add(self, data: bytes) -> None:
        if self._file is not None:
            await self._file.add(data)
        elif self._part.filename is None:
            self._field_bytes += len(data)
            if self._field_bytes > MOST_FIELD_BYTES:
                raise TooLarge("the fields of the form are over the limit of 1 MB")
            self._value += data

    async def _end(self) -> None:
        if self._file is not None:
            await self._keep(self._file)
        elif self._part.filename is None:
            try:
                self._items.append((self._part.name, self._value.decode()))
            except UnicodeDecodeError as error:
                raise Invalid(f"{self._part.name[:100]}: not UTF-8") from error

    async def _keep(self, file: "_File") -> None:
        # A browser sends a nameless empty part for a field in which nothing was chosen.
        if not (self._part.filename or file.size):
            return
        taken = await file.end()
        self._items.append((self._part.name, TakenUpload(taken, name=self._part.filename or "")))


class _File:
    """One file of a form: in the store as soon as it is whole."""

    def __init__(self, part: Part, taking: Taking, room: Room, limits: FormLimits) -> None:
        self._part = part
        self._taking = taking
        self._limits = limits
        self._arriving = Arriving(room, MAX_FILE_BYTES)

    @property
    def size(self) -> int:
        return self._arriving.size

    async def add(self, data: bytes) -> None:
        await self._arriving.add(data)
        if self._arriving.is_over and not self._limits.fails_alone:
            refused = self._too_large()
            raise TooLarge(f"{refused.filename}: {refused.reason}")

    async def end(self) -> Taken:
        if self._arriving.is_over:
            return self._too_large()
        async with self._arriving.whole() as source:
            incoming = IncomingFile(self._part.filename, self._part.content_type, source)
            return await to_thread.run_sync(self._taking.take, incoming)

    async def close(self) -> None:
        self._arriving.close()

    def _too_large(self) -> FileRefused:
        return too_large(clean_filename(self._part.filename))
