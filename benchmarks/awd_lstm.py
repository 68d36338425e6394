"""A training step of an AWD-LSTM at the paper's size for WikiText-2, against PyTorch.

Part of `python -m benchmarks recurrent`. A step is forward with all dropout and both penalties, backward, clipping and
SGD, with the states of the step before. Loss and gradients without dropout are compared first.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from .measure import Case, Contender
from .torch_awd_lstm import TorchAwdLstm

NAME = "awd-lstm 400-1150-1150-400, 33278 words, 80 x 70, training step"
WORDS, BATCH, STEPS = 33278, 80, 70
TOLERANCE = 1e-3
RATE, MAX_NORM, DECAY = 1.0, 0.25, 1.2e-6
RATES = ("embedding", "input", "hidden", "output", "weight")
Array = npt.NDArray[Any]


def config(drops: bool) -> Any:
    """Of the model, with the paper's dropout or none."""
    models: Any = importlib.import_module("fastattn.models")
    rates = {} if drops else {f"{name}_dropout": 0.0 for name in RATES}
    return models.AwdLstmConfig(vocabulary_size=WORDS, **rates)


def model_of(drops: bool) -> Any:
    """A model with the same weights every time."""
    importlib.import_module("fastattn").manual_seed(0)
    return importlib.import_module("fastattn.models").AwdLstmForLanguageModel(config(drops))


def words() -> tuple[Array, Array]:
    """Inputs and targets `[batch, steps]`, frequent words more often."""
    rng = np.random.default_rng(1)
    text = np.minimum(rng.zipf(1.2, (BATCH, STEPS + 1)), WORDS) - 1
    return text[:, :-1].astype(np.int64), text[:, 1:].astype(np.int64)


class FastattnJob:
    """The library itself."""

    def __init__(self, threads: int) -> None:
        importlib.import_module("fastattn").set_num_threads(threads)
        self.training: Any = importlib.import_module("fastattn.training")
        inputs, targets = words()
        offsets = np.arange(BATCH + 1, dtype=np.int32) * np.int32(STEPS)
        self.batch = {"input_ids": inputs.reshape(1, -1), "targets": targets.reshape(1, -1), "cu_seqlens": offsets}
        self.model, self.state = model_of(drops=True), None
        self.optimizer = self.training.SGD(self.model.parameters(), lr=RATE, weight_decay=DECAY)

    def __call__(self) -> None:
        output = self.model(**self.batch, state=self.state)
        output.loss.backward()
        self.state = output.state
        self.training.clip_grad_norm(list(self.model.parameters()), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def check(self) -> Any:
        model = model_of(drops=False)
        loss = model(**self.batch).loss
        loss.backward()
        return [loss.data.reshape(1), *(BATCH * each.grad for each in model.parameters())]


class TorchJob:
    """PyTorch, with fastattn's first weights."""

    def __init__(self, threads: int, sizes: dict[str, Any], dropout: dict[str, Any], weights: str) -> None:
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        with np.load(weights) as file:
            self.tensors = {name: file[name] for name in file.files}
        self.plain, self.state = sizes, None
        self.model = TorchAwdLstm({**sizes, **dropout}, self.tensors)
        self.words = [self.torch.from_numpy(np.ascontiguousarray(each.T)) for each in words()]

    def __call__(self) -> None:
        inputs, targets = self.words
        _, self.state = self.model.step(inputs, targets, self.state, RATE, MAX_NORM, DECAY)

    def check(self) -> Any:
        model = TorchAwdLstm(self.plain, self.tensors)
        loss, *_ = model(*self.words)
        loss.backward()
        return [loss.detach().numpy().reshape(1), *(BATCH * each.grad.numpy() for each in model.parameters.values())]


def make_case(options: argparse.Namespace) -> Case:
    entrants = [
        Contender("fastattn", sys.executable, "benchmarks.awd_lstm:FastattnJob", {"threads": options.threads}, ())
    ]
    if "torch" in options.rivals:
        weights = options.cache / "awd-lstm.npz"
        state = dict(model_of(drops=True).named_parameters())
        np.savez(weights, **{name: parameter.data for name, parameter in state.items()})
        plain, dropped = (config(drops).to_dict() for drops in (False, True))
        more = {name: value for name, value in dropped.items() if name.endswith("_dropout")}
        arguments = {"threads": options.threads, "sizes": plain, "dropout": more, "weights": str(weights)}
        entrants.append(
            Contender("torch", options.rivals_python, "benchmarks.awd_lstm:TorchJob", arguments, ("torch",))
        )
    return Case(NAME, entrants, BATCH * STEPS, "tokens/s", TOLERANCE, flops())


def flops() -> float:
    """Of forward and backward."""
    layers = sum(4 * outputs * (inputs + outputs) for inputs, outputs in config(drops=True).sizes)
    return float(6 * BATCH * STEPS * (layers + config(drops=True).embedding_dim * WORDS))
