"""`python -m api`: serves the API until it is told to stop."""

import socket

import structlog
import uvicorn

from api.app import create_app
from memory.logs import configure_logging
from memory.settings import Settings


def main() -> None:
    settings = Settings()
    configure_logging(settings)
    listener = _listen(settings.api_host, settings.api_port)
    # With API_PORT=0 the port is known only now, and addresses in answers need it.
    settings = settings.model_copy(update={"api_port": listener.getsockname()[1]})
    structlog.stdlib.get_logger(__name__).info("serving", url=settings.api_url)
    config = uvicorn.Config(
        create_app(settings), access_log=False, log_config=None, server_header=False, timeout_graceful_shutdown=5
    )
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise SystemExit(f"API_HOST={host} API_PORT={port}: cannot listen there: {error.strerror}") from error


if __name__ == "__main__":
    main()
