"""The outputs of the BERT models, under transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastattn.autograd import Tensor
from fastattn.models.outputs import Output


@dataclass
class BertOutput(Output):
    """The output of the encoder. The first shape is for the padded call, the second for `forward_ragged`.

    - `last_hidden_state`: `[batch, seq, hidden_size]`, 0 at the padding; `[tokens, hidden_size]`
    - `pooler_output`: `[batch, hidden_size]`, from the first token of each sequence, 0 for a sequence without tokens;
      None if the checkpoint has no pooler
    - `hidden_states`, on request: `num_hidden_layers + 1` arrays like `last_hidden_state`, the embeddings first
    - `attentions`, on request: the attention weights of each layer, `[batch, heads, seq, seq]`, 0 at the padding;
      `[batch, heads, longest, longest]`, 0 outside a sequence

    A trainable model returns Tensors, through which `backward()` goes; a frozen model returns float32 arrays.
    """

    last_hidden_state: Any
    pooler_output: Any = None
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass
class PreTrainingOutput(Output):
    """`prediction_logits` as `logits` of `MaskedLMOutput`, and `seq_relationship_logits`, `[batch, 2]`."""

    loss: Tensor | None
    compute_prediction_logits: Callable[[], Any] = field(repr=False)
    seq_relationship_logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None
