"""What a Transformer gives, under transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastattn.autograd import Tensor
from fastattn.models.outputs import Output


@dataclass(kw_only=True)
class TransformerOutput(Output):
    """What a call gives: Tensors of a trainable model, float32 arrays of a frozen one.

    - `loss`: a Tensor that holds one number, given labels, in any case
    - `logits`: `[batch, target_seq, decoder_vocab_size]`, 0 at the padding, and `encoder_last_hidden_state`
      `[batch, source_seq, d_model]`: computed when they are read first, the logits with the weights of that moment
      and the kernels of the call. The loss needs neither
    - on request the attention weights of each layer, 0 at the padding: `encoder_attentions`
      `[batch, heads, source_seq, source_seq]`, `decoder_attentions` `[batch, heads, target_seq, target_seq]` and
      `cross_attentions` `[batch, heads, target_seq, source_seq]`
    """

    loss: Tensor | None
    compute_logits: Callable[[], Any] = field(repr=False)
    decoder_attentions: tuple[Any, ...] | None = None
    cross_attentions: tuple[Any, ...] | None = None
    compute_encoder_last_hidden_state: Callable[[], Any] = field(repr=False)
    encoder_attentions: tuple[Any, ...] | None = None
