"""The configuration of NomicBERT, in Hugging Face's format and in the one of the authors' code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastattn.checks import shown
from fastattn.models.rotary import RotaryConfig

_AUTHORS = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "resid_pdrop": "hidden_dropout_prob",
    "attn_pdrop": "attention_probs_dropout_prob",
    "rotary_emb_base": "rope_theta",
}
"""The fields of the authors' code, which derive from GPT-2's."""
_GATED = {"swiglu": "silu", "geglu": "gelu"}
_UNSUPPORTED = {
    "rotary_emb_fraction": (1.0, 1),
    "rotary_emb_interleaved": (False,),
    "rotary_emb_scale_base": (None,),
    "rotary_scaling_factor": (None,),
    "prenorm": (False,),
    "parallel_block": (False,),
    "use_rms_norm": (False, None),
    "qkv_proj_bias": (False,),
    "mlp_fc1_bias": (False,),
    "mlp_fc2_bias": (False,),
    "moe_every_n_layers": (0, None),
    "causal": (False,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
}
"""Fields of the authors' code that must have one of these values."""

_UNSAID = {"rotary_emb_fraction": 0.0, "qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True}
"""What the authors' code takes where such a field is missing, if that is not one of these values."""


@dataclass(frozen=True, kw_only=True)
class NomicBertConfig(RotaryConfig):
    """The shape of a NomicBERT, field by field as in Hugging Face's config.json; the defaults are nomic-embed-text's.

    The fields of the authors' code (`n_embd`, `n_layer`, ...) are read too; that code never runs. Raises ValueError,
    naming the field and the value, for what these encoders do not have: scaled or interleaved rotary positions, other
    norms, biases, experts.
    """

    model_types = ("nomic_bert",)

    vocab_size: int = 30528
    hidden_act: str = "silu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 2048
    rope_theta: float = 1000.0

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        if "n_embd" in values:
            values = _of_authors(values)
        return super()._read(values, changes)


def _of_authors(values: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a config.json with the names of Hugging Face."""
    for name, allowed in _UNSUPPORTED.items():
        value = values.get(name, _UNSAID.get(name, allowed[0]))
        if value not in allowed:
            said = "" if name in values else ", as it is where the field is missing"
            raise ValueError(f"{name} is {shown(value)}{said}; NomicBertModel supports only {shown(allowed[0])}")
    found = {_AUTHORS.get(name, name): value for name, value in values.items()}
    activation = values.get("activation_function")
    if not isinstance(activation, str) or activation not in _GATED:
        known = ", ".join(map(repr, _GATED))
        raise ValueError(f"activation_function must be one of {known}, got {shown(activation)}")
    return {**found, "hidden_act": _GATED[activation]}
