"""What a Transformer gives, under transformers' names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from fastattn._types import Array
from fastattn.autograd import Tensor
from fastattn.models.outputs import Output


@dataclass(kw_only=True)
class TransformerOutput(Output):
    """What a call gives: arrays, but for the loss.

    - `loss`: a Tensor that holds one number, given labels
    - `logits`: `[batch, target_seq, decoder_vocab_size]`, 0 at the padding, and `encoder_last_hidden_state`
      `[batch, source_seq, d_model]`: computed when they are read first, the logits with the weights of that moment
      and the kernels of the call; the loss needs neither
    - on request the attention weights of each layer, 0 at the padding: `encoder_attentions`
      `[batch, heads, source_seq, source_seq]`, `decoder_attentions` `[batch, heads, target_seq, target_seq]` and
      `cross_attentions` `[batch, heads, target_seq, source_seq]`
    """

    loss: Tensor | None
    compute_logits: Callable[[], Array] = field(repr=False)
    decoder_attentions: tuple[Array, ...] | None = None
    cross_attentions: tuple[Array, ...] | None = None
    compute_encoder_last_hidden_state: Callable[[], Array] = field(repr=False)
    encoder_attentions: tuple[Array, ...] | None = None

    @cached_property
    def logits(self) -> Array:
        """A float32 array `[batch, target_seq, decoder_vocab_size]`."""
        return self.compute_logits()

    @cached_property
    def encoder_last_hidden_state(self) -> Array:
        """A float32 array `[batch, source_seq, d_model]`."""
        return self.compute_encoder_last_hidden_state()
