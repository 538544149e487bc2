"""Child processes that are kept alive: started in order, restarted when they die, stopped in reverse order."""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from memory.errors import Unavailable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
DEATHS = 5
DEATHS_WITHIN_SECONDS = 60.0

_LOG_BYTES = 10_000_000
_LAST_WORDS = 5
_PROBLEMS = ("warning", "error", "critical")
_PROBLEMS_SHOWN_PER_MINUTE = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One child: how it is started, when it is ready and how it is told to end.

    `command` is asked before every start and may clear the way first. `is_ready` gets what the child has logged.
    `stops` are signals with the seconds each is given; SIGKILL follows by itself.
    """

    name: str
    command: Callable[[], list[str]]
    environment: Mapping[str, str]
    is_ready: Callable[["Output"], bool]
    stops: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)
    ready_seconds: float = 60.0
    # Postgres ends its own family, and in order.
    kill_group: bool = True


class Output:
    """What one child writes: all of it into a log file that stays small, its problems also to the terminal."""

    def __init__(self, name: str, folder: Path, say: Say) -> None:
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._began = time.monotonic()
        self._name = name
        self._say = say
        self._shown: deque[float] = deque(maxlen=_PROBLEMS_SHOWN_PER_MINUTE)
        self._events: set[str] = set()
        self._file = RotatingFileHandler(folder / f"{name}.log", maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8")

    def follow(self, lines: IO[str]) -> None:
        """Takes lines until the child closes its end."""
        with lines:
            for line in lines:
                text = line.rstrip("\n")
                self._file.emit(logging.LogRecord(self._name, logging.INFO, "", 0, text, None, None))
                if text:
                    self.last_words.append(text[:500])
                    self._notice(text)
        self._file.close()

    def has_logged(self, event: str) -> bool:
        """Whether the child logged this event since it started."""
        return event in self._events

    @property
    def age(self) -> float:
        """Seconds since the child was started."""
        return time.monotonic() - self._began

    def _notice(self, text: str) -> None:
        try:
            entry = json.loads(text)
            event, level = str(entry["event"]), str(entry["level"])
        except (ValueError, KeyError, TypeError):
            return
        if len(self._events) < 1000:
            self._events.add(event)
        if level in _PROBLEMS:
            now = time.monotonic()
            if len(self._shown) == _PROBLEMS_SHOWN_PER_MINUTE and now - self._shown[0] < 60:
                return
            self._shown.append(now)
            details = " ".join(str(entry[name]) for name in ("error", "reason") if name in entry)
            self._say(f"{self._name}: {level}: {event} {details}".rstrip()[:300])


@dataclass
class _Child:
    part: Part
    process: subprocess.Popen[str] | None = None
    output: Output | None = None
    listener: threading.Thread | None = None
    ready: bool = False
    start_at: float | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))


class Supervisor:
    """Keeps its parts running. All calls come from one thread, because children end with the thread that made them."""

    def __init__(self, *, logs: Path, say: Say, changed: Callable[[], None] = lambda: None) -> None:
        self._logs = logs
        self._say = say
        self._changed = changed
        self._children: list[_Child] = []
        self._hurry = False

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the parts that live now."""
        return {child.part.name: child.process.pid for child in self._children if child.process is not None}

    def start(self, part: Part) -> None:
        """Starts a part; `wait` for it before starting what needs it."""
        child = _Child(part)
        self._children.append(child)
        self._spawn(child)

    def wait(self, name: str) -> None:
        """Returns once that part is ready. Raises Unavailable with its last words when it ends or takes too long."""
        child = next(child for child in self._children if child.part.name == name)
        while not self._check_ready(child):
            if child.process is None or child.process.poll() is not None:
                raise Unavailable(f"{name} ended while it was starting{self._last_words(child)}")
            if child.output is None or child.output.age > child.part.ready_seconds:
                raise Unavailable(
                    f"{name} is not ready after {child.part.ready_seconds:.0f} s{self._last_words(child)}"
                )
            time.sleep(0.05)

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Restarts what dies, until `until` is true. Raises Unavailable when a part dies five times in a minute."""
        while not until():
            for child in self._children:
                self._look_after(child)
            time.sleep(0.1)

    def stop(self) -> None:
        """Ends all parts, the newest first, each with its own signals."""
        for child in reversed(self._children):
            self._stop(child)
        self._children.clear()

    def hurry(self) -> None:
        """Makes a `stop` that is under way kill at once what is left."""
        self._hurry = True

    def _spawn(self, child: _Child) -> None:
        part = child.part
        child.output = Output(part.name, self._logs, self._say)
        child.ready, child.start_at = False, None
        child.process = subprocess.Popen(
            part.command(),
            env=dict(part.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C reaches us alone, so that we can stop them in order.
            start_new_session=True,
        )
        child.listener = threading.Thread(target=child.output.follow, args=(child.process.stdout,), daemon=True)
        child.listener.start()

    def _look_after(self, child: _Child) -> None:
        now = time.monotonic()
        if child.start_at is not None:
            if now >= child.start_at:
                self._spawn(child)
                self._changed()
        elif child.process is not None and child.process.poll() is not None:
            self._bury(child, now)
        elif not child.ready and self._check_ready(child):
            self._say(f"{child.part.name}: back")

    def _bury(self, child: _Child, now: float) -> None:
        name, code = child.part.name, child.process.returncode if child.process else None
        self._end_rest(child)
        child.deaths.append(now)
        recent = [death for death in child.deaths if now - death < DEATHS_WITHIN_SECONDS]
        if len(recent) >= DEATHS:
            raise Unavailable(f"{name} died {DEATHS} times within a minute{self._last_words(child)}")
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (len(recent) - 1), LONGEST_PAUSE_SECONDS)
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        self._say(f"{name}: ended {how}; starting it again in {pause:g} s")
        child.process, child.start_at = None, now + pause

    def _check_ready(self, child: _Child) -> bool:
        child.ready = child.ready or (child.output is not None and child.part.is_ready(child.output))
        return child.ready

    def _stop(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        for step, seconds in child.part.stops:
            if process.poll() is None and not self._hurry:
                process.send_signal(step)
                self._wait(process, seconds)
        process.kill()
        process.wait()
        self._end_rest(child)
        child.process = None

    def _wait(self, process: subprocess.Popen[str], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and not self._hurry:
            time.sleep(0.02)

    def _end_rest(self, child: _Child) -> None:
        """What a dead child left: its own children, and lines not read yet."""
        if child.part.kill_group and child.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
        if child.listener is not None:
            child.listener.join(2)

    def _last_words(self, child: _Child) -> str:
        words = list(child.output.last_words) if child.output is not None else []
        log = self._logs / f"{child.part.name}.log"
        return f"; its log ({log}) ends:\n" + "\n".join(f"  {word}" for word in words) if words else f"; log: {log}"
