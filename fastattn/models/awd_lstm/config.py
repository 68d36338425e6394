"""The configuration of an AWD-LSTM language model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fastattn.checks import PROBABILITY, boolean, choice, config_integer, config_number
from fastattn.models.config import LABELS, LabelsConfig

DIRECTIONS = {"forward": (0,), "backward": (1,), "both": (0, 1)}
"""What a model reads, as the directions of its streams."""

_SIZES = ("vocabulary_size", "embedding_dim", "dim", "n_layers")


@dataclass(frozen=True, kw_only=True)
class AwdLstmConfig(LabelsConfig):
    """The shape of an AWD-LSTM; sizes and rates are the paper's for WikiText-2.

    - `vocabulary_size`: the number of words
    - `embedding_dim`: the size of an embedding, and of the last layer's output if `tie_weights`
    - `dim`: the cells of the layers
    - `n_layers`: the number of layers
    - `direction`: "forward", "backward" or "both", which are two networks with weights of their own
    - `tie_weights`: whether the embeddings are also the matrix of the softmax

    Dropout, while training. A mask of features is the same at all steps of a sequence:

    - `embedding_dropout`: of whole words, by their embeddings
    - `input_dropout`, `hidden_dropout`, `output_dropout`: of features, between the embeddings and the first layer,
      between two layers, and after the last layer
    - `weight_dropout`: of the numbers in the matrix from state to state of each layer

    Penalties, added to the loss while training:

    - `activation_penalty`: times the mean square of the last layer's output, after dropout (AR)
    - `temporal_penalty`: times the mean square of the difference between its output at successive steps, before dropout
      (TAR)

    Of a classifier, which also has the labels of `LabelsConfig`:

    - `pooled_dim`: the size of the hidden layer above the pooled states
    - `pooled_dropout`: its dropout while training; `output_dropout` is that of the pooled states
    - `max_length`: the most words of a text that are read; None reads all

    Raises ValueError, naming the field and the value, for a value that no such model can have.

    Source: Merity, Keskar and Socher 2018, "Regularizing and Optimizing LSTM Language Models" (arXiv 1708.02182);
    Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification" (arXiv 1801.06146).
    """

    model_types = ("awd-lstm",)
    dropouts = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout")

    vocabulary_size: int
    embedding_dim: int = 400
    dim: int = 1150
    n_layers: int = 3
    direction: str = "forward"
    tie_weights: bool = True
    embedding_dropout: float = 0.1
    input_dropout: float = 0.65
    hidden_dropout: float = 0.2
    output_dropout: float = 0.4
    weight_dropout: float = 0.5
    activation_penalty: float = 2.0
    temporal_penalty: float = 1.0
    pooled_dim: int = 50
    pooled_dropout: float = 0.1
    max_length: int | None = None

    def __post_init__(self) -> None:
        self._count_labels()
        self._check(config_integer, *_SIZES, "pooled_dim", "max_length")
        self._check(choice, "direction", known=DIRECTIONS)
        self._check(boolean, "tie_weights")
        self._check(config_number, *self.dropouts, "pooled_dropout", **PROBABILITY)
        self._check(config_number, "activation_penalty", "temporal_penalty")
        self._name_labels()

    @property
    def directions(self) -> tuple[int, ...]:
        """The directions that it reads: 0 is forward, 1 backward."""
        return DIRECTIONS[self.direction]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The inputs and outputs of each layer."""
        outputs = [self.dim] * (self.n_layers - 1) + [self.embedding_dim if self.tie_weights else self.dim]
        return list(zip([self.embedding_dim, *outputs], outputs, strict=False))

    @classmethod
    def _read(cls, values: Any, changes: Any) -> dict[str, Any]:
        found = super()._read(values, changes)
        for name in _SIZES:
            if name not in found:
                raise ValueError(f"{name} is missing")
        return found

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json for a model of class `architecture`."""
        architecture, values = architecture or "AwdLstmForLanguageModel", asdict(self)
        unused = ["num_labels"]  # it is the length of `id2label`
        if architecture == "AwdLstmForLanguageModel":
            unused = [*LABELS, "pooled_dim", "pooled_dropout", "max_length"]
        own = {name: value for name, value in values.items() if name not in unused}
        return {"model_type": self.model_types[0], "architectures": [architecture], **own}
