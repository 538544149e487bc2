"""What is logged, in which form, and what never is."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from memory.logs import configure_logging
from memory.settings import Settings


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _logged(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


def test_ours_and_the_standard_librarys_lines_have_one_form() -> None:
    stream = io.StringIO()
    configure_logging(_settings(), stream=stream)

    structlog.get_logger("ours").info("hello", count=3)
    logging.getLogger("theirs").warning("careful, %s", "you", extra={"count": 4, "color_message": "\x1b[36mcareful"})

    ours, theirs = _logged(stream)
    assert (ours["event"], ours["level"], ours["logger"], ours["count"]) == ("hello", "info", "ours", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"], theirs["count"]) == (
        "careful, you",
        "warning",
        "theirs",
        4,
    )
    assert str(ours["timestamp"]).endswith("Z")
    assert "color_message" not in theirs


def test_context_is_on_every_line() -> None:
    stream = io.StringIO()
    configure_logging(_settings(), stream=stream)

    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("ours").info("a")
        logging.getLogger("theirs").info("b")

    assert [line["request_id"] for line in _logged(stream)] == ["r1", "r1"]


def test_the_level_holds_for_both() -> None:
    stream = io.StringIO()
    configure_logging(_settings(log_level="warning"), stream=stream)

    structlog.get_logger("ours").info("a")
    logging.getLogger("theirs").info("b")
    structlog.get_logger("ours").error("c")

    assert [line["event"] for line in _logged(stream)] == ["c"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(log_format: str) -> None:
    stream = io.StringIO()
    configure_logging(_settings(log_format=log_format), stream=stream)
    api_key = "mv_hunter" + "2"

    try:
        raise ValueError(len(api_key))
    except ValueError:
        structlog.get_logger("ours").exception("failed")
        logging.getLogger("theirs").exception("failed")

    assert stream.getvalue().count("ValueError: 10") == 2
    assert api_key not in stream.getvalue()


def test_http_clients_do_not_log_addresses() -> None:
    stream = io.StringIO()
    configure_logging(_settings(log_level="debug"), stream=stream)

    logging.getLogger("httpx").info("HTTP Request: GET https://example.org/?token=hunter2")

    assert stream.getvalue() == ""


def test_configured_twice_a_line_appears_once() -> None:
    stream = io.StringIO()
    configure_logging(_settings(), stream=stream)
    configure_logging(_settings(), stream=stream)

    structlog.get_logger("ours").info("once")

    assert len(_logged(stream)) == 1
