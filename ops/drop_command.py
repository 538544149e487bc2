"""What `rememberos drop` says: whom it talks to, how far it is, and what came of it."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from memory.errors import AppError, Invalid, Misconfigured
from memory.schemas import CollectionName
from memory.settings import Settings
from ops import dropping
from ops.client import Client
from ops.dropping import Report, Wanted
from ops.runtime import Runtime

INTERRUPTED = 130

# A restart of the server takes seconds, an upgrade minutes.
_PATIENCE_SECONDS = 300.0
_BETWEEN_LINES_SECONDS = 5.0
_WORTH_SAYING_SECONDS = 2.0
_BARS = ("sent", "read")

_collection_name = TypeAdapter(CollectionName)


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    paths: Sequence[Path]
    collection: str
    tag: str | None = None
    category: str | None = None
    metadata: str | None = None
    force: bool = False
    wait: bool = True
    url: str | None = None
    key: str | None = None


def run(settings: Settings, given: Given, console: Console) -> int:
    """Drops, shows how far it is, says what came of it, and returns the exit code. Raises AppError."""
    fields = _fields(given)
    url, key = _whom(settings, given)
    # Without patience: a wrong address or key is said at once.
    limits = Client(url, key).get("/v1/memory/admin/me")["limits"]
    wanted = Wanted(given.paths, given.collection, limits["max_file_bytes"], fields, force=given.force, wait=given.wait)
    client = Client(url, key, patience_seconds=_PATIENCE_SECONDS, on_wait=_Waiting(console))
    try:
        with _Bars(console) as bars:
            report = dropping.run(client, wanted, bars if console.is_terminal else _Lines(console))
    except KeyboardInterrupt:
        console.print("stopped; what was sent is kept. The same command again sends only what is missing.")
        return INTERRUPTED
    _say(report, wanted, console)
    return 1 if report.failed else 0


def _fields(given: Given) -> dict[str, str]:
    try:
        _collection_name.validate_python(given.collection)
    except ValidationError as error:
        raise Invalid(f"--collection: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if given.metadata is not None:
        try:
            is_object = isinstance(json.loads(given.metadata), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise Invalid('--metadata: not a JSON object, such as {"year": 2026}')
    fields = {"container_tag": given.tag, "category": given.category, "metadata": given.metadata}
    return {name: value for name, value in fields.items() if value is not None}


def _whom(settings: Settings, given: Given) -> tuple[str, str]:
    """Address and key."""
    data = settings.rememberos_data
    url, key = given.url or settings.rememberos_url, given.key
    if key is None and settings.rememberos_key is not None:
        key = settings.rememberos_key.get_secret_value()
    if url is None:
        runtime = Runtime.read(data)
        if runtime is None:
            raise Misconfigured(f"no `rememberos up` runs on {data}: name it with --data, or give --url and --key")
        url = runtime.api_url
        file = data / "admin-key"
        if key is None and file.exists():
            # Of this installation only: a key is not shown to another one.
            key = file.read_text().strip()
    if key is None:
        raise Misconfigured(f"{url} needs a key: give --key or REMEMBEROS_KEY")
    return url, key


class _Waiting:
    """Says why nothing goes on, once for all requests that wait for the same."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._said_at = -_BETWEEN_LINES_SECONDS

    def __call__(self, why: AppError, seconds: float) -> None:
        with self._lock:
            if seconds < _WORTH_SAYING_SECONDS or time.monotonic() - self._said_at < _BETWEEN_LINES_SECONDS:
                return
            self._said_at = time.monotonic()
        self._console.print(f"trying again in {seconds:.0f} s: {_shown(why.detail)}")


class _Bars:
    """Two bars on a terminal: what is sent, what is read."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        # Both from the start: several senders tell at the same time how far they are.
        self._sent, self._read = (self._progress.add_task(name, total=None, visible=False) for name in _BARS)

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sending(self, sent: int, found: int) -> None:
        self._show(self._sent, sent, found)

    def reading(self, ended: int, total: int) -> None:
        self._show(self._read, ended, total)

    def _show(self, task: TaskID, completed: int, total: int) -> None:
        self._progress.update(task, completed=completed, total=total, visible=True)


class _Lines:
    """Into a file or a pipe: a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at = time.monotonic()

    def sending(self, sent: int, found: int) -> None:
        self._say(f"sent {sent} of {found} files found so far")

    def reading(self, ended: int, total: int) -> None:
        self._say(f"read {ended} of {total} files")

    def _say(self, line: str) -> None:
        if time.monotonic() - self._said_at >= _BETWEEN_LINES_SECONDS:
            self._said_at = time.monotonic()
            self._console.print(line)


def _say(report: Report, wanted: Wanted, console: Console) -> None:
    for name, reason in sorted(report.failed):
        console.print(f"failed: {_shown(name)}: {_shown(reason)}")
    counts = [(report.found, "found"), (report.present, "there already"), (report.sent, "sent")]
    if wanted.wait:
        counts.append((report.done, "done"))
    counts.append((len(report.failed), "failed"))
    console.print("files: " + ", ".join(f"{count} {what}" for count, what in counts))
    if report.left_out:
        console.print("left out: " + ", ".join(f"{count} {why}" for why, count in sorted(report.left_out.items())))


def _shown(text: str) -> str:
    """Names are strangers' words: what would steer the terminal is not printed."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
