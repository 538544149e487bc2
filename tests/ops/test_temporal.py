"""Finding the Temporal server: the order of the steps, that each is said, and that two at once do no harm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memory.errors import Misconfigured
from ops import temporal as finding

_FAKE_SERVER = "#!/bin/sh\necho 'temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)'\n"
_FAKE_GO = f"""#!/bin/sh
case "$1" in
env) echo /nowhere ;;
install)
    echo "$@" > "$GO_WAS_ASKED"
    echo "go: downloading go.temporal.io/server v1.29.1" >&2
    mkdir -p "$GOBIN"
    cat > "$GOBIN/temporal" <<'END'
{_FAKE_SERVER}END
    chmod +x "$GOBIN/temporal" ;;
esac
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH besides the system's tools; the download leads nowhere."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("GO_WAS_ASKED", str(tmp_path / "asked"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_one_on_path_comes_first(path: Path, cache: Path) -> None:
    _program(cache / "temporal", _FAKE_SERVER)
    on_path = _program(path / "temporal", _FAKE_SERVER)
    said: list[str] = []
    assert finding.find_server(said.append, cache=cache) == on_path
    assert said == [f"Temporal: using {on_path} from PATH"]


def test_one_on_path_that_is_something_else_is_passed_over(path: Path, cache: Path) -> None:
    _program(path / "temporal", "#!/bin/sh\necho 'a game about time'\n")
    kept = _program(cache / "temporal", _FAKE_SERVER)
    said: list[str] = []
    assert finding.find_server(said.append, cache=cache) == kept
    assert said == [f"Temporal: {path / 'temporal'} does not work", f"Temporal: using {kept} from the cache"]


def test_without_a_download_it_is_built_by_go_and_kept(path: Path, cache: Path, tmp_path: Path) -> None:
    _program(path / "go", _FAKE_GO)
    said: list[str] = []
    assert finding.find_server(said.append, cache=cache) == cache / "temporal"
    text = "\n".join(said)
    steps = [
        "no usable `temporal` on PATH",
        f"none in the cache {cache}",
        "downloading v1.5.1",
        "building the official",
    ]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    assert (tmp_path / "asked").read_text().split()[-1] == "github.com/temporalio/cli/cmd/temporal@v1.5.1"
    assert sorted(file.name for file in cache.iterdir()) == ["lock", "temporal"]
    said.clear()
    assert finding.find_server(said.append, cache=cache) == cache / "temporal"
    assert said[-1] == f"Temporal: using {cache / 'temporal'} from the cache"


def test_without_any_way_the_ways_out_are_named(path: Path, cache: Path) -> None:
    said: list[str] = []
    if Path("/usr/bin/go").exists():
        _program(path / "go", "#!/bin/sh\nexit 1\n")
    with pytest.raises(Misconfigured) as error:
        finding.find_server(said.append, cache=cache)
    for way in ("TEMPORAL_ADDRESS", "on PATH", str(cache / "temporal"), "temporal.download", "install Go"):
        assert way in error.value.detail


def test_a_build_that_fails_tells_why(path: Path, cache: Path) -> None:
    _program(path / "go", "#!/bin/sh\n[ $1 = env ] || echo 'go: no space left on device' >&2\nexit 1\n")
    said: list[str] = []
    with pytest.raises(Misconfigured):
        finding.find_server(said.append, cache=cache)
    assert said[-1] == "Temporal: that did not work: go: no space left on device"


def test_two_at_once_fetch_it_once(path: Path, cache: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    _program(path / "go", _FAKE_GO.replace("install)", f"install) echo once >> {count}; sleep 1"))
    script = "from ops.temporal import find_server; from pathlib import Path; import sys;"
    script += "find_server(print, cache=Path(sys.argv[1]))"
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(cache)], env=dict(os.environ), stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert count.read_text() == "once\n"
    assert any("another process is fetching it" in text for text in told)


def test_a_build_that_stands_still_is_ended(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.temporal.BUILD_STALL_SECONDS", 0.5)
    _program(path / "go", "#!/bin/sh\n[ $1 = env ] || exec sleep 600\n")
    said: list[str] = []
    with pytest.raises(Misconfigured):
        finding.find_server(said.append, cache=cache)
    assert said[-1] == "Temporal: that did not work: nothing moved for 0.5 s"


def test_the_server_keeps_its_state_and_polls_fast(tmp_path: Path) -> None:
    command = finding.server_command(Path("t"), port=1, ui_port=2, database=tmp_path / "f", namespace="mine")
    text = " ".join(command)
    for flag in (
        f"--db-filename {tmp_path / 'f'}",
        "--sqlite-pragma journal_mode=wal",
        "--sqlite-pragma synchronous=normal",
        "history.transferProcessorMaxPollRPS=2000",
        "history.timerProcessorMaxPollRPS=2000",
        "history.visibilityProcessorMaxPollRPS=2000",
        "system.enableActivityEagerExecution=true",
        "matching.enableFairness=true",
        "matching.numTaskqueueWritePartitions=1",
        "--namespace mine",
        "--ip 127.0.0.1",
    ):
        assert flag in text


def test_a_real_server_serves_only_the_namespaces_it_has(temporal: str) -> None:
    program = finding.find_server(lambda _: None)
    assert finding.is_serving(program, temporal)
    assert not finding.is_serving(program, temporal, "elsewhere")
    assert not finding.is_serving(program, "127.0.0.1:9")
