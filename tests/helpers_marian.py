"""A tiny random MarianMT folder, made without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import Transformer, TransformerConfig

MARIAN: dict[str, Any] = {
    "model_type": "marian",
    "vocab_size": 50,
    "decoder_vocab_size": 50,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 56,
    "max_position_embeddings": 40,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 49,
    "decoder_start_token_id": 49,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}


def marian_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Weights under transformers' names, large enough for attention to choose."""
    rng = np.random.default_rng(seed)
    dim, target = config["d_model"], config["decoder_vocab_size"]
    tensors: dict[str, Any] = {}

    def draw(name: str, *shape: int, mean: float = 0.0) -> None:
        tensors[name] = rng.normal(mean, dim**-0.5, shape).astype(np.float32)

    def linear(name: str, n: int, k: int) -> None:
        draw(f"{name}.weight", n, k)
        draw(f"{name}.bias", n)

    def layer_norm(name: str) -> None:
        draw(f"{name}.weight", dim, mean=1.0)
        draw(f"{name}.bias", dim)

    if config.get("share_encoder_decoder_embeddings", True):
        draw("model.shared.weight", target, dim)
    else:
        draw("model.encoder.embed_tokens.weight", config["vocab_size"], dim)
        draw("model.decoder.embed_tokens.weight", target, dim)
    for side in ("encoder", "decoder"):
        if config.get("position_embedding_type") == "learned":
            draw(f"model.{side}.embed_positions.weight", config["max_position_embeddings"], dim)
        for i in range(config[f"{side}_layers"]):
            prefix, hidden = f"model.{side}.layers.{i}", config[f"{side}_ffn_dim"]
            for attention in ("self_attn", "encoder_attn") if side == "decoder" else ("self_attn",):
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    linear(f"{prefix}.{attention}.{part}", dim, dim)
                layer_norm(f"{prefix}.{attention}_layer_norm")
            linear(f"{prefix}.fc1", hidden, dim)
            linear(f"{prefix}.fc2", dim, hidden)
            layer_norm(f"{prefix}.final_layer_norm")
        if config.get("normalize_before"):
            layer_norm(f"model.{side}.layer_norm")
    draw("final_logits_bias", 1, target)
    if not config.get("tie_word_embeddings", True):
        draw("lm_head.weight", target, dim)
    return tensors


class MarianFolder:
    """A folder with a tiny model: change `config` or `tensors`, then `write`."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.path = path
        self.config = MARIAN | changes
        self.tensors = marian_tensors(self.config)

    def write(self) -> Path:
        write_checkpoint(self.path, self.config, self.tensors)
        return self.path

    def load(self, **options: Any) -> Transformer:
        return Transformer.from_pretrained(self.write(), **options)


def random_transformer(seed: int = 0, trainable: bool = False, **changes: Any) -> Transformer:
    """A tiny model with such weights, in evaluation mode; `changes` are of a TransformerConfig."""
    values = {name: value for name, value in MARIAN.items() if name != "model_type"}
    config = TransformerConfig(**{**values, "position_embedding_type": "marian", **changes})
    tensors = marian_tensors({**values, **changes}, seed)
    return Transformer(config, tensors, trainable=trainable)
