"""The last step before a child's own program: as which user it runs, and that it dies with its parent.

Run as a file (`python launch.py [options] -- command…`), so it imports the standard library alone. It replaces itself
by the command: its process id is the child's.
"""

import argparse
import ctypes
import errno
import os
import signal
import sys
from pathlib import Path

CANNOT_TRAVERSE = 77

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def command(
    arguments: list[str], *, uid: int | None = None, gid: int | None = None, traverse: bool = False, death: int
) -> list[str]:
    """What to start so that `arguments` runs as that user and gets signal `death` when the calling process ends.

    `traverse`: it may read and pass folders that its user cannot, and gains no other right. The signal follows the
    calling thread, so start children from one that lives as long as the process.
    """
    options = ["--parent", str(os.getpid()), "--death", str(int(death))]
    if uid is not None:
        options += ["--uid", str(uid), "--gid", str(uid if gid is None else gid)]
    if traverse:
        options.append("--traverse")
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *options, "--", *arguments]


def _prctl(libc: ctypes.CDLL, option: int, *values: int) -> None:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if libc.prctl(ctypes.c_int(option), *words) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def _keep_only_traversal(libc: ctypes.CDLL) -> None:
    bit = 1 << _CAP_DAC_READ_SEARCH
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    data[0] = _CapabilityData(bit, bit, bit)
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")
    _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)


def _become(libc: ctypes.CDLL, uid: int, gid: int, *, traverse: bool) -> None:
    if traverse:
        # Without this bit access(2) ignores the capability, and Postgres checks its own binary with access(2).
        _prctl(libc, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    # As root these set all three ids of each kind.
    os.setgid(gid)
    os.setuid(uid)
    if traverse:
        _keep_only_traversal(libc)
    if sys.platform == "linux":
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="launch")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--traverse", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    libc = ctypes.CDLL(None, use_errno=True)
    if options.uid is not None:
        try:
            _become(libc, options.uid, options.gid, traverse=options.traverse)
        except OSError as error:
            sys.stderr.write(f"cannot become user {options.uid}: {error}\n")
            return CANNOT_TRAVERSE if options.traverse and error.errno == errno.EPERM else 1
    if sys.platform == "linux":
        # A change of user clears it, so it comes after.
        _prctl(libc, _PR_SET_PDEATHSIG, options.death)
        if os.getppid() != options.parent:
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.execv(options.command[0], options.command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot run {options.command[0]}: {error.strerror}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
