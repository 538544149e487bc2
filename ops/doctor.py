"""`rememberos doctor`: looks at every part and says what is wrong and what to do."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import psutil
from cryptography.fernet import Fernet
from pydantic import SecretStr
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from memory import services
from memory.errors import AppError, Invalid, Unauthorized, Unavailable
from memory.settings import Settings
from ops import parts, postgres, temporal
from ops.processes import is_alive
from ops.runtime import Runtime
from workflows.policies import TASK_QUEUE

_ENOUGH_BYTES = 2_000_000_000
# A model may have to be downloaded.
_LOAD_SECONDS = 1_800
_OF_MODELS = (
    "rememberos_data",
    "ocr_engine",
    "extraction_base_url",
    "extraction_model",
    "extraction_api_key",
    "caption_model",
    "transcription_model",
    "transcription_base_url",
    "transcription_api_key",
)


@dataclass(frozen=True)
class Finding:
    """How one part is; `remedy` says what to do where it is not well."""

    part: str
    text: str
    remedy: str | None = None


class _Unwell(Exception):
    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


def examine(settings: Settings, *, only: str | None = None) -> Iterator[Finding]:
    """One finding per part, the parts that others need first; or for one part alone. Raises Invalid."""
    runtime = Runtime.read(settings.rememberos_data)
    checks: tuple[tuple[str, Callable[[Settings, Runtime | None], str]], ...] = (
        ("data folder", _data_folder),
        ("installation", _installation),
        ("database", _database),
        ("Temporal", _temporal),
        ("worker", _worker),
        ("API", _api),
        ("files", _files),
        ("orphans", _orphans),
        ("embedding", _embedding),
        ("readers", _models("readers")),
        ("OCR", _models("OCR")),
        ("transcription", _models("transcription")),
        ("captions", _models("captions")),
        ("secrets", _secrets),
    )
    if only is not None and only not in dict(checks):
        raise Invalid(f"no such part: {only}; there are {', '.join(dict(checks))}")
    for part, check in checks:
        if only not in (None, part):
            continue
        try:
            yield Finding(part, check(settings, runtime))
        except _Unwell as trouble:
            yield Finding(part, str(trouble), trouble.remedy)
        except AppError as error:
            yield Finding(part, error.detail, "do what it says, then ask again")
        except Exception as error:  # noqa: BLE001 - one part that fails in a new way must not hide the others
            yield Finding(part, f"{type(error).__name__}: {error}"[:300], f"see the logs in {_logs(settings)}")


def _data_folder(settings: Settings, _runtime: Runtime | None) -> str:
    folder = settings.rememberos_data
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise _Unwell(f"{there} cannot be written", "change its owner, or set REMEMBEROS_DATA to another folder")
    free = shutil.disk_usage(there).free
    if free < _ENOUGH_BYTES:
        raise _Unwell(f"{folder}: only {free / 1e9:.1f} GB free", "make room: databases stop when the disk is full")
    return f"{folder}, {free / 1e9:.0f} GB free"


def _installation(settings: Settings, runtime: Runtime | None) -> str:
    if runtime is None:
        if settings.database_url is not None and settings.temporal_address is not None:
            return "no `rememberos up` here; the parts are those of the settings"
        raise _Unwell("no `rememberos up` runs on this folder", "run `rememberos up`, or name its folder with --data")
    gone = [
        name for name, pid in runtime.pids.items() if not (psutil.pid_exists(pid) and is_alive(psutil.Process(pid)))
    ]
    if gone:
        raise _Unwell(f"not running: {', '.join(gone)}", f"see {_logs(settings)}; if `up` was killed, start it again")
    return f"running at {runtime.api_url}: {', '.join(f'{name} {pid}' for name, pid in sorted(runtime.pids.items()))}"


def _database(settings: Settings, runtime: Runtime | None) -> str:
    built = _services(settings, runtime)
    try:
        # Any key will do: the question needs the app's role, the schema and its functions.
        built.accounts.authenticate(f"mv_{'0' * 43}")
    except Unauthorized:
        return "answers the app's role, and the schema is there"
    except AppError:
        raise
    except Exception as error:
        raise _Unwell(f"its schema does not fit ({type(error).__name__})", "run `rememberos migrate`") from error
    finally:
        built.close()
    raise AssertionError("no such key was ever made")


def _services(settings: Settings, runtime: Runtime | None) -> services.Services:
    url = settings.database_url or (SecretStr(runtime.database_url) if runtime is not None else None)
    if url is None:
        postgres.binaries()
        raise _Unwell("no address: the embedded server runs with `up` only", "run `rememberos up` or set DATABASE_URL")
    return services.build(settings.model_copy(update={"database_url": url}))


def _temporal(settings: Settings, runtime: Runtime | None) -> str:
    address = settings.temporal_address or (runtime.temporal_address if runtime is not None else None)
    if address is None:
        place = shutil.which("temporal") or temporal.default_cache() / "temporal"
        if Path(place).exists():
            return f"not running; `up` will use {place}"
        raise _Unwell("no server and no program for one", "run `rememberos up`: it downloads or builds the program")
    asyncio.run(_connect(address, settings.temporal_namespace))
    return f"answers at {address}"


def _worker(settings: Settings, runtime: Runtime | None) -> str:
    address = settings.temporal_address or (runtime.temporal_address if runtime is not None else None)
    if address is None:
        raise _Unwell("without Temporal there is none", "see Temporal")
    pollers = asyncio.run(_pollers(address, settings.temporal_namespace))
    if pollers == 0:
        raise _Unwell(f"nobody takes work from the queue {TASK_QUEUE}", "start a worker: `rememberos up` or worker.py")
    return f"{pollers} take work from the queue {TASK_QUEUE}"


async def _connect(address: str, namespace: str) -> Client:
    try:
        return await asyncio.wait_for(Client.connect(address, namespace=namespace), 5)
    except (RuntimeError, TimeoutError) as error:
        raise _Unwell(f"no answer at {address}", "start it, or correct TEMPORAL_ADDRESS") from error


async def _pollers(address: str, namespace: str) -> int:
    client = await _connect(address, namespace)
    asked = DescribeTaskQueueRequest(
        namespace=namespace,
        task_queue=TaskQueue(name=TASK_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    answer = await client.workflow_service.describe_task_queue(asked, timeout=timedelta(seconds=5))
    return len(answer.pollers)


def _api(settings: Settings, runtime: Runtime | None) -> str:
    url = runtime.api_url if runtime is not None else settings.api_url
    if not parts.answers(url):
        raise _Unwell(f"no answer at {url}", f"start it; its log is {_logs(settings) / 'api.log'}")
    return f"answers at {url}"


def _files(settings: Settings, _runtime: Runtime | None) -> str:
    built = services.build(settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@localhost/no")}))
    try:
        key = f"doctor/{uuid4()}"
        try:
            built.objects.put(key, BytesIO(b"well"), max_bytes=4)
        except Unavailable as error:
            raise _Unwell(error.detail, "start it, or correct S3_ENDPOINT_URL") from error
        try:
            back = built.objects.get(key)
        finally:
            built.objects.delete([key])
    finally:
        built.close()
    if back != b"well":
        raise _Unwell("what was stored came back changed", "check the store behind the S3 settings")
    where = f"bucket {settings.s3_bucket}" if settings.s3_bucket is not None else settings.rememberos_data / "objects"
    return f"stored and read back in {where}"


def _orphans(settings: Settings, runtime: Runtime | None) -> str:
    built = _services(settings, runtime)
    try:
        found = built.cleaning.count()
    finally:
        built.close()
    if found.count == 0:
        return "every stored object belongs to something"
    return f"{found.count} objects, {found.size_bytes} bytes, belong to nothing; the worker removes them in time"


def _embedding(settings: Settings, _runtime: Runtime | None) -> str:
    built = services.build(settings.model_copy(update={"database_url": SecretStr("postgresql://nobody@localhost/no")}))
    try:
        vectors = built.embedder.embed(["is anybody there?"])
    finally:
        built.close()
    return f"{built.embedder.model.name}, {vectors.shape[1]} dimensions"


def _models(part: str) -> Callable[[Settings, Runtime | None], str]:
    """Loads what reads, hears or sees, in a process of its own: what it takes shall not stay here."""

    def check(settings: Settings, _runtime: Runtime | None) -> str:
        given = {name: getattr(settings, name) for name in _OF_MODELS}
        plain = {n: v.get_secret_value() if isinstance(v, SecretStr) else v for n, v in given.items() if v is not None}
        command = [sys.executable, "-P", "-m", "memory.adapters.checkup", part]
        asked = json.dumps(plain, default=str)
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, timeout=_LOAD_SECONDS)
        if done.returncode != 0:
            raise _Unwell("it ends the process that loads it", f"run {' '.join(command)} with {{}} as its input")
        answer = json.loads(done.stdout)
        if not answer["is_well"]:
            raise _Unwell(answer["text"], "files wait for it or end without it; see What it reads in the README")
        return str(answer["text"])

    return check


def _secrets(settings: Settings, _runtime: Runtime | None) -> str:
    file = settings.rememberos_data / "encryption-key"
    if settings.encryption_key is not None:
        given, named = settings.encryption_key.get_secret_value(), "ENCRYPTION_KEY"
    elif file.exists():
        given, named = file.read_text(), str(file)
    else:
        raise _Unwell("no key to encrypt with", "run `rememberos up`, which makes one, or set ENCRYPTION_KEY")
    try:
        for key in given.split(","):
            Fernet(key.strip())
    except ValueError as error:
        raise _Unwell(f"{named} is not a Fernet key", "make one: see ENCRYPTION_KEY in the README") from error
    return f"{named} is well formed"


def _logs(settings: Settings) -> Path:
    return settings.rememberos_data / "logs"
