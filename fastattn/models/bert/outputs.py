"""The outputs of the BERT models, under transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastattn.autograd import Tensor
from fastattn.models.outputs import Output


@dataclass
class BertOutput(Output):
    """The output of the encoder. The first shape is that of the padded call, the second that of `forward_ragged`.

    - `last_hidden_state`: `[batch, seq, hidden_size]`, 0 at the padding; `[tokens, hidden_size]`
    - `pooler_output`: `[batch, hidden_size]`, from the first token of each sequence, 0 for a sequence without tokens;
      None if the checkpoint has no pooler
    - `hidden_states`, on request: `num_hidden_layers + 1` like `last_hidden_state`, the embeddings first
    - `attentions`, on request: the attention weights of each layer, `[batch, heads, seq, seq]`, 0 at the padding;
      `[batch, heads, longest, longest]`, 0 outside a sequence

    A trainable model gives Tensors, through which `backward()` goes; a frozen one gives float32 arrays.
    """

    last_hidden_state: Any
    pooler_output: Any = None
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass
class HeadOutput(Output):
    """The output of a model with a head: Tensors from a trainable model, float32 arrays from a frozen one.

    - `loss`: always a Tensor of one number; None without labels
    - `logits`: `[batch, num_labels]` of sequences, `[batch, seq, num_labels]` of tokens, 0 at the padding,
      `[batch, choices]` of a multiple choice
    - `hidden_states` and `attentions`, on request, as in `BertOutput`
    """

    loss: Tensor | None
    logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass
class QuestionAnsweringOutput(Output):
    """`start_logits` and `end_logits`, `[batch, seq]`, -inf at the padding. The rest is as in `HeadOutput`."""

    loss: Tensor | None
    start_logits: Any
    end_logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass
class MaskedLMOutput(Output):
    """`logits`, `[batch, seq, vocab_size]`, 0 at the padding, are computed when they are first read, with the weights
    of that moment. The loss does not need them. The rest is as in `HeadOutput`."""

    loss: Tensor | None
    compute_logits: Callable[[], Any] = field(repr=False)
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
