"""The outputs of models: the base class, the outputs of heads under transformers' names, and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

from fastattn import functional as F
from fastattn.autograd import Tensor, mode, setting


@dataclass(eq=False, repr=False)
class Output:
    """An output that is indexed like transformers' `ModelOutput`: `output["loss"]`, `output[0]`, `output[:2]`.

    Fields that are None are skipped: without labels `output[0]` is the logits. A field `compute_NAME` of a subclass
    provides an attribute NAME that is computed on first read.
    """

    _prefix: ClassVar[str] = "compute_"

    def __repr__(self) -> str:
        shown = [f"{part.name}={getattr(self, part.name)!r}" for part in fields(self) if part.repr]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getattr__(self, name: str) -> Any:
        compute = vars(self).get(f"{self._prefix}{name}")
        if compute is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = vars(self)[name] = compute()
        return value

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: compute the lazy attributes now."""
        names = [part.name for part in fields(self) if part.name.startswith(self._prefix)]
        given = {name: partial(_given, getattr(self, name.removeprefix(self._prefix))) for name in names}
        return {**vars(self), **given}

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


@dataclass(eq=False, repr=False)
class EncoderOutput(Output):
    """The output of the encoder. The first shape is for the padded call, the second for `forward_ragged`.

    - `last_hidden_state`: `[batch, seq, hidden_size]`, 0 at the padding; `[tokens, hidden_size]`
    - `pooler_output`: `[batch, hidden_size]`, from the first token of each sequence, 0 for a sequence without tokens;
      None if the checkpoint has no pooler
    - `hidden_states`, on request: an array for the embeddings and one for each layer, like `last_hidden_state`
    - `attentions`, on request: the attention weights of each layer, `[batch, heads, seq, seq]`, 0 at the padding;
      `[batch, heads, longest, longest]`, 0 outside a sequence

    A trainable model returns Tensors, through which `backward()` goes; a frozen model returns float32 arrays.
    """

    last_hidden_state: Any
    pooler_output: Any = None
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(eq=False, repr=False)
class HeadOutput(Output):
    """The output of a model with a head: Tensors from a trainable model, float32 arrays from a frozen one.

    - `loss`: always a Tensor of one number; None without labels
    - `logits`: `[batch, num_labels]` for sequences, `[batch, seq, num_labels]` for tokens, 0 at the padding,
      `[batch, choices]` for multiple choice
    - `hidden_states` and `attentions`, on request, as in the encoder's output
    """

    loss: Tensor | None
    logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(eq=False, repr=False)
class QuestionAnsweringOutput(Output):
    """`start_logits` and `end_logits`, `[batch, seq]`, -inf at the padding. The rest is as in `HeadOutput`."""

    loss: Tensor | None
    start_logits: Any
    end_logits: Any
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


@dataclass(eq=False, repr=False)
class MaskedLMOutput(Output):
    """`logits`, `[batch, seq, vocab_size]`, 0 at the padding, are computed on first read, with the weights at that
    time. The loss does not need them. The rest is as in `HeadOutput`."""

    loss: Tensor | None
    compute_logits: Callable[[], Any] = field(repr=False)
    hidden_states: tuple[Any, ...] | None = None
    attentions: tuple[Any, ...] | None = None


def loss_of(scores: Any, target: Any, function: Callable[..., Any] = F.cross_entropy) -> Tensor | None:
    """The loss, or None without a target. It is always a Tensor, even for a frozen model."""
    return None if target is None else as_tensor(function(scores, target))


def as_tensor(x: Any) -> Tensor:
    """`x` as a Tensor. The loss of a frozen model and the states of frozen layers are arrays."""
    return x if isinstance(x, Tensor) else Tensor(x)


def later(compute: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap `compute` so that a later call runs in the current mode: with the same kernels, and recorded or not."""
    now = {"ops": mode.ops, "grad": mode.grad}

    def run() -> Any:
        with setting(**now):
            return compute()

    return run


def _given(value: Any) -> Any:
    return value
