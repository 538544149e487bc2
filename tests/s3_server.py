"""A real S3 server for tests: versitygw, built once by Go into the project's cache, serving a folder."""

import fcntl
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from platformdirs import user_cache_path

VERSION = "v1.8.0"
MODULE = "github.com/versity/versitygw/cmd/versitygw"
_KEPT = user_cache_path("rememberos") / f"versitygw-{VERSION}" / "versitygw"

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret/with+signs"
REGION = "eu-test-1"
BUCKET = "originals"


@dataclass(frozen=True)
class S3Server:
    """A running server with one empty bucket; `folder` is where the bucket's objects lie as files.

    `restart` kills it, leaves it dead for so many seconds, and brings it back at the same address.
    """

    endpoint_url: str
    folder: Path
    restart: Callable[[float], None] = lambda _seconds: None


@contextmanager
def s3_server(root: Path, *, bucket: str = BUCKET, options: str = "") -> Iterator[S3Server]:
    """Serves below `root` until the end of the block."""
    program = _program()
    buckets, sidecar = root / "buckets", root / "sidecar"
    (buckets / bucket).mkdir(parents=True)
    sidecar.mkdir()
    address = f"127.0.0.1:{_free_port()}"
    options += (
        f" --access {ACCESS_KEY} --secret {SECRET_KEY} --region {REGION} --port {address} --health /health --quiet"
    )
    command = [str(program), *options.split(), "posix", "--sidecar", str(sidecar), str(buckets)]

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    process = started()

    def restart(seconds: float) -> None:
        nonlocal process
        process.kill()
        process.wait(10)
        time.sleep(seconds)
        process = started()
        _wait(f"http://{address}/health", process)

    try:
        _wait(f"http://{address}/health", process)
        yield S3Server(f"http://{address}", buckets / bucket, restart)
    finally:
        process.terminate()
        process.wait(10)


def make_program() -> None:
    """Builds it where it has not been yet, which takes minutes; without Go nothing happens."""
    go = shutil.which("go")
    if go is None or _KEPT.exists():
        return
    _KEPT.parent.mkdir(parents=True, exist_ok=True)
    aside = _KEPT.parent / "building"
    environment = {**os.environ, "GOBIN": str(aside), "CGO_ENABLED": "0"}
    with (_KEPT.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _KEPT.exists():
            return
        built = subprocess.run(
            [go, "install", f"{MODULE}@{VERSION}"], env=environment, capture_output=True, text=True, check=False
        )
        if built.returncode != 0:
            raise RuntimeError(f"versitygw {VERSION} could not be built: {built.stderr[-2000:]}")
        (aside / "versitygw").rename(_KEPT)
        aside.rmdir()


def _program() -> Path:
    if not _KEPT.exists():
        reason = "the S3 server of the tests (versitygw) is built with Go, and there is no Go on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return _KEPT


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the S3 server ended at once"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    pytest.fail("the S3 server did not start within 30 s")
