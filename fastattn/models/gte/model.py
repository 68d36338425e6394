"""GTE: BERT with rotary positions and GeGLU.

Source: Zhang et al. 2024, "mGTE: Generalized Long-Context Text Representation and Reranking Models for Multilingual
Text Retrieval" (arXiv 2407.19669). Names, files and results match Hugging Face's `GteModel`.
"""

from __future__ import annotations

from typing import Any

from fastattn.models import heads, masked_lm
from fastattn.models.gte.config import GteConfig
from fastattn.models.rotary import RotaryConfig, RotaryEncoder


class GteModel(RotaryEncoder):
    """A GTE encoder."""

    config_class = GteConfig
    prefix = "gte."
    other_prefixes = ("new.",)
    other_names = {  # noqa: RUF012
        "encoder.layer.": "layers.",
        "attention.o_proj.": "self_attn.o_proj.",
        "attn_ln.": "post_attention_layernorm.",
        "mlp_ln.": "post_mlp_layernorm.",
        "lm_head.norm.": "lm_head.layer_norm.",
    }
    stacked = {  # noqa: RUF012
        "attention.qkv_proj.": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
        "mlp.up_gate_proj.": ("mlp.up_proj.", "mlp.gate_proj."),
    }
    config: GteConfig

    def switches(self, config: RotaryConfig) -> dict[str, Any]:
        return {"hidden_bias": False, "activation_dropout": config.hidden_dropout_prob}


class GteHead(heads.HeadModel):
    """A model with a GTE encoder under a head."""

    encoder_class = GteModel
    config: GteConfig
    gte: GteModel


class GteForMaskedLM(masked_lm.MaskedLM, GteHead):
    """See `models.masked_lm.MaskedLM`."""

    activation = "gelu"
    two_biases = False
    checkpoint_names = {"predictions": "lm_head", "predictions.LayerNorm": "lm_head.layer_norm"}  # noqa: RUF012


class GteForSequenceClassification(heads.SequenceClassification, GteHead):
    """See `models.heads.SequenceClassification`."""


class GteForTokenClassification(heads.TokenClassification, GteHead):
    """See `models.heads.TokenClassification`."""
