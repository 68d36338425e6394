"""Texts or pairs of texts in, a class or several labels for each out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn import functional as F
from fastattn.checks import listed, shown
from fastattn.errors import OptionError
from fastattn.models import AwdLstmForSequenceClassification
from fastattn.random import manual_seed
from fastattn.tasks.base import make_recipe, model_name
from fastattn.tasks.classify.recipe import ClassifyRecipe
from fastattn.tasks.classify.words import Words, find_words, reads_words, start_of
from fastattn.tasks.sequences.answers import number
from fastattn.tasks.sequences.task import Inputs, SequenceTask
from fastattn.text import LabelledTexts, Row, TokenizedTexts
from fastattn.training import accuracy, f1_scores, matthews_correlation, multi_label_f1_scores

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


class Classifier(SequenceTask):
    """A model that gives each text or pair of texts its class, or any number of labels, and its tokenizer.

    `SequenceTask` describes it. The class is the one with the largest logit. Labels are those with a probability of
    0.5, or of another `threshold`. config.json has their names (`id2label`) and says which of the two it is
    (`problem_type`).

    Attributes:
        labels: the classes.
        multi_label: whether a text may have any number of labels.

    >>> classifier = Classifier.from_pretrained("path/to/classifier")           # doctest: +SKIP
    >>> classifier(["A fine film.", "A long film."])                            # doctest: +SKIP
    ['positive', 'negative']
    >>> classifier.probabilities([("A man sings.", "Somebody sings.")])         # doctest: +SKIP
    array([[0.97, 0.02, 0.01]], dtype=float32)
    """

    what, command, recipe_class = "a classifier", "classify", ClassifyRecipe
    reads_words = True
    recipe: ClassifyRecipe

    def __init__(self, model: Any, folder: Path, recipe: ClassifyRecipe | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        super().__init__(model, folder, recipe)
        self.labels: tuple[str, ...] = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
        self.multi_label: bool = model.config.problem_type == MULTI
        self._numbers = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Classifier:
        """Load what `save_pretrained`, transformers or sentence-transformers wrote, frozen. See `Task`."""
        if not reads_words(name_or_folder, **hub):
            return super().from_pretrained(name_or_folder, weights=weights, **hub)
        folder = find_words(name_or_folder, **hub)
        cls.check_folder(folder)
        options: dict[str, Any] = {"trainable": False, "weights": weights, "new_head": "refuse"}
        model = AwdLstmForSequenceClassification.from_pretrained(folder, **options)
        return cls(model, folder)

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str], data: Any, recipe: ClassifyRecipe | None = None, **options: Any
    ) -> Classifier:
        """Load a model to train: an encoder, or with `network="ulmfit"` a language model.

        Args:
            start: an encoder, as for `SentenceEncoder`, or an AWD-LSTM. The layers above it are drawn at random unless
                it has some for the same labels.
            data: texts, or for an encoder pairs, and their labels: what `read` returns, or takes.
            recipe: the recipe; None is the default one.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, ValueError for data that cannot be learnt, with their place, and OptionError
        for a model of the other kind and for two models that do not belong together.
        """
        recipe = make_recipe(ClassifyRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        words = reads_words(checks.path("for_training: start", start))
        if recipe.network != "ulmfit":
            if words:
                raise OptionError("{model} {} reads words: use {network} ulmfit", start)
            return super().for_training(start, data, recipe)
        fields = {**cls._fields(data, recipe), **recipe.dropouts}
        if recipe.max_length is not None:
            fields["max_length"] = recipe.max_length
        manual_seed(recipe.seed)
        model, folder = start_of(start, recipe.backward_model, fields)
        task = cls(model, folder, recipe)
        task.base_model = model_name(start)
        return task

    def _read_tokenizer(self, folder: Path) -> None:
        config = self.model.config
        if isinstance(self.model, AwdLstmForSequenceClassification):
            self.tokenizer, self.max_length = Words(folder, config), config.max_length
        else:
            super()._read_tokenizer(folder)

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[TokenizedTexts, NDArray[np.int64] | None]:
        if not isinstance(self.tokenizer, Words):
            return super()._encode(texts, pairs)
        if pairs is not None:
            raise ValueError(f"{self._folder}: its network, ulmfit, reads single texts, not pairs")
        return self.tokenizer.encode(texts, self.max_length), None

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, or vocabulary, each file whole or not at all. transformers reads an encoder."""
        if not isinstance(self.tokenizer, Words):
            super().save_pretrained(folder)
            return
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)

    @classmethod
    def _refusal(cls, folder: Path, config: Any) -> str | None:
        if config.problem_type == "regression" or (config.num_labels == 1 and config.problem_type != MULTI):
            return f"its model gives a number (problem_type {config.problem_type}, num_labels {config.num_labels})"
        return None

    @classmethod
    def _fields(cls, data: LabelledTexts, recipe: ClassifyRecipe) -> dict[str, Any]:
        found = {name for names in _names(data, recipe.multi_label) for name in names}
        classes = recipe.labels or sorted(found, key=_order(found))
        if len(classes) < 2 - recipe.multi_label:
            wanted = "a label" if recipe.multi_label else "two classes or more"
            raise OptionError("for_training: {train} must have {}, got {}", wanted, list(classes))
        names = dict(enumerate(classes))
        problem = MULTI if recipe.multi_label else SINGLE
        return {"id2label": names, "label2id": {name: i for i, name in names.items()}, "problem_type": problem}

    @classmethod
    def _label_of(cls, row: Row, column: str) -> Any:
        value = row[column]
        if isinstance(value, list | tuple):
            return tuple(_name(f"{row.place}: {column}[{i}]", item) for i, item in enumerate(value))
        return _name(f"{row.place}: {column}", value)

    def _targets(self, owner: str, data: LabelledTexts) -> NDArray[Any]:
        targets = np.zeros((len(data), len(self.labels)), np.float32)
        for i, names in enumerate(_names(data, self.multi_label)):
            for name in names:
                if name not in self._numbers:
                    known = listed(self.labels)
                    raise ValueError(f"{data.places[i]}: {owner}: the label {shown(name)} is none of {known}")
                targets[i, self._numbers[name]] = 1.0
        return targets if self.multi_label else targets.argmax(axis=1)

    def __call__(self, inputs: Inputs) -> list[Any]:
        """The class of each text or pair of texts, or a list of its labels if there may be several.

        Raises as `logits` does.
        """
        return self._chosen(self.logits(inputs))

    def _chosen(self, logits: NDArray[np.float32], threshold: float = 0.5) -> list[Any]:
        if not self.multi_label:
            return [self.labels[i] for i in logits.argmax(axis=1)]
        rows = np.asarray(self._probabilities(logits)) >= threshold
        return [[label for label, chosen in zip(self.labels, row, strict=True) if chosen] for row in rows]

    @property
    def _methods(self) -> Mapping[str, Callable[[NDArray[np.float32]], Any]]:
        return {**super()._methods, "__call__": self._chosen, "probabilities": self._probabilities}

    def probabilities(self, inputs: Inputs) -> NDArray[np.float32]:
        """The probability of each class, float32 `[inputs, labels]`. They add up to 1 unless there may be several
        labels. Raises as `logits` does."""
        return self._probabilities(self.logits(inputs))

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = F.sigmoid(logits) if self.multi_label else F.softmax(logits, dim=1)
        return found

    def evaluate(self, data: Any) -> dict[str, float]:
        """`accuracy`, `f1` if there are two classes, `macro_f1` and `matthews_correlation`, as sklearn counts them.

        Where a text may have several labels: `accuracy` of whole sets, `micro_f1` and `macro_f1`. Raises as `check`
        does.
        """
        return super().evaluate(data)

    def _metrics(self, logits: NDArray[np.float32], data: LabelledTexts) -> dict[str, float]:
        right = self._targets("evaluate", data)
        if self.multi_label:
            chosen = self._probabilities(logits) >= 0.5
            micro, each = multi_label_f1_scores(chosen, right)
            exact = float((chosen == right).all(axis=1).mean())
            return {"accuracy": exact, "micro_f1": float(np.nan_to_num(micro)), "macro_f1": _mean(np.nan_to_num(each))}
        chosen = logits.argmax(axis=1)
        each = f1_scores(chosen, right, len(self.labels))
        binary = {"f1": float(np.nan_to_num(each[1]))} if len(self.labels) == 2 else {}
        return {
            "accuracy": accuracy(chosen, right),
            **binary,
            "macro_f1": _mean(each[~np.isnan(each)]),
            "matthews_correlation": matthews_correlation(chosen, right),
        }

    def _answers(self, logits: NDArray[np.float32], data: LabelledTexts, options: Any) -> Iterator[dict[str, Any]]:
        probabilities = self._probabilities(logits) if options.probabilities else None
        for i, chosen in enumerate(self._chosen(logits, options.threshold)):
            row = {"label": chosen}
            if probabilities is not None:
                numbers = map(number, probabilities[i])
                row["probabilities"] = dict(zip(self.labels, numbers, strict=True))
            yield row


def _name(place: str, value: Any) -> str:
    """The name of a label: text without space around it, or an integer's digits."""
    if not isinstance(value, str | int):
        raise ValueError(f"{place} must be a label, text or an integer, got {shown(value)}")
    return str(value).strip()


def _names(data: LabelledTexts, several: bool) -> Iterator[Sequence[str]]:
    """The labels of each text.

    Raises, with the place, TypeError for a number, and ValueError for an empty label and for a list where there is one
    class for each text.
    """
    for label, place in zip(data.labels, data.places, strict=True):
        if label is None:
            raise ValueError(f"{place}: there is no label")
        if not isinstance(label, str | tuple):
            raise TypeError(f"{place}: data must have classes, as `read` gives them, got {shown(label)}")
        if "" in label if isinstance(label, tuple) else not (label or several):
            raise ValueError(f"{place}: the label is empty")
        if several:
            yield label if isinstance(label, tuple) else [name.strip() for name in label.split(",") if name.strip()]
        elif isinstance(label, tuple):
            raise ValueError(f"{place}: there must be one label, got {shown(list(label))}; multi_label takes several")
        else:
            yield (label,)


def _order(names: Iterable[str]) -> Any:
    """The key that sorts names: numbers by their value."""
    return int if all(name.removeprefix("-").isdecimal() for name in names) else str


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
