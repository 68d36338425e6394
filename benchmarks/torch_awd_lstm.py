"""AWD-LSTM in PyTorch, in a contender's process, without fastattn: Merity et al. 2018, at PyTorch's fastest.

`torch.nn.LSTM`'s own function takes the dropped weights; the rest are PyTorch's functions. `train` is a whole run with
the recipe of `fastattn train language-model`.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
PARTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class TorchAwdLstm:
    """One direction, with tied weights. `config` has the fields of a config.json, `tensors` weights by their names."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Array]) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.functional = self.torch.nn.functional
        self.config, self.training = config, True
        self.parameters = {
            name: self.torch.from_numpy(np.array(array)).requires_grad_() for name, array in tensors.items()
        }
        self.embedding, self.bias = self.parameters["networks.0.embedding.weight"], self.parameters["decoders.0.bias"]
        layers = range(config["n_layers"])
        self.layers = [[self.parameters[f"networks.0.layers.{i}.{part}"] for part in PARTS] for i in layers]

    def rate(self, name: str) -> float:
        return float(self.config[f"{name}_dropout"]) if self.training else 0.0

    def locked(self, x: Any, rate: float) -> Any:
        if not rate:
            return x
        return x * x.new_empty(1, *x.shape[1:]).bernoulli_(1 - rate).div_(1 - rate)

    def words(self, ids: Any) -> Any:
        weight, rate = self.embedding, self.rate("embedding")
        if rate:
            weight = weight * weight.new_empty(len(weight), 1).bernoulli_(1 - rate).div_(1 - rate)
        return self.functional.embedding(ids, weight)

    def __call__(self, ids: Any, targets: Any, state: Any = None, penalties: bool = True) -> tuple[Any, Any, Any]:
        """The loss with penalties, the loss without, and the states, from `[steps, batch]`."""
        torch, last = self.torch, len(self.layers) - 1
        raw = x = self.words(ids)
        name, states = "input", []
        for i, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(self.layers):
            x = self.locked(x, self.rate(name))
            dropped = self.functional.dropout(weight_hh, self.rate("weight"), self.training)
            size = weight_hh.shape[1]
            hx = [x.new_zeros(1, x.shape[1], size)] * 2 if state is None else state[i]
            weights = [weight_ih, dropped, bias_ih, bias_hh]
            raw, h, c = torch._VF.lstm(x, hx, weights, True, 1, 0.0, self.training, False, False)
            states.append([h.detach(), c.detach()])
            x, name = raw, "hidden" if i < last else "output"
        x = self.locked(raw, self.rate(name))
        scores = self.functional.linear(x.flatten(0, 1), self.embedding, self.bias)
        loss = plain = self.functional.cross_entropy(scores, targets.flatten())
        if penalties:
            loss = loss + self.config["activation_penalty"] * x.pow(2).mean()
            if len(raw) > 1:
                loss = loss + self.config["temporal_penalty"] * (raw[1:] - raw[:-1]).pow(2).mean()
        return loss, plain, states

    def step(self, ids: Any, targets: Any, state: Any, rate: float, max_norm: float, decay: float) -> tuple[float, Any]:
        """A step of SGD. Returns the loss and the states."""
        loss, _, state = self(ids, targets, state)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm)
        with self.torch.no_grad():
            weights = list(self.parameters.values())
            gradients = [each.grad for each in weights]
            if decay:
                self.torch._foreach_add_(gradients, weights, alpha=decay)
            self.torch._foreach_add_(weights, gradients, alpha=-rate)
        for each in weights:
            each.grad = None
        return float(loss.detach()), state


def train(folder: str, batches: str, threads: int, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    """A whole run: the first weights and config.json of `folder`, and the streams and steps of the file `batches`.

    The file has `inputs` and `targets` `[batch, length]` and `bounds_N`, the steps of epoch N; the same of the
    `measured` text. Returns the perplexity of the measured text with the last or averaged weights, and seconds.
    """
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tensors = importlib.import_module("safetensors.numpy").load_file(Path(folder) / "model.safetensors")
    model = TorchAwdLstm(json.loads((Path(folder) / "config.json").read_text()), tensors)
    with np.load(batches) as file:
        arrays = {name: file[name] for name in file.files}
    start, state = time.perf_counter(), None
    average = Average(model, recipe["average_after"])
    for epoch in range(recipe["epochs"]):
        for begin, end in _steps(arrays[f"bounds_{epoch}"]):
            if state is not None and recipe["reset"]:
                keep = (torch.rand(1, arrays["inputs"].shape[0], 1) >= recipe["reset"]).float()
                state = [[h * keep, c * keep] for h, c in state]
            ids, targets = (torch.from_numpy(arrays[name][:, begin:end].T.copy()) for name in ("inputs", "targets"))
            rate = recipe["learning_rate"] * (end - begin) / recipe["unroll_steps"]
            _, state = model.step(ids, targets, state, rate, recipe["max_norm"], recipe["weight_decay"])
            average.update()
        average.measured(perplexity(model, arrays, average))
    return {"perplexity": average.history[-1], "seconds": time.perf_counter() - start}


class Average:
    """NT-ASGD: the mean of the weights since an evaluation that is worse than one over `window` evaluations before."""

    def __init__(self, model: TorchAwdLstm, window: int | None) -> None:
        self.model, self.window = model, window
        self.history: list[float] = []
        self.means: list[Any] = []
        self.count = 1

    def update(self) -> None:
        if self.means:
            self.count += 1
            for mean, weight in zip(self.means, self.model.parameters.values(), strict=True):
                mean.lerp_(weight.detach(), 1 / self.count)

    def measured(self, value: float) -> None:
        older = self.history[: -self.window] if self.window else []
        if older and not self.means and value > min(older):
            self.means = [weight.detach().clone() for weight in self.model.parameters.values()]
        self.history.append(value)


def perplexity(model: TorchAwdLstm, arrays: dict[str, Array], average: Average) -> float:
    """Of the measured text, with the averages if there are any."""
    torch, total, count, state = model.torch, 0.0, 0, None
    weights = [each.data for each in model.parameters.values()]
    own = [weight.clone() for weight in weights]
    for weight, mean in zip(weights, average.means or own, strict=True):
        weight.copy_(mean)
    model.training = False
    with torch.no_grad():
        for begin, end in _steps(arrays["measured_bounds"]):
            names = ("measured_inputs", "measured_targets")
            ids, targets = (torch.from_numpy(arrays[name][:, begin:end].T.copy()) for name in names)
            _, loss, state = model(ids, targets, state, penalties=False)
            total, count = total + float(loss) * targets.numel(), count + targets.numel()
    model.training = True
    for weight, before in zip(weights, own, strict=True):
        weight.copy_(before)
    return math.exp(total / count)


def _steps(bounds: Array) -> list[tuple[int, int]]:
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
