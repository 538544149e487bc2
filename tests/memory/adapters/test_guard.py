"""The guard against works that misbehave: each is contained, and the next file is served."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from memory.adapters.guard import Guard, Limits
from memory.errors import RejectedFile, Unavailable

WORK = "tests.memory.adapters.misbehaving:reader:Hello"
LIMITS = Limits(memory_bytes=256 * 1024**2, cpu_seconds=20, wall_seconds=30, result_bytes=1024**2)


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    guard = Guard(WORK, concurrency=2)
    yield guard
    guard.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(b"what the file holds")
    return path


def do(guard: Guard, path: Path, action: str, limits: Limits = LIMITS, **request: Any) -> bytes:
    return guard.run(path, {"do": action, **request}, limits)


def serves(guard: Guard, path: Path) -> bool:
    return do(guard, path, "echo", name="next") == b"Hello next: what the file holds"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_child_gets_the_file_and_the_request(guard: Guard, path: Path) -> None:
    name = "käfer\n" * 1000
    assert do(guard, path, "echo", name=name).decode() == f"Hello {name}: what the file holds"


@pytest.mark.parametrize(
    ("action", "limits", "reason"),
    [
        ("sleep", Limits(wall_seconds=1), "longer than 1 seconds"),
        ("loop", Limits(cpu_seconds=1), "more than 1 seconds of computing"),
        ("hoard", LIMITS, "more memory"),
        ("abort", LIMITS, "broke its reader"),
        ("crash", LIMITS, "broke its reader"),
        ("leave", LIMITS, "broke its reader"),
        ("flood", LIMITS, "broke its reader"),
        ("recurse", LIMITS, "nested too deeply"),
        ("refuse", LIMITS, "^it is not to my taste$"),
        ("fail", LIMITS, r"\(LookupError\)$"),
    ],
)
def test_every_bad_end_is_a_rejected_file_and_the_next_is_served(
    guard: Guard, path: Path, action: str, limits: Limits, reason: str
) -> None:
    server = guard.server_pid
    with pytest.raises(RejectedFile, match=reason) as caught:
        do(guard, path, action, limits)
    assert "secret sentence" not in caught.value.detail
    assert serves(guard, path)
    assert guard.server_pid == server


def test_a_file_that_is_not_there_is_not_its_own_fault(guard: Guard, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        do(guard, tmp_path / "gone", "echo", name="nobody")


def test_a_child_inherits_no_secret(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCRYPTION_KEY", "s3cret-value")
    guard = Guard(WORK, concurrency=1)
    try:
        seen = do(guard, path, "environment").decode()
        files = do(guard, path, "open files").decode()
    finally:
        guard.close()
    assert "s3cret-value" not in seen
    assert "'DO_NOT_TRACK': '1'" in seen
    assert f"'HOME': '{Path.home()}'" not in seen
    assert "socket" not in files


def test_a_child_has_no_network_where_the_kernel_can_take_it(guard: Guard, path: Path) -> None:
    script = (
        "import ctypes; l = ctypes.CDLL(None); raise SystemExit(bool(l.unshare(0x40000000) and l.unshare(0x50000000)))"
    )
    can_take = subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = do(guard, path, "call", port=server.getsockname()[1])
    assert answer == (b"cut off" if can_take else b"reached")


def test_nothing_of_a_child_stays(guard: Guard, path: Path) -> None:
    litter, pid = do(guard, path, "litter").decode().split()
    until(lambda: is_gone(int(pid)))
    assert not Path(litter).exists()
    assert not Path(litter).parent.exists()


def test_as_many_children_as_allowed_run_at_once(guard: Guard, path: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    with ThreadPoolExecutor(2) as threads:
        visits = [threads.submit(do, guard, path, "meet", room=str(room), name=name, guests=2) for name in "ab"]
        assert [visit.result() for visit in visits] == [b"met", b"met"]


def test_further_files_wait_for_their_turn(path: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    guard = Guard(WORK, concurrency=1)
    try:
        with ThreadPoolExecutor(4) as threads:
            visits = [threads.submit(do, guard, path, "alone", room=str(room), name=name) for name in "abcd"]
            assert [visit.result() for visit in visits] == [b"1"] * 4
    finally:
        guard.close()


def test_a_killed_server_is_started_again_and_its_reads_can_be_tried_again(path: Path, tmp_path: Path) -> None:
    guard = Guard(WORK, concurrency=2)
    announced = tmp_path / "pid"
    try:
        assert serves(guard, path)
        server = guard.server_pid
        assert server is not None
        with ThreadPoolExecutor(1) as threads:
            read = threads.submit(do, guard, path, "announce", to=str(announced))
            until(lambda: announced.exists() and announced.read_text() != "")
            os.kill(server, signal.SIGKILL)
            with pytest.raises(Unavailable):
                read.result()
        until(lambda: is_gone(int(announced.read_text())))
        assert serves(guard, path)
        assert guard.server_pid != server
    finally:
        guard.close()


def test_closing_ends_the_server_and_the_reads_in_flight(path: Path, tmp_path: Path) -> None:
    guard = Guard(WORK, concurrency=1)
    announced = tmp_path / "pid"
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(do, guard, path, "announce", to=str(announced))
        until(lambda: announced.exists() and announced.read_text() != "")
        server = guard.server_pid
        assert server is not None
        guard.close()
        with pytest.raises(Unavailable):
            read.result()
    until(lambda: is_gone(server) and is_gone(int(announced.read_text())))
    with pytest.raises(Unavailable):
        serves(guard, path)


def test_the_server_and_its_children_die_with_a_killed_parent(path: Path, tmp_path: Path) -> None:
    announced = tmp_path / "pid"
    program = (
        "import sys, threading; from pathlib import Path; from memory.adapters.guard import Guard, Limits;"
        "guard = Guard(sys.argv[1], concurrency=1);"
        "request = {'do': 'announce', 'to': sys.argv[3]};"
        "threading.Thread(target=guard.run, args=(Path(sys.argv[2]), request, Limits()), daemon=True).start();"
        "threading.Event().wait()"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", program, WORK, str(path), str(announced)], cwd=root)
    try:
        until(lambda: announced.exists() and announced.read_text() != "")
        child = psutil.Process(int(announced.read_text()))
        server = child.parent()
        assert server is not None
        folder = Path(server.cwd())
        assert folder.exists()
    finally:
        parent.kill()
        parent.wait()
    until(lambda: is_gone(child.pid) and is_gone(server.pid))
    assert not folder.exists()
