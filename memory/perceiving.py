"""Perceiving: what only a model can tell of a file, which is what is said in a recording and what a picture shows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from memory.documents import Documents
from memory.errors import Invalid, Misconfigured, RejectedFile, Unavailable
from memory.ports import SAMPLES_A_SECOND, Block, Document, Look, Said, Senses, Sound, Transcriber
from memory.store import ingesting
from memory.store.database import Database

NOT_TRANSCRIBED = "kept; not transcribed, as TRANSCRIPTION_MODEL is not set; found by its name"
NO_SOUND = "kept; it has no sound, found by its name"
NO_SPEECH = "kept; no speech was found in it, found by its name"
NOT_CAPTIONED = (
    "kept; no text was found in it, and no model that describes pictures is set (CAPTION_MODEL); found by its name"
)
NO_CAPTION = "without a caption: the vision model did not answer"
REFUSED_CAPTION = "without a caption: the vision model refused the picture"
# What counts as silence where a piece has nothing louder; an endpoint is not paid for hearing it.
_SILENCE = 100
# How often the database is asked whether a file that a model is at work on is still wanted.
_LOOK_SECONDS = 1.0


class _Unwanted(Exception):
    """The file has ended while a model was at work on it."""


class Perceiving:
    """Adds transcripts and captions to documents. Without senses it leaves out both, and says so."""

    def __init__(self, database: Database, documents: Documents, senses: Senses | None = None) -> None:
        self._database = database
        self._documents = documents
        self._senses = senses

    def expected(self, document: Document) -> Document:
        """The document as it awaits what there is a model for, and says what there is none for."""
        senses = self._senses
        if document.awaits == "transcript" and (senses is None or senses.transcriber is None):
            return document.model_copy(update={"awaits": None, "note": NOT_TRANSCRIBED})
        if document.awaits == "caption" and (senses is None or senses.captioner is None or not senses.captioner.sees):
            note = document.note if document.blocks or not _found_nothing(document) else NOT_CAPTIONED
            return document.model_copy(update={"awaits": None, "note": note})
        return document

    def transcribe(self, tenant_id: UUID, file_id: UUID) -> None:
        """Puts what is said into the document. One that no longer awaits it is left alone.

        Raises RejectedFile with the reason why the file ends without; Unavailable, Misconfigured.
        """
        with self._awaiting(tenant_id, file_id, "transcript") as found:
            if found is None:
                return
            document, original = found
            senses = self._senses
            if senses is None or senses.transcriber is None:
                raise Misconfigured(
                    "this process transcribes nothing; the worker does, where TRANSCRIPTION_MODEL is set"
                )
            with senses.media.sound(original, max_seconds=60 * senses.max_minutes) as sound:
                look = self._looking(tenant_id, file_id)
                heard = (
                    _without_sound(document)
                    if sound is None
                    else _transcribed(document, sound, senses.transcriber, look)
                )
                if sound is not None and not sound.is_whole:
                    cut = f"only the first {senses.max_minutes} minutes were transcribed"
                    heard = heard.model_copy(update={"note": f"{heard.note}; {cut}" if heard.note else cut})
            self._documents.keep(tenant_id, file_id, heard.model_copy(update={"awaits": None}))

    def caption(self, tenant_id: UUID, file_id: UUID) -> None:
        """Puts what the picture shows before what is written on it. One that no longer awaits it is left alone.

        Raises RejectedFile, Unavailable, Misconfigured.
        """
        with self._awaiting(tenant_id, file_id, "caption") as found:
            if found is None:
                return
            document, original = found
            senses = self._senses
            if senses is None or senses.captioner is None:
                raise Misconfigured("this process describes no pictures; the worker does, where CAPTION_MODEL is set")
            try:
                picture = senses.media.small_picture(original)
                caption = senses.captioner.caption(picture, self._looking(tenant_id, file_id))
            except Invalid:
                document = _without_caption(document, REFUSED_CAPTION)
            else:
                document = _captioned(document, caption)
            self._documents.keep(tenant_id, file_id, document)

    def go_without_caption(self, tenant_id: UUID, file_id: UUID) -> None:
        """Leaves a picture with the text that is written on it, and says so."""
        document = self._documents.find(tenant_id, file_id)
        if document is not None and document.awaits == "caption":
            self._documents.keep(tenant_id, file_id, _without_caption(document, NO_CAPTION))

    @contextmanager
    def _awaiting(self, tenant_id: UUID, file_id: UUID, awaited: str) -> Iterator[tuple[Document, Path] | None]:
        with self._database.transaction(tenant_id) as session:
            claimed = ingesting.claim(session, file_id)
        document = None if claimed is None else self._documents.find(tenant_id, file_id)
        # Without its collection the file ends when it is stored.
        if claimed is None or claimed.collection_id is None or document is None or document.awaits != awaited:
            yield None
            return
        with suppress(_Unwanted), self._documents.original(claimed.key) as original:
            yield document, original

    def _looking(self, tenant_id: UUID, file_id: UUID) -> Look:
        """What ends the work on a file soon after the file has ended."""
        looked = time.monotonic()

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked < _LOOK_SECONDS:
                return
            looked = time.monotonic()
            # A database that does not answer is no reason to begin again.
            with suppress(Unavailable), self._database.transaction(tenant_id) as session:
                if not ingesting.is_wanted(session, file_id):
                    raise _Unwanted

        return look


def _transcribed(document: Document, sound: Sound, transcriber: Transcriber, look: Look) -> Document:
    blocks: list[Block] = []
    language: str | None = None
    offset = 0.0
    for piece in sound.pieces:
        look()
        if len(piece) and int(abs(piece.astype("int32")).max()) > _SILENCE:
            try:
                heard = transcriber.transcribe(piece, language, look)
            except Invalid as error:
                raise RejectedFile(f"its sound was not transcribed: {error.detail}") from error
            language = language or (heard.language if heard.is_sure else None)
            blocks += [_spoken(said, offset) for said in heard.said]
            named = language or heard.language
            if named is not None:
                document = document.model_copy(update={"metadata": document.metadata | {"language": named}})
        offset += len(piece) / SAMPLES_A_SECOND
    metadata = document.metadata | {"duration": round(sound.seconds, 2)}
    return document.model_copy(
        update={"blocks": blocks, "metadata": metadata, "note": document.note if blocks else NO_SPEECH}
    )


def _spoken(said: Said, offset: float) -> Block:
    return Block(kind="speech", text=said.text, start=round(offset + said.start, 2), end=round(offset + said.end, 2))


def _without_sound(document: Document) -> Document:
    return document.model_copy(update={"note": NO_SOUND})


def _captioned(document: Document, caption: str) -> Document:
    shown = Block(text=caption, place={"origin": "caption"})
    written = [block.model_copy(update={"place": block.place | {"origin": "ocr"}}) for block in document.blocks]
    # That it was found by its name alone is over.
    note = document.note if document.blocks else None
    return document.model_copy(update={"blocks": [shown, *written], "note": note, "awaits": None})


def _without_caption(document: Document, reason: str) -> Document:
    note = f"{document.note}; {reason}" if document.note else reason
    return document.model_copy(update={"note": note, "awaits": None})


def _found_nothing(document: Document) -> bool:
    return not document.blocks and (document.note or "").startswith("kept; no text was found")
