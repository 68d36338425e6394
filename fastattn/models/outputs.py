"""The outputs of models: their base, those of heads under transformers' names, and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from fastattn import functional as F
from fastattn.autograd import Tensor, mode


@dataclass
class Output:
    """An output that is read like transformers' `ModelOutput`: `output["loss"]`, `output[0]`, `output[:2]`.

    Fields that are None have no place: without labels `output[0]` is the logits. A field `compute_NAME` of a subclass
    stands for an attribute NAME that is computed when it is first read.
    """

    _prefix: ClassVar[str] = "compute_"

    def __getattr__(self, name: str) -> Any:
        compute = vars(self).get(f"{self._prefix}{name}")
        if compute is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = vars(self)[name] = compute()
        return value

    def keys(self) -> list[str]:
        """The names of the fields that are not None, in order."""
        return [part.name.removeprefix(self._prefix) for part in fields(self) if getattr(self, part.name) is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str | int | slice) -> Any:
        names = self.keys()
        if isinstance(key, slice):
            return tuple(getattr(self, name) for name in names[key])
        if isinstance(key, str) and key not in names:
            raise KeyError(key)
        return getattr(self, key if isinstance(key, str) else names[key])


@dataclass
class HeadOutput(Output):
    """The output of a model with a head: Tensors from a trainable model, float32 arrays from a frozen one.

    - `loss`: always a Tensor of one number; None without labels
    - `logits`: `[batch, num_labels]` of sequences, `[batch, seq, num_labels]` of tokens, 0 at the padding,
      `[batch, choices]` of a multiple choice
    - `hidden_states` and `attentions`, on request, as those of the encoder
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


def loss_of(scores: Any, target: Any, function: Callable[..., Any] = F.cross_entropy) -> Tensor | None:
    """The loss if there is a target. It is always a Tensor, also that of a frozen model."""
    return None if target is None else as_tensor(function(scores, target))


def as_tensor(loss: Any) -> Tensor:
    """A loss as a Tensor, which that of a frozen model is not."""
    return loss if isinstance(loss, Tensor) else Tensor(loss)


def later(compute: Callable[[], Any]) -> Callable[[], Any]:
    """`compute` with the kernels of now, whenever it is called. A Tensor takes no others."""
    ops = mode.ops

    def run() -> Any:
        before, mode.ops = mode.ops, ops
        try:
            return compute()
        finally:
            mode.ops = before

    return run
