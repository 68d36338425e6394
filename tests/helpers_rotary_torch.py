"""transformers' models with rotary positions in float64: it computes angles and more in float32 in spite of that.

>>> theirs = in_double(transformers.NomicBertModel(config))
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch


def in_double(model: Any) -> Any:
    """The model in float64, and nothing in it in float32. Other models are unaffected."""
    for part in model.modules():
        if type(part).__name__.endswith("RotaryEmbedding"):
            part.forward = _angles(part.config)
            _keep_dtypes(sys.modules[type(part).__module__])
    return model.double()


def _angles(config: Any) -> Any:
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def forward(x: Any, position_ids: Any, layer_type: str | None = None) -> tuple[Any, Any]:
        parameters = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
        scale = parameters["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = (position_ids[..., None].double() / scale).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    return forward


def _keep_dtypes(module: ModuleType) -> None:
    """Replace the two functions of a modeling file that go through float32. In float32 they do the same."""

    def turn(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        rotate_half: Any = module.rotate_half
        return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin

    def attend(part: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, Any]:
        scores = query @ key.transpose(2, 3) * scaling
        weights = (scores if mask is None else scores + mask).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    module.apply_rotary_pos_emb = turn  # type: ignore[attr-defined]
    module.eager_attention_forward = attend  # type: ignore[attr-defined]
