"""`python -m api`: serves the API until it is told to stop."""

import asyncio
import socket
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from api import heap
from api.app import create_app
from memory.logs import configure_logging
from memory.settings import Settings

_BACKLOG = 2048
# By default asyncio takes 256 KB at once, which with hundreds that send is most of what the API holds.
_READ_BYTES = 64 * 1024


class Connection(H11Protocol):
    """Reads in small pieces; a client that sends more than is asked for waits."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        reading: Any = transport
        reading.max_size = _READ_BYTES
        super().connection_made(transport)


def main() -> None:
    heap.bound_arenas()
    settings = Settings()
    configure_logging(settings)
    listener = _listen(settings.api_host, settings.api_port)
    # With API_PORT=0 the port is known only now, and addresses in answers need it.
    settings = settings.model_copy(update={"api_port": listener.getsockname()[1]})
    structlog.stdlib.get_logger(__name__).info("serving", url=settings.api_url)
    config = uvicorn.Config(
        create_app(settings),
        http=Connection,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, which `create_server` does not do: otherwise asyncio leaves Nagle's algorithm on, and each answer
    # waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SystemExit(f"API_HOST={host} API_PORT={port}: cannot listen there: {error.strerror}") from error
    return listener


if __name__ == "__main__":
    main()
