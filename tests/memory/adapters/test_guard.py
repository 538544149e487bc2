"""The guard against works that misbehave: each is contained, and the next file is served."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from memory.adapters.guard import Guard, Limits
from memory.errors import RejectedFile, Unavailable

WORK = "tests.memory.adapters.misbehaving:reader"
ROOT = Path(__file__).parents[3]
LIMITS = Limits(memory_bytes=256 * 1024**2, cpu_seconds=20, wall_seconds=30, result_bytes=1024**2)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    guard = Guard(f"{WORK}:{tmp_path_factory.mktemp('guard') / 'board'}", concurrency=2)
    yield guard
    guard.close()


@pytest.fixture(scope="module")
def with_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A guard over work that starts programs."""
    guard = Guard(f"{WORK}:{tmp_path_factory.mktemp('guard') / 'board'}", concurrency=2, programs=True)
    yield guard
    guard.close()


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "board"


def noted(board: Path) -> int | None:
    """The process id that stands on the board."""
    return int(board.read_text()) if board.exists() and board.read_text().endswith(" ") else None


@cache
def kernel_can(what: str) -> bool:
    """Whether the kernel lets a process give that up."""
    # The network first, as the server does: without giving up new rights only root gives up the rest.
    script = f"from memory.adapters import confinement as c; n = c.leave_network(); raise SystemExit(not {what})"
    return subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0


NETWORK, FILES, CALLS = "n", "c.leave_files('/tmp')", "c.leave_calls(programs=False)"


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
        ("fall", LIMITS, "more memory or computing than there is"),
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
    guard = Guard(f"{WORK}:{path.parent / 'board'}", concurrency=1)
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
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = do(guard, path, "call", port=server.getsockname()[1])
    assert answer == (b"cut off" if kernel_can(NETWORK) or kernel_can(CALLS) else b"reached")


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_a_child_opens_no_socket_of_any_kind(guard: Guard, path: Path, kind: str) -> None:
    if not kernel_can(CALLS):
        assert do(guard, path, "open a socket", kind=kind) == b"opened"
        return
    with pytest.raises(RejectedFile, match="PermissionError"):
        do(guard, path, "open a socket", kind=kind)


@pytest.mark.parametrize("action", ["peek", "list", "scribble"])
def test_a_child_opens_no_file_that_reading_does_not_need(
    guard: Guard, path: Path, tmp_path: Path, action: str
) -> None:
    secret = tmp_path / "admin-key"
    secret.write_text("mv_secret")
    target = str(tmp_path if action == "list" else secret)
    if not kernel_can(FILES):
        assert do(guard, path, action, at=target)
        return
    with pytest.raises(RejectedFile, match="PermissionError"):
        do(guard, path, action, at=target)
    assert secret.read_text() == "mv_secret"


@pytest.mark.parametrize("what", ["environ", "mem", "root/etc/hostname"])
def test_a_child_sees_nothing_of_other_processes(guard: Guard, path: Path, what: str) -> None:
    if kernel_can(FILES):
        with pytest.raises(RejectedFile, match="PermissionError"):
            do(guard, path, "peek", at=f"/proc/{os.getpid()}/{what}")


def test_a_child_ends_no_other_process(guard: Guard, path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            if kernel_can(CALLS):
                with pytest.raises(RejectedFile, match="PermissionError"):
                    do(guard, path, "murder", pid=other.pid)
                assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("action", ["fork", "start", "bomb"])
def test_a_child_that_needs_no_programs_starts_none(guard: Guard, path: Path, action: str) -> None:
    if kernel_can(CALLS):
        with pytest.raises(RejectedFile, match="PermissionError"):
            do(guard, path, action)
    assert serves(guard, path)


def test_what_readers_need_is_left_to_them(guard: Guard, path: Path) -> None:
    assert do(guard, path, "think") == b"3True"


def test_what_needs_programs_starts_them(with_programs: Guard, path: Path) -> None:
    assert do(with_programs, path, "start") == b"started"


def test_who_ignores_every_polite_signal_is_ended(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=1)
    try:
        with pytest.raises(RejectedFile, match="longer than 1 seconds"):
            do(guard, path, "defy", Limits(wall_seconds=1))
        child = noted(board)
        assert child is not None
        assert is_gone(child)
    finally:
        guard.close()


def test_who_fills_the_disk_is_ended(guard: Guard, path: Path) -> None:
    with pytest.raises(RejectedFile, match="fills the disk"):
        do(guard, path, "fill", Limits(disk_bytes=4 * 1024**2))
    assert serves(guard, path)


def test_nothing_of_a_child_stays(with_programs: Guard, path: Path) -> None:
    litter, pid = do(with_programs, path, "litter").decode().split()
    until(lambda: is_gone(int(pid)))
    assert not Path(litter).exists()
    assert not Path(litter).parent.exists()


def test_not_even_what_left_its_group_stays(with_programs: Guard, path: Path) -> None:
    pid = int(do(with_programs, path, "escape"))
    until(lambda: is_gone(pid))


def test_as_many_children_as_allowed_run_at_once(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=2)
    try:
        with ThreadPoolExecutor(2) as threads:
            visits = [threads.submit(do, guard, path, "meet", guests=2) for _ in range(2)]
            assert [visit.result() for visit in visits] == [b"met", b"met"]
    finally:
        guard.close()


def test_further_files_wait_for_their_turn(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=1)
    try:
        with ThreadPoolExecutor(4) as threads:
            visits = [threads.submit(do, guard, path, "alone") for _ in range(4)]
            assert [visit.result() for visit in visits] == [b"1"] * 4
    finally:
        guard.close()


def test_a_server_makes_way_for_a_new_one_and_no_file_is_lost(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=2, renewed_after=3)
    try:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda number: do(guard, path, "echo", name=str(number)), range(12)))
    finally:
        guard.close()
    assert answers == [f"Hello {number}: what the file holds".encode() for number in range(12)]
    servers = [int(pid) for pid in Path(f"{board}.servers").read_text().split()]
    assert len(servers) >= 4
    assert all(is_gone(server) for server in servers)


def test_a_guard_whose_server_makes_way_can_be_closed(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=1, renewed_after=1)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(do, guard, path, "announce")
        until(lambda: noted(board) is not None)
        guard.close()
        with pytest.raises(Unavailable):
            read.result()
    until(lambda: is_gone(noted(board) or 0))


def test_a_killed_server_is_started_again_and_its_reads_can_be_tried_again(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=2)
    try:
        assert serves(guard, path)
        server = guard.server_pid
        assert server is not None
        with ThreadPoolExecutor(1) as threads:
            read = threads.submit(do, guard, path, "announce")
            until(lambda: noted(board) is not None)
            os.kill(server, signal.SIGKILL)
            with pytest.raises(Unavailable):
                read.result()
        until(lambda: is_gone(noted(board) or 0))
        assert serves(guard, path)
        assert guard.server_pid != server
    finally:
        guard.close()


def test_closing_ends_the_server_and_the_reads_in_flight(path: Path, board: Path) -> None:
    guard = Guard(f"{WORK}:{board}", concurrency=1)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(do, guard, path, "announce")
        until(lambda: noted(board) is not None)
        server = guard.server_pid
        assert server is not None
        guard.close()
        with pytest.raises(Unavailable):
            read.result()
    until(lambda: is_gone(server) and is_gone(noted(board) or 0))
    with pytest.raises(Unavailable):
        serves(guard, path)


def test_the_server_and_its_children_die_with_a_killed_parent(path: Path, board: Path) -> None:
    program = (
        "import sys, threading; from pathlib import Path; from memory.adapters.guard import Guard, Limits;"
        "guard = Guard(sys.argv[1], concurrency=1);"
        "request = {'do': 'announce'};"
        "threading.Thread(target=guard.run, args=(Path(sys.argv[2]), request, Limits()), daemon=True).start();"
        "threading.Event().wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, f"{WORK}:{board}", str(path)], cwd=ROOT)
    try:
        until(lambda: noted(board) is not None)
        child = psutil.Process(noted(board))
        server = child.parent()
        assert server is not None
        folder = Path(server.cwd())
        assert folder.exists()
    finally:
        parent.kill()
        parent.wait()
    until(lambda: is_gone(child.pid) and is_gone(server.pid))
    assert not folder.exists()
