"""Training steps of an encoder with a head, or of a Transformer, in a contender's process: one class per runtime.

A call is a forward pass, a backward pass and a step of AdamW for each batch, with the dropout of the model's
configuration. The losses and the changed weights of steps without dropout are compared.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastattn.functional.losses import IGNORE_INDEX

from .torch_transformer import LABEL_SMOOTHING, TorchTransformer

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Batch = dict[str, Array]  # input_ids and attention_mask [batch, length], labels and others: what both libraries take

TRANSFORMER = "Transformer"  # a head of its own, without a BERT
PRETRAINING = "BertForPreTraining"
ENCODERS = ("bert.", "distilbert.", "model.", "mpnet.", "roberta.")  # how the names of the folder's weights begin

RATE = 1e-5  # AdamW's learning rate while timed: the same batches come again and again
CHECK_STEPS = 2
CHECK_RATE = 1e-3
# At first, a weight moves by rate * g / (|g| + eps). With the usual eps of 1e-8, a gradient of 0 except for rounding,
# such as that of a key's bias, moves it as much as any other, in a random direction. Rounding also decides whether a
# ReLU is open, so a row of gradients may be missing, and more rows with every step.
CHECK_EPS = 1e-2


class Training(ABC):
    """A model and its optimizer.

    `weights` are all parameters by transformers' names, as arrays whose changes the model sees.
    """

    package: ClassVar[str]
    imports: ClassVar[tuple[str, ...]]
    model: Any
    optimizer: Any
    weights: dict[str, Floats]

    def __init__(self, folder: Path, head: str, labels: int, threads: int, checkpoint: bool) -> None:
        """Load the folder's encoder; pooler and head get weights of their own, the same in every runtime.

        With `checkpoint`, nothing within an encoder layer is kept for its backward.
        """
        self.load(folder, head, labels, threads)
        if checkpoint:
            self.model.gradient_checkpointing_enable()
        rng = np.random.default_rng(2)
        for name in sorted(self.weights):
            if not name.startswith(ENCODERS) or ".pooler." in name:
                self.weights[name][...] = 0.02 * rng.standard_normal(self.weights[name].shape)
        self.optimize(lr=RATE)
        self.model.train()

    @abstractmethod
    def load(self, folder: Path, head: str, labels: int, threads: int) -> None:
        """Set `model` and `weights`."""

    @abstractmethod
    def optimize(self, **settings: float) -> None:
        """A new AdamW over all weights."""

    @abstractmethod
    def prepare(self, batch: Batch) -> dict[str, Any]:
        """The arguments of the model for a batch."""

    def step(self, arguments: dict[str, Any], keep_gradients: bool = False) -> float:
        """Make a step, and return the loss before it. Kept gradients are added to in the next step."""
        loss = self.model(**arguments).loss
        loss.backward()
        self.optimizer.step()
        if not keep_gradients:
            self.optimizer.zero_grad()
        return float(loss.item())


class Fastattn(Training):
    """The library itself."""

    package = "fastattn"
    imports = ("fastattn.models", "fastattn.training")

    def load(self, folder: Path, head: str, labels: int, threads: int) -> None:
        importlib.import_module("fastattn").set_num_threads(threads)
        models = importlib.import_module("fastattn.models")
        options: dict[str, Any] = {"trainable": True} if head == TRANSFORMER else {"num_labels": labels}
        self.model = getattr(models, head).from_pretrained(folder, **options)
        self.parameters = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        self.weights = {name: parameter.data for name, parameter in self.parameters.items()}

    def optimize(self, **settings: float) -> None:
        self.optimizer = importlib.import_module("fastattn.training").AdamW(self.parameters.values(), **settings)

    def prepare(self, batch: Batch) -> dict[str, Any]:
        return dict(batch)


class Torch(Training):
    """transformers' model with its default attention, or torch.nn.Transformer; PyTorch's fused AdamW."""

    package = "torch"
    imports = ("torch", "transformers.models.bert.modeling_bert")

    def load(self, folder: Path, head: str, labels: int, threads: int) -> None:
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        if head == TRANSFORMER:
            self.model = TorchTransformer(folder)
            self.weights = self.model.weights
            return
        model = getattr(importlib.import_module("transformers"), head)
        self.model = model.from_pretrained(folder, num_labels=labels)
        self.weights = {name: each.detach().numpy() for name, each in self.model.named_parameters()}

    def optimize(self, **settings: float) -> None:
        self.optimizer = self.torch.optim.AdamW(self.model.parameters(), fused=True, **settings)

    def prepare(self, batch: Batch) -> dict[str, Any]:
        return {name: self.torch.from_numpy(array) for name, array in batch.items()}


class TorchGathered(Torch):
    """The same, with scores of words at the hidden places alone. transformers computes them at all places."""

    def step(self, arguments: dict[str, Any], keep_gradients: bool = False) -> float:
        loss = self.loss(**arguments)
        loss.backward()
        self.optimizer.step()
        if not keep_gradients:
            self.optimizer.zero_grad()
        return float(loss.item())

    def loss(self, labels: Any, next_sentence_label: Any, **inputs: Any) -> Any:
        cross_entropy, heads = self.torch.nn.functional.cross_entropy, self.model.cls
        states, pooled = self.model.bert(**inputs)[:2]
        hidden = labels != IGNORE_INDEX
        words = cross_entropy(heads.predictions(states[hidden]), labels[hidden])
        return words + cross_entropy(heads.seq_relationship(pooled), next_sentence_label)


RUNTIMES: dict[str, type[Training]] = {"fastattn": Fastattn, "torch": Torch, "torch-gathered": TorchGathered}


def import_packages(runtime: str) -> None:
    """Load all code of a runtime, so that the memory of a model can be told from it."""
    for module in RUNTIMES[runtime].imports:
        importlib.import_module(module)


class TrainingJob:
    """Steps over all batches of an .npz file. The result of `check` is compared before they are timed."""

    def __init__(self, training: Training, batches: list[Batch], keep_gradients: bool, options: dict[str, Any]) -> None:
        self.training = training
        self.batches = [{**training.prepare(batch), **options} for batch in batches]
        self.keep_gradients = keep_gradients

    def __call__(self) -> None:
        for batch in self.batches:
            self.training.step(batch, self.keep_gradients)

    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self.training.weights.values())

    def check(self) -> Floats:
        """The losses of some steps without dropout, and the change of every weight over the learning rate."""
        training = self.training
        before = {name: weight.copy() for name, weight in training.weights.items()}
        training.model.eval()
        training.optimize(lr=CHECK_RATE, eps=CHECK_EPS)
        losses = [training.step(self.batches[index % len(self.batches)]) for index in range(CHECK_STEPS)]
        changes = [((training.weights[name] - before[name]) / CHECK_RATE).ravel() for name in sorted(before)]
        for name, weight in before.items():
            training.weights[name][...] = weight
        training.optimize(lr=RATE)
        training.model.train()
        return np.concatenate([np.array(losses, np.float32), *changes])


def job(
    runtime: str,
    folder: str,
    batches: str,
    head: str,
    labels: int,
    threads: int,
    checkpoint: bool = False,
    keep_gradients: bool = False,
) -> TrainingJob:
    """Runs in the contender's process: load the model and the batches that `write_batches` wrote."""
    with np.load(batches) as file:
        names = list(dict.fromkeys(name.rpartition("_")[0] for name in file.files))
        read = [{name: file[f"{name}_{index}"] for name in names} for index in range(len(file.files) // len(names))]
    options = {"label_smoothing": LABEL_SMOOTHING} if head == TRANSFORMER else {}
    training = RUNTIMES[runtime](Path(folder), head, labels, threads, checkpoint)
    return TrainingJob(training, read, keep_gradients, options)


def write_batches(path: Path, batches: list[Batch]) -> None:
    arrays: dict[str, Any] = {f"{name}_{i}": array for i, batch in enumerate(batches) for name, array in batch.items()}
    np.savez(path, **arrays)
