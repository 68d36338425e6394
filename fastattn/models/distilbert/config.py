"""The configuration of DistilBERT, in Hugging Face's format."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from fastattn.checks import POSITIVE, PROBABILITY, boolean, choice, config_number
from fastattn.models.config import ACTIVATIONS, LabelledConfig


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(LabelledConfig):
    """The shape of a DistilBERT model, field by field as in Hugging Face's config.json.

    The names that other families use, such as `hidden_size`, are properties. Labels are as in `BertConfig`.

    Raises ValueError, naming the field and the value, for a value that no such model can have.
    """

    model_types = ("distilbert",)
    sizes = ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim")
    dropouts = ("dropout", "attention_dropout")

    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    hidden_size = property(attrgetter("dim"))
    num_hidden_layers = property(attrgetter("n_layers"))
    num_attention_heads = property(attrgetter("n_heads"))
    intermediate_size = property(attrgetter("hidden_dim"))
    hidden_act = property(attrgetter("activation"))
    hidden_dropout_prob = property(attrgetter("dropout"))
    attention_probs_dropout_prob = property(attrgetter("attention_dropout"))
    layer_norm_eps: ClassVar[float] = 1e-12
    type_vocab_size: ClassVar[int] = 0

    def _check_fields(self) -> None:
        self._check_positions()
        self._check_heads("dim", "n_heads")
        self._check(config_number, *self.dropouts, "qa_dropout", "seq_classif_dropout", **PROBABILITY)
        self._check(config_number, "initializer_range", **POSITIVE)
        self._check(choice, "activation", known=ACTIVATIONS)
        self._check(boolean, "tie_word_embeddings")
