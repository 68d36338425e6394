"""Fixtures: tiny random BERT folders, made without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import BertConfig, BertModel

TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "max_position_embeddings": 40,
}


def random_tensors(config: BertConfig, seed: int = 0) -> dict[str, Any]:
    """Weights for `config` under Hugging Face's names, large enough for attention to choose."""
    rng = np.random.default_rng(seed)
    dim, hidden = config.hidden_size, config.intermediate_size
    tensors: dict[str, Any] = {}

    def linear(name: str, n: int, k: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, 0.15, (n, k)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.15, n).astype(np.float32)

    def layer_norm(name: str) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.15, dim).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.15, dim).astype(np.float32)

    for table, rows in (
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ):
        tensors[f"embeddings.{table}_embeddings.weight"] = rng.normal(0, 0.3, (rows, dim)).astype(np.float32)
    layer_norm("embeddings.LayerNorm")
    for i in range(config.num_hidden_layers):
        prefix = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{part}", dim, dim)
        linear(f"{prefix}.attention.output.dense", dim, dim)
        layer_norm(f"{prefix}.attention.output.LayerNorm")
        linear(f"{prefix}.intermediate.dense", hidden, dim)
        linear(f"{prefix}.output.dense", dim, hidden)
        layer_norm(f"{prefix}.output.LayerNorm")
    linear("pooler.dense", dim, dim)
    return tensors


class Folder:
    """A folder with a tiny BERT: change `config` or `tensors`, then `write`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = random_tensors(BertConfig(**TINY))
        self.config: dict[str, Any] = {"model_type": "bert", **asdict(BertConfig(**TINY))}

    def write(self) -> Path:
        write_checkpoint(self.path, self.config, self.tensors)
        return self.path

    def load(self) -> BertModel:
        return BertModel.from_pretrained(self.write())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "bert")


@pytest.fixture
def make_bert() -> Callable[..., BertModel]:
    """`make_bert(seed=0, **changes)`: a tiny random model."""

    def make(seed: int = 0, **changes: Any) -> BertModel:
        config = BertConfig(**{**TINY, **changes})
        return BertModel(config, random_tensors(config, seed))

    return make
