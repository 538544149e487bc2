"""The demonstration from its first line to its orderly end, and a second start that finds everything again."""

import json
import re
import stat
import subprocess

import psutil

from ops.demo import COLLECTION, QUESTIONS
from ops.processes import is_alive
from tests.e2e.installation import COMMAND, Installation

# The file that answers each question, as examples/questions.json has it.
ANSWERS = ("workshop-manual.pdf", "carbon-forks-delay.eml", "workshop-notice.png")


def test_the_demonstration_finds_what_it_dropped_and_leaves_nothing_running(installation: Installation) -> None:
    installation.start("demo")
    installation.wait_for("Ctrl-C stops everything")
    output = installation.output
    assert re.search(r"10 files done, 0 failed, \d+ memories", output)
    for question, file in zip(QUESTIONS, ANSWERS, strict=True):
        first_hit = output.split(f"? {question}")[1].splitlines()[1]
        assert file in first_hit
    _announced(installation)
    _second_up_is_refused(installation)
    _doctor_is_content(installation)
    _new_tenant_works(installation)
    key = (installation.data / "admin-key").read_text().strip()
    assert installation.stop() == 0
    assert not (installation.data / "runtime.json").exists()
    logs = "".join(file.read_text() for file in (installation.data / "logs").iterdir())
    assert key not in logs

    installation.start("up")
    installation.wait_for("Ctrl-C stops everything")
    assert key not in installation.output
    found = installation.client(key).post(
        f"/v1/memory/collections/{COLLECTION}/search", {"query": QUESTIONS[0], "limit": 1}
    )
    assert found["results"][0]["metadata"]["filename"] == ANSWERS[0]
    assert installation.stop() == 0


def _announced(installation: Installation) -> None:
    runtime = installation.runtime
    assert set(runtime) == {"api_url", "database_url", "temporal_address", "temporal_ui", "pids"}
    assert set(runtime["pids"]) == {"postgres", "temporal", "api", "worker"}
    assert all(is_alive(psutil.Process(pid)) for pid in runtime["pids"].values())
    for private in ("runtime.json", "admin-key", "encryption-key"):
        assert stat.S_IMODE((installation.data / private).stat().st_mode) == 0o600
    for url in (runtime["api_url"], f"{runtime['api_url']}/api-explorer.html", runtime["temporal_ui"]):
        assert url in installation.output
    assert (installation.data / "admin-key").read_text().strip() in installation.output


def _second_up_is_refused(installation: Installation) -> None:
    done = _rememberos("up", "--data", str(installation.data))
    assert done.returncode == 1
    assert f"runs on {installation.data} already" in done.stderr


def _doctor_is_content(installation: Installation) -> None:
    done = _rememberos("doctor", "--data", str(installation.data))
    assert done.returncode == 0, done.stdout
    assert "BAD" not in done.stdout


def _new_tenant_works(installation: Installation) -> None:
    data = str(installation.data)
    done = _rememberos("create-tenant", "--email", "second@example.org", "--name", "Second", "--data", data)
    made = json.loads(done.stdout.splitlines()[-1])
    assert set(made) == {"tenant_id", "email", "api_key"}
    assert installation.client(made["api_key"]).get("/v1/memory/collections") == []
    again = _rememberos("create-tenant", "--email", "second@example.org", "--data", data)
    assert again.returncode == 1
    assert "second@example.org exists" in again.stderr


def _rememberos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(COMMAND), *arguments], capture_output=True, text=True, check=False, timeout=120)
