"""Takes from a process what reading a file does not need, as far as the kernel lets us: network, files, system calls.

Everything here tightens for good: what a process has given up, neither it nor its children get back.
"""

import contextlib
import ctypes
import os
import platform
import stat
import struct
import sys
import sysconfig
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import memory

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_THREAD = 0x10000000, 0x40000000, 0x00010000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

# Landlock: the same numbers on every processor.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_RIGHTS_OF_FILES = _EXECUTE | _WRITE | _READ | 1 << 14 | 1 << 15
# How many rights over files each version of Landlock knows; the last entry goes for newer ones.
_RIGHTS = (0, 13, 14, 15, 15, 16)
_ALL_TCP, _ALL_SCOPES = 0b11, 0b11

# Programs, libraries and what the loader, fonts and time zones need. Of /proc and /sys only what describes the machine.
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix/store")
_DETAILS = (
    "/etc/ld.so.cache",
    "/etc/fonts",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
)

# System calls by processor: what AUDIT_ARCH calls it, and the numbers.
_NUMBERS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "unshare": 272,
            "setns": 308, "mount": 165, "keyctl": 250, "add_key": 248, "request_key": 249, "perf_event_open": 298,
            "userfaultfd": 323, "io_uring_setup": 425, "pidfd_send_signal": 424, "pidfd_getfd": 438, "tkill": 200,
            "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "kill": 62, "tgkill": 234, "clone": 56, "clone3": 435,
            "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "bpf": 280, "unshare": 97,
            "setns": 268, "mount": 40, "keyctl": 219, "add_key": 217, "request_key": 218, "perf_event_open": 241,
            "userfaultfd": 282, "io_uring_setup": 425, "pidfd_send_signal": 424, "pidfd_getfd": 438, "tkill": 130,
            "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "kill": 129, "tgkill": 131, "clone": 220, "clone3": 435,
            "execve": 221, "execveat": 281,
        },
    ),
}  # fmt: skip
_OF_PROGRAMS = ("fork", "vfork", "execve", "execveat")
_OWN_ALONE = ("kill", "tgkill")
_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000


def leave_network() -> bool:
    """Gives up new rights, and the network for an empty one of its own; false where the kernel refuses the latter.

    Only for a process with a single thread.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # Without the maps, which some systems refuse, the process is nobody to everything that asks for its name.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def kept(folder: str, *, network: bool, programs: bool) -> list[str]:
    """What a child of this process will not be able to give up, or to be held to, in words for the operator.

    `network`: whether this process has left it already.
    """
    calls = _succeeds(lambda: leave_calls(programs=programs))
    takes = {
        "the network": network or calls,
        "files of the same user": _succeeds(lambda: leave_files(folder)),
        "other processes": calls,
        "memory beyond the limit": sys.platform == "linux" and address_space() is not None,
    }
    return [name for name, is_taken in takes.items() if not is_taken]


def address_space() -> int | None:
    """The bytes that this process has mapped; None where that is not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _succeeds(step: Callable[[], bool]) -> bool:
    """Whether it would, tried in a child that ends with it. Only for a process with a single thread."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if step() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def leave_files(folder: str) -> bool:
    """From now on only programs and libraries can be opened, and files within `folder`; false where the kernel cannot.

    What is open already stays open.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_GET_VERSION))
    if version < 1:
        return False
    rights = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    wanted = [rights, *([_ALL_TCP] if version >= 4 else []), *([_ALL_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"={len(wanted)}Q", *wanted)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        allowed = dict.fromkeys((*readable_places(), "/proc/self"), (_EXECUTE | _READ | _LIST) & rights)
        allowed |= {os.devnull: (_READ | _WRITE) & rights, folder: rights & ~_EXECUTE}
        # Whoever could not open its own libraries would read no file at all.
        if not all(_allow(libc, ruleset, place, given) for place, given in allowed.items()):
            return False
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)


@cache
def readable_places() -> tuple[str, ...]:
    """What a reader of files may open: the system's programs, Python's, the libraries and our own package.

    The folder above our package is none of them: settings and data may lie there.
    """
    house = Path(memory.__file__).parent
    libraries = [place for place in sysconfig.get_paths().values() if place.startswith("/")]
    libraries += [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages", "lib-dynload")]
    programs = [place for place in os.get_exec_path() if place.startswith("/")]
    # Where the libraries of an interpreter of its own lie.
    python = [
        f"{prefix}/{part}" for prefix in (sys.prefix, sys.base_prefix) for part in ("lib", "lib64", "bin", "share")
    ]
    return tuple(dict.fromkeys((*_SYSTEM, *_DETAILS, *python, *libraries, *programs, str(house))))


def leave_calls(*, programs: bool) -> bool:
    """Gives up the system calls that reach other processes and machines, and without `programs` those that start one;
    false where the kernel or the processor is not known.
    """
    if sys.platform != "linux" or platform.machine() not in _NUMBERS:
        return False
    architecture, numbers = _NUMBERS[platform.machine()]
    refused = [
        number for name, number in numbers.items() if name not in (*_OWN_ALONE, *_OF_PROGRAMS, "clone", "clone3")
    ]
    filtering = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    filtering += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    if not programs:
        refused += [numbers[name] for name in _OF_PROGRAMS if name in numbers]
        # Threads stay possible: libraries start them by the older call when they are told that the newer is not there.
        filtering += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _UNKNOWN)]
        filtering += [(_EQUAL, 0, 4, numbers["clone"]), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD)]
        filtering += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    for name in _OWN_ALONE:
        filtering += [(_EQUAL, 0, 4, numbers[name]), (_LOAD, 0, 0, 16), (_EQUAL, 1, 0, os.getpid())]
        filtering += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    for number in refused:
        filtering += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    filtering.append((_RETURN, 0, 0, _ALLOW))
    return _install(filtering)


def _install(filtering: Iterable[tuple[int, int, int, int]]) -> bool:
    code = b"".join(struct.pack("=HBBI", *step) for step in filtering)
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held))
    return bool(ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0) == 0)


def _allow(libc: ctypes.CDLL, ruleset: int, place: str, rights: int) -> bool:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True  # not on this machine
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _RIGHTS_OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        return bool(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)) == 0)
    finally:
        os.close(descriptor)
