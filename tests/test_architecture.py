"""The walls of the house: import contracts and what no contract can say, each shown a breach that it must notice."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

import worker
from memory.services import Services
from memory.settings import Settings
from tests import sources
from tests.sources import PRODUCT, ROOT

# Contract by the first words of its name: files and the line that, added to each, must break it.
BREACHES = {
    "Rooms": [
        ("memory/errors.py", "import activities.files"),
        ("activities/files.py", "import workflows.policies"),
        ("workflows/policies.py", "import api.deps"),
        ("api/deps.py", "def late() -> None: import ops.processes"),
    ],
    "The house:": [
        ("memory/errors.py", "import memory.schemas"),
        ("memory/schemas.py", "import memory.ports"),
        ("memory/ports.py", "import memory.store.database"),
        ("memory/store/database.py", "import memory.search"),
        ("memory/search.py", "import memory.adapters.embedder"),
        ("memory/adapters/embedder.py", "import memory.services"),
        ("memory/newcomer.py", ""),
    ],
    "Adapters know": [
        ("memory/adapters/embedder.py", "import memory.search"),
        ("memory/adapters/embedder.py", "import memory.store.database"),
    ],
    "The house knows neither": [
        ("memory/search.py", "from fastapi import Request"),
        ("memory/adapters/guard.py", "import starlette"),
        ("memory/drops.py", "from temporalio import activity"),
    ],
    "SQL stays": [
        ("memory/search.py", "from sqlmodel import select"),
        ("api/search.py", "import sqlalchemy"),
        ("ops/processes.py", "import psycopg"),
        ("memory/adapters/embedder.py", "import pgvector"),
        ("memory/services.py", "import alembic"),
    ],
    "The cellar": [
        ("api/search.py", "from memory.store import search"),
        ("activities/files.py", "from memory.store.database import Database"),
        ("ops/processes.py", "from memory.store import schema"),
    ],
    "Hall and workshops": [
        ("activities/files.py", "from memory.services import Services"),
        ("workflows/drop.py", "import memory.adapters.embedder"),
        ("memory/errors.py", "import openai"),
    ],
    "Media readers": [
        ("api/drop.py", "from memory.adapters.documents import GuardedReader"),
        ("memory/services.py", "from memory.adapters.reading import files"),
        ("memory/drops.py", "import openpyxl"),
        ("ops/processes.py", "import rapidocr"),
    ],
    "The worker hands": [
        ("memory/adapters/documents.py", "from memory.adapters.reading import files"),
    ],
    "Libraries that read": [
        ("memory/adapters/documents.py", "import openpyxl"),
        ("memory/chunking.py", "from lxml import html"),
    ],
}

WORKER_KNOWS = [
    "activities",
    "workflows",
    "memory.adapters.documents",
    "memory.adapters.senses",
    "memory.errors",
    "memory.logs",
    "memory.services",
    "memory.settings",
    "structlog",
    "temporalio",
]
TEMPORAL_CLIENTS = {"api/temporal.py", "worker.py"}
ENVIRONMENT = {
    "memory/settings.py": "reads the settings, for everyone",
    "memory/adapters/forkserver.py": "gives the reader of one file a temporary folder of its own",
    "ops/temporal.py": "hands it on to the programs that fetch and build the Temporal server",
    "ops/parts.py": "hands it on to the API and the worker, with the addresses of the embedded parts in it",
    "bench/instance.py": "hands it on to an installation of its own, without the settings of this one",
}
# Seconds to import and hundreds of megabytes that a process which only answers requests must not carry.
HEAVY = ["faster_whisper", "onnxruntime", "openai", "openpyxl", "pypdfium2", "rapidocr"]
# Put together, so that a search for the word finds it in api/ alone.
FRAMEWORK_ERROR = "HTTP" + "Exception"


def contracts() -> list[str]:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return [contract["name"] for contract in configured["tool"]["importlinter"]["contracts"]]


def lint_imports(folder: Path) -> tuple[int, str]:
    program = Path(sys.executable).with_name("lint-imports")
    environment = {"PATH": os.defpath, "COLUMNS": "200"}
    done = subprocess.run(
        [program, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def loaded_by(statement: str) -> set[str]:
    """Which of the heavy libraries are in a process that has run `statement`."""
    asking = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", asking], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(HEAVY) & set(done.stdout.split())


@pytest.fixture(scope="module")
def product() -> dict[str, str]:
    return sources.read(*PRODUCT)


def test_import_contracts_hold() -> None:
    code, report = lint_imports(ROOT)

    assert code == 0, report
    assert f"Contracts: {len(contracts())} kept, 0 broken." in report


def test_every_contract_is_shown_a_breach() -> None:
    assert [[name.startswith(known) for name in contracts()].count(True) for known in BREACHES] == [1] * len(BREACHES)
    assert len(contracts()) == len(BREACHES)


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, file, line) for contract, breaches in BREACHES.items() for file, line in breaches],
)
def test_a_contract_notices_a_breach(tmp_path: Path, contract: str, file: str, line: str) -> None:
    for place in ("api", "workflows", "activities", "memory", "ops"):
        shutil.copytree(ROOT / place, tmp_path / place, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as broken:
        broken.write(f"\n{line}\n")

    code, report = lint_imports(tmp_path)

    assert code == 1
    assert [row for row in report.splitlines() if row.startswith(contract) and "BROKEN" in row], report


def test_nothing_imports_the_worker(product: dict[str, str]) -> None:
    assert sources.importers(product, "worker") == set()
    assert sources.importers({"a.py": "import worker", "b.py": "import workers"}, "worker") == {"a.py"}


def test_the_worker_knows_few(product: dict[str, str]) -> None:
    """Being a module, it lies outside the graph of the contracts."""
    assert sources.strays(product["worker.py"], WORKER_KNOWS) == set()
    broken = "import asyncio\nfrom memory import services, store\nfrom api.app import create_app\nimport sqlalchemy"
    assert sources.strays(broken, WORKER_KNOWS) == {"memory.store", "api.app", "api.app.create_app", "sqlalchemy"}


def test_few_hold_a_client_of_temporal(product: dict[str, str]) -> None:
    holders = {path for path in sources.importers(product, "temporalio.client") if not path.startswith("ops/")}
    assert holders == TEMPORAL_CLIENTS
    broken = {"activities/files.py": "from temporalio import activity, client", "a.py": "import temporalio.common"}
    assert sources.importers(broken, "temporalio.client") == {"activities/files.py"}


def test_only_the_settings_read_the_environment(product: dict[str, str]) -> None:
    assert sources.environment_readers(product) == ENVIRONMENT.keys()


@pytest.mark.parametrize(
    "line",
    [
        "import os; token = os.environ['TOKEN']",
        "import os; token = os.getenv('TOKEN')",
        "from os import environ",
        "from dotenv import load_dotenv",
        "def late():\n    from pydantic_settings import BaseSettings",
    ],
)
def test_reading_the_environment_is_noticed(line: str) -> None:
    assert sources.environment_readers({"a.py": line, "b.py": "import os; os.getpid()"}) == {"a.py"}


def test_every_setting_is_in_the_readme_and_nothing_else() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    assert sources.settings_table((ROOT / "README.md").read_text("utf-8")) == settings
    table = "\n## Settings\n\n| name | default |\n|---|---|\n| `A`, `B_C` | `D` |\n\n## Next\n| `E` | |\n"
    assert sources.settings_table(table) == {"A", "B_C"}


def test_every_setting_is_read_by_somebody(product: dict[str, str]) -> None:
    readers = {path: source for path, source in product.items() if path != "memory/settings.py"}
    assert set(Settings.model_fields) - sources.attributes(readers) == set()
    assert sources.attributes({"a.py": "built(settings.api_host).x"}) == {"api_host", "x"}


def test_every_activity_that_a_workflow_calls_is_registered(product: dict[str, str]) -> None:
    benches = worker.activities(cast("Services", Mock())).values()
    registered = {activity.__name__ for bench in benches for activity in bench}

    assert sources.called_activities(_below(product, "workflows/")) <= registered
    assert sources.decorated(_below(product, "activities/"), "activity.defn") == registered


def test_every_workflow_is_registered(product: dict[str, str]) -> None:
    registered = {workflow.__name__ for workflow in worker.WORKFLOWS}
    assert sources.decorated(_below(product, "workflows/"), "workflow.defn") == registered


def test_a_call_of_an_activity_is_noticed_in_every_form() -> None:
    calls = "execute_activity_method(Files.a) start_activity('b') execute_local_activity(c) start_activity(d[0], e)"
    source = "\n".join(f"workflow.{call}" for call in calls.replace(", ", ",").split())
    assert sources.called_activities({"w.py": source + "\nworkflow.sleep(f)"}) == {"a", "b", "c", "d[0]"}
    defined = "@activity.defn\ndef a(): ...\n@activity.defn(name='x')\nasync def b(): ...\ndef c(): ..."
    assert sources.decorated({"a.py": defined}, "activity.defn") == {"a", "b"}


def test_the_frameworks_error_stays_at_the_front_door() -> None:
    everything = sources.read(*PRODUCT, "tests")
    assert "api/errors.py" in sources.mentions(everything, FRAMEWORK_ERROR)
    assert {p for p in sources.mentions(everything, FRAMEWORK_ERROR) if "api/" not in p} == set()


def test_every_module_says_what_belongs_in_it() -> None:
    assert sources.without_docstring(sources.read(*PRODUCT, "tests", "examples")) == set()
    broken = {"a.py": "# a comment\nimport os", "b.py": "", "c.py": '"""Says it."""'}
    assert sources.without_docstring(broken) == {"a.py", "b.py"}


def test_the_api_process_stays_light() -> None:
    assert loaded_by("from api.app import create_app, Settings; create_app(Settings(_env_file=None))") == set()


def test_a_heavy_library_is_noticed() -> None:
    assert "openpyxl" in loaded_by("import openpyxl")


def _below(product: dict[str, str], place: str) -> dict[str, str]:
    return {path: source for path, source in product.items() if path.startswith(place)}
