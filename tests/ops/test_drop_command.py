"""`rememberos drop` against the real API and a worker, over connections that break and answers that are lost."""

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvicorn
from rich.console import Console

from api.app import create_app
from memory.adapters.documents import GuardedReader
from memory.errors import Invalid, Misconfigured, Unauthorized, Unavailable
from memory.services import Services, build
from memory.settings import Settings
from ops import client as client_module
from ops import drop_command, dropping
from ops.drop_command import INTERRUPTED, Given
from ops.runtime import Runtime
from tests.api.conftest import at_work
from tests.conftest import Tenant

COMMAND = Path(sys.executable).with_name("rememberos")
BEES = "Bees dance to tell the hive where the flowers are."
Drop = Callable[..., tuple[int, str]]


class Relay:
    """Hands requests on to the API. `script` says what becomes of the next POSTs: a status to answer instead, "cut"
    to lose the answer of one that was carried out, "hold" to keep one waiting."""

    def __init__(self, port: int) -> None:
        self.script: deque[int | str] = deque()
        self.forms = 0
        self.holding = threading.Event()
        self._port = port
        self._release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fate(self, path: str) -> int | str | None:
        if "/drop?" not in path:
            return None
        self.forms += 1
        return self.script.popleft() if self.script else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._hand_on(b"", None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                fate = relay._fate(self.path)
                if fate == "hold":
                    relay.holding.set()
                    relay._release.wait()
                elif isinstance(fate, int):
                    self.send_response(fate)
                    self.send_header("Retry-After", "0")
                    self.end_headers()
                else:
                    self._hand_on(body, fate)

            def _hand_on(self, body: bytes, fate: int | str | None) -> None:
                onward = http.client.HTTPConnection("127.0.0.1", relay._port, timeout=60)
                onward.request(self.command, self.path, body, dict(self.headers.items()))
                answer = onward.getresponse()
                content = answer.read()
                onward.close()
                if fate == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Tests print nothing."""

        return Handler


@contextmanager
def _served(settings: Settings, services: Services) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings, services), ws="none", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def port(settings: Settings, services: Services, temporal: str) -> Iterator[int]:
    """Where the API answers, with a worker behind it."""
    reader = GuardedReader(ocr_engine="off")
    given = settings.model_copy(update={"temporal_address": temporal})
    with at_work(build(settings, reader=reader), temporal), _served(given, services) as found:
        yield found
    reader.close()


@pytest.fixture
def relay(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(dropping, "_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(dropping, "_GROUP_FILES", 4)
    monkeypatch.setattr(drop_command, "_BETWEEN_LINES_SECONDS", 3600)
    made = Relay(port)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def key(tenant: Tenant) -> str:
    return tenant.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def drop(relay: Relay, key: str, tmp_path: Path) -> Drop:
    """Exit code and output of a drop of paths into the collection `garden`."""

    def run(*paths: Path, **options: Any) -> tuple[int, str]:
        console = options.pop("console", None) or Console(
            file=io.StringIO(), soft_wrap=True, markup=False, highlight=False
        )
        given = Given(paths, "garden", **{"url": relay.url, "key": key, **options})
        code = drop_command.run(_nowhere(tmp_path), given, console)
        assert isinstance(console.file, io.StringIO)
        return code, console.file.getvalue()

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirteen small files in three folders, two of them alike."""
    made = tmp_path / "notes"
    for number in range(12):
        place = made / ("ants", "bees")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}.txt").write_text(f"Note {number}. {BEES}")
    (made / "copy.txt").write_text(f"Note 7. {BEES}")
    return made


def _nowhere(folder: Path) -> Settings:
    """Settings of a machine on which nothing runs."""
    return Settings(_env_file=None, rememberos_data=folder / "nothing")


def _memories(settings: Settings, tenant: Tenant) -> list[dict[str, Any]]:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        rows = owner.execute(
            "select metadata, container_tag, category, text from memories where tenant_id = %s", [tenant.id]
        )
        return [{**row[0], "tag": row[1], "category": row[2], "text": row[3]} for row in rows]


def test_a_folder_is_there_afterwards_and_a_second_drop_sends_nothing(
    drop: Drop, relay: Relay, folder: Path, settings: Settings, tenant: Tenant
) -> None:
    options: dict[str, Any] = {"tag": "hive", "category": "nature", "metadata": '{"year": 2026}'}

    code, said = drop(folder, **options)

    assert (code, said) == (0, "files: 13 found, 1 there already, 12 sent, 12 done, 0 failed\n")
    found = _memories(settings, tenant)
    assert len(found) == 12
    assert {memory["path"] for memory in found} >= {"notes/ants/00.txt", "notes/bees/01.txt"}
    assert {(memory["tag"], memory["category"], memory["year"]) for memory in found} == {("hive", "nature", 2026)}

    relay.forms = 0
    (folder / "new.txt").write_text("Wasps build with paper.")
    assert drop(folder, **options) == (0, "files: 14 found, 13 there already, 1 sent, 1 done, 0 failed\n")
    assert relay.forms == 1
    assert len(_memories(settings, tenant)) == 13


def test_busy_servers_and_lost_answers_double_nothing(
    drop: Drop, relay: Relay, folder: Path, settings: Settings, tenant: Tenant
) -> None:
    relay.script.extend([429, "cut", 503, "cut"])

    code, said = drop(folder)

    assert code == 0, said
    assert not relay.script
    assert len(_memories(settings, tenant)) == 12


def test_files_that_fail_are_named_and_the_rest_is_done(drop: Drop, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "bees.txt").write_text(BEES)
    (folder / "void\x1b[31m.txt").write_bytes(b"")
    (folder / "over.bin").write_bytes(os.urandom(1024) * (10 * 1024 + 1))
    (folder / "void2.txt").write_bytes(b"")
    (folder / "lost.txt").symlink_to(tmp_path / "nowhere")

    code, said = drop(folder)

    assert code == 1
    assert "\x1b" not in said
    assert "failed: mixed/over.bin: larger than 10 MB, the limit for one file\n" in said
    assert "failed: mixed/lost.txt: cannot be read: No such file or directory\n" in said
    assert "void[31m.txt: empty file\n" in said
    assert "failed: mixed/void2.txt: empty file\n" in said
    assert said.endswith("files: 5 found, 0 there already, 2 sent, 1 done, 4 failed\n")


def test_who_does_not_wait_hears_of_the_outcome_the_next_time(
    drop: Drop, folder: Path, settings: Settings, tenant: Tenant
) -> None:
    (folder / "void.txt").write_bytes(b"")
    code, said = drop(folder, wait=False)
    assert (code, said) == (0, "files: 14 found, 1 there already, 13 sent, 0 failed\n")

    code, said = drop(folder)

    assert code == 1
    assert "failed: notes/void.txt: empty file" in said
    assert len(_memories(settings, tenant)) == 12


def test_force_sends_all_of_it_again(drop: Drop, folder: Path) -> None:
    assert drop(folder)[0] == 0

    code, said = drop(folder, force=True)

    assert code == 0
    assert "13 found, 0 there already, 13 sent" in said


def test_a_terminal_shows_one_bar_of_each_kind(drop: Drop, folder: Path) -> None:
    code, said = drop(folder, console=Console(file=io.StringIO(), force_terminal=True, width=80))

    last = said.split("\x1b[?25h")[0].split("\x1b[2K")[-1]
    assert code == 0
    assert [line.split()[0] for line in last.splitlines() if line] == ["sent", "read"]
    assert "13/13" in last
    assert "12/12" in last


def test_who_looks_at_no_terminal_reads_lines(drop: Drop, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_command, "_BETWEEN_LINES_SECONDS", 0)

    code, said = drop(folder)

    assert code == 0
    assert "sent 13 of 13 files found so far\n" in said
    assert "read 12 of 12 files\n" in said


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key": f"mv_{'0' * 43}"}, Unauthorized),
        ({"url": "http://127.0.0.1:1"}, Unavailable),
        ({"metadata": "{"}, Invalid),
        ({"metadata": "[]"}, Invalid),
        ({"metadata": ""}, Invalid),
        ({"collection": "bad/name"}, Invalid),
        ({"tag": "x" * 129}, Invalid),
        ({"url": "https://elsewhere.example.org", "key": None}, Misconfigured),
        ({"url": None}, Misconfigured),
    ],
)
def test_what_is_wrong_with_all_of_it_is_said_at_once(
    relay: Relay, key: str, folder: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    given = Given(**{"paths": [folder], "collection": "garden", "url": relay.url, "key": key, **options})

    with pytest.raises(error):
        drop_command.run(_nowhere(tmp_path), given, Console(file=io.StringIO()))

    assert relay.forms == 0


def test_a_key_of_this_machine_is_not_shown_to_another(tmp_path: Path) -> None:
    (tmp_path / "admin-key").write_text("mv_secret\n")
    Runtime("http://127.0.0.1:1", "postgresql://", "127.0.0.1:2", None, {}).write(tmp_path)

    def whom(given: Given, **settings: Any) -> tuple[str, str]:
        return drop_command._whom(Settings(_env_file=None, rememberos_data=tmp_path, **settings), given)

    given = Given([], "garden")
    assert whom(given) == ("http://127.0.0.1:1", "mv_secret")
    assert whom(given, rememberos_key="mv_other") == ("http://127.0.0.1:1", "mv_other")
    assert whom(Given([], "garden", key="mv_third"), rememberos_key="mv_other") == ("http://127.0.0.1:1", "mv_third")
    with pytest.raises(Misconfigured, match="needs a key"):
        whom(given, rememberos_url="https://elsewhere.example.org")


def test_why_it_waits_is_said_once() -> None:
    said = io.StringIO()
    waiting = drop_command._Waiting(Console(file=said))

    waiting(Unavailable("gone"), 0.5)
    waiting(Unavailable("gone"), 8)
    waiting(Unavailable("gone"), 15)

    assert said.getvalue() == "trying again in 8 s: gone\n"


def test_ctrl_c_ends_it_at_once_and_the_next_run_goes_on(
    relay: Relay, key: str, folder: Path, drop: Drop, settings: Settings, tenant: Tenant
) -> None:
    relay.script.append("hold")
    command = [str(COMMAND), "drop", str(folder), "--collection", "garden", "--url", relay.url, "--key", key]
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # Who runs the suite in the background of a shell hands down a Ctrl-C that is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert relay.holding.wait(60)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)

    assert process.returncode == INTERRUPTED
    assert said.startswith("stopped;")
    assert drop(folder)[0] == 0
    assert len(_memories(settings, tenant)) == 12
