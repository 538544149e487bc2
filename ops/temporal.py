"""The Temporal server of one machine: finding the program, and the flags it runs with."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from memory.errors import Misconfigured
from ops import watching

# The newest version that `go install` takes: later ones have a replace line in their go.mod.
VERSION = "v1.5.1"
PACKAGE = f"github.com/temporalio/cli/cmd/temporal@{VERSION}"

DOWNLOAD_STALL_SECONDS = 20.0
BUILD_STALL_SECONDS = 600.0

_TAKES_PER_SECOND = 2000

Say = Callable[[str], None]


def default_cache() -> Path:
    """Where a fetched server is kept for every data folder of this user."""
    return user_cache_path("rememberos") / f"temporal-{VERSION}"


def find_server(say: Say, *, cache: Path | None = None) -> Path:
    """The `temporal` program: on PATH, from our cache, by the SDK's download, or built by Go, in this order.

    Every step is told to `say`. Raises Misconfigured, naming the ways out, when none leads anywhere.
    """
    cache = cache or default_cache()
    on_path = shutil.which("temporal")
    if on_path is not None and _works(Path(on_path)):
        say(f"Temporal: using {on_path} from PATH")
        return Path(on_path)
    say("Temporal: no usable `temporal` on PATH" if on_path is None else f"Temporal: {on_path} does not work")
    kept = cache / "temporal"
    if _works(kept):
        say(f"Temporal: using {kept} from the cache")
        return kept
    say(f"Temporal: {kept} does not work" if kept.exists() else f"Temporal: none in the cache {cache}")
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache, say):
        if _works(kept) or _download(cache, say) or _build(cache, say):
            return kept
    raise Misconfigured(
        "no Temporal server could be found or made. Ways out: set TEMPORAL_ADDRESS to a running one; "
        f"put the Temporal CLI on PATH or at {kept} (https://docs.temporal.io/cli); open the way to temporal.download; "
        "or install Go (https://go.dev/dl) so that it can be built"
    )


def server_command(
    program: Path, *, port: int, ui_port: int | None, database: Path | None, namespace: str = "default"
) -> list[str]:
    """The development server with its state in `database` (none: in memory) and the web UI on `ui_port` (none: off)."""
    command = [str(program), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    if database is not None:
        # Twice the throughput of the defaults; survives a kill. After a power cut the sweep starts again what is lost.
        command += ["--db-filename", str(database)]
        command += ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=normal"]
    # The default of 20 a second quantises every step of a workflow to 50 ms.
    for queue in ("transfer", "timer", "visibility"):
        command += ["--dynamic-config-value", f"history.{queue}ProcessorMaxPollRPS={_TAKES_PER_SECOND}"]
    for switch in ("system.enableActivityEagerExecution", "matching.useNewMatcher", "matching.enableFairness"):
        command += ["--dynamic-config-value", f"{switch}=true"]
    # Turns are taken within a partition of a queue, so a queue has one. (Read from all: none is left behind.)
    command += ["--dynamic-config-value", "matching.numTaskqueueWritePartitions=1"]
    if namespace != "default":
        command += ["--namespace", namespace]
    return [*command, "--log-level", "warn", "--log-format", "text", "--color", "never"]


def is_serving(program: Path, address: str, namespace: str = "default") -> bool:
    """Whether the server at `address` answers and knows the namespace."""
    command = [str(program), "operator", "namespace", "describe", "--namespace", namespace, "--address", address]
    try:
        done = subprocess.run(
            command,
            env=environment(program.parent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def environment(home: Path) -> dict[str, str]:
    """The program's environment. It keeps and reads settings below its home folder and TEMPORAL_*: never the user's."""
    return {"PATH": os.defpath, "HOME": str(home), "NO_COLOR": "1"}


def _works(program: Path) -> bool:
    if not program.is_file():
        return False
    try:
        done = subprocess.run(
            [str(program), "--version"],
            env=environment(program.parent),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "Server" in done.stdout


@contextmanager
def _alone(cache: Path, say: Say) -> Iterator[None]:
    """One process at a time fetches into the cache; the others wait and then find it there."""
    with (cache / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Temporal: another process is fetching it; waiting for that one")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(cache: Path, say: Say) -> bool:
    """By the SDK, in a process of its own: it starts what it downloads, and can be ended when nothing arrives."""
    say(f"Temporal: downloading {VERSION} as the SDK does (temporal.download)")
    folder = cache / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def progress() -> str:
        return f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.0f} MB"

    last = watching.run(
        [sys.executable, "-m", "ops.temporal_download", str(folder), VERSION],
        dict(os.environ),
        watching.Watch(line=lambda _: None, progress=progress, stall=DOWNLOAD_STALL_SECONDS, limit=900),
        say,
    )
    kept = _keep(next(folder.glob("temporal-*"), folder / "temporal"), cache, say, last)
    shutil.rmtree(folder)
    return kept


def _build(cache: Path, say: Say) -> bool:
    """By Go from the official source."""
    go = shutil.which("go")
    if go is None:
        say("Temporal: no Go on PATH to build it with")
        return False
    say(f"Temporal: building the official CLI {VERSION} with {go}; this takes about 4 minutes, once")
    folder = cache / "build"
    folder.mkdir(exist_ok=True)
    modules = packages = 0

    def count(line: str) -> None:
        nonlocal modules, packages
        if line.startswith("go: downloading"):
            modules += 1
        else:
            packages += 1

    last = watching.run(
        [go, "install", "-v", "-trimpath", "-ldflags=-s -w", PACKAGE],
        _go_environment(go, folder),
        watching.Watch(
            line=count,
            progress=lambda: f"{modules} modules, {packages} packages built",
            stall=BUILD_STALL_SECONDS,
            limit=3600,
        ),
        say,
    )
    kept = _keep(folder / "bin" / "temporal", cache, say, last)
    if kept:
        # A build that failed or was ended goes on from here the next time.
        shutil.rmtree(folder)
    return kept


def _go_environment(go: str, folder: Path) -> dict[str, str]:
    """Go's own caches where this user has them; else caches that go away with `folder`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH", "GO111MODULE")}
    environment |= {"GOBIN": str(folder / "bin"), "GOWORK": "off", "CGO_ENABLED": "0"}
    for name in ("GOMODCACHE", "GOCACHE"):
        asked = subprocess.run([go, "env", name], capture_output=True, text=True, timeout=60, check=False)
        if not asked.stdout.strip() or not Path(asked.stdout.strip()).is_dir():
            environment[name] = str(folder / name.lower())
    # Without it the modules' files are read-only, and the folder could not be removed.
    environment["GOFLAGS"] = f"{environment.get('GOFLAGS', '')} -modcacherw".strip()
    return environment


def _keep(made: Path, cache: Path, say: Say, last: str) -> bool:
    """Moves a server that works into its place in the cache."""
    if not _works(made):
        say(f"Temporal: that did not work: {last[-300:] or 'no answer'}")
        return False
    made.replace(cache / "temporal")
    say(f"Temporal: kept as {cache / 'temporal'}")
    return True
