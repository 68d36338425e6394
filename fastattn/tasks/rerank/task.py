"""Pairs of texts in, a score for each out; and the documents of a query, sorted by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks
from fastattn import functional as F
from fastattn.checks import shown
from fastattn.errors import OptionError
from fastattn.tasks.embed.folder import read_transformer_folder
from fastattn.tasks.regress.task import Regressor
from fastattn.tasks.rerank.recipe import RerankRecipe
from fastattn.tasks.sequences.answers import number
from fastattn.tasks.sequences.folder import IDENTITY, SIGMOID, activation_field, read_activation
from fastattn.tasks.sequences.task import Inputs, config_of
from fastattn.text import LabelledTexts
from fastattn.training import pearson_correlation, spearman_correlation

FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    IDENTITY: lambda logits: logits,
    SIGMOID: F.sigmoid,
    "Tanh": F.tanh,
    "ReLU": F.relu,
}


class Reranker(Regressor):
    """A model that scores pairs of texts, and its tokenizer: the model of sentence-transformers' `CrossEncoder`.

    `SequenceTask` describes it. Scores are logits behind an activation. The folder names it; without a name it is a
    sigmoid for one score and nothing for several. A model that is trained here has a sigmoid.

    Attributes:
        activation: the name of the activation.

    >>> reranker = Reranker.from_pretrained("path/to/reranker")                     # doctest: +SKIP
    >>> reranker.rank("How many live in Berlin?", ["3.5 million.", "It rains."])    # doctest: +SKIP
    [{'corpus_id': 0, 'score': 0.97}, {'corpus_id': 1, 'score': 0.01}]
    """

    what, command, recipe_class = "a cross-encoder", "rerank", RerankRecipe

    def __init__(self, model: Any, folder: Path, recipe: RerankRecipe | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        super().__init__(model, folder, recipe)
        named = read_activation(folder) if recipe is None else None
        self.activation: str = named or (SIGMOID if model.config.num_labels == 1 else IDENTITY)

    @classmethod
    def _refusal(cls, folder: Path, config: Any) -> str | None:
        return None

    @classmethod
    def check_predicting(cls, folder: Path) -> None:
        super().check_predicting(folder)
        _check_one_score(folder, config_of(read_transformer_folder(folder)[0]))

    @classmethod
    def _fields(cls, data: LabelledTexts, recipe: Any) -> dict[str, Any]:
        if data.pairs is None:
            raise OptionError("for_training: {train} must be pairs, got single texts in {}", data.places[0])
        return {"num_labels": 1, "problem_type": None}

    def _targets(self, owner: str, data: LabelledTexts) -> NDArray[np.float32]:
        targets = super()._targets(owner, data)
        wrong = np.flatnonzero((targets < 0) | (targets > 1))
        if len(wrong):
            place, got = data.places[wrong[0]], data.labels[wrong[0]]
            raise ValueError(f"{place}: {owner}: a score must be from 0 to 1, got {got}; regress learns other numbers")
        return targets

    def loss(self, batch: Mapping[str, Any]) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return F.binary_cross_entropy_with_logits(self.model.forward_ragged(**inputs).logits, batch["labels"][:, None])

    def scores(self, inputs: Inputs) -> NDArray[np.float32]:
        """The score of each pair, float32 `[inputs]`, or `[inputs, num_labels]` if the model gives several.

        Raises as `logits` does.
        """
        return self._scores(self.logits(inputs))

    def _scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = FUNCTIONS[self.activation](logits)
        return found[:, 0] if found.shape[1] == 1 else found

    def __call__(self, inputs: Inputs) -> list[Any]:
        """The score of each pair, or a list of scores if the model gives several. Raises as `logits` does."""
        found: list[Any] = self.scores(inputs).tolist()
        return found

    @property
    def _methods(self) -> Mapping[str, Callable[[NDArray[np.float32]], Any]]:
        return {**super()._methods, "__call__": lambda logits: self._scores(logits).tolist(), "scores": self._scores}

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, return_documents: bool = False
    ) -> list[dict[str, Any]]:
        """The documents by their scores with a query, the best first, and equal ones in their order.

        Args:
            query: a text.
            documents: texts.
            top_k: how many to return; None returns all.
            return_documents: whether to return the texts too.

        Returns a dict for each document: `corpus_id`, its index, `score`, and `text` on request.

        Raises ValueError for a model with several scores, and otherwise as `logits` does.
        """
        return self._rank(query, documents, top_k, return_documents, lambda pairs: self._scores(self._logits(*pairs)))

    def _rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None,
        return_documents: bool,
        scored: Callable[[tuple[list[str], list[str]]], NDArray[np.float32]],
    ) -> list[dict[str, Any]]:
        """`rank`, with the scores that `scored` gives for queries and documents."""
        checks.text("rank: query", query)
        texts = checks.texts("rank: documents", documents)
        count = len(texts) if top_k is None else checks.integer("rank: top_k", top_k)
        _check_one_score(self._folder, self.model.config)
        scores = scored(([query] * len(texts), texts))
        found: list[dict[str, Any]] = [{"corpus_id": i, "score": float(scores[i])} for i in _best_first(scores)[:count]]
        return [{**entry, "text": texts[entry["corpus_id"]]} for entry in found] if return_documents else found

    def evaluate(self, data: Any) -> dict[str, float]:
        """`pearson` and `spearman`, the correlations with the scores of the data. Raises as `check` does."""
        _check_one_score(self._folder, self.model.config)
        return super().evaluate(data)

    def _metrics(self, logits: NDArray[np.float32], data: LabelledTexts) -> dict[str, float]:
        pair = self._scores(logits), np.array(data.labels, np.float64)
        return {"pearson": pearson_correlation(*pair), "spearman": spearman_correlation(*pair)}

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> LabelledTexts:
        """Pairs as `SequenceTask` reads them, or with a query the documents that it is paired with."""
        _check_one_score(self._folder, self.model.config)
        data = super().read_input(lines, name, options)
        if options.query is None:
            if data.pairs is None and len(data):
                told = "{}: a query and a document are needed, got a text; or give {query}"
                raise OptionError(told, data.places[0])
            return data
        if data.pairs is not None:
            raise OptionError("{}: there are pairs, but {query} is given: {}", data.places[0], shown(options.query))
        return LabelledTexts([options.query] * len(data), data.texts, data.labels, data.places)

    def predict(self, data: LabelledTexts, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        _check_one_score(self._folder, self.model.config)
        return super().predict(data, options)

    def _answers(self, logits: NDArray[np.float32], data: LabelledTexts, options: Any) -> Iterator[dict[str, Any]]:
        scores, rows = self._scores(logits), dict[str, list[int]]()
        for i, query in enumerate(data.texts):
            rows.setdefault(query, []).append(i)
        for query, some in rows.items():
            for i in _best_first(scores[some])[: options.top_k]:
                place = some[i]
                document = (data.pairs or [])[place]
                yield {"score": number(scores[place]), "query": query, "document": document}

    def _more_config(self) -> dict[str, Any]:
        return activation_field(self.activation)


def _check_one_score(folder: Path, config: Any) -> None:
    if config.num_labels != 1:
        raise ValueError(f"{folder}: the model must give one score, but it gives {config.num_labels}")


def _best_first(scores: NDArray[np.float32]) -> list[int]:
    """The indices of scores, the highest first."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    return order
