"""ModernBERT: a pre-norm encoder with rotary positions, GeGLU, and attention to near tokens in most layers.

Source: Warner et al. 2024, "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder for Fast, Memory Efficient,
and Long Context Finetuning and Inference" (arXiv 2412.13663). Names, files and results match Hugging Face's
`ModernBertModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastattn import nn
from fastattn.models.encoder import Embeddings, Encoder
from fastattn.models.modernbert.config import LOCAL, ModernBertConfig
from fastattn.models.rotary import GATED


class ModernBertModel(Encoder):
    """A ModernBERT encoder."""

    config_class = ModernBertConfig
    prefix = "model."
    layer_names: ClassVar[Mapping[str, str]] = {"num_hidden_layers": "layers.{}."}
    whole: ClassVar[tuple[str, ...]] = ("embeddings.", "layers.", "final_norm.")
    checkpoint_names: Mapping[str, str] = {
        "embeddings.word_embeddings": "embeddings.tok_embeddings",
        "embeddings.LayerNorm": "embeddings.norm",
        "layers.{}.self_attn.in_proj": "layers.{}.attn.Wqkv",
        "layers.{}.self_attn.out_proj": "layers.{}.attn.Wo",
        "layers.{}.self_attn_layer_norm": "layers.{}.attn_norm",
        "layers.{}.fc1": "layers.{}.mlp.Wi",
        "layers.{}.fc2": "layers.{}.mlp.Wo",
        "layers.{}.final_layer_norm": "layers.{}.mlp_norm",
    }
    pools = False
    gapless = True
    config: ModernBertConfig

    def build(self, config: ModernBertConfig) -> None:
        self.embeddings = Embeddings(config, positions=False, norm_bias=config.norm_bias)
        self.layers = [self._block(config, i, kind == LOCAL) for i, kind in enumerate(config.layer_types or ())]
        self.final_norm = nn.LayerNorm(config.hidden_size, config.norm_eps, bias=config.norm_bias)
        self._build_pooler(config)

    @staticmethod
    def _block(config: ModernBertConfig, i: int, local: bool) -> nn.EncoderBlock:
        reach = config.local_attention // 2
        return nn.EncoderBlock(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            GATED[config.hidden_activation],
            gated=True,
            fused=True,
            rotary_theta=config.local_rope_theta if local else config.global_rope_theta,
            window=(reach, reach) if local else None,
            norm_first=True,
            attention_norm=i > 0,
            dropout=config.attention_dropout,
            hidden_dropout=0.0,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.mlp_dropout,
            bias=config.mlp_bias,
            attention_bias=config.attention_bias,
            norm_bias=config.norm_bias,
            eps=config.norm_eps,
            std=config.initializer_range,
        )
