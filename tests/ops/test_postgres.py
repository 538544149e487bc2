"""Embedded Postgres: roles, privacy, and coming back after every kind of bad end."""

import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from memory.errors import Misconfigured
from ops.postgres import EmbeddedPostgres, buffers

_FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="rememberos-pg-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(folder, settings=_FAST)
    made.start()
    yield made
    made.stop()


def _kept(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.owner_url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row is not None
    return int(row[0])


def _keep_one(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def _main_process(server: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(int((server.data / "postmaster.pid").read_text().split("\n")[0]))


@pytest.mark.parametrize(("memory", "kept"), [(256, 128), (1024, 256), (2048, 512), (64 * 1024, 8192)])
def test_a_quarter_of_the_memory_is_for_buffers_within_bounds(memory: int, kept: int) -> None:
    assert buffers(memory * 1024 * 1024) == kept * 1024 * 1024


def test_the_owner_is_no_superuser_and_the_vector_extension_is_there(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.owner_url) as connection:
        rights = connection.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert rights.fetchone() == (False, True)
        assert connection.execute("SELECT '[1,2]'::vector::text").fetchone() == ("[1,2]",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_a_password_is_needed_and_no_port_is_open(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.owner_url, password="no")
    assert _main_process(postgres).net_connections("inet") == []


def test_only_its_own_user_reaches_the_folders(postgres: EmbeddedPostgres) -> None:
    for private in (postgres.folder, postgres.data, postgres.socket):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((postgres.folder / "passwords.json").stat().st_mode) == 0o600
    assert _main_process(postgres).uids().real != 0


def test_comes_back_with_its_data_after_a_kill(server: EmbeddedPostgres) -> None:
    _keep_one(server)
    _main_process(server).kill()
    server.stop()
    server.start()
    assert _kept(server) == 1


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(server: EmbeddedPostgres) -> None:
    _keep_one(server)
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        text = f"{stranger.pid}\n{server.data}\n1\n5432\n{server.socket}\n\n   1   1\nready\n"
        for file in (server.data / "postmaster.pid", server.socket / ".s.PGSQL.5432.lock"):
            file.write_text(text)
        server.start()
        assert _kept(server) == 1
        assert stranger.poll() is None
        stranger.kill()


def test_a_start_killed_in_the_middle_begins_anew(folder: Path) -> None:
    half = folder / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    server = EmbeddedPostgres(folder, settings=_FAST)
    server.start()
    _keep_one(server)
    server.stop()


def test_the_server_ends_with_the_process_that_started_it(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ops.postgres import EmbeddedPostgres;"
        "s = EmbeddedPostgres(Path(sys.argv[1])); s.start(); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        again = EmbeddedPostgres(folder, settings=_FAST)
        with pytest.raises(Misconfigured, match="another process"):
            again.prepare()
        main = _main_process(again)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        again.start()
        assert not main.is_running()
        _keep_one(again)
        assert _kept(again) == 1
        again.stop()


def test_a_path_too_long_for_a_socket_is_no_obstacle(folder: Path) -> None:
    server = EmbeddedPostgres(folder / ("long" * 30), settings=_FAST)
    server.start()
    try:
        assert server.folder not in server.socket.parents
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        _keep_one(server)
    finally:
        server.stop()
        shutil.rmtree(server.socket)


def test_a_socket_folder_that_somebody_else_made_is_refused(folder: Path) -> None:
    server = EmbeddedPostgres(folder / ("long" * 30), settings=_FAST)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    server.socket.symlink_to(elsewhere)
    try:
        with pytest.raises(Misconfigured, match="is not a folder of the user"):
            server.start()
    finally:
        server.stop()
        server.socket.unlink()


def test_without_its_passwords_the_data_is_not_opened(server: EmbeddedPostgres) -> None:
    server.stop()
    passwords = server.folder / "passwords.json"
    kept = passwords.read_text()
    passwords.unlink()
    with pytest.raises(Misconfigured, match=r"passwords\.json is missing"):
        EmbeddedPostgres(server.folder).start()
    passwords.write_text(kept)
    server.start()


def test_closed_folders_above_the_data_stay_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres", settings=_FAST)
    server.start()
    try:
        _keep_one(server)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        server.stop()
