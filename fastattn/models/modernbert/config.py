"""The configuration of ModernBERT, in Hugging Face's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_integer, config_number, shown
from fastattn.models.config import ACTIVATIONS, LabelledConfig
from fastattn.models.rotary import GATED, check_even_heads, read_theta, written_theta

GLOBAL, LOCAL = "full_attention", "sliding_attention"
_THETAS = {"global_rope_theta": GLOBAL, "local_rope_theta": LOCAL}


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(LabelledConfig):
    """The shape of a ModernBERT, field by field as in Hugging Face's config.json; the defaults are ModernBERT-base.

    `layer_types` says of each layer whether a token sees all tokens, "full_attention", or those at most
    `local_attention` // 2 tokens away, "sliding_attention"; by default every `global_attn_every_n_layers`-th layer,
    from the first on, is of the first kind. The thetas are the ones in `rope_parameters`.

    Raises ValueError, naming the field and the value, for a value that no such model can have, and for a scaling of the
    positions.
    """

    model_types = ("modernbert",)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    norm_eps: float = 1e-5
    norm_bias: bool = False
    pad_token_id: int | None = 50283
    attention_bias: bool = False
    attention_dropout: float = 0.0
    layer_types: tuple[str, ...] | None = None
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160000.0
    local_rope_theta: float = 10000.0
    local_attention: int = 128
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    tie_word_embeddings: bool = True

    hidden_act = property(attrgetter("hidden_activation"))
    hidden_dropout_prob = property(attrgetter("embedding_dropout"))
    attention_probs_dropout_prob = property(attrgetter("attention_dropout"))
    layer_norm_eps = property(attrgetter("norm_eps"))
    type_vocab_size: ClassVar[int] = 0

    def _check_fields(self) -> None:
        self._check_positions()
        self._check(config_integer, "global_attn_every_n_layers", "local_attention")
        self._check_heads("hidden_size", "num_attention_heads")
        check_even_heads(self.hidden_size, self.num_attention_heads)
        self._check(config_number, "norm_eps", high=1.0, above=True)
        dropouts = ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout")
        self._check(config_number, *dropouts, **PROBABILITY)
        self._check(config_number, "initializer_range", *_THETAS, **POSITIVE)
        self._check(choice, "hidden_activation", known=GATED)
        self._check(choice, "classifier_activation", known=ACTIVATIONS)
        self._check(choice, "classifier_pooling", known=("cls", "mean"))
        switches = ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias", "tie_word_embeddings")
        self._check(boolean, *switches)
        layers, every = self.num_hidden_layers, self.global_attn_every_n_layers
        kinds: Any = self.layer_types
        if kinds is None:
            kinds = [LOCAL if i % every else GLOBAL for i in range(layers)]
        if not isinstance(kinds, list | tuple) or len(kinds) < layers:
            raise ValueError(f"layer_types must name the kind of {layers} layers, got {shown(kinds)}")
        self._set("layer_types", tuple(choice("layer_types", kind, (GLOBAL, LOCAL)) for kind in kinds[:layers]))

    @classmethod
    def _read(cls, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._read(values, changes)
        count, kinds = changes.get("num_hidden_layers"), found.get("layer_types")
        if isinstance(count, int) and isinstance(kinds, list) and count > len(kinds):
            del found["layer_types"]  # the tensors are the ones that are missing
        given = values.get("rope_parameters") or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"rope_parameters must be an object, got {shown(given)}")
        if unknown := [name for name in given if name not in _THETAS.values()]:
            raise ValueError(f"rope_parameters must have {GLOBAL!r} and {LOCAL!r}, got {shown(unknown[0])}")
        for name, kind in _THETAS.items():
            theta = found.get(name, getattr(cls, name))
            read_theta(values.get("rope_scaling"), "rope_scaling", theta)
            found[name] = read_theta(given.get(kind), f"rope_parameters: {kind}", theta)
        return found

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        values = super().to_dict(architecture)
        thetas = {kind: written_theta(values[name]) for name, kind in _THETAS.items()}
        return {**values, "layer_types": list(values["layer_types"]), "rope_parameters": thetas}
