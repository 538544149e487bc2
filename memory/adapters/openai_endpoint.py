"""What every client of an endpoint in OpenAI's form shares: no redirects, bounded waiting, errors in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import openai
from pydantic import SecretStr

from memory.errors import AppError, Invalid, Misconfigured, Unavailable

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_RETRIES = 2
_KEYLESS = "none"


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
            http_client=httpx2.Client(follow_redirects=False, event_hooks={"response": [self._refuse_long_waits]}),
        )
        # The library takes these from the environment; no other host has any business with them.
        self.client.organization = self.client.project = self.client.admin_api_key = None

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Turns whatever the library raises into Unavailable (time may heal it), Misconfigured (address, key or model)
        or Invalid (what was sent).
        """
        try:
            yield
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
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
            return Misconfigured(f"{words.endpoint} refused the key ({status}); check {words.key_setting}: {said}")
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
