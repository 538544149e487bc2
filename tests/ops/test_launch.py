"""The last step before a child's program: whose rights it has, and that it dies with its parent."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from ops import launch

_PARENT = """
import signal, subprocess, sys, time
from ops import launch
child = subprocess.Popen(launch.command([sys.executable, "-c", "import time; time.sleep(60)"], death=signal.SIGKILL))
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        parent.wait()
        gone, _ = psutil.wait_procs([child], timeout=10)
        assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_is_gone_already_never_runs() -> None:
    command = launch.command([sys.executable, "-c", "print('ran')"], death=signal.SIGKILL)
    command[command.index("--parent") + 1] = "1"
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


def test_a_program_that_is_missing_is_named() -> None:
    command = launch.command(["/no/such/program"], death=signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot run /no/such/program" in done.stderr


@pytest.mark.parametrize("traverse", [True, False])
def test_another_user_has_no_right_but_the_one_it_needs(traverse: bool) -> None:
    # The interpreter may lie where that user cannot reach it, so the system's shell has to do.
    script = "id -u; id -G; grep -E '^(Cap(Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status"
    command = launch.command(["/bin/sh", "-c", script], uid=65534, gid=65534, traverse=traverse, death=signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if os.geteuid() != 0:
        # Only root can become somebody else; for others nothing is run, and whoever started it can tell why.
        assert (done.returncode, done.stdout) == (launch.CANNOT_TRAVERSE if traverse else 1, "")
        assert "cannot become user 65534" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    user, groups, *status = done.stdout.splitlines()
    rights = {int(line.split()[1], 16) for line in status if line.startswith("Cap")}
    assert (user, groups) == ("65534", "65534")
    # 1 << 2 is CAP_DAC_READ_SEARCH.
    assert rights == ({1 << 2} if traverse else {0})
    assert status[-1].split() == ["NoNewPrivs:", "1"]
