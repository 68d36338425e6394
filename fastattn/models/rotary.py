"""What the families share whose encoder is BERT's with rotary positions and a gated feed-forward network.

Source: Su et al. 2021 (arXiv 2104.09864); Shazeer 2020 (arXiv 2002.05202).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastattn import nn
from fastattn.checks import POSITIVE, choice, config_integer, config_number, shown
from fastattn.models.config import ACTIVATIONS, EncoderConfig
from fastattn.models.encoder import Embeddings, Encoder
from fastattn.nn.parameter import Array

GATED = {name: function for name, function in ACTIVATIONS.items() if function is not None}
"""The activations of a gated feed-forward network, by their names in a config.json."""


def read_theta(found: Any, name: str, theta: float) -> float:
    """The theta in a field of a config.json such as `rope_parameters`, by default `theta`.

    Raises ValueError for a scaling of positions.
    """
    if found is None:
        return theta
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} must be an object, got {shown(found)}")
    kind = found.get("rope_type", found.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{name}: rope_type is {shown(kind)}; only 'default' is supported, without scaling")
    if found.get("partial_rotary_factor", 1.0) != 1.0:
        factor = found["partial_rotary_factor"]
        raise ValueError(f"{name}: partial_rotary_factor is {shown(factor)}; only 1.0 is supported")
    return config_number(f"{name}: rope_theta", found.get("rope_theta", theta), **POSITIVE)


def check_even_heads(dim: int, heads: int) -> None:
    """Raise ValueError unless heads have an even size."""
    if dim // heads % 2:
        raise ValueError(
            f"num_attention_heads must split hidden_size into heads of an even size, got {heads} and {dim}"
        )


def written_theta(theta: float) -> dict[str, Any]:
    """What `read_theta` reads."""
    return {"rope_type": "default", "rope_theta": theta}


@dataclass(frozen=True, kw_only=True)
class RotaryConfig(EncoderConfig):
    """The fields of a BERT with rotary positions, as in Hugging Face's config.json.

    `rope_theta` is the one in `rope_parameters`. Raises ValueError, naming the field and the value, for a value that no
    such model can have, and for a scaling of the positions.
    """

    position_types: ClassVar[tuple[str, ...]] = ("rope",)

    position_embedding_type: str = "rope"
    rope_theta: float = 10000.0

    def _check_fields(self) -> None:
        super()._check_fields()
        self._check(config_number, "rope_theta", **POSITIVE)
        self._check(choice, "hidden_act", known=GATED)
        check_even_heads(self.hidden_size, self.num_attention_heads)

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._read(values, changes)
        theta = values.get("rope_theta", cls.rope_theta)
        read_theta(values.get("rope_scaling"), "rope_scaling", theta)
        size, dim = values.get("head_dim"), found["hidden_size"]
        if size is not None and config_integer("head_dim", size) * found["num_attention_heads"] != dim:
            raise ValueError(f"head_dim must be hidden_size / num_attention_heads, got {size}")
        return {**found, "rope_theta": read_theta(values.get("rope_parameters"), "rope_parameters", theta)}

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        values = super().to_dict(architecture)
        del values["position_embedding_type"]
        return {**values, "rope_parameters": written_theta(values.pop("rope_theta"))}


class RotaryEncoder(Encoder):
    """An encoder without a table of positions, and without a pooler unless `add_pooling_layer` is set."""

    layer_names: ClassVar[Mapping[str, str]] = {"num_hidden_layers": "layers.{}."}
    whole: ClassVar[tuple[str, ...]] = ("embeddings.", "layers.")
    checkpoint_names: Mapping[str, str] = {
        "layers.{}.self_attn.out_proj": "layers.{}.self_attn.o_proj",
        "layers.{}.self_attn_layer_norm": "layers.{}.post_attention_layernorm",
        "layers.{}.fc1.gate_proj": "layers.{}.mlp.gate_proj",
        "layers.{}.fc1.up_proj": "layers.{}.mlp.up_proj",
        "layers.{}.fc2": "layers.{}.mlp.down_proj",
        "layers.{}.final_layer_norm": "layers.{}.post_mlp_layernorm",
        "pooler": "pooler.dense",
    }

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Array] | None = None,
        *,
        add_pooling_layer: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(config, tensors, add_pooling_layer=add_pooling_layer, **options)

    def build(self, config: RotaryConfig) -> None:
        self.embeddings = Embeddings(config, positions=False)
        self.layers = [
            nn.EncoderBlock(
                config.hidden_size,
                config.num_attention_heads,
                config.intermediate_size,
                GATED[config.hidden_act],
                gated=True,
                rotary_theta=config.rope_theta,
                dropout=config.hidden_dropout_prob,
                attention_dropout=config.attention_probs_dropout_prob,
                eps=config.layer_norm_eps,
                std=config.initializer_range,
                **self.switches(config),
            )
            for _ in range(config.num_hidden_layers)
        ]
        self._build_pooler(config)

    def switches(self, config: RotaryConfig) -> dict[str, Any]:
        """Options of the blocks that differ between the families."""
        return {}
