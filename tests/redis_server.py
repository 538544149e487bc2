"""A real Redis for tests: the system's own redis-server, on a free port, without anything on disk."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from ops.ports import free_port

_PASSWORD = "test-secret"


class RedisServer:
    """A server that can be stopped and started again under the same address."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://:{_PASSWORD}@127.0.0.1:{self._port}/0")

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--requirepass", _PASSWORD]
        self._process = subprocess.Popen(
            [self._program, *options, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with self.client() as client:
            for _ in range(600):
                assert self._process.poll() is None, "redis-server ended at once"
                try:
                    client.ping()
                except RedisError:
                    time.sleep(0.05)
                else:
                    return
        pytest.fail("redis-server did not start within 30 s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def client(self) -> Redis:
        client: Redis = Redis.from_url(self.url.get_secret_value())
        return client


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Runs until the end of the block."""
    program = shutil.which("redis-server")
    if program is None:
        reason = "there is no redis-server on PATH: install the system's package of that name"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = RedisServer(program, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
