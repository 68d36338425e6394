"""NomicBERT: BERT with rotary positions, SwiGLU, and no biases but in its norms.

Source: Nussbaum et al. 2024, "Nomic Embed: Training a Reproducible Long Context Text Embedder" (arXiv 2402.01613).
Names, files and results match Hugging Face's `NomicBertModel`; files of the authors' code are read too.
"""

from __future__ import annotations

from typing import Any

from fastattn.models import heads, masked_lm
from fastattn.models.nomic_bert.config import NomicBertConfig
from fastattn.models.rotary import RotaryConfig, RotaryEncoder


class NomicBertModel(RotaryEncoder):
    """A NomicBERT encoder."""

    config_class = NomicBertConfig
    prefix = "nomic_bert."
    other_prefixes = ("bert.",)
    other_names = {  # noqa: RUF012
        "encoder.layers.": "layers.",
        "emb_ln.": "embeddings.LayerNorm.",
        "attn.out_proj.": "self_attn.o_proj.",
        "mlp.fc11.": "mlp.up_proj.",
        "mlp.fc12.": "mlp.gate_proj.",
        "mlp.fc2.": "mlp.down_proj.",
        "norm1.": "post_attention_layernorm.",
        "norm2.": "post_mlp_layernorm.",
    }
    stacked = {"attn.Wqkv.": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")}  # noqa: RUF012
    config: NomicBertConfig

    def switches(self, config: RotaryConfig) -> dict[str, Any]:
        return {"bias": False, "norm_bias": True}


class NomicBertHead(heads.HeadModel):
    """A model with a NomicBERT encoder under a head."""

    encoder_class = NomicBertModel
    config: NomicBertConfig
    nomic_bert: NomicBertModel


class NomicBertForMaskedLM(masked_lm.MaskedLM, NomicBertHead):
    """See `models.masked_lm.MaskedLM`."""

    checkpoint_names = {  # noqa: RUF012
        "predictions.dense": "cls.predictions.transform.dense",
        "predictions.LayerNorm": "cls.predictions.transform.layer_norm",
        "predictions": "cls.predictions",
    }


class NomicBertForSequenceClassification(heads.SequenceClassification, NomicBertHead):
    """See `models.heads.SequenceClassification`."""


class NomicBertForTokenClassification(heads.TokenClassification, NomicBertHead):
    """See `models.heads.TokenClassification`."""
