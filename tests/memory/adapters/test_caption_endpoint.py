"""The client of vision endpoints against a server that misbehaves as they do."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from memory.adapters.caption_endpoint import OpenAICaptioner
from memory.errors import AppError, Invalid, Misconfigured, Unavailable
from tests.fakes import Answer, VisionEndpoint, completion, refusal

KEY = "sk-very-secret-0123456789"
JPEG = b"\xff\xd8 a picture"


@pytest.fixture
def endpoint() -> Iterator[VisionEndpoint]:
    with VisionEndpoint() as server:
        yield server


@pytest.fixture
def eye(endpoint: VisionEndpoint) -> Iterator[OpenAICaptioner]:
    client = OpenAICaptioner(base_url=f"{endpoint.url}/v1", model="seer", api_key=SecretStr(KEY), patience_seconds=0.5)
    yield client
    client.close()


def test_the_picture_travels_and_its_caption_comes_back(endpoint: VisionEndpoint, eye: OpenAICaptioner) -> None:
    assert eye.caption(JPEG) == endpoint.caption
    (request,) = endpoint.received
    assert request.path == "/v1/chat/completions"
    assert request.json["model"] == "seer"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert endpoint.picture(request) == JPEG


def test_a_busy_server_is_asked_again(endpoint: VisionEndpoint, eye: OpenAICaptioner) -> None:
    endpoint.script += [refusal(429, "slow down", retry_after="0"), refusal(502, "bad", retry_after="0")]
    assert eye.caption(JPEG) == endpoint.caption
    assert len(endpoint.received) == 3


@pytest.mark.parametrize(
    "answer",
    [
        refusal(500, "oops", retry_after="0"),
        refusal(429, "tomorrow", retry_after="86400"),
        Answer(body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
        Answer(body=b'{"choices": ['),
        Answer(body=b'{"choices": []}'),
        Answer(body=b"{}"),
        Answer(body=b"[]"),
        completion(None),
        completion("  "),
        completion([{"type": "text"}]),
        Answer(after_seconds=1.5),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:90][-30:]!r}",
)
def test_an_unusable_answer_is_unavailable(endpoint: VisionEndpoint, eye: OpenAICaptioner, answer: Answer) -> None:
    endpoint.script += [answer] * 3
    with pytest.raises(Unavailable):
        eye.caption(JPEG)


def test_a_caption_without_end_is_cut(endpoint: VisionEndpoint, eye: OpenAICaptioner) -> None:
    endpoint.caption = "and so on " * 10_000
    assert len(eye.caption(JPEG)) <= 4_000


@pytest.mark.parametrize(
    ("status", "kind", "names"),
    [(401, Misconfigured, "EXTRACTION_API_KEY"), (404, Misconfigured, "CAPTION_MODEL"), (400, Invalid, "refused")],
)
def test_a_refusal_is_told_without_the_key(
    endpoint: VisionEndpoint, eye: OpenAICaptioner, status: int, kind: type[AppError], names: str
) -> None:
    endpoint.script.append(refusal(status, f"no, dear {KEY}"))
    with pytest.raises(kind, match=names) as caught:
        eye.caption(JPEG)
    assert KEY not in caught.value.detail
    assert eye.sees


def test_a_model_that_turns_out_to_be_blind_is_not_asked_again(endpoint: VisionEndpoint) -> None:
    eye = OpenAICaptioner(base_url=f"{endpoint.url}/v1", model="reader", api_key=None, may_be_blind=True)
    endpoint.script.append(refusal(503, "one moment", retry_after="0"))
    assert eye.caption(JPEG) == endpoint.caption
    assert eye.sees is True
    endpoint.script.append(refusal(400, "this model takes no images"))
    with pytest.raises(Invalid):
        eye.caption(JPEG)
    seen = [eye.sees]
    assert seen == [False]
    eye.close()
