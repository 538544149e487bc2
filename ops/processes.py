"""Looking at and ending processes that may vanish at any moment."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """Inside, a process that ended meanwhile or is not ours to look at is passed over."""
    try:
        yield
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return


def end(processes: Sequence[psutil.Process], step: signal.Signals, *, seconds: float) -> list[psutil.Process]:
    """Sends `step` to each, waits, and returns those still alive."""
    for process in processes:
        with gone_is_fine():
            process.send_signal(step)
    return wait(processes, seconds=seconds)


def wait(processes: Sequence[psutil.Process], *, seconds: float) -> list[psutil.Process]:
    """Waits for their end and returns those still alive; a zombie counts as ended."""
    alive: list[psutil.Process] = psutil.wait_procs(list(processes), timeout=seconds)[1]
    return [process for process in alive if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs and is not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
