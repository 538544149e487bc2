"""Which TCP ports a machine has left, and saying clearly when one is taken."""

import socket

from memory.errors import Misconfigured


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are only fading out counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def claim(host: str, port: int) -> socket.socket | None:
    """Keeps a free port from everybody else who claims it, while the answer stays open; None when it is taken.

    Between looking whether a port is free and listening on it seconds pass. The claim is the same port of UDP, which
    nothing of ours serves: the system gives it to one process, of any user, and takes it back when that ends.
    """
    held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        held.bind((host, port))
    except OSError:
        held.close()
        return None
    if not is_free(host, port):
        held.close()
        return None
    return held


def choose(host: str, wanted: int, *, setting: str) -> int:
    """`wanted`, or a free port where it is 0. Raises Misconfigured, naming port and setting, when it is taken."""
    if wanted == 0:
        return free_port(host)
    if not is_free(host, wanted):
        raise Misconfigured(
            f"port {wanted} on {host} is taken by another program or not allowed: "
            f"end that program, or set {setting} to another port (0 picks a free one)"
        )
    return wanted
