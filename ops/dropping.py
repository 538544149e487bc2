"""`rememberos drop`: asks which files are missing, sends those in groups, and watches until all have ended."""

import hashlib
import queue
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from memory.errors import BadRequest, Invalid, NotFound, TooLarge
from memory.filenames import clean_filename, clean_path
from ops.client import Client
from ops.walking import Found, LeftOut, Unreadable, Walked, walk

# One question; the server takes up to 1,000 hashes in it.
_ASKED_TOGETHER = 500
# Small files share a request. Each is held in memory while it is sent.
_GROUP_FILES = 32
_GROUP_BYTES = 8 * 1024 * 1024
_REQUESTS_AT_ONCE = 4
_GROUPS_WAITING = 4
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Wanted:
    """What is dropped, where, and how. `fields` go into every form; larger files than `most_bytes` are not sent."""

    paths: Sequence[Path]
    collection: str
    most_bytes: int
    fields: dict[str, str] = field(default_factory=dict)
    force: bool = False
    wait: bool = True


class Display(Protocol):
    """What a person sees meanwhile."""

    def sending(self, sent: int, found: int) -> None: ...
    def reading(self, ended: int, total: int) -> None: ...


@dataclass
class Report:
    """What came of it. `failed` are names with reasons; `present` files were there before, or twice among these."""

    found: int = 0
    present: int = 0
    sent: int = 0
    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass
class _Batch:
    """A batch that is watched; `names` are those of its files that we care for, None for all."""

    id: str
    total: int
    names: set[str] | None = None
    ended: int = 0


def run(client: Client, wanted: Wanted, display: Display) -> Report:
    """Drops all files. Raises AppError when the whole of it cannot go on; what was taken in by then stays."""
    drop = _Drop(client, wanted, display)
    try:
        drop.send()
        if wanted.wait:
            drop.watch()
    finally:
        client.close()
    return drop.report


class _Drop:
    def __init__(self, client: Client, wanted: Wanted, display: Display) -> None:
        self.report = Report()
        self._client = client
        self._wanted = wanted
        self._display = display
        self._path = f"/v1/memory/collections/{quote(wanted.collection, safe='')}/drop"
        # By the hash of a content the name under which it is sent, and by that name the others of the same content.
        self._seen: dict[str, str] = {}
        self._twins: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._batches: dict[str, _Batch] = {}
        self._groups: queue.Queue[list[Found] | None] = queue.Queue(_GROUPS_WAITING)
        self._trouble: BaseException | None = None

    # Sending

    def send(self) -> None:
        """Returns when every missing file is taken in, or named as failed."""
        # Daemons: who presses Ctrl-C does not wait for what is on its way.
        senders = [threading.Thread(target=self._send_groups, daemon=True) for _ in range(_REQUESTS_AT_ONCE)]
        for sender in senders:
            sender.start()
        files = self._files(walk(self._wanted.paths))
        while self._trouble is None and (asked := list(islice(files, _ASKED_TOGETHER))):
            for group in _groups(asked if self._wanted.force else self._missing(asked)):
                self._groups.put(group)
        for _ in senders:
            self._groups.put(None)
        for sender in senders:
            sender.join()
        if self._trouble is not None:
            raise self._trouble
        self._show()

    def _files(self, walked: Iterable[Walked]) -> Iterator[Found]:
        for one in walked:
            if isinstance(one, LeftOut):
                self.report.left_out[one.reason] += 1
                continue
            self.report.found += 1
            if isinstance(one, Unreadable):
                self._fail([(one.name, one.reason)])
            elif one.size > self._wanted.most_bytes:
                self._fail([(one.name, f"larger than {self._wanted.most_bytes // 1024**2} MB, the limit for one file")])
            else:
                yield one

    def _missing(self, files: Sequence[Found]) -> list[Found]:
        hashed: dict[str, Found] = {}
        for file in files:
            digest = self._digest(file)
            if digest is None:
                continue
            first = self._seen.setdefault(digest, file.name)
            if first == file.name:
                hashed[digest] = file
            else:
                self._twins[_as_kept(first)].append(file.name)
                self.report.present += 1
        if not hashed:
            return []
        asked = {"container_tag": self._wanted.fields.get("container_tag"), "sha256": list(hashed)}
        answer = self._client.post(f"{self._path}/missing", asked)
        self.report.present += len(hashed) - len(answer["missing"]) - len(answer["pending"])
        for one in answer["pending"]:
            batch = self._batches.setdefault(one["batch_id"], _Batch(one["batch_id"], 0, set()))
            batch.total += 1
            if batch.names is not None:
                batch.names.add(_as_kept(hashed[one["sha256"]].name))
        return [hashed[digest] for digest in answer["missing"]]

    def _digest(self, file: Found) -> str | None:
        try:
            with file.file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            self._fail([(file.name, f"cannot be read: {error.strerror}")])
            return None

    def _send_groups(self) -> None:
        # After trouble the rest is taken off the queue and not sent, so that nobody waits for room in it.
        while (group := self._groups.get()) is not None:
            if self._trouble is None:
                try:
                    self._send_group(group)
                except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread is told
                    self._trouble = error

    def _send_group(self, group: Sequence[Found]) -> None:
        contents = [(file.name, content) for file in group if (content := self._content(file)) is not None]
        if not contents:
            return
        fields = {**self._wanted.fields, **({"force": "true"} if self._wanted.force else {})}
        try:
            accepted = self._client.form(f"{self._path}?async_ingest=true", fields, contents)
        except (BadRequest, Invalid, TooLarge) as error:
            # Something about these files; the others may fare better.
            self._fail([(name, error.detail) for name, _ in contents])
            return
        with self._lock:
            self.report.sent += accepted["queued"]
            self._batches[accepted["batch_id"]] = _Batch(accepted["batch_id"], accepted["queued"])
        self._fail([(refused["filename"], refused["reason"]) for refused in accepted["errors"]])
        self._show()

    def _content(self, file: Found) -> bytes | None:
        try:
            with file.file.open("rb") as stream:
                # One that has grown meanwhile is refused by the server, and not for the size of all of it.
                return stream.read(self._wanted.most_bytes + 1)
        except OSError as error:
            self._fail([(file.name, f"cannot be read: {error.strerror}")])
            return None

    def _fail(self, failed: Iterable[tuple[str, str]]) -> None:
        with self._lock:
            for name, reason in failed:
                alike = self._twins.pop(_as_kept(name), [])
                self.report.present -= len(alike)
                self.report.failed += [(one, reason) for one in (name, *alike)]

    def _show(self) -> None:
        report = self.report
        self._display.sending(report.sent + report.present + len(report.failed), report.found)

    # Watching

    def watch(self) -> None:
        """Returns when every file that was taken in has ended, now or by an earlier drop that was broken off."""
        open_ones = deque(self._batches.values())
        while open_ones:
            # In turn: they are worked on side by side, and the bar is to move with each of them.
            batch = open_ones.popleft()
            if not self._has_ended(batch):
                open_ones.append(batch)
        self._show_reading()

    def _has_ended(self, batch: _Batch) -> bool:
        asked_at = time.monotonic()
        path = f"/v1/memory/ingest/batch/{batch.id}"
        try:
            counts = self._client.get(f"{path}?limit=0&wait={_PAUSE_SECONDS}")
            if counts["complete"]:
                self._end(batch, counts, self._client.get(f"{path}?status=failed")["files"])
        except NotFound:
            # Batches are kept for some days; a laptop may sleep longer.
            self._fail([(f"batch {batch.id}", "no longer known: drop again to see what is missing")])
            return True
        if counts["complete"]:
            return True
        ended = counts["done"] + counts["failed"]
        if batch.names is None:
            batch.total, batch.ended = counts["total"], ended
        else:
            # Which of them are ours is not asked each time.
            batch.ended = min(ended, batch.total - 1)
        self._show_reading()
        time.sleep(max(0.0, asked_at + _PAUSE_SECONDS - time.monotonic()))
        return False

    def _end(self, batch: _Batch, counts: dict[str, Any], files: Iterable[dict[str, Any]]) -> None:
        failed = [
            (str(file["path"] or file["filename"]), file["error"]) for file in files if file["status"] == "failed"
        ]
        if batch.names is not None:
            failed = [one for one in failed if one[0] in batch.names]
        else:
            # An archive becomes a file for each of its members.
            batch.total = counts["total"]
        self._fail(failed)
        batch.ended = batch.total
        self.report.done += batch.total - len(failed)
        self._show_reading()

    def _show_reading(self) -> None:
        batches = self._batches.values()
        self._display.reading(sum(batch.ended for batch in batches), sum(batch.total for batch in batches))


def _as_kept(name: str) -> str:
    """What the server calls a file that is sent under this name."""
    return clean_path(name) or clean_filename(name)


def _groups(files: Iterable[Found]) -> Iterator[list[Found]]:
    group: list[Found] = []
    size = 0
    for file in files:
        if group and (len(group) == _GROUP_FILES or size + file.size > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group
