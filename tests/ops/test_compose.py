"""The compose file, which no test can start: its form, its settings, its images, and that no secret has a default."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from memory.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("migrate", "api", "worker")
# What a machine of its own needs and services of compose do not.
ELSEWHERE = {"TEMPORAL_UI_PORT", "DATABASE_OWNER_URL", "BOOTSTRAP_EMAIL", "BOOTSTRAP_KEY"}
# What the command line asks for when it speaks to a server elsewhere.
OF_CLIENTS = {"REMEMBEROS_URL", "REMEMBEROS_KEY"}

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[-?])?([^}]*)\}")
_SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|PWD")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def _valid(file: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_follows_the_compose_schema(tmp_path: Path) -> None:
    assert _valid(COMPOSE)
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "heathcheck:", 1))
    assert not _valid(broken)


def test_it_names_every_setting_and_no_other(compose: dict[str, Any]) -> None:
    settings = {name.upper() for name in Settings.model_fields} - OF_CLIENTS
    named = {name: set(compose["services"][name]["environment"]) for name in OURS}
    assert named["api"] == settings - ELSEWHERE
    assert named["worker"] == named["api"] | {"DATABASE_OWNER_URL"}
    assert named["migrate"] == settings - {"TEMPORAL_UI_PORT"}


def test_the_api_never_sees_the_owner_and_the_worker_for_indexes_alone(compose: dict[str, Any]) -> None:
    for name, owner_by in (("api", set()), ("worker", {"DATABASE_OWNER_URL"})):
        values = compose["services"][name]["environment"]
        assert {setting for setting, value in values.items() if "OWNER" in str(value)} == owner_by
        assert "BOOTSTRAP" not in str(values)


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    loose = [image for image in images if not re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.?\d*[a-z0-9.-]*", image)]
    assert loose == []


def test_no_secret_has_a_default() -> None:
    optional = {"EMBEDDING_API_KEY", "EXTRACTION_API_KEY", "TRANSCRIPTION_API_KEY"}
    for name, operator, rest in _VARIABLE.findall(COMPOSE.read_text()):
        if _SECRET.search(name) and name not in optional:
            assert operator == ":?", f"{name} may be unset"
        elif operator == ":-" and name in optional:
            assert rest == ""


def test_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if _SECRET.search(name):
                assert str(value).startswith("${"), f"{name} is spelt out"
            assert not re.search(r"://[^:/@]+:[^$@]+@", str(value)), f"{name} holds a password"


def test_the_example_of_env_names_what_is_required_and_gives_nothing_away() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    required = {name for name, operator, _ in _VARIABLE.findall(COMPOSE.read_text()) if operator == ":?"}
    assert required <= set(given)
    assert set(given.values()) == {""}


def test_what_is_waited_for_can_be_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
            else:
                assert services[other]["restart"].startswith("on-failure"), f"{name} waits for the end of {other}"
    assert "healthcheck" in services["api"]
    assert "healthcheck" in services["worker"]


def test_volumes_and_configs_exist(compose: dict[str, Any]) -> None:
    mounted = {
        volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    }
    used = {config["source"] for service in compose["services"].values() for config in service.get("configs", [])}
    assert mounted == set(compose["volumes"])
    assert used == set(compose["configs"])


def test_ports_are_published_to_this_machine_alone(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_workers_can_be_many(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert "replicas" in worker["deploy"]
    assert "container_name" not in worker
    assert "ports" not in worker


def test_the_image_gets_all_that_it_copies() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert set(copied) == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []
