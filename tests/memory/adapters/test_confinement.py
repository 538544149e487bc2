"""Reading files as root and as an ordinary user, on systems that refuse more or less of what confines a reader."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memory.adapters.guard import Guard
from memory.errors import RejectedFile, Unavailable
from ops import launch
from tests.memory.adapters.restricted import LIMITS

ROOT = Path(__file__).parents[3]
WORK = "tests.memory.adapters.misbehaving:reader"
ECHO = {"do": "echo", "name": "you"}
NOBODY = 65534
READ, THOUGHT, HOARDED = "Hello first: what the file holds", "3True", "RejectedFile: it needs more memory"


def _command(user: int, *arguments: str) -> list[str]:
    other = None if user == os.geteuid() else user
    return launch.command([sys.executable, *arguments], uid=other, death=signal.SIGKILL)


def _users() -> list[int]:
    """Who runs this, and where that is root also somebody else, unless our interpreter lies where only root may go."""
    if os.geteuid() != 0 or subprocess.run(_command(NOBODY, "-c", ""), capture_output=True, check=False).returncode:
        return [os.geteuid()]
    return [os.geteuid(), NOBODY]


USERS = _users()


@pytest.fixture
def path() -> Iterator[Path]:
    """A file that every user may read, in a folder where every user may write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stored"
        path.write_text("what the file holds")
        path.chmod(0o644)
        path.parent.chmod(0o777)
        yield path


def run_as(user: int, *arguments: str) -> str:
    """What our interpreter writes, run as that user."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        _command(user, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on(condition: str, user: int, path: Path) -> dict[str, Any]:
    work = f"{WORK}:{path.parent / 'board'}"
    found: dict[str, Any] = json.loads(
        run_as(user, "-m", "tests.memory.adapters.restricted", condition, work, str(path))
    )
    assert found["user"] == user
    return found


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("nothing", set()),
        ("namespaces", set()),
        ("names", set()),
        ("landlock", {"files of the same user"}),
        ("landlock by policy", {"files of the same user"}),
        ("seccomp", {"other processes"}),
        ("all three", {"the network", "files of the same user", "other processes"}),
        ("proc", {"memory beyond the limit"}),
        ("proc and all three", {"the network", "files of the same user", "other processes", "memory beyond the limit"}),
    ],
)
def test_files_are_read_whatever_is_refused_and_it_is_told_once(
    path: Path, user: int, condition: str, kept: set[str]
) -> None:
    found = on(condition, user, path)
    assert [said[: len(HOARDED)] for said in found["outcomes"]] == [READ, THOUGHT, HOARDED, READ]
    assert found["same server"]
    assert len(found["said"]) <= 1
    assert kept <= {name for entry in found["said"] for name in entry["kept"]}


@pytest.mark.parametrize(("condition", "same_server"), [("processes", True), ("a new server", False)])
def test_where_no_process_can_be_started_files_wait(path: Path, condition: str, same_server: bool) -> None:
    found = on(condition, USERS[-1], path)
    if found["user"] == 0:
        assert found["outcomes"][0] == READ  # root may always have more
        return
    first, *refused, last = found["outcomes"]
    assert (first, last) == (READ, READ)
    assert all(said.startswith("Unavailable: ") for said in refused)
    assert "Resource temporarily unavailable" in refused[-1]
    assert found["same server"] == same_server


@pytest.mark.parametrize("user", USERS)
def test_the_doctor_reads_a_file_and_says_what_is_missing(user: int) -> None:
    program = (
        "from tests.memory.adapters import restricted; restricted.CONDITIONS['all three']();"
        "from memory.adapters import checkup; from memory.settings import Settings;"
        "print(checkup.check_readers(Settings(_env_file=None)))"
    )
    found = run_as(user, "-c", program).splitlines()[-1]
    assert found.startswith("a file was read; ")
    assert found.endswith("does not take from them: the network, files of the same user, other processes")


def test_without_a_folder_for_temporary_files_files_wait(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scratch"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    guard = Guard(f"{WORK}:{tmp_path / 'board'}", concurrency=1)
    try:
        with pytest.raises(Unavailable, match="cannot be started: No such file"):
            guard.kept()
        with pytest.raises(Unavailable, match="no folder for temporary files"):
            guard.run(path, ECHO, LIMITS)
        folder.mkdir()
        while True:
            try:
                assert guard.run(path, ECHO, LIMITS) == b"Hello you: what the file holds"
                break
            except Unavailable:
                continue
    finally:
        guard.close()


def test_a_full_disk_is_no_fault_of_a_small_file(path: Path, tmp_path: Path) -> None:
    guard = Guard(f"{WORK}:{tmp_path / 'board'}", concurrency=1)
    try:
        with pytest.raises(Unavailable, match="no room for temporary files"):
            guard.run(path, {"do": "run out", "after": 0}, LIMITS)
        # It would wait for ever for room that the machine does not have.
        with pytest.raises(RejectedFile, match="this machine has no room"):
            guard.run(path, {"do": "run out", "after": 2 * 1024**2}, LIMITS)
        assert guard.run(path, ECHO, LIMITS) == b"Hello you: what the file holds"
    finally:
        guard.close()


def test_where_memory_runs_out_a_child_goes_before_its_server(path: Path, tmp_path: Path) -> None:
    guard = Guard(f"{WORK}:{tmp_path / 'board'}", concurrency=1)
    try:
        assert guard.run(path, {"do": "peek", "at": "/proc/self/oom_score_adj"}, LIMITS) == b"1000\n"
    finally:
        guard.close()


@pytest.mark.long
@pytest.mark.parametrize("user", USERS[1:] or USERS)
def test_everything_about_hostile_files_holds_for_an_ordinary_user(user: int, path: Path) -> None:
    files = [f"tests/memory/adapters/test_{name}.py" for name in ("guard", "documents_hostile")]
    here = Path(__file__).parent
    # Without the servers of the whole suite, which that user would have to build first.
    options = ["-q", "-p", "no:cacheprovider", f"--confcutdir={here}", f"--basetemp={path.parent / 'pytest'}"]
    said = run_as(user, "-m", "pytest", "-m", "not long", *options, *files)
    assert " passed" in said
    assert "failed" not in said
    assert "skipped" not in said
