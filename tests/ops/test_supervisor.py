"""Children under supervision: restarts, patience with its limit, an orderly end, and what their output becomes."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from memory.errors import Unavailable
from ops import launch
from ops.processes import is_alive
from ops.supervisor import Part, Supervisor

_READY = 'import json, sys, time; print(json.dumps({"event": "ready", "level": "info"}), flush=True); '


def _part(name: str, code: str, *, command: list[str] | None = None) -> Part:
    arguments = command or [sys.executable, "-c", _READY + code]
    return Part(
        name=name,
        command=lambda: launch.command(arguments, death=signal.SIGKILL),
        environment=dict(os.environ),
        is_ready=lambda output: output.has_logged("ready"),
        stops=((signal.SIGTERM, 5.0),),
        ready_seconds=30,
    )


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def changes() -> list[dict[str, int]]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str], changes: list[dict[str, int]]) -> Iterator[Supervisor]:
    made = Supervisor(logs=tmp_path, say=said.append, changed=lambda: changes.append(made.pids))
    yield made
    made.stop()


def _until(supervisor: Supervisor, said: list[str], text: str) -> None:
    supervisor.watch(until=lambda: any(text in line for line in said))


def test_a_killed_part_comes_back_under_a_new_number(
    supervisor: Supervisor, said: list[str], changes: list[dict[str, int]]
) -> None:
    supervisor.start(_part("one", "time.sleep(60)"))
    supervisor.wait("one")
    first = supervisor.pids["one"]
    os.kill(first, signal.SIGKILL)
    _until(supervisor, said, "one: back")
    assert said[0] == "one: ended by SIGKILL; starting it again in 0.5 s"
    assert supervisor.pids["one"] != first
    assert changes == [supervisor.pids]


def test_five_deaths_in_a_minute_end_it_with_the_reason(
    supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.supervisor.FIRST_PAUSE_SECONDS", 0.01)
    supervisor.start(_part("weak", "print('no more ink'); sys.exit(3)"))
    with pytest.raises(Unavailable, match=r"(?s)weak died 5 times within a minute.*no more ink"):
        supervisor.watch()
    pauses = [line.split("starting it again in ")[1] for line in said if "ended with exit code 3" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.08 s"]


def test_deaths_long_ago_do_not_count(supervisor: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.supervisor.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("ops.supervisor.DEATHS_WITHIN_SECONDS", 0.0)
    supervisor.start(_part("mayfly", "pass"))
    supervisor.watch(until=lambda: len(said) > 8)


def test_a_start_that_fails_tells_its_last_words(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(_part("bad", "", command=[sys.executable, "-c", "import sys; sys.exit('no such port')"]))
    with pytest.raises(Unavailable, match=r"(?s)bad ended while it was starting.*bad\.log.*no such port"):
        supervisor.wait("bad")


def test_stop_asks_first_and_ends_what_a_part_has_left_behind(supervisor: Supervisor, tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import pathlib, signal, subprocess; "
        f"inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"pathlib.Path({str(child)!r}).write_text(str(inner.pid)); "
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0))); "
        'print(json.dumps({"event": "armed", "level": "info"}), flush=True); time.sleep(60)'
    )
    supervisor.start(replace(_part("polite", code), is_ready=lambda output: output.has_logged("armed")))
    supervisor.wait("polite")
    inner = psutil.Process(int(child.read_text()))
    supervisor.stop()
    assert (tmp_path / "polite.log").read_text().splitlines()[-1] == "bye"
    assert psutil.wait_procs([inner], timeout=5)[0] or not is_alive(inner)
    assert supervisor.pids == {}


def test_a_part_that_will_not_end_is_killed_when_there_is_no_time(supervisor: Supervisor) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(json.dumps({'event': 'deaf', 'level': 'info'})); "
    deaf = _part("deaf", f"{code}sys.stdout.flush(); time.sleep(60)")
    supervisor.start(
        replace(deaf, is_ready=lambda output: output.has_logged("deaf"), stops=((signal.SIGTERM, 3600.0),))
    )
    supervisor.wait("deaf")
    process = psutil.Process(supervisor.pids["deaf"])
    timer = threading.Timer(0.2, supervisor.hurry)
    timer.start()
    supervisor.stop()
    timer.join()
    assert not is_alive(process)


def test_problems_reach_the_terminal_and_the_rest_only_the_log(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    lines = [
        {"event": "all is well", "level": "info"},
        {"event": "nearly full", "level": "warning", "error": "disk"},
        *({"event": f"again {number}", "level": "error"} for number in range(20)),
        {"event": "ready", "level": "info"},
    ]
    code = "\n".join(f"print({json.dumps(line)!r})" for line in lines)
    supervisor.start(
        _part("loud", "", command=[sys.executable, "-uc", f"{code}\nprint('not json')\nimport time\ntime.sleep(60)"])
    )
    supervisor.wait("loud")
    assert said[:2] == ["loud: warning: nearly full disk", "loud: error: again 0"]
    assert len(said) == 5
    supervisor.stop()
    assert "all is well" in (tmp_path / "loud.log").read_text()


def test_a_log_stays_small(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.supervisor._LOG_BYTES", 10_000)
    code = "[print('x' * 99) for _ in range(2000)]; " + _READY.split("; ", 1)[1] + "time.sleep(60)"
    supervisor.start(_part("flood", "", command=[sys.executable, "-c", f"import json, sys, time; {code}"]))
    supervisor.wait("flood")
    supervisor.stop()
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["flood.log", "flood.log.1", "flood.log.2"]
    assert all(file.stat().st_size <= 10_000 for file in tmp_path.iterdir())
