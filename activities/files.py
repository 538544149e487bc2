"""The bench for dropped files: each method one retryable step; what it does is said in memory/ingesting.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from temporalio import activity

FILES_A_LISTING = 100

GivenUp = Literal["error", "worker_lost", "no_transcript"]
_REASONS: dict[GivenUp, str] = {
    "error": "an internal error stopped its processing; the server's log says more",
    "worker_lost": "its processing ended the worker several times",
    "no_transcript": "it was not transcribed, as the transcription does not work; once that is mended it can be tried "
    "again (`rememberos doctor` says more)",
}


@dataclass(frozen=True)
class Batch:
    """One drop of one tenant. Ids travel as strings; text, bytes and vectors never travel."""

    tenant_id: str
    batch_id: str


@dataclass(frozen=True)
class Listing:
    """A batch, and those of its files that are being worked on already."""

    tenant_id: str
    batch_id: str
    without: list[str]


@dataclass(frozen=True)
class Unfinished:
    """Files to be worked on; `round` counts how often those of the batch that failed were taken up again."""

    round: int
    portions: list[list[str]]


@dataclass(frozen=True)
class Portion:
    """A few files of one tenant that share an activity because each is small, or a single one."""

    tenant_id: str
    file_ids: list[str]


@dataclass(frozen=True)
class Awaiting:
    """Files that have been read, and to which a model has something to add before they are stored."""

    transcript: list[str]
    caption: list[str]


@dataclass(frozen=True)
class LostFile:
    """A file whose processing has failed for good, and why as a word; `detail` is what an error of ours said."""

    tenant_id: str
    file_id: str
    reason: GivenUp
    detail: str | None = None


class Ingesting(Protocol):
    """What this bench needs of the rules of ingesting."""

    def unfinished(
        self, tenant_id: UUID, batch_id: UUID, limit: int, without: Sequence[UUID]
    ) -> tuple[int, list[list[UUID]]]: ...
    def read(self, tenant_id: UUID, file_id: UUID) -> Literal["transcript", "caption"] | None: ...
    def perceive(self, tenant_id: UUID, file_id: UUID, awaited: Literal["transcript", "caption"]) -> None: ...
    def go_without_caption(self, tenant_id: UUID, file_id: UUID) -> None: ...
    def store(self, tenant_id: UUID, file_ids: Sequence[UUID]) -> None: ...
    def give_up(self, tenant_id: UUID, file_id: UUID, reason: str) -> None: ...
    def close(self, tenant_id: UUID, batch_id: UUID) -> bool: ...
    def stalled(self) -> list[tuple[UUID, UUID]]: ...


class FileActivities:
    def __init__(self, ingesting: Ingesting) -> None:
        self._ingesting = ingesting

    @activity.defn
    def list_unfinished(self, listing: Listing) -> Unfinished:
        """The next files of a batch that are neither done nor failed, in portions of ids."""
        turn, portions = self._ingesting.unfinished(
            UUID(listing.tenant_id),
            UUID(listing.batch_id),
            FILES_A_LISTING,
            [UUID(file_id) for file_id in listing.without],
        )
        return Unfinished(turn, [[str(file_id) for file_id in portion] for portion in portions])

    @activity.defn
    def read_files(self, portion: Portion) -> Awaiting:
        """Originals to documents; says which of them a model has to add to."""
        awaiting = Awaiting([], [])
        for file_id in portion.file_ids:
            awaited = self._ingesting.read(UUID(portion.tenant_id), UUID(file_id))
            if awaited == "transcript":
                awaiting.transcript.append(file_id)
            elif awaited == "caption":
                awaiting.caption.append(file_id)
        return awaiting

    @activity.defn
    def transcribe_files(self, portion: Portion) -> None:
        """What is said in recordings into their documents."""
        for file_id in portion.file_ids:
            self._ingesting.perceive(UUID(portion.tenant_id), UUID(file_id), "transcript")

    @activity.defn
    def caption_files(self, portion: Portion) -> None:
        """What pictures show into their documents."""
        for file_id in portion.file_ids:
            self._ingesting.perceive(UUID(portion.tenant_id), UUID(file_id), "caption")

    @activity.defn
    def go_without_captions(self, portion: Portion) -> None:
        """Leaves pictures with the text that is written on them."""
        for file_id in portion.file_ids:
            self._ingesting.go_without_caption(UUID(portion.tenant_id), UUID(file_id))

    @activity.defn
    def store_files(self, portion: Portion) -> None:
        """Documents to memories."""
        self._ingesting.store(UUID(portion.tenant_id), [UUID(file_id) for file_id in portion.file_ids])

    @activity.defn
    def give_up_file(self, lost: LostFile) -> None:
        """Marks a file as failed; one that has ended meanwhile stays as it is."""
        reason = _REASONS[lost.reason] + (f": {lost.detail}" if lost.detail else "")
        self._ingesting.give_up(UUID(lost.tenant_id), UUID(lost.file_id), reason)

    @activity.defn
    def close_batch(self, batch: Batch) -> bool:
        """Completes the batch; false when files are still unfinished."""
        return self._ingesting.close(UUID(batch.tenant_id), UUID(batch.batch_id))

    @activity.defn
    def list_stalled(self) -> list[Batch]:
        """Unfinished batches of all tenants that nothing has touched for a while."""
        return [Batch(str(tenant_id), str(batch_id)) for tenant_id, batch_id in self._ingesting.stalled()]
