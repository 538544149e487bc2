"""Stand-ins for what lies outside: real servers on this machine, as unkind as the originals can be."""

import base64
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np

from memory.errors import Unavailable
from memory.ports import Embedder, EmbeddingModel, Vectors

Json = dict[str, Any]

# In the place of a status: the connection ends without a word.
HUNG_UP = 0


@dataclass(frozen=True)
class Received:
    """One request as the server saw it; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        decoded: Json = json.loads(self.body)
        return decoded


@dataclass(frozen=True)
class Answer:
    """What the server says to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0
    # A few bytes now and then, instead of all.
    drip_bytes: int = 0


class LocalServer:
    """An HTTP server on a free port of 127.0.0.1 that answers each POST by `answer` and remembers what it got.

    While its `gate` is cleared it takes requests and answers none.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.gate = threading.Event()
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: Received) -> Answer:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            # A client that breaks off is no fault of the server.
            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            protocol_version = "HTTP/1.1"
            # Without it each answer waits 40 ms for the client's acknowledgement.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                server.received.append(request)
                server.gate.wait(60)
                answer = server.answer(request)
                time.sleep(answer.after_seconds)
                if answer.status == HUNG_UP:
                    self.close_connection = True
                    return
                try:
                    self.send_response(answer.status)
                    for name, value in {"content-type": "application/json", **answer.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    for start in range(0, len(answer.body), answer.drip_bytes or len(answer.body)):
                        self.wfile.write(answer.body[start : start + (answer.drip_bytes or len(answer.body))])
                        time.sleep(0.05 if answer.drip_bytes else 0)
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *args: object) -> None:
                """Tests print nothing."""

        return Handler


class EmbeddingEndpoint(LocalServer):
    """OpenAI's embeddings form. `script` holds what happens first; once it is empty, every answer is right.

    The vector of a text depends on the text alone and is not of unit length.
    """

    def __init__(self, *, dimensions: int = 8) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.script: deque[Answer | Callable[[list[str]], Answer]] = deque()

    def vector(self, text: str) -> list[float]:
        """What this server says to `text`."""
        generator = np.random.default_rng(list(text.encode()))
        return [float(value) for value in generator.normal(size=self.dimensions).astype(np.float32) * 3]

    def answer(self, request: Received) -> Answer:
        texts: list[str] = request.json["input"]
        if self.script:
            scripted = self.script.popleft()
            return scripted if isinstance(scripted, Answer) else scripted(texts)
        encoded = request.json.get("encoding_format") == "base64"
        return embeddings([as_base64(self.vector(text)) if encoded else self.vector(text) for text in texts])


def as_base64(vector: list[float]) -> str:
    """A vector as OpenAI sends it when asked for base64."""
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


def embeddings(vectors: list[Any], **more: Any) -> Answer:
    """A well-formed embeddings answer that holds `vectors`, whatever they are."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Answer(body=json.dumps({"object": "list", "data": data, "model": "m", "usage": usage, **more}).encode())


def refusal(status: int, message: str, **headers: str) -> Answer:
    """An error in OpenAI's form; `retry_after="1"` becomes the header `retry-after: 1`."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": None, "param": None}}).encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class TranscriptionEndpoint(LocalServer):
    """OpenAI's transcriptions form. `script` holds what happens first; once it is empty, it hears `said`.

    `knows_times`: whether it takes `verbose_json`, which some models refuse.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = "good morning from the harbour"
        self.language = "english"
        self.knows_times = True
        self.script: deque[Answer] = deque()

    def answer(self, request: Received) -> Answer:
        if self.script:
            return self.script.popleft()
        form = self.fields(request)["response_format"].decode()
        if form == "verbose_json" and not self.knows_times:
            return refusal(400, "response_format 'verbose_json' is not compatible with this model")
        answer: Json = {"text": self.said}
        if form == "verbose_json":
            words = self.said.split(" ", 2)
            segments = [{"id": n, "start": n * 1.5, "end": n * 1.5 + 1, "text": f" {w}"} for n, w in enumerate(words)]
            answer |= {"language": self.language, "duration": 9.0, "segments": segments}
        return Answer(body=json.dumps(answer).encode())

    @staticmethod
    def fields(request: Received) -> dict[str, bytes]:
        """The parts of a form by their names."""
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + request.body)
        parts = [part for part in form.iter_parts() if isinstance(part, EmailMessage)]
        names = [str(part.get_param("name", header="content-disposition")) for part in parts]
        return {name: bytes(part.get_payload(decode=True)) for name, part in zip(names, parts, strict=True)}


class VisionEndpoint(LocalServer):
    """OpenAI's chat form with a model that sees. `script` holds what happens first; then every answer is `caption`."""

    def __init__(self) -> None:
        super().__init__()
        self.caption = "A red bicycle leans against a wall."
        self.script: deque[Answer] = deque()

    def answer(self, request: Received) -> Answer:
        return self.script.popleft() if self.script else completion(self.caption)

    @staticmethod
    def picture(request: Received) -> bytes:
        """The picture of a request."""
        (url,) = [part["image_url"]["url"] for part in request.json["messages"][-1]["content"] if "image_url" in part]
        kind, _, data = url.partition(",")
        assert kind == "data:image/jpeg;base64"
        return base64.b64decode(data, validate=True)


def completion(content: Any) -> Answer:
    """A chat completion that says `content`, whatever it is."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Answer(body=json.dumps(body).encode())


class WordEmbedder(Embedder):
    """Says that it is the on-box model, at no cost: each word has a direction of its own, a text is their sum.

    `down`: it does not answer. `before_answer` is called with the texts, while the caller waits.
    """

    def __init__(self) -> None:
        self.down = False
        self.before_answer: Callable[[Sequence[str]], None] = lambda _texts: None
        self._directions: dict[str, Vectors] = {}

    @property
    def model(self) -> EmbeddingModel:
        return EmbeddingModel("all-MiniLM-L6-v2", 384)

    @property
    def max_tokens(self) -> int:
        return 254

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def embed(self, texts: Sequence[str]) -> Vectors:
        if self.down:
            raise Unavailable("the embedder does not answer")
        self.before_answer(texts)
        sums = np.stack([self._sum(text) for text in texts])
        vectors: Vectors = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def _sum(self, text: str) -> Vectors:
        total = np.zeros(384, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()) or [text]:
            if word not in self._directions:
                self._directions[word] = np.random.default_rng(list(word.encode())).normal(size=384).astype(np.float32)
            total += self._directions[word]
        return total
