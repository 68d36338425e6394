"""Texts or pairs of texts in, a number for each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import shown
from fastattn.tasks.regress.recipe import RegressRecipe
from fastattn.tasks.sequences.answers import number
from fastattn.tasks.sequences.folder import IDENTITY, activation_field, read_activation
from fastattn.tasks.sequences.recipe import SequenceRecipe
from fastattn.tasks.sequences.task import Inputs, SequenceTask
from fastattn.text import LabelledTexts, Row
from fastattn.training import pearson_correlation, spearman_correlation
from fastattn.training.metrics import check_scores


class Regressor(SequenceTask):
    """A model that gives each text or pair of texts a number, and its tokenizer. `SequenceTask` describes it.

    >>> regressor = Regressor.from_pretrained("path/to/similarity")             # doctest: +SKIP
    >>> regressor([("A man sings.", "Somebody sings.")])                        # doctest: +SKIP
    [4.1]
    """

    what, command = "a regression model", "regress"
    recipe_class: ClassVar[type[SequenceRecipe]] = RegressRecipe

    @classmethod
    def _refusal(cls, folder: Path, config: Any) -> str | None:
        if config.num_labels != 1:
            return f"its model has {config.num_labels} labels"
        if config.problem_type not in (None, "regression"):
            return f"its problem_type is {config.problem_type}"
        activation = read_activation(folder)
        if activation not in (None, IDENTITY):
            return f"it is a cross-encoder, whose scores pass through {activation}"
        return None

    @classmethod
    def _fields(cls, data: LabelledTexts, recipe: RegressRecipe) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    @classmethod
    def _label_of(cls, row: Row, column: str) -> float:
        return row.number(column)

    def _targets(self, owner: str, data: LabelledTexts) -> NDArray[np.float32]:
        if None in data.labels:
            raise ValueError(f"{data.places[data.labels.index(None)]}: {owner}: there is no number")
        for label, place in zip(data.labels, data.places, strict=True):
            if not isinstance(label, Real):
                raise TypeError(f"{place}: {owner}: data must have numbers, as `read` gives them, got {shown(label)}")
        return np.array(data.labels, np.float32)

    def __call__(self, inputs: Inputs) -> list[float]:
        """The number of each text or pair of texts. Raises as `logits` does."""
        return self._numbers(self.logits(inputs))

    @staticmethod
    def _numbers(logits: NDArray[np.float32]) -> list[Any]:
        return [float(value) for value in logits[:, 0]]

    @property
    def _methods(self) -> Mapping[str, Callable[[NDArray[np.float32]], Any]]:
        return {**super()._methods, "__call__": self._numbers}

    def check(self, data: Any) -> None:
        data = self.as_data("evaluate", data, self.recipe)
        super().check(data)
        check_scores(data.labels, data.places)

    def evaluate(self, data: Any) -> dict[str, float]:
        """`pearson` and `spearman`, the correlations with the numbers of the data. Raises as `check` does."""
        return super().evaluate(data)

    def _metrics(self, logits: NDArray[np.float32], data: LabelledTexts) -> dict[str, float]:
        pair = logits[:, 0], np.array(data.labels, np.float64)
        return {"pearson": pearson_correlation(*pair), "spearman": spearman_correlation(*pair)}

    def _answers(self, logits: NDArray[np.float32], data: LabelledTexts, options: Any) -> Iterator[dict[str, Any]]:
        return ({"score": number(value)} for value in logits[:, 0])

    def _more_config(self) -> dict[str, Any]:
        return activation_field(IDENTITY)
