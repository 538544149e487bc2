"""`up` where it does not get far: ports, folders, settings, and being told to stop half way."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from memory.settings import Settings
from ops.processes import is_alive

COMMAND = Path(sys.executable).with_name("rememberos")


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rememberos-local-") as folder:
        yield Path(folder) / "data"


def _environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**inherited, "TEMPORAL_UI_PORT": "0", **settings}


def _up(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), "up", "--data", str(data), *arguments],
        env=_environment(**settings),
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_taken_port_is_named(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        api = _up(data, "--port", port)
        ui = _up(data, "--port", "0", TEMPORAL_UI_PORT=port)
    for done, setting in ((api, "API_PORT"), (ui, "TEMPORAL_UI_PORT")):
        assert done.returncode == 1
        assert done.stderr.startswith(f"rememberos: port {port} on 127.0.0.1 is taken")
        assert setting in done.stderr
        assert "Traceback" not in done.stderr
    assert not (data / "runtime.json").exists()
    assert not (data / "postgres").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"S3_ENDPOINT_URL": "s3.example.org"}, "S3_ENDPOINT_URL: not an address such as https://"),
        ({"S3_ENDPOINT_URL": "http://exa mple"}, "S3_ENDPOINT_URL: not an address such as https://"),
        ({"S3_ENDPOINT_URL": "http://key:sesame@store:9000"}, "S3_ENDPOINT_URL: not an address such as https://"),
        ({"S3_ENDPOINT_URL": "http://store:99999"}, "S3_ENDPOINT_URL: not an address such as https://"),
        ({"S3_BUCKET": "my bucket"}, "S3_BUCKET: "),
        ({"S3_SECRET_KEY": ""}, "S3_BUCKET is set, so S3_ACCESS_KEY and S3_SECRET_KEY must be set too"),
    ],
)
def test_a_bucket_that_cannot_be_is_named_before_anything_starts(data: Path, given: dict[str, str], said: str) -> None:
    well = {"S3_ENDPOINT_URL": "http://[::1]:9000", "S3_BUCKET": "originals"}
    done = _up(data, **{**well, "S3_ACCESS_KEY": "sesame", "S3_SECRET_KEY": "sesame", **given})

    assert done.returncode == 1
    assert done.stderr.startswith(f"rememberos: settings: {said}")
    assert "sesame" not in done.stderr + done.stdout
    assert not data.exists()


def test_a_wrong_setting_is_named_without_its_value(data: Path) -> None:
    done = _up(data, API_PORT="sesame")
    assert done.returncode == 1
    assert "API_PORT" in done.stderr
    assert "sesame" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_of_ones_own_needs_its_owner(data: Path) -> None:
    done = _up(
        data, "--port", "0", DATABASE_URL="postgresql://rememberos_app:x@127.0.0.1:1/none", TEMPORAL_ADDRESS="a:1"
    )
    assert done.returncode == 1
    assert "DATABASE_OWNER_URL" in done.stderr


def test_told_to_stop_half_way_it_leaves_nothing_behind(data: Path) -> None:
    output = data.with_name("output")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [str(COMMAND), "up", "--data", str(data), "--port", "0"],
            env=_environment(),
            cwd=data.parent,
            stdout=file,
            stderr=file,
        )
    while "Postgres: ready" not in output.read_text():
        assert process.poll() is None, output.read_text()
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    psutil.wait_procs(family, timeout=10)
    assert [child for child in family if is_alive(child)] == []
    assert output.read_text().splitlines()[-1] == "stopping"
    assert not (data / "runtime.json").exists()
