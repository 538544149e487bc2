"""What every client of an endpoint in OpenAI's form shares: no redirects, bounded waiting, errors in our own words."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
import openai
from pydantic import SecretStr

from memory.errors import AppError, Invalid, Misconfigured, Slow, Unavailable
from memory.ports import Look

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_RETRIES = 2
_KEYLESS = "none"
_LOOK_SECONDS = 0.5
_MAX_ANSWER_BYTES = 64 * 1024**2

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Words:
    """How errors call the endpoint, what is sent to it, and the settings that name it."""

    endpoint: str
    model: str
    sent: str
    form: str
    url_setting: str
    model_setting: str
    key_setting: str


def while_looking(call: Callable[[], Answer], look: Look) -> Answer:
    """What the call gives. A request cannot be stopped from outside: when `look` raises it is left behind, and ends by
    its timeout.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(error)

    threading.Thread(target=run, name="asking", daemon=True).start()
    while True:
        try:
            return answer.result(_LOOK_SECONDS)
        except FutureTimeoutError:
            if answer.done():
                raise
            look()


class _Flood(Exception):
    """The answer is larger than any that means something."""


class _Bounded(httpx2.SyncByteStream):
    """Ends answers that are too large, or that trickle in for longer than their reading may take."""

    def __init__(self, stream: Any, seconds: float | None) -> None:
        self._stream = stream
        self._deadline = time.monotonic() + (math.inf if seconds is None else seconds)

    def __iter__(self) -> Iterator[bytes]:
        left = _MAX_ANSWER_BYTES
        for part in self._stream:
            left -= len(part)
            if left < 0:
                raise _Flood
            if time.monotonic() > self._deadline:
                raise httpx2.ReadTimeout("the answer does not come to its end")
            yield part

    def close(self) -> None:
        self._stream.close()


def _bound(response: httpx2.Response) -> None:
    seconds = response.request.extensions.get("timeout", {}).get("read")
    response.stream = _Bounded(response.stream, seconds)


class Endpoint:
    """A client for one address; safe to use from many threads.

    Redirects are refused, since they would hand what is sent to another host. A server that asks for more patience than
    `longest_wait_seconds` counts as down.
    """

    def __init__(
        self, words: Words, *, base_url: str | None, api_key: SecretStr | None, longest_wait_seconds: float
    ) -> None:
        self._words = words
        self._longest_wait_seconds = longest_wait_seconds
        self._key = api_key.get_secret_value() if api_key else ""
        self.client = openai.OpenAI(
            base_url=base_url or DEFAULT_BASE_URL,
            # Local servers need no key, the library insists on one.
            api_key=self._key or _KEYLESS,
            max_retries=_RETRIES,
            http_client=httpx2.Client(
                # What is counted on its way must not grow when it is unpacked.
                headers={"accept-encoding": "identity"},
                follow_redirects=False,
                event_hooks={"response": [self._refuse_long_waits, _bound]},
            ),
        )
        # The library takes these from the environment; no other host has any business with them.
        self.client.organization = self.client.project = self.client.admin_api_key = None

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Turns whatever the library raises into Unavailable or Slow (time may heal it), Misconfigured (address, key or
        model) or Invalid (what was sent).
        """
        try:
            yield
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise Unavailable(f"{self._words.endpoint} cannot be reached: no connection in time") from None
            raise Slow(f"{self._words.endpoint} did not answer in time") from None
        except httpx2.TimeoutException:
            raise Slow(f"{self._words.endpoint} did not answer in time") from None
        except _Flood:
            most = f"{_MAX_ANSWER_BYTES // 1024**2} MB"
            raise Unavailable(f"{self._words.endpoint} answered with more than {most}") from None
        except openai.APIConnectionError as error:
            raise Unavailable(f"{self._words.endpoint} cannot be reached: {error.message}") from None
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError):
            raise Unavailable(f"{self._words.endpoint} did not answer in OpenAI's {self._words.form} form") from None

    def close(self) -> None:
        """Gives the connections back."""
        self.client.close()

    def _refusal(self, error: openai.APIStatusError) -> AppError:
        words, status, said = self._words, error.status_code, self._cleaned(error.message)
        if status >= 500 or status in {408, 409, 425, 429}:
            return Unavailable(f"{words.endpoint} answered {status}: {said}")
        if status in {400, 413, 415, 422}:
            return Invalid(f"{words.model} refused {words.sent} ({status}): {said}")
        if status in {401, 403}:
            # Without its words: some quote the key in part.
            return Misconfigured(f"{words.endpoint} refused the key ({status}); check {words.key_setting}")
        if 300 <= status < 400:
            return Misconfigured(f"{words.endpoint} redirects; set {words.url_setting} to its final address")
        return Misconfigured(
            f"{words.endpoint} answered {status}; check {words.url_setting} and {words.model_setting}: {said}"
        )

    def _cleaned(self, message: str) -> str:
        without_key = message.replace(self._key, "[key]") if self._key else message
        return " ".join(without_key.split())[:300]

    def _refuse_long_waits(self, response: httpx2.Response) -> None:
        if _seconds_to_wait(response.headers) > self._longest_wait_seconds:
            response.headers["x-should-retry"] = "false"


def _seconds_to_wait(headers: httpx2.Headers) -> float:
    try:
        if "retry-after-ms" in headers:
            return float(headers["retry-after-ms"]) / 1000
        return float(headers.get("retry-after", 0))
    except ValueError:
        pass
    try:
        # The other form of the header: a date.
        return (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds()
    except (KeyError, TypeError, ValueError):
        return 0.0
