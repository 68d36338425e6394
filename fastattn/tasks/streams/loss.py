"""Training and measuring a language model: a loss that carries states between steps, and perplexities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastattn.autograd import Tensor, no_grad
from fastattn.checks import FRACTION, config_number
from fastattn.models.language_model import LanguageModelOutput
from fastattn.nn.parameter import Array
from fastattn.random import next_seed


class StreamLoss:
    """The loss over successive steps of a model: each starts from the states in which the previous step ended.

    No gradient crosses steps: this is truncated back-propagation through time (Williams and Peng 1990). Pass it to a
    `Trainer` both as `loss` and as `carried`. The first step starts from zeros. Later, each direction of each stream is
    reset to zeros before a step with probability `reset`. Without resets the model would not learn to start from zeros,
    as it must for a single sentence. bilm-tf has no resets. Raises ValueError for a `reset` outside [0, 1].
    """

    def __init__(self, model: Any, reset: float = 0.0) -> None:
        self._model, self._reset = model, config_number("StreamLoss: reset", reset, **FRACTION)
        self._state: list[tuple[Array, Array]] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """The loss of the next step."""
        state = self._state
        if state and self._reset:
            draws = np.random.default_rng(next_seed()).random((*state[0][0].shape[:2], 1))
            keep = (draws >= self._reset).astype(np.float32)
            state = [(h * keep, c * keep) for h, c in state]
        output: LanguageModelOutput = self._model(**batch, state=state)
        self._state = output.state
        return output.loss

    def state_dict(self) -> dict[str, Array]:
        """The states of each layer, `0.h`, `0.c`, `1.h` and so on; empty before the first step."""
        layers = enumerate(self._state or ())
        return {f"{i}.{name}": array for i, pair in layers for name, array in zip("hc", pair, strict=True)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Continue from a `state_dict`."""
        layers = range(len(state) // 2)
        self._state = [(state[f"{i}.h"], state[f"{i}.c"]) for i in layers] or None


def perplexities(model: Any, batches: Iterable[Mapping[str, Any]], *, carry: bool = False) -> dict[str, float]:
    """The perplexity of a text with the full softmax, in evaluation mode: exp of the mean loss over all tokens.

    `batches` are arguments of a call. Batches from `sentence_batches` have each sentence once, and no state is carried
    from one to the next, so the result does not depend on how sentences are batched. With `carry`, a batch starts from
    the states in which the previous one ended, as those of `StreamBatches` do.

    Returns `perplexity`, and of a model of both directions `forward_perplexity` and `backward_perplexity`, of which the
    first is the geometric mean. Raises ValueError if there are no tokens.
    """
    training = model.training
    model.eval()
    totals, tokens, state = np.zeros(2), 0, None
    try:
        with no_grad():
            for batch in batches:
                output, count = model(**batch, state=state), batch["targets"].shape[1]
                parts = {"forward": output.forward_loss, "backward": output.backward_loss}
                totals += [0.0 if loss is None else count * loss.item() for loss in parts.values()]
                tokens += count
                state = output.state if carry else None
    finally:
        model.train(training)
    if not tokens:
        raise ValueError("perplexities: there are no tokens")
    own = {name: total for (name, loss), total in zip(parts.items(), totals, strict=True) if loss is not None}
    found = {"perplexity": _exp(sum(own.values()) / len(own) / tokens)}
    return found | ({f"{name}_perplexity": _exp(total / tokens) for name, total in own.items()} if len(own) > 1 else {})


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
