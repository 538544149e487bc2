"""One machine: every part as a child of one process, from the first start to an orderly end."""

import base64
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from memory.errors import Misconfigured, Unavailable
from memory.settings import Settings
from ops import launch, parts, ports, temporal
from ops.postgres import EmbeddedPostgres
from ops.private import write_private
from ops.runtime import Runtime, end_leftovers
from ops.supervisor import Say, Supervisor

# Where Temporal is looked for by default.
_TEMPORAL_PORT = 7233


class Stopped(BaseException):
    """Somebody asked for the end: Ctrl-C, SIGTERM, or the terminal went away."""


@dataclass(frozen=True)
class Serving:
    """A running installation as its operator sees it."""

    runtime: Runtime
    data: Path
    admin_key: str | None
    key_is_new: bool


Guest = Callable[[Serving], None]


def up(settings: Settings, say: Say, *, welcome: Guest, guest: Guest | None = None) -> None:
    """Runs every part until Ctrl-C or SIGTERM.

    `welcome` is called once everything serves; `guest` then runs beside the parts, in a thread, and its failure ends
    everything. Raises Misconfigured, Unavailable.
    """
    data = settings.rememberos_data.expanduser().absolute()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.umask(0o077)
    with _alone(data):
        for name in end_leftovers(data):
            say(f"{name}: ended what a killed start had left behind")
        installation = Installation(settings, data, say)
        with _asked_to_stop(installation.supervisor):
            try:
                serving = installation.start()
                welcome(serving)
                _watch(installation.supervisor, serving, guest)
            except Stopped:
                say("stopping")
            finally:
                installation.stop()


class Installation:
    """The parts of one data folder."""

    def __init__(self, settings: Settings, data: Path, say: Say) -> None:
        logs = data / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        self.supervisor = Supervisor(logs=logs, say=say, changed=self._write_runtime)
        self._settings = settings
        self._data = data
        self._say = say
        self._postgres = EmbeddedPostgres(data / "postgres") if settings.database_url is None else None
        self._runtime: Runtime | None = None
        self._claim: socket.socket | None = None

    def start(self) -> Serving:
        """Brings up one part after the other, each as soon as what it needs is ready."""
        settings = self._settings
        port = ports.choose(settings.api_host, settings.api_port, setting="API_PORT")
        address, ui = self._start_temporal()
        self._start_postgres()
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.api_host, settings.api_host)  # noqa: S104
        url = f"http://{host}:{port}"
        app_url, owner_url = self._database_urls
        environment = parts.environment(
            {
                "REMEMBEROS_DATA": str(self._data),
                "API_HOST": settings.api_host,
                "API_PORT": str(port),
                "PUBLIC_BASE_URL": settings.public_base_url or url,
                "DATABASE_URL": app_url,
                "TEMPORAL_ADDRESS": address,
                "TEMPORAL_NAMESPACE": settings.temporal_namespace,
                "ENCRYPTION_KEY": self._encryption_key(),
            }
        )
        key, is_new = self._bootstrap({**environment, "DATABASE_OWNER_URL": owner_url})
        if ui is not None:
            self._wait("temporal", "Temporal")
        environment.pop("BOOTSTRAP_KEY", None)
        self.supervisor.start(parts.api(environment, url))
        # It builds indexes, which only the owner of the tables may.
        self.supervisor.start(parts.worker({**environment, "DATABASE_OWNER_URL": owner_url}, self._data / "scratch"))
        self._wait("api", "API")
        self._wait("worker", "worker")
        self._runtime = Runtime(url, app_url, address, ui, {})
        self._write_runtime()
        return Serving(self._runtime, self._data, key, is_new)

    def stop(self) -> None:
        """Ends every part, the worker first and Postgres last."""
        self.supervisor.stop()
        if self._postgres is not None:
            self._postgres.release()
        if self._claim is not None:
            self._claim.close()
        Runtime.remove(self._data)
        self._runtime = None

    def _wait(self, name: str, shown: str) -> None:
        self.supervisor.wait(name)
        self._say(f"{shown}: ready")

    def _start_temporal(self) -> tuple[str, str | None]:
        settings = self._settings
        if settings.temporal_address is not None:
            self._say(f"Temporal: using the server at {settings.temporal_address} (TEMPORAL_ADDRESS)")
            return settings.temporal_address, None
        ui_port = ports.choose("127.0.0.1", settings.temporal_ui_port, setting="TEMPORAL_UI_PORT")
        program = temporal.find_server(self._say)
        self._claim = ports.claim("127.0.0.1", _TEMPORAL_PORT)
        port = _TEMPORAL_PORT if self._claim is not None else ports.free_port()
        self.supervisor.start(
            parts.temporal_server(
                program,
                self._data / "temporal",
                port=port,
                ui_port=ui_port,
                namespace=settings.temporal_namespace,
            )
        )
        return f"127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}"

    def _start_postgres(self) -> None:
        if self._postgres is None:
            self._say("Postgres: using the server of DATABASE_URL")
            return
        self.supervisor.start(parts.postgres(self._postgres))
        self._wait("postgres", "Postgres")
        self._postgres.ensure_database()

    @cached_property
    def _database_urls(self) -> tuple[str, str]:
        """As the app's role and as the owner."""
        if self._postgres is not None:
            return self._postgres.app_url, self._postgres.owner_url
        given, owner = self._settings.database_url, self._settings.database_owner_url
        if given is None or owner is None:
            raise Misconfigured("DATABASE_URL is set, so DATABASE_OWNER_URL must be too: migrations run as the owner")
        return given.get_secret_value(), owner.get_secret_value()

    def _encryption_key(self) -> str:
        if self._settings.encryption_key is not None:
            return self._settings.encryption_key.get_secret_value()
        file = self._data / "encryption-key"
        if not file.exists():
            write_private(file, base64.urlsafe_b64encode(os.urandom(32)).decode() + "\n")
        return file.read_text().strip()

    def _bootstrap(self, environment: dict[str, str]) -> tuple[str | None, bool]:
        """Migrates and makes the first tenant, in a process of its own so that what it loads is not kept.

        Its main key, where it is known, and whether it is new.
        """
        file = self._data / "admin-key"
        given = self._settings.bootstrap_key
        if given is not None:
            key = given.get_secret_value()
        elif file.exists():
            key = file.read_text().strip()
        else:
            key = f"mv_{secrets.token_urlsafe(32)}"
            # Before the tenant: a start killed in between finds the key again.
            write_private(file, key + "\n")
        if self._settings.bootstrap_email is not None:
            environment["BOOTSTRAP_EMAIL"] = self._settings.bootstrap_email
        outcome = _run_bootstrap({**environment, "BOOTSTRAP_KEY": key})
        self._say("database: migrated" + (", first tenant made" if outcome["created"] else ""))
        if outcome["files"] is not None:
            self._say(f"files: {outcome['files']}; until then whoever sends files gets the answer 503")
        if not outcome["works"]:
            self._say("the first tenant exists already and its key is not the one given here; ask whoever made it")
            return None, False
        if not file.exists() or file.read_text().strip() != key:
            write_private(file, key + "\n")
        return key, outcome["created"]

    def _write_runtime(self) -> None:
        if self._runtime is not None:
            self._runtime.pids.clear()
            self._runtime.pids.update(self.supervisor.pids)
            self._runtime.write(self._data)


def _run_bootstrap(environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        launch.command(parts.python("ops.bootstrap"), death=signal.SIGKILL),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"the database could not be set up: {done.stderr.strip()[-1000:]}")
    outcome: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return outcome


def _watch(supervisor: Supervisor, serving: Serving, guest: Guest | None) -> None:
    failures: list[Exception] = []

    def visit(invited: Guest) -> None:
        try:
            invited(serving)
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that can end everything
            failures.append(error)

    if guest is not None:
        threading.Thread(target=visit, args=(guest,), daemon=True).start()
    supervisor.watch(until=lambda: bool(failures))
    raise failures[0]


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """One `up` at a time on a data folder."""
    with (data / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise Misconfigured(
                f"`rememberos up` runs on {data} already (process {holder}): use that one, end it, or take another "
                "folder with --data"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextmanager
def _asked_to_stop(supervisor: Supervisor) -> Iterator[None]:
    """The first signal raises Stopped; a second one while stopping kills what is left at once."""
    asked = False

    def handle(_number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            supervisor.hurry()
            return
        asked = True
        raise Stopped

    # Whoever started us with nohup wants us to outlive the terminal.
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
