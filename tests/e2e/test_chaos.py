"""A thousand files on their way in, every part killed in turn and then all of it: nothing is lost, nothing doubled."""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen
from uuid import UUID

import psutil
import psycopg
import pytest

from memory.errors import AppError, Conflict, Unavailable
from memory.services import build
from memory.settings import Settings
from ops.client import Client
from tests import s3_server
from tests.e2e import mixed
from tests.e2e.installation import COMMAND, Installation, assert_gone
from tests.s3_server import S3Server

FILES = 1000
# The rest goes by hand, in forms of so many.
BY_COMMAND = 700
A_FORM = 60
VICTIMS = ("worker", "temporal", "postgres", "objects")
# The API dies while files are still being sent, which takes no longer than reading the first few.
_TAKEN_IN = 150
_BETWEEN = 100
_STORE_AWAY_SECONDS = 3.0
_PATIENCE_SECONDS = 240.0
_DROP = "/v1/memory/collections/chaos/drop"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


class Account:
    """One tenant's files as the database knows them, whatever of the product lives at the moment."""

    def __init__(self, installation: Installation) -> None:
        command = [str(COMMAND), "create-tenant", "--email", "chaos@example.org", "--data", str(installation.data)]
        made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        tenant = cast("dict[str, str]", json.loads(made.stdout.splitlines()[-1]))
        self.key = tenant["api_key"]
        self.tenant_id = tenant["tenant_id"]
        self._installation = installation

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """As the app's role and this tenant."""
        with psycopg.connect(self._installation.runtime["database_url"]) as connection:
            connection.execute("select set_config('app.tenant', %s, false)", [self.tenant_id])
            return connection.execute(query).fetchall()

    def taken_in(self) -> int:
        return self._count("true")

    def ended(self) -> int:
        return self._count("status not in ('queued', 'processing')")

    def pending(self) -> int:
        return self._count("status in ('queued', 'processing')")

    def _count(self, condition: str) -> int:
        """How many files there are of a kind; 0 while the database is away."""
        try:
            return int(self.rows(f"select count(*) from files where {condition}")[0][0])
        except (psycopg.OperationalError, FileNotFoundError):
            return 0


def test_a_thousand_files_survive_the_death_of_every_part(installation: Installation, tmp_path: Path) -> None:
    with s3_server.s3_server(tmp_path / "s3") as objects:
        installation.settings = _settings(objects)
        installation.start()
        installation.wait_for("Ctrl-C stops everything")
        account = Account(installation)
        folder = tmp_path / "notes"
        files = mixed.make(folder, range(BY_COMMAND))
        by_hand = mixed.make(tmp_path / "more", range(BY_COMMAND, FILES))

        with ExitStack() as stack:
            stack.enter_context(_dropping(installation, account, folder))
            installation.wait_until(lambda: account.taken_in() > 0, "the command sends")
            refused = stack.enter_context(_sending(installation, account, by_hand))
            installation.wait_until(lambda: account.taken_in() >= _TAKEN_IN, f"{_TAKEN_IN} files taken in")
            _kill(installation, objects, "api")
            assert account.taken_in() < FILES, "all was sent before the API was killed"
            for number, victim in enumerate(VICTIMS, start=1):
                installation.wait_until(lambda: account.ended() >= number * _BETWEEN, f"{number * _BETWEEN} files")  # noqa: B023
                _kill(installation, objects, victim)
            last = (len(VICTIMS) + 1) * _BETWEEN
            installation.wait_until(lambda: account.ended() >= last, f"{last} files")
            assert account.pending() > 0, "all was over before everything was killed"
        assert refused == []
        _kill_all(installation)
        (installation.data / "scratch" / "left").write_text("a copy of what a killed worker was reading")

        installation.start()
        installation.wait_for("Ctrl-C stops everything")
        assert not (installation.data / "scratch" / "left").exists()
        again = _drop(installation, account, folder)
        assert "there already" in again.stdout, again.stderr
        installation.wait_until(lambda: account.pending() == 0, "every file")
        _check(account, [*files, *by_hand])
        _sweep(installation, account)
        _check_objects(account, objects.folder)
        _check_batches(account, installation.client(account.key))
        assert installation.stop() == 0
        assert list((installation.data / "scratch").iterdir()) == []


def _settings(objects: S3Server) -> dict[str, str]:
    return {
        "S3_ENDPOINT_URL": objects.endpoint_url,
        "S3_BUCKET": s3_server.BUCKET,
        "S3_REGION": s3_server.REGION,
        "S3_ACCESS_KEY": s3_server.ACCESS_KEY,
        "S3_SECRET_KEY": s3_server.SECRET_KEY,
        "RATE_LIMIT_PER_MINUTE": "0",
    }


def _command(installation: Installation, account: Account, folder: Path) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    command = [str(COMMAND), "drop", str(folder), "--collection", "chaos", "--data", str(installation.data)]
    return command, {**environment, "REMEMBEROS_KEY": account.key}


@contextmanager
def _dropping(installation: Installation, account: Account, folder: Path) -> Iterator[None]:
    """The command at work on the folder, killed at the end of the block."""
    command, environment = _command(installation, account, folder)
    with (installation.data.parent / "drop.out").open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _drop(installation: Installation, account: Account, folder: Path) -> subprocess.CompletedProcess[str]:
    command, environment = _command(installation, account, folder)
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=600
    )


@contextmanager
def _sending(installation: Installation, account: Account, files: Sequence[Path]) -> Iterator[list[str]]:
    """Forms, and uploads past the API, one after the other in the background, all of them by the end of the block; what
    was refused."""
    refused: list[str] = []
    client = Client(installation.runtime["api_url"], account.key, patience_seconds=_PATIENCE_SECONDS)

    def send() -> None:
        for number, start in enumerate(range(0, len(files), A_FORM)):
            some = files[start : start + A_FORM]
            try:
                if number % 2:
                    _upload(client, some)
                else:
                    client.drop(f"{_DROP}?async_ingest=true", some)
            except AppError as error:
                refused.append(error.detail)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield refused
        sender.join()
    finally:
        client.close()
        sender.join()


def _upload(client: Client, files: Sequence[Path]) -> None:
    wanted = [{"filename": file.name, "size": file.stat().st_size} for file in files]
    try:
        links = client.post(f"{_DROP}/presign", wanted)["uploads"]
    except Conflict:
        # The answer was lost, and is given only once.
        links = client.post(f"{_DROP}/presign", wanted)["uploads"]
    for file, link in zip(files, links, strict=True):
        _put(link["url"], link["headers"], file.read_bytes())
    try:
        completed = client.post(
            f"{_DROP}/complete", [{"key": link["key"], "filename": link["filename"]} for link in links]
        )
        assert completed["rejected"] == []
    except Conflict:
        return


def _put(url: str, headers: dict[str, str], content: bytes) -> None:
    """As often as it takes: the store is killed like everything else."""
    for _ in range(int(_PATIENCE_SECONDS)):
        try:
            with urlopen(Request(url, content, headers, method="PUT"), timeout=10):
                return
        except OSError:
            time.sleep(1)
    raise Unavailable(f"the store took nothing for {_PATIENCE_SECONDS:.0f} s")


def _check(account: Account, files: Sequence[Path]) -> None:
    unexplained = account.rows("select filename, status from files where status <> 'done' and coalesce(error, '') = ''")
    assert unexplained == []
    doubled = account.rows(
        "select metadata->>'file_id', metadata->>'chunk_index', count(*) from memories group by 1, 2 "
        "having count(*) > 1"
    )
    assert doubled == []
    incomplete = account.rows(
        "select f.filename, f.chunks, count(m.id), count(v.memory_id), count(t.memory_id) from files f "
        "left join memories m on m.metadata->>'file_id' = f.id::text "
        "left join memory_vectors v on v.memory_id = m.id left join memory_terms t on t.memory_id = m.id "
        "where f.status = 'done' group by f.id, f.filename, f.chunks "
        "having count(m.id) <> f.chunks or count(v.memory_id) <> f.chunks or count(t.memory_id) <> f.chunks"
    )
    assert incomplete == []
    # However often something was sent again: the memories of one content are there once.
    stored = dict(
        account.rows(
            "select encode(f.sha256, 'hex'), count(distinct f.id) from files f "
            "join memory_files mf on mf.file_id = f.id group by 1"
        )
    )
    assert {digest: times for digest, times in stored.items() if times > 1} == {}
    failed = dict(account.rows("select encode(sha256, 'hex'), error from files where status = 'failed'"))
    wanted = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in files}
    assert len(wanted) == FILES
    assert {file.name for digest, file in wanted.items() if digest not in stored | failed} == set()
    unfit = {wanted[digest].name: failed[digest] for digest in wanted.keys() & failed.keys() - stored.keys()}
    # A file that was in hand each time when its worker was killed may give up; the others must not.
    whole = {name: error for name, error in unfit.items() if not name.endswith(".docx")}
    assert len(whole) <= len(VICTIMS), whole


def _sweep(installation: Installation, account: Account) -> None:
    """What goes by itself a day later: objects of forms that died with the API, whose rows come last."""
    services = build(
        Settings(
            _env_file=None,
            rememberos_data=installation.data,
            database_url=installation.runtime["database_url"],
            **{name.lower(): value for name, value in installation.settings.items()},  # type: ignore[arg-type]
        )
    )
    services.cleaning.sweep(UUID(account.tenant_id), older_than=timedelta(0))
    services.close()


def _check_objects(account: Account, bucket: Path) -> None:
    """Every object belongs to a file, and every file that has an original has its object."""
    there = {file.relative_to(bucket).as_posix() for file in bucket.rglob("*") if file.is_file()}
    known = {key for (key,) in account.rows("select key from files where key is not null")}
    assert known - there == set()
    assert there - known == set()


def _check_batches(account: Account, client: Client) -> None:
    for (batch_id,) in account.rows("select id from batches"):
        progress = client.get(f"/v1/memory/ingest/batch/{batch_id}")
        assert progress["complete"]
        assert progress["done"] + progress["failed"] == progress["total"] == len(progress["files"])


def _kill(installation: Installation, objects: S3Server, victim: str) -> None:
    """kill -9, and wait for its successor: by the number in runtime.json, but for the object store, which is ours."""
    if victim == "objects":
        objects.restart(_STORE_AWAY_SECONDS)
        return
    old = installation.runtime["pids"][victim]
    os.kill(old, signal.SIGKILL)
    installation.wait_until(
        lambda: installation.runtime["pids"].get(victim, old) != old and f"{victim}: back" in installation.output,
        f"{victim} again",
    )


def _kill_all(installation: Installation) -> None:
    assert installation.process is not None
    family = installation.family
    psutil.Process(installation.process.pid).kill()
    installation.process.wait()
    assert_gone(family)
