"""Running one long program: what it says is counted, progress is told, and one that stands still is ended."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ops import launch


@dataclass(frozen=True)
class Watch:
    """How to follow a program: `line` hears each line, `progress` is told every `report` seconds.

    When what `progress` says stays the same for `stall` seconds, or `limit` seconds are over, the program is ended.
    """

    line: Callable[[str], None]
    progress: Callable[[], str]
    stall: float
    limit: float
    report: float = 10.0


def run(command: Sequence[str], environment: Mapping[str, str], watch: Watch, say: Callable[[str], None]) -> str:
    """Runs it to its end and returns its last line; it never outlives the caller."""
    last = ""

    def listen(lines: Iterable[str]) -> None:
        nonlocal last
        for line in lines:
            last = line.strip() or last
            watch.line(line)

    with subprocess.Popen(
        launch.command(list(command), death=signal.SIGKILL),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        listener = threading.Thread(target=listen, args=(child.stdout,), daemon=True)
        listener.start()
        try:
            reason = _follow(child, watch, say)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            listener.join()
    return reason or last


def _follow(child: subprocess.Popen[str], watch: Watch, say: Callable[[str], None]) -> str | None:
    began = moved = told = time.monotonic()
    seen = watch.progress()
    while True:
        try:
            child.wait(0.2)
        except subprocess.TimeoutExpired:
            pass
        else:
            return None
        now, progress = time.monotonic(), watch.progress()
        if progress != seen:
            seen, moved = progress, now
        if now - moved > watch.stall:
            return f"nothing moved for {watch.stall:g} s"
        if now - began > watch.limit:
            return f"not done within {watch.limit:g} s"
        if now - told >= watch.report:
            told = now
            minutes, seconds = divmod(int(now - began), 60)
            say(f"  … {minutes}:{seconds:02d} {progress}")
