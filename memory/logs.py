"""How every process of ours logs: structlog and the standard library's loggers in one form, on standard error."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from memory.settings import Settings

# Their INFO lines carry addresses with query strings, which may hold secrets.
_TOO_TALKATIVE = ("httpx", "httpx2", "httpcore", "openai", "urllib3")


def configure_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """One line per event by LOG_LEVEL and LOG_FORMAT; without LOG_FORMAT: console on a terminal, JSON elsewhere."""
    stream = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format is None and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_color_message,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(console, stream))
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    for name in _TOO_TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _without_color_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # uvicorn sends its message a second time, with escape sequences.
    event.pop("color_message", None)
    return event


def _rendering(console: bool, stream: TextIO) -> list[Processor]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if console:
        # Not the default traceback formatter: with rich installed it prints local variables, keys among them.
        plain = structlog.dev.plain_traceback
        return [strip, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
