"""runtime.json, and ending what a killed start has left behind without touching strangers."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from ops.runtime import Runtime, end_leftovers


@pytest.fixture
def sleepers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _runtime(**pids: int) -> Runtime:
    return Runtime("http://127.0.0.1:1", "postgresql://…", "127.0.0.1:2", None, pids)


def _sleeper(stack: ExitStack, data: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A process whose command line ends with `arguments` and that belongs to `data`."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", *arguments]
    environment = {**os.environ, "REMEMBEROS_DATA": str(data)}
    process = stack.enter_context(subprocess.Popen(command, env=environment))
    stack.callback(process.kill)
    return process


def test_it_is_private_and_comes_back_as_it_was(tmp_path: Path) -> None:
    runtime = _runtime(api=1, worker=2)
    runtime.write(tmp_path)
    assert stat.S_IMODE((tmp_path / "runtime.json").stat().st_mode) == 0o600
    assert Runtime.read(tmp_path) == runtime
    assert [file.name for file in tmp_path.iterdir()] == ["runtime.json"]
    Runtime.remove(tmp_path)
    assert Runtime.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pids": {}}'])
def test_one_that_makes_no_sense_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "runtime.json").write_text(text)
    assert Runtime.read(tmp_path) is None


def test_leftovers_are_ended(tmp_path: Path, sleepers: ExitStack) -> None:
    api = _sleeper(sleepers, tmp_path, ["-m", "api"])
    temporal = _sleeper(sleepers, tmp_path, ["--db-filename", str(tmp_path / "temporal" / "temporal.db")])
    _runtime(api=api.pid, temporal=temporal.pid).write(tmp_path)
    assert end_leftovers(tmp_path) == ["api", "temporal"]
    assert not psutil.pid_exists(api.pid)
    assert not psutil.pid_exists(temporal.pid)


def test_strangers_under_a_number_of_ours_are_left_alone(tmp_path: Path, sleepers: ExitStack) -> None:
    other = _sleeper(sleepers, tmp_path, ["something", "else"])
    neighbour = _sleeper(sleepers, tmp_path / "elsewhere", ["-m", "worker"])
    _runtime(api=other.pid, worker=neighbour.pid, temporal=other.pid).write(tmp_path)
    assert end_leftovers(tmp_path) == []
    assert other.poll() is None
    assert neighbour.poll() is None


def test_without_a_file_there_is_nothing_to_end(tmp_path: Path) -> None:
    assert end_leftovers(tmp_path) == []
