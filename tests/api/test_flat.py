"""How much memory the API takes, as a process of its own, while many send and fetch large files: little."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from memory.quotas import MAX_FILE_BYTES
from memory.services import Services
from memory.settings import Settings
from tests.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, s3_server

MIB = 1024 * 1024
SENDERS = 16
# A quarter of what is sent: any route that holds whole files is far beyond it.
MOST_MIB = SENDERS * MAX_FILE_BYTES // MIB // 4
GARDEN = "/v1/memory/collections/garden"
_BLOCK = b"x" * MIB

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much memory a process has had at most"
)


@dataclass(frozen=True)
class Server:
    """A running API, the key that opens it, and the folder in which files arrive."""

    port: int
    process: psutil.Process
    headers: dict[str, str]
    arriving: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, {**self.headers, **headers})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content else None

    def post(self, path: str, said: Any) -> Any:
        status, answer = self.ask("POST", path, json.dumps(said).encode(), **{"Content-Type": "application/json"})
        assert status in {200, 201}, answer
        return answer

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def files_that_arrive(self) -> list[str]:
        """They have no name; so they are seen only in the hands of the process."""
        held = []
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                held.append(str(descriptor.readlink()))
            except FileNotFoundError:
                continue
        return [path for path in held if path.startswith(str(self.arriving))]

    @contextmanager
    def watched(self) -> Iterator[list[float]]:
        """The list holds, after the block, by how many MiB the process grew in it."""
        proc = Path(f"/proc/{self.process.pid}")
        # Forgets the peak there was so far.
        (proc / "clear_refs").write_text("5")
        before = self.process.memory_info().rss / MIB
        grown: list[float] = []
        yield grown
        (line,) = (line for line in (proc / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        grown.append(int(line.split()[1]) / 1024 - before)


@contextmanager
def _serving(settings: Settings, headers: dict[str, str], more: dict[str, str]) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert settings.database_url is not None
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "REMEMBEROS_DATA": str(settings.rememberos_data),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        # Nothing listens there: what is sent is taken in all the same.
        "TEMPORAL_ADDRESS": "127.0.0.1:9",
        "API_PORT": str(port),
        "RATE_LIMIT_PER_MINUTE": "0",
        "PUBLIC_RATE_LIMIT_PER_MINUTE": "0",
        "LOG_LEVEL": "error",
        **more,
    }
    process = subprocess.Popen([sys.executable, "-P", "-m", "api"], env=environment)
    try:
        server = Server(port, psutil.Process(process.pid), headers, settings.rememberos_data / "arriving")
        _until(lambda: _answers(server))
        # What a process takes once: models, connections, threads.
        server.post(f"{GARDEN}/memories", {"text": "Bees dance."})
        assert _form(server, f"{GARDEN}/drop", importance="much") == 422
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(server: Server) -> bool:
    assert server.process.is_running()
    try:
        return server.ask("GET", "/v1/memory/health")[0] == 200
    except OSError:
        return False


def _until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _all_send(send: Callable[[int], int]) -> list[int]:
    with ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(send, range(SENDERS)))


def _large() -> Iterator[bytes]:
    """A file of the largest size, like no other."""
    yield os.urandom(16).hex().encode()
    for _ in range(MAX_FILE_BYTES // MIB - 1):
        yield _BLOCK
    yield _BLOCK[: MIB - 32]


def _form(server: Server, path: str, _sender: int = 0, **fields: str) -> int:
    def body() -> Iterator[bytes]:
        yield b'--edge\r\nContent-Disposition: form-data; name="files"; filename="large.bin"\r\n\r\n'
        yield from _large()
        for name, value in fields.items():
            yield f'\r\n--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        yield b"\r\n--edge--\r\n"

    return server.ask("POST", path, body(), **{"Content-Type": "multipart/form-data; boundary=edge"})[0]


def _put(server: Server, link: Any) -> int:
    path = link["url"].removeprefix(f"http://127.0.0.1:{server.port}")
    return server.ask("PUT", path, _large(), **link["headers"], **{"Content-Length": str(MAX_FILE_BYTES)})[0]


@pytest.fixture(scope="module", params=["folder", "bucket"])
def server(
    request: pytest.FixtureRequest, settings: Settings, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """With files in a folder, and with files in a bucket."""
    key = services.accounts.create_tenant(email=f"flat-{request.param}@example.org").api_key
    with ExitStack() as stack:
        more = {}
        if request.param == "bucket":
            store = stack.enter_context(s3_server(tmp_path_factory.mktemp("s3")))
            more = {
                "S3_ENDPOINT_URL": store.endpoint_url,
                "S3_BUCKET": BUCKET,
                "S3_REGION": REGION,
                "S3_ACCESS_KEY": ACCESS_KEY,
                "S3_SECRET_KEY": SECRET_KEY,
            }
        yield stack.enter_context(_serving(settings, {"Authorization": f"Bearer {key}"}, more))


@pytest.fixture
def memories(server: Server) -> Iterator[list[Any]]:
    """One for each sender; they go with all that they carry."""
    said = [{"text": f"Bee number {number} flies."} for number in range(SENDERS)]
    yield server.post(f"{GARDEN}/memories/bulk", said)["memories"]
    assert server.ask("DELETE", GARDEN)[0] == 200


def test_forms_of_every_route(server: Server, memories: list[Any]) -> None:
    # Refused at their end, they leave nothing.
    grew = {}
    for name in ("drop", "memories/upload", "memories/folder"):
        refused = partial(_form, server, f"{GARDEN}/{name}", importance="much")
        with server.watched() as grown:
            assert _all_send(refused) == [422] * SENDERS
        (grew[name],) = grown
    with server.watched() as grown:
        paths = [f"{GARDEN}/memories/{memory['id']}/images" for memory in memories]
        assert _all_send(lambda number: _form(server, paths[number])) == [201] * SENDERS
    (grew["images"],) = grown

    assert {name: mib for name, mib in grew.items() if mib > MOST_MIB} == {}
    assert not server.files_that_arrive()


# Links of a bucket lead past the API.
@pytest.mark.parametrize("server", ["folder"], indirect=True)
def test_links_of_our_own(server: Server, memories: list[Any]) -> None:
    wanted = [{"filename": f"{number}.bin", "size": MAX_FILE_BYTES} for number in range(SENDERS)]
    links = server.post(f"{GARDEN}/drop/presign", wanted)["uploads"]

    with server.watched() as grown:
        assert _all_send(lambda number: _put(server, links[number])) == [200] * SENDERS
    assert grown[0] < MOST_MIB

    memory = f"{GARDEN}/memories/{memories[0]['id']}"
    assert _form(server, f"{memory}/images") == 201
    (image,) = server.ask("GET", memory)[1]["images"]
    with server.watched() as grown, ExitStack() as stack:
        target = image["url"].removeprefix(f"http://127.0.0.1:{server.port}")
        for number in range(2 * SENDERS):
            slow = stack.enter_context(server.connected())
            wished = f"Range: bytes={number}-\r\n" if number % 2 else ""
            slow.sendall(f"GET {target} HTTP/1.1\r\nHost: flat\r\n{wished}\r\n".encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 20")
        # Whoever is quick does not wait for them.
        fetched = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        fetched.request("GET", target)
        assert len(fetched.getresponse().read()) == MAX_FILE_BYTES
        fetched.close()
    assert grown[0] < MOST_MIB


def test_who_sends_a_byte_at_a_time_holds_up_nobody(server: Server) -> None:
    head = "\r\n".join(
        [
            f"POST {GARDEN}/drop HTTP/1.1",
            "Host: flat",
            *(f"{name}: {value}" for name, value in server.headers.items()),
            "Content-Type: multipart/form-data; boundary=edge",
            f"Content-Length: {MAX_FILE_BYTES}",
            "",
            '--edge\r\nContent-Disposition: form-data; name="files"; filename="slow.bin"\r\n\r\n',
        ]
    ).encode()
    with server.watched() as grown, ExitStack() as stack:
        slow = [stack.enter_context(server.connected()) for _ in range(200)]
        for one in slow:
            one.sendall(head)
        for _ in range(3):
            for one in slow:
                one.sendall(b"x")
            assert _form(server, f"{GARDEN}/drop", importance="much") == 422
    assert grown[0] < MOST_MIB


def test_what_breaks_off_leaves_nothing(server: Server, settings: Settings) -> None:
    def breaks_off(_: int) -> int:
        with server.connected() as connection:
            head = f"POST {GARDEN}/drop HTTP/1.1\r\nHost: flat\r\nContent-Length: {MAX_FILE_BYTES}\r\n"
            said = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
            kind = "Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
            part = '--edge\r\nContent-Disposition: form-data; name="files"; filename="broken.bin"\r\n\r\n'
            connection.sendall((head + said + kind + part).encode() + _BLOCK)
            # Until some of it was taken from our hands.
            _until(lambda: bool(server.files_that_arrive()))
        return 0

    _all_send(breaks_off)
    _until(lambda: not server.files_that_arrive())

    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value()) as owner:
        found = owner.execute("select count(*) from files where filename = 'broken.bin'").fetchone()
    assert found == (0,)
    assert not list(server.arriving.iterdir())
