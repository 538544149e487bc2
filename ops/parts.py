"""The four children of one machine: how each is started, seen to be ready and told to end."""

import http.client
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from memory.errors import Misconfigured
from ops import launch, temporal
from ops.client import DIRECT
from ops.postgres import EmbeddedPostgres
from ops.supervisor import Output, Part

# What the worker logs once it takes work (worker.py); with LOG_LEVEL above info this time has to do.
_WORKER_READY = "worker polls"
_WORKER_READY_SECONDS = 20.0


def postgres(server: EmbeddedPostgres) -> Part:
    """The embedded server; recovery after a crash takes the time it takes."""

    def command() -> list[str]:
        server.prepare()
        return server.command()

    return Part(
        name="postgres",
        command=command,
        environment=server.environment(),
        is_ready=lambda _: server.is_ready(),
        stops=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)),
        ready_seconds=600,
        kill_group=False,
    )


def temporal_server(program: Path, folder: Path, *, port: int, ui_port: int, namespace: str) -> Part:
    """The development server with its state below `folder` and its web UI."""
    folder.mkdir(mode=0o700, exist_ok=True)
    arguments = temporal.server_command(
        program, port=port, ui_port=ui_port, database=folder / "temporal.db", namespace=namespace
    )
    return Part(
        name="temporal",
        command=lambda: launch.command(arguments, death=signal.SIGKILL),
        environment=temporal.environment(folder),
        is_ready=lambda _: temporal.is_serving(program, f"127.0.0.1:{port}", namespace),
    )


def api(environment: Mapping[str, str], url: str) -> Part:
    """The API; ready when it answers as healthy."""
    return Part(
        name="api",
        command=lambda: launch.command(python("api"), death=signal.SIGKILL),
        environment=environment,
        is_ready=lambda _: answers(url),
    )


def worker(environment: Mapping[str, str], scratch: Path) -> Part:
    """The worker; ready when it says that it polls. Its temporary files lie in `scratch`."""

    def command() -> list[str]:
        # A killed worker could not remove the copies of tenants' files that it was reading.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return launch.command(python("worker"), death=signal.SIGKILL)

    def is_ready(output: Output) -> bool:
        return output.has_logged(_WORKER_READY) or output.age > _WORKER_READY_SECONDS

    return Part(
        name="worker",
        command=command,
        environment={**environment, "TMPDIR": str(scratch)},
        is_ready=is_ready,
        stops=((signal.SIGTERM, 12.0),),
    )


def python(module: str) -> list[str]:
    """Runs one of our modules, whatever lies in the working folder."""
    return [sys.executable, "-P", "-m", module]


def answers(url: str) -> bool:
    """Whether the API at `url` says that it is healthy."""
    try:
        with DIRECT.open(f"{url}/v1/memory/health", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, http.client.error):
        return False


def environment(settings: Mapping[str, str | None]) -> dict[str, str]:
    """Ours with these settings in it; None leaves one as it is."""
    given = {name: value for name, value in settings.items() if value is not None}
    unknown = [name for name, value in given.items() if "\0" in value]
    if unknown:
        raise Misconfigured(f"{unknown[0]} holds a character that no setting can hold")
    return {**os.environ, **given}
