"""What `rememberos drop` says: whom it talks to, how far it is, and what came of it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from memory.errors import Invalid, Misconfigured
from memory.settings import Settings
from ops import dropping
from ops.client import Client
from ops.dropping import Report, Wanted
from ops.runtime import Runtime

INTERRUPTED = 130

# A restart of the server takes seconds, an upgrade minutes.
_PATIENCE_SECONDS = 300.0
_BETWEEN_LINES_SECONDS = 5.0


def wanted(
    paths: Sequence[Path],
    collection: str,
    *,
    tag: str | None,
    category: str | None,
    metadata: str | None,
    force: bool,
    wait: bool,
) -> Wanted:
    """Raises Invalid."""
    if metadata is not None:
        try:
            is_object = isinstance(json.loads(metadata), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise Invalid('--metadata: not a JSON object, such as {"year": 2026}')
    given = {"container_tag": tag, "category": category, "metadata": metadata}
    fields = {name: value for name, value in given.items() if value is not None}
    return Wanted(paths, collection, fields, force=force, wait=wait)


def run(settings: Settings, wanted: Wanted, *, url: str | None, key: str | None, console: Console) -> int:
    """Drops, shows how far it is, says what came of it, and returns the exit code. Raises AppError."""
    client = _client(settings, url, key)
    try:
        with _Bars(console) as bars:
            report = dropping.run(client, wanted, bars if console.is_terminal else _Lines(console))
    except KeyboardInterrupt:
        console.print("stopped; what was sent is kept. The same command again sends only what is missing.")
        return INTERRUPTED
    _say(report, wanted, console)
    return 1 if report.failed else 0


def _client(settings: Settings, url: str | None, key: str | None) -> Client:
    data = settings.rememberos_data
    url = url or settings.rememberos_url
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
    return Client(url, key, patience_seconds=_PATIENCE_SECONDS)


class _Bars:
    """Two bars on a terminal: what is sent, what is read."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sending(self, sent: int, found: int) -> None:
        self._show("sent", sent, found)

    def reading(self, ended: int, total: int) -> None:
        self._show("read", ended, total)

    def _show(self, name: str, completed: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None)
        self._progress.update(self._tasks[name], completed=completed, total=total)


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
    for name, reason in report.failed:
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
