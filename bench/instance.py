"""What is measured: a running instance given by address and key, or one of its own in a temporary folder."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Api
from memory.services import Services, build
from memory.settings import Settings

_START_SECONDS = 1200


@dataclass(frozen=True)
class Instance:
    """A running product. `runtime` is its runtime.json where it is known: only for one that `up` started."""

    api: Api
    folder: Path | None
    runtime: dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the arguments that every measurement has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--url", help="API of a running instance; without it one is started for the measurement")
    made.add_argument("--key", help="key for --url; without it the one in --data is taken")
    made.add_argument("--data", type=Path, help="data folder of a running `up`: gives address, key and database")
    made.add_argument("--json", type=Path, help="also write the figures to this file")
    return made


@contextmanager
def instance(arguments: argparse.Namespace) -> Iterator[Instance]:
    """The instance that the arguments name, or a new one that ends with the block."""
    if arguments.data is not None:
        with _opened(arguments.data, arguments) as found:
            yield found
    elif arguments.url is not None:
        if arguments.key is None:
            raise SystemExit("--url needs --key")
        with Api(arguments.url, arguments.key) as api:
            yield Instance(api, None, {})
    else:
        with (
            tempfile.TemporaryDirectory(prefix="rememberos-bench-") as folder,
            own(Path(folder)),
            _opened(Path(folder), arguments) as found,
        ):
            yield found


@contextmanager
def own(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`rememberos up` on this folder, serving from the first line of the block, stopped after the last."""
    ours = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    # What is measured is how fast it answers, not how soon it says that it was asked too often.
    environment |= {"TEMPORAL_UI_PORT": "0", "RATE_LIMIT_PER_MINUTE": "0", "PUBLIC_RATE_LIMIT_PER_MINUTE": "0"}
    with (folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("rememberos"), "up", "--data", folder, "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            _wait(folder, process)
            yield process
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def opened(running: Instance) -> Iterator[Services]:
    """The product's own code on the database of a running instance, for what is to be done past HTTP."""
    if running.folder is None:
        raise SystemExit("this needs the database: give --data of a running `up`, or nothing at all")
    url = running.runtime["database_url"]
    services = build(Settings(_env_file=None, rememberos_data=running.folder, database_url=url))
    try:
        yield services
    finally:
        services.close()


def write(arguments: argparse.Namespace, figures: Any) -> None:
    """Writes the figures where `--json` says."""
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def _opened(folder: Path, arguments: argparse.Namespace) -> Iterator[Instance]:
    runtime = json.loads((folder / "runtime.json").read_text())
    key = arguments.key or (folder / "admin-key").read_text().strip()
    with Api(runtime["api_url"], key) as api:
        yield Instance(api, folder, runtime)


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not (folder / "runtime.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"`rememberos up` did not start:\n{(folder / 'up.log').read_text()[-4000:]}")
        time.sleep(0.01)
