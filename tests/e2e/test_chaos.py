"""Every part killed in the middle of a batch, and then all of it: nothing is lost and nothing is doubled."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, cast

import psutil
import psycopg
import pytest

from tests.e2e.installation import COMMAND, Installation, assert_gone

FILES = 200
VICTIMS = ("worker", "temporal", "postgres", "api")
_BETWEEN = 25

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


class Batch:
    """One drop as the database knows it, whatever of the product lives at the moment."""

    def __init__(self, installation: Installation, tenant_id: str, batch_id: str) -> None:
        self._installation = installation
        self._tenant_id = tenant_id
        self._batch_id = batch_id

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query with the parameter `%(batch)s`, as the app's role and this tenant."""
        with psycopg.connect(self._installation.runtime["database_url"]) as connection:
            connection.execute("select set_config('app.tenant', %s, false)", [self._tenant_id])
            return connection.execute(query, {"batch": self._batch_id}).fetchall()

    def ended(self) -> int:
        """How many files are done or failed; 0 while the database is away."""
        try:
            return int(
                self.rows("select count(*) from files where batch_id = %(batch)s and status in ('done', 'failed')")[0][
                    0
                ]
            )
        except (psycopg.OperationalError, FileNotFoundError):
            return 0


def test_nothing_is_lost_and_nothing_is_doubled(installation: Installation, tmp_path: Path) -> None:
    installation.start()
    installation.wait_for("Ctrl-C stops everything")
    tenant = _tenant(installation)
    client = installation.client(tenant["api_key"])
    accepted = client.drop("/v1/memory/collections/chaos/drop?async_ingest=true", _files(tmp_path))
    assert accepted["queued"] == FILES
    batch = Batch(installation, tenant["tenant_id"], accepted["batch_id"])

    for number, victim in enumerate(VICTIMS, start=1):
        _reach(installation, batch, number * _BETWEEN)
        _kill(installation, victim)
    _reach(installation, batch, (len(VICTIMS) + 1) * _BETWEEN)
    assert batch.ended() < FILES, "the batch was over before everything was killed"
    _kill_all(installation)
    (installation.data / "scratch" / "left").write_text("a copy of what a killed worker was reading")

    installation.start()
    installation.wait_for("Ctrl-C stops everything")
    assert not (installation.data / "scratch" / "left").exists()
    installation.wait_until(lambda: batch.ended() == FILES, "every file")
    _check(batch)
    progress = installation.client(tenant["api_key"]).get(f"/v1/memory/ingest/batch/{accepted['batch_id']}")
    assert progress["complete"]
    assert progress["done"] + progress["failed"] == FILES
    assert installation.stop() == 0


def _check(batch: Batch) -> None:
    unexplained = batch.rows(
        "select filename from files where batch_id = %(batch)s and status <> 'done' and coalesce(error, '') = ''"
    )
    assert unexplained == []
    doubled = batch.rows(
        "select m.metadata->>'file_id', m.metadata->>'chunk_index', count(*) from memories m "
        "join files f on f.id::text = m.metadata->>'file_id' where f.batch_id = %(batch)s group by 1, 2 "
        "having count(*) > 1"
    )
    assert doubled == []
    incomplete = batch.rows(
        "select f.filename, f.chunks, count(m.id), count(v.memory_id), count(t.memory_id) from files f "
        "left join memories m on m.metadata->>'file_id' = f.id::text "
        "left join memory_vectors v on v.memory_id = m.id left join memory_terms t on t.memory_id = m.id "
        "where f.batch_id = %(batch)s and f.status = 'done' group by f.id, f.filename, f.chunks "
        "having count(m.id) <> f.chunks or count(v.memory_id) <> f.chunks or count(t.memory_id) <> f.chunks "
        "or f.chunks = 0"
    )
    assert incomplete == []
    done = batch.rows("select count(*) from files where batch_id = %(batch)s and status = 'done'")
    # A file that was in hand four times when its worker was killed may give up; the others must not.
    assert done[0][0] >= FILES - 4


def _tenant(installation: Installation) -> dict[str, str]:
    command = [str(COMMAND), "create-tenant", "--email", "chaos@example.org", "--data", str(installation.data)]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return cast("dict[str, str]", json.loads(made.stdout.splitlines()[-1]))


def _files(folder: Path) -> list[Path]:
    made = []
    for number in range(FILES):
        file = folder / f"note-{number:03}.txt"
        file.write_text(
            "\n\n".join(f"Note {number}, part {part}. " + "The tide turns twice a day. " * 40 for part in range(3))
        )
        made.append(file)
    return made


def _reach(installation: Installation, batch: Batch, ended: int) -> None:
    installation.wait_until(lambda: batch.ended() >= ended, f"{ended} files")


def _kill(installation: Installation, victim: str) -> None:
    """kill -9 by the number in runtime.json, and wait for its successor there."""
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
