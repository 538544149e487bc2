"""Pictures to captions: a vision model behind any endpoint that speaks OpenAI's chat form."""

import base64
import threading

import httpx2
from pydantic import SecretStr

from memory.adapters.openai_endpoint import Endpoint, Words, while_looking
from memory.errors import Invalid, Misconfigured, Unavailable
from memory.ports import Captioner, Look, unwatched

_LONGEST_RETRY_AFTER_SECONDS = 60.0
_MAX_CHARACTERS = 4_000
_ASKED = (
    "Describe this picture in two to five sentences, for somebody who will look for it by words: what kind of picture "
    "it is, what it shows, and who or what is named in it. Text on it is read elsewhere: quote only what matters. "
    "Answer with the description alone."
)
_WORDS = Words(
    endpoint="the vision endpoint",
    model="the vision model",
    sent="the picture",
    form="chat completions",
    url_setting="EXTRACTION_BASE_URL",
    model_setting="CAPTION_MODEL",
    key_setting="EXTRACTION_API_KEY",
)


class OpenAICaptioner(Captioner):
    """Captions from `base_url` (default: OpenAI). Safe to use from many threads.

    With `may_be_blind` nobody said that the model can see: once it refuses a picture, it is not asked again.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        model: str,
        api_key: SecretStr | None,
        may_be_blind: bool = False,
        patience_seconds: float = 90.0,
    ) -> None:
        self._name = model
        self._may_be_blind = may_be_blind
        self._timeout = httpx2.Timeout(patience_seconds, connect=5.0)
        self._endpoint = Endpoint(
            _WORDS, base_url=base_url, api_key=api_key, longest_wait_seconds=_LONGEST_RETRY_AFTER_SECONDS
        )
        self._blind = threading.Event()

    @property
    def name(self) -> str:
        return self._name

    @property
    def sees(self) -> bool:
        """False once a model that may be blind has turned out to be."""
        return not self._blind.is_set()

    def caption(self, jpeg: bytes, look: Look = unwatched) -> str:
        """See Captioner. Raises Unavailable, Misconfigured, and Invalid when the model refuses the picture."""
        try:
            return self._ask(jpeg, look)
        except (Invalid, Misconfigured):
            if self._may_be_blind:
                self._blind.set()
            raise

    def close(self) -> None:
        """Gives the connections back."""
        self._endpoint.close()

    def _ask(self, jpeg: bytes, look: Look) -> str:
        picture = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        with self._endpoint.asked():
            answer = while_looking(
                lambda: self._endpoint.client.chat.completions.create(
                    model=self._name,
                    messages=[
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": _ASKED},
                                {"type": "image_url", "image_url": {"url": picture}},
                            ],
                        }
                    ],
                    timeout=self._timeout,
                ),
                look,
            )
            caption = answer.choices[0].message.content
        if not isinstance(caption, str) or not caption.strip():
            raise Unavailable("the vision endpoint answered without a caption")
        return caption.strip()[:_MAX_CHARACTERS]
