"""Ports: one that is taken is named, 0 means any."""

import socket

import pytest

from memory.errors import Misconfigured
from ops import ports


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        with pytest.raises(Misconfigured, match=rf"port {port} on 127\.0\.0\.1 is taken.*set API_PORT"):
            ports.choose("127.0.0.1", port, setting="API_PORT")


def test_zero_picks_one_that_can_be_listened_on() -> None:
    port = ports.choose("127.0.0.1", 0, setting="API_PORT")
    with socket.create_server(("127.0.0.1", port)):
        assert port > 0


def test_a_port_that_was_used_a_moment_ago_counts_as_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            # Closed by the server's side first, the connection lingers on the server's port.
            accepted.close()
    assert ports.choose("127.0.0.1", port, setting="API_PORT") == port


def test_of_two_that_claim_a_port_one_has_it_until_it_lets_go() -> None:
    port = ports.free_port()
    first = ports.claim("127.0.0.1", port)
    assert first is not None
    with first:
        assert ports.claim("127.0.0.1", port) is None
        # The claim is in nobody's way who listens.
        socket.create_server(("127.0.0.1", port)).close()
    again = ports.claim("127.0.0.1", port)
    assert again is not None
    again.close()


def test_a_port_that_somebody_listens_on_cannot_be_claimed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert ports.claim("127.0.0.1", taken.getsockname()[1]) is None
