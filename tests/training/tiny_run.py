"""A run of a model of five numbers, which trains like any other: with dropout, and weights under names.

    python tiny_run.py FOLDER [STEPS]

continues the run in FOLDER, or begins it, and saves its state after every step. The tests of killed runs call
it so, and FASTATTN_SLOW_SAVES makes saving take longer, so that most kills meet it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastattn import training
from fastattn.autograd import Tensor
from fastattn.random import manual_seed, next_seed
from fastattn.training import run_state

DIM, ITEMS = 4, 20


class Output:
    """What the model gives."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


class TinyModel:
    """The mean squared error of scale * x + shift, x with dropout in training."""

    def __init__(self, dim: int = DIM) -> None:
        self.scale = Tensor(np.zeros(dim, np.float32), requires_grad=True)
        self.shift = Tensor(np.zeros(1, np.float32), requires_grad=True)
        self.training = False

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return [("scale", self.scale), ("shift", self.shift)]

    def parameters(self) -> list[Tensor]:
        return [self.scale, self.shift]

    def state_dict(self) -> dict[str, np.ndarray]:
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        for name, parameter in self.named_parameters():
            parameter.data[...] = state[name]

    def train(self) -> None:
        self.training = True

    def eval(self) -> None:
        self.training = False

    def __call__(self, x: np.ndarray, y: np.ndarray) -> Output:
        if self.training:
            x = x * (np.random.default_rng(next_seed()).random(x.shape) > 0.2).astype(np.float32)
        error = self.scale * x + self.shift - y[:, None]
        return Output((error * error).mean())


class CarryingLoss:
    """A loss that carries something from one step to the next: a moving average of x, which it is given with x."""

    def __init__(self, model: TinyModel) -> None:
        self.model = model
        self.mean: np.ndarray | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        x = batch["x"]
        before = np.zeros(x.shape[1], np.float32) if self.mean is None else self.mean
        self.mean = 0.5 * before + 0.5 * x.mean(0)
        return self.model(x + before, batch["y"]).loss

    def state_dict(self) -> dict[str, np.ndarray]:
        return {} if self.mean is None else {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self.mean = state.get("mean")


class Run:
    """The run with all its objects, made anew as a new process makes them."""

    def __init__(self, folder: str | Path | None = None, *, seed: int = 3, epochs: int = 3, **options: Any) -> None:
        manual_seed(seed)
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((ITEMS, DIM)).astype(np.float32)
        self.y = (self.x[:, 0] * 2).astype(np.float32)
        lengths = rng.integers(1, 9, ITEMS)
        self.model = options.pop("model", None) or TinyModel()
        self.batches = training.TokenBatches(
            lengths, options.pop("load", self.load), batch_tokens=options.pop("batch_tokens", 16), seed=seed
        )
        make_optimizer = options.pop("optimizer", training.AdamW)
        self.optimizer = make_optimizer(self.model.parameters(), lr=options.pop("lr", 0.05))
        self.total = training.count_steps(self.batches, epochs, options.get("accumulation", 1))
        self.schedule = training.get_linear_schedule_with_warmup(self.optimizer, min(2, self.total - 1), self.total)
        if options.pop("carry", False):
            self.loss = options["carried"] = CarryingLoss(self.model)
            options.setdefault("loss", self.loss)
        if options.pop("averages", False):
            options["average"] = training.ExponentialMovingAverage(self.model, 0.9)
        self.average = options.get("average")
        self.trainer = training.Trainer(
            self.model,
            self.optimizer,
            self.schedule,
            self.batches,
            epochs=epochs,
            folder=folder,
            **options,
        )

    def load(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": self.x[indices], "y": self.y[indices]}

    def metrics(self) -> dict[str, float]:
        """An evaluation for those who want one: the loss of all items."""
        return {"error": self.model(self.x, self.y).loss.item()}

    def bits(self) -> bytes:
        """The weights, the optimizer's averages and the weights' own."""
        arrays = [parameter.data for parameter in self.model.parameters()]
        for state in self.optimizer.state:
            arrays += [value for value in state.values() if isinstance(value, np.ndarray)]
        if self.average is not None:
            arrays += self.average.state_dict().values()
        return b"".join(array.tobytes() for array in arrays)


def main(folder: str) -> None:
    """Continue the run in `folder`, saving after every step, and print the bits of its end."""
    pause = float(os.environ.get("FASTATTN_SLOW_SAVES", "0"))
    if pause:
        pieces = run_state._pieces

        def slow_pieces(*arguments: Any) -> Any:
            for piece in pieces(*arguments):
                middle = len(piece) // 2
                for part in (piece[:middle], piece[middle:]):
                    time.sleep(pause)
                    yield part

        run_state._pieces = slow_pieces
    run = Run(
        folder, carry=True, averages=True, save_every=1, keep=2, evaluate=lambda: run.metrics(), higher_is_better=False
    )
    run.trainer.resume()
    print("ready", flush=True)
    run.trainer.train()
    print(run.bits().hex())


if __name__ == "__main__":
    main(sys.argv[1])
