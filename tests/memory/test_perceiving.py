"""What models tell of recordings and pictures becomes memories with their place in time, or the file says why not."""

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from uuid import UUID

import numpy as np
import pytest

from memory import perceiving
from memory.chunking import SPECIAL_TOKENS, chunk
from memory.drop_schemas import BatchFile, DropOptions
from memory.embedding import Embedding
from memory.errors import Invalid, Misconfigured, RejectedFile, Unavailable
from memory.ingesting import Ingesting
from memory.perceiving import NO_CAPTION, NO_SOUND, NO_SPEECH, NOT_CAPTIONED, NOT_TRANSCRIBED, REFUSED_CAPTION
from memory.ports import (
    SAMPLES_A_SECOND,
    Block,
    Captioner,
    Document,
    Look,
    MediaReader,
    Said,
    Samples,
    Senses,
    Sound,
    Transcriber,
    Transcript,
    unwatched,
)
from memory.schemas import SearchRequest
from memory.services import Services
from tests.conftest import Tenant
from tests.fakes import WordEmbedder
from tests.memory.dropping import ScriptedReader, incoming, memories_of, objects_of, only_file

RECORDING = Document(content_type="audio/wav", blocks=[], awaits="transcript")
PICTURE = Document(content_type="image/png", blocks=[Block(text="No entry")], awaits="caption")
BLANK = Document(
    content_type="image/png", blocks=[], awaits="caption", note="kept; no text was found in it, found by its name"
)


class Media(MediaReader):
    """Seconds of a loud tone for each piece, or silence where a piece is negative."""

    def __init__(self, *pieces: int, is_whole: bool = True) -> None:
        self.pieces = pieces
        self.is_whole = is_whole
        self.asked_seconds = 0

    @contextmanager
    def sound(self, path: Path, *, max_seconds: int) -> Iterator[Sound | None]:
        self.asked_seconds = max_seconds
        if path.read_bytes() == b"broken":
            raise RejectedFile("it is damaged")
        pieces = [np.full(abs(p) * SAMPLES_A_SECOND, 9_000 if p > 0 else 3, dtype=np.int16) for p in self.pieces]
        seconds = sum(abs(p) for p in self.pieces)
        yield Sound(float(seconds), self.is_whole, iter(pieces)) if pieces else None

    def small_picture(self, path: Path) -> bytes:
        return b"small " + path.read_bytes()


class Ear(Transcriber):
    name = "ear"

    def __init__(self, *heard: Transcript | Exception) -> None:
        self.heard = list(heard)
        self.languages: list[str | None] = []

    def transcribe(self, samples: Samples, language: str | None, look: Look = unwatched) -> Transcript:
        self.languages.append(language)
        look()
        answer = self.heard.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def examine(self) -> None:
        """Nothing to see."""

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to close."""


class Eye(Captioner):
    name = "eye"

    def __init__(self, *seen: str | Exception, sees: bool = True) -> None:
        self.seen = list(seen)
        self.pictures: list[bytes] = []
        self._sees = sees

    @property
    def sees(self) -> bool:
        return self._sees

    def caption(self, jpeg: bytes, look: Look = unwatched) -> str:
        self.pictures.append(jpeg)
        look()
        answer = self.seen.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing to close."""


def said(start: float, end: float, text: str) -> Said:
    return Said(start, end, text)


@dataclasses.dataclass
class Stage:
    """A worker's rules with one dropped file that is read."""

    house: Services
    tenant: Tenant
    batch_id: UUID
    file_id: UUID
    awaited: Literal["transcript", "caption"] | None

    def perceive(self) -> None:
        assert self.awaited is not None
        self.house.ingesting.perceive(self.tenant.caller.tenant_id, self.file_id, self.awaited)

    def store(self) -> BatchFile:
        self.house.ingesting.store(self.tenant.caller.tenant_id, [self.file_id])
        return self.file

    @property
    def file(self) -> BatchFile:
        return only_file(self.house, self.tenant.caller, self.batch_id)

    def memories(self) -> list[tuple[str, dict[str, object]]]:
        caller = self.tenant.caller
        return [
            (memory.text, memory.metadata)
            for memory_id in self.file.memory_ids
            for memory in [self.house.memories.get(caller, "garden", memory_id)]
        ]


class Staging:
    def __init__(self, house: Services, tenant: Tenant) -> None:
        self._house = house
        self._tenant = tenant

    def __call__(self, document: Document, senses: Senses | None, content: bytes = b"content") -> Stage:
        services, caller = self._house, self._tenant.caller
        embedding = Embedding(services.database, WordEmbedder())
        ingesting = Ingesting(
            services.database,
            embedding,
            services.objects,
            services.statistics,
            ScriptedReader(lambda _: document),
            senses,
        )
        house = dataclasses.replace(services, ingesting=ingesting)
        opened = house.drops.open(caller, "garden", [incoming("memo", content)], DropOptions())
        _, ((file_id,),) = ingesting.unfinished(caller.tenant_id, opened.batch_id, 10)
        return Stage(house, self._tenant, opened.batch_id, file_id, ingesting.read(caller.tenant_id, file_id))


@pytest.fixture
def stage(house: Services, tenant: Tenant) -> Staging:
    return Staging(house, tenant)


def test_what_is_said_becomes_memories_with_language_and_time(stage: Staging, tenant: Tenant) -> None:
    ear = Ear(
        Transcript([said(0.5, 2.0, "Good morning."), said(2.5, 4.0, "The ferry leaves at nine.")], "en", is_sure=True),
        Transcript([said(1.0, 2.0, "Bring a coat.")], "de", is_sure=True),
    )
    staged = stage(RECORDING, Senses(Media(300, 20), ear, max_minutes=7))
    staged.perceive()
    file = staged.store()
    assert (file.status, file.note) == ("done", None)
    ((text, metadata),) = staged.memories()
    assert text == "Good morning. The ferry leaves at nine. Bring a coat."
    assert {key: metadata[key] for key in ("start", "end", "language", "duration", "mime")} == {
        "start": 0.5,
        "end": 302.0,
        "language": "en",
        "duration": 320.0,
        "mime": "audio/wav",
    }
    # What the first piece was sure of, the next is told.
    assert ear.languages == [None, "en"]
    found = staged.house.search.search(tenant.caller, "garden", SearchRequest(query="ferry", mode="text")).results
    assert [hit.text for hit in found] == [text]
    assert not any("documents" in name for name in objects_of(staged.house, tenant.caller))


def test_a_doubtful_language_is_not_handed_on(stage: Staging) -> None:
    ear = Ear(Transcript([said(0, 1, "Hm.")], "nn"), Transcript([said(0, 1, "Guten Tag.")], "de", is_sure=True))
    staged = stage(RECORDING, Senses(Media(10, 10), ear))
    staged.perceive()
    staged.store()
    assert ear.languages == [None, None]
    assert staged.memories()[0][1]["language"] == "de"


def test_silent_pieces_are_heard_by_nobody(stage: Staging) -> None:
    ear = Ear(Transcript([said(0, 1, "Hello?")], "en", is_sure=True))
    staged = stage(RECORDING, Senses(Media(-300, 5, -300), ear))
    staged.perceive()
    staged.store()
    ((_, metadata),) = staged.memories()
    assert (metadata["start"], metadata["end"]) == (300.0, 301.0)


@pytest.mark.parametrize(
    ("media", "heard", "note"),
    [(Media(), [], NO_SOUND), (Media(-60), [], NO_SPEECH), (Media(5), [Transcript([])], NO_SPEECH)],
)
def test_a_recording_in_which_nothing_is_said_is_found_by_its_name(
    stage: Staging, media: Media, heard: list[Transcript], note: str
) -> None:
    staged = stage(RECORDING, Senses(media, Ear(*heard)))
    staged.perceive()
    file = staged.store()
    assert (file.status, file.note) == ("done", note)
    assert [text for text, _ in staged.memories()] == ["memo"]


def test_of_a_long_recording_the_beginning_is_heard_and_the_note_says_so(stage: Staging) -> None:
    media = Media(5, is_whole=False)
    staged = stage(RECORDING, Senses(media, Ear(Transcript([said(0, 1, "One.")])), max_minutes=2))
    staged.perceive()
    assert staged.store().note == "only the first 2 minutes were transcribed"
    assert media.asked_seconds == 120


@pytest.mark.parametrize("senses", [None, Senses(Media(5))])
def test_without_a_transcriber_a_recording_is_kept_and_says_so(stage: Staging, senses: Senses | None) -> None:
    staged = stage(RECORDING, senses)
    assert staged.awaited is None
    file = staged.store()
    assert (file.status, file.note) == ("done", NOT_TRANSCRIBED)
    assert [text for text, _ in staged.memories()] == ["memo"]


def test_a_broken_recording_fails_with_its_reason(stage: Staging) -> None:
    staged = stage(RECORDING, Senses(Media(5), Ear()), b"broken")
    staged.perceive()
    assert (staged.file.status, staged.file.error) == ("failed", "it is damaged")


def test_a_sound_that_is_refused_fails_with_its_reason(stage: Staging) -> None:
    staged = stage(RECORDING, Senses(Media(5), Ear(Invalid("the transcription model refused the sound"))))
    staged.perceive()
    assert staged.file.status == "failed"
    assert "refused the sound" in str(staged.file.error)


@pytest.mark.parametrize("error", [Unavailable("away"), Misconfigured("wrong")])
def test_what_is_no_fault_of_the_file_leaves_it_to_be_tried_again(stage: Staging, error: Exception) -> None:
    staged = stage(RECORDING, Senses(Media(5), Ear(error, Transcript([said(0, 1, "At last.")]))))
    with pytest.raises(type(error)):
        staged.perceive()
    staged.perceive()
    staged.perceive()  # as after a lost answer: it has what it awaited
    assert staged.store().status == "done"
    assert staged.store().chunks == 1
    assert [text for text, _ in staged.memories()] == ["At last."]


@pytest.mark.parametrize(("document", "kind"), [(RECORDING, "hear"), (PICTURE, "see")])
def test_what_is_cancelled_amid_its_perceiving_is_not_stored_and_can_be_taken_up_again(
    stage: Staging, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, document: Document, kind: str
) -> None:
    monkeypatch.setattr(perceiving, "_LOOK_SECONDS", 0.0)

    class Cancelling(Ear, Eye):
        def __init__(self) -> None:
            Eye.__init__(self)

        def transcribe(self, samples: Samples, language: str | None, look: Look = unwatched) -> Transcript:
            staged.house.batches.cancel(tenant.caller, staged.batch_id)
            look()
            pytest.fail("it went on")

        def caption(self, jpeg: bytes, look: Look = unwatched) -> str:
            return str(self.transcribe(np.zeros(1, dtype=np.int16), None, look))

    model = Cancelling()
    staged = stage(document, Senses(Media(5), model, model))
    staged.perceive()
    assert (staged.store().status, staged.file.error) == ("failed", "cancelled")
    assert memories_of(staged.house, tenant.caller) == 0
    assert staged.house.batches.retry(tenant.caller, staged.batch_id).queued == 1


def test_what_was_taken_up_again_amid_its_perceiving_is_not_stored_without(stage: Staging, tenant: Tenant) -> None:
    staged = stage(RECORDING, Senses(Media(5), Ear(Transcript([said(0, 1, "Hello.")], "en", is_sure=True))))
    staged.house.batches.cancel(tenant.caller, staged.batch_id)
    staged.house.batches.retry(tenant.caller, staged.batch_id)
    assert staged.store().status == "queued"
    staged.house.ingesting.read(tenant.caller.tenant_id, staged.file_id)
    staged.perceive()
    assert staged.store().status == "done"
    assert [text for text, _ in staged.memories()] == ["Hello."]


def test_a_caption_and_what_is_written_are_both_found_each_by_itself(stage: Staging, tenant: Tenant) -> None:
    eye = Eye("A harbour at dawn.")
    staged = stage(PICTURE, Senses(Media(), captioner=eye))
    staged.perceive()
    file = staged.store()
    assert (file.status, file.note) == ("done", None)
    assert [(text, metadata["origin"]) for text, metadata in staged.memories()] == [
        ("A harbour at dawn.", "caption"),
        ("No entry", "ocr"),
    ]
    assert eye.pictures == [b"small content"]
    assert memories_of(staged.house, tenant.caller) == 2


def test_a_picture_without_text_has_its_caption_and_no_excuse(stage: Staging) -> None:
    staged = stage(BLANK, Senses(Media(), captioner=Eye("A harbour at dawn.")))
    staged.perceive()
    assert staged.store().note is None
    assert [text for text, _ in staged.memories()] == ["A harbour at dawn."]


@pytest.mark.parametrize("senses", [None, Senses(Media()), Senses(Media(), captioner=Eye(sees=False))])
@pytest.mark.parametrize(("document", "note"), [(PICTURE, None), (BLANK, NOT_CAPTIONED)])
def test_without_a_captioner_the_text_on_a_picture_has_to_do(
    stage: Staging, senses: Senses | None, document: Document, note: str | None
) -> None:
    staged = stage(document, senses)
    assert staged.awaited is None
    assert staged.store().note == note


def test_a_picture_that_is_refused_keeps_its_text_and_says_so(stage: Staging) -> None:
    staged = stage(PICTURE, Senses(Media(), captioner=Eye(Invalid("not that one"))))
    staged.perceive()
    assert staged.store().note == REFUSED_CAPTION
    assert [text for text, _ in staged.memories()] == ["No entry"]


def test_a_caption_that_never_comes_is_done_without(stage: Staging) -> None:
    staged = stage(PICTURE, Senses(Media(), captioner=Eye(Unavailable("away"))))
    with pytest.raises(Unavailable):
        staged.perceive()
    for _ in range(2):
        staged.house.ingesting.go_without_caption(staged.tenant.caller.tenant_id, staged.file_id)
    assert staged.store().note == NO_CAPTION
    assert [text for text, _ in staged.memories()] == ["No entry"]


def test_long_speech_is_cut_into_chunks_that_fit_and_tell_their_times() -> None:
    blocks = [
        Block(
            kind="speech",
            text=f"Utterance {n} says something about the weather of day {n}.",
            start=n * 5,
            end=n * 5 + 4,
        )
        for n in range(100)
    ]
    words = WordEmbedder()
    chunks = chunk(Document(content_type="audio/wav", blocks=blocks), count_tokens=words.count_tokens, max_tokens=120)
    assert len(chunks) > 4
    for piece in chunks:
        assert words.count_tokens(piece.embedded) <= 120 - SPECIAL_TOKENS
        numbers = [int(word) for word in piece.text.replace(".", "").split() if word.isdigit()]
        inside = [n for n in range(100) if piece.metadata["start"] <= 5 * n <= piece.metadata["end"]]
        assert set(numbers) <= set(inside)
        assert piece.metadata["end"] == 5 * max(numbers) + 4
    assert chunks[0].metadata["start"] == 0
    assert chunks[-1].metadata["end"] == 499
    # Each begins before the one before it ends: they overlap.
    assert all(b.metadata["start"] <= a.metadata["end"] + 1 for a, b in itertools.pairwise(chunks))
    heard = " ".join(piece.text for piece in chunks)
    assert all(f"Utterance {n} says" in heard for n in range(100))
