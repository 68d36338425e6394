"""Small Transformers of every kind and a batch for them, the same on every machine.

>>> model = make_model("pre-norm")
>>> model(**call("pre-norm")).loss
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastattn.models import Transformer, TransformerConfig

WORDS, SOURCE, TARGET = 23, 9, 7
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 12,
    "dropout": 0.0,
}
OTHER = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 17}
CASES: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"normalize_before": True},
    "post-norm untied": {"tie_word_embeddings": False, "activation_function": "gelu"},
    "pre-norm untied": {"tie_word_embeddings": False, "normalize_before": True, "activation_function": "silu"},
    "two vocabularies": {**OTHER, "decoder_layers": 1},
    "two vocabularies untied": {**OTHER, "tie_word_embeddings": False, "normalize_before": True},
    "learned positions": {"position_embedding_type": "learned", "normalize_before": True},
    "marian": {"position_embedding_type": "marian", "activation_function": "gelu_new", "pad_token_id": 22},
    "other positions": {
        "first_position": 2,
        "max_timescale": 100.0,
        "scale_embedding": False,
        "layer_norm_eps": 1e-2,
    },
}
SMOOTHING = 0.1


def config_of(name: str, **changes: Any) -> TransformerConfig:
    return TransformerConfig(**{**SIZES, **CASES[name], **changes})


def call(name: str) -> dict[str, Any]:
    """The arguments of a call: padding left, right and within, and labels with holes."""
    rng = np.random.RandomState(1)  # whose numbers no version of NumPy changes
    target = config_of(name).decoder_vocab_size
    mask = np.ones((4, SOURCE), np.int64)
    mask[0, 6:] = 0
    mask[1, :2] = 0
    mask[2, 1:8] = 0
    labels = rng.randint(3, target, (4, TARGET))
    labels[0, 5:] = -100
    labels[1, 1:3] = -100
    labels[2, 1:] = -100
    return {
        "input_ids": rng.randint(0, WORDS, (4, SOURCE)),
        "attention_mask": mask,
        "labels": labels,
        "label_smoothing": SMOOTHING,
    }


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arrays of these shapes, large enough for attention to choose, with norms and biases that are not 1 and 0."""
    rng = np.random.RandomState(2)
    spread = 1.25 * shapes["model.encoder.layers.0.fc1.weight"][1] ** -0.5
    arrays = {}
    for name in sorted(shapes):
        mean = 1.0 if name.endswith("layer_norm.weight") else 0.0
        arrays[name] = rng.normal(mean, spread, shapes[name]).astype(np.float32)
    return arrays


def make_model(name: str, **changes: Any) -> Transformer:
    """A trainable model in evaluation mode."""
    model = Transformer(config_of(name, **changes))
    model.load_state_dict(weights({name: p.shape for name, p in model.named_parameters()}))
    model.eval()
    return model


def small_transformer(**changes: Any) -> Transformer:
    sizes = {"d_model": 16, "max_position_embeddings": 128}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 3, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 24}
    return Transformer(TransformerConfig(vocab_size=50, **{**sizes, **changes})).eval().freeze()
