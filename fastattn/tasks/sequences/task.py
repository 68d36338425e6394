"""Texts or pairs of texts in, a row of numbers for each out: what classes, numbers and ranks are made of."""

from __future__ import annotations

import os
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, runtime
from fastattn.autograd import no_grad
from fastattn.checks import shown
from fastattn.formats import hugging_face
from fastattn.hub import find_model
from fastattn.models.registry import encoder_family, family_of, load_head
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, model_name, not_measured
from fastattn.tasks.embed.folder import FILES, find_start, read_transformer_folder
from fastattn.tasks.heads import head_of, token_types
from fastattn.tasks.limits import token_limit
from fastattn.tasks.sequences.answers import written
from fastattn.tasks.sequences.recipe import SequenceRecipe
from fastattn.tasks.work import Together, Work, joined, works_of
from fastattn.text import (
    LabelledTexts,
    Row,
    TokenizedTexts,
    Tokenizer,
    gather,
    labelled_texts,
    parse_rows,
    plain_texts,
    read_rows,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.tables import format_by_name
from fastattn.training import TokenBatches

HEAD = "SequenceClassification"

Self = TypeVar("Self", bound="SequenceTask")
Inputs = Iterable[str] | Iterable[Sequence[str]]
"""Texts, or pairs of texts."""


class SequenceTask(Task):
    """A model with a row of numbers, its logits, for each text or pair of texts, and its tokenizer.

    A text or pair of more than `max_length` wordpieces is cut, a pair at its longer text first. The numbers of one do
    not depend on the others, their order or the number of threads. Many threads may call at once.

    Attributes:
        model: a model for sequence classification, such as `BertForSequenceClassification`.
        tokenizer: its tokenizer.
        max_length: the longest text or pair in wordpieces, [CLS] and [SEP] included.
        recipe: how the model is trained.
    """

    tokenizer: Any
    max_length: Any  # an int, or None for a model of words
    reads_words: ClassVar[bool] = False
    """Whether its model may read words."""
    heads = (HEAD,)
    data_class = LabelledTexts
    what: ClassVar[str]
    """The name of such a task in errors, and of the command that trains one."""
    command: ClassVar[str]
    recipe_class: ClassVar[type[SequenceRecipe]]

    def __init__(self, model: Any, folder: Path, recipe: SequenceRecipe | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        self.model, self.recipe = model, recipe or self.recipe_class()
        self._folder = folder
        self._read_tokenizer(folder)

    def _read_tokenizer(self, folder: Path) -> None:
        """Set `tokenizer` and `max_length`."""
        transformer, lowercase = read_transformer_folder(folder)
        self.tokenizer = Tokenizer.from_pretrained(transformer, lowercase=lowercase)
        self.tokenizer.warn_of_tokens_beyond(self.model.config.vocab_size)
        self.max_length = token_limit(self.tokenizer, self.model.config, self.recipe.max_length)

    @classmethod
    def from_pretrained(
        cls: type[Self], name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> Self:
        """Load what `save_pretrained`, transformers or sentence-transformers wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        transformer, _ = read_transformer_folder(folder)
        return cls(load_head(transformer, HEAD, trainable=False, weights=weights, new_head="refuse"), folder)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        transformer, _ = read_transformer_folder(folder)
        made = f"; `fastattn train {cls.command}` makes one"
        head_of(transformer, HEAD, refusal=f"not {cls.what}", end=made)
        if not cls.reads_words:
            encoder_family(transformer, of_tokens=True)
        if reason := cls._refusal(folder, config_of(transformer)):
            raise ValueError(f"{transformer}: not {cls.what}, {reason}{made}")

    @classmethod
    def for_training(
        cls: type[Self],
        start: str | os.PathLike[str],
        data: Any,
        recipe: Any = None,
        **options: Any,
    ) -> Self:
        """Load a model to train.

        Args:
            start: an encoder, as for `SentenceEncoder`. The layer over its first token is
                drawn at random unless it has one for the same labels.
            data: texts or pairs and their labels: what `read` returns, or takes.
            recipe: the recipe; None is the default one.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, and ValueError for data that cannot be learnt, with their place.
        """
        recipe = make_recipe(cls.recipe_class, recipe, options)
        fields = cls._fields(cls.as_data("for_training", data, recipe), recipe)
        folder = find_start(start)
        manual_seed(recipe.seed)
        transformer, _ = read_transformer_folder(folder)
        encoder_family(transformer, of_tokens=True)
        model = load_head(transformer, HEAD, trainable=True, new_head="draw", **fields)
        task = cls(model, folder, recipe)
        task.base_model = model_name(start)
        return task

    @classmethod
    @abstractmethod
    def _refusal(cls, folder: Path, config: Any) -> str | None:
        """Why the model in a folder, with this config, is no such task, if it is none."""

    @classmethod
    @abstractmethod
    def _fields(cls, data: LabelledTexts, recipe: Any) -> dict[str, Any]:
        """The fields of the config of a model for `data`."""

    @abstractmethod
    def _targets(self, owner: str, data: LabelledTexts) -> NDArray[Any]:
        """The labels as the loss takes them. Raises ValueError, with the place, for a label that it cannot take."""

    @classmethod
    @abstractmethod
    def _label_of(cls, row: Row, column: str) -> Any:
        """The label in a row of a file. Raises ValueError, with the place."""

    @abstractmethod
    def _metrics(self, logits: NDArray[np.float32], data: LabelledTexts) -> dict[str, float]:
        """Metrics of data by their logits."""

    @abstractmethod
    def _answers(self, logits: NDArray[np.float32], data: LabelledTexts, options: Any) -> Iterator[dict[str, Any]]:
        """The answers to write, each as values by column."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder)!r})"

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """The model's numbers, float32 `[inputs, num_labels]`, for texts or for pairs. The model must be in evaluation
        mode, as loaded.

        Raises TypeError, by index, for what is neither a str nor a pair of str, and ValueError for pairs among single
        texts and for a token that the model has no embedding for.
        """
        texts, pairs = split_pairs("inputs", inputs)
        return self._logits(texts, pairs)

    def _logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        batch_size: int | None = None,
        advance: Callable[[int], Any] = int,
    ) -> NDArray[np.float32]:
        """The logits, of at most `batch_size` inputs in a pass. `advance` gets the number of inputs done."""
        return self._passes(*self._encode(texts, pairs), batch_size, advance)

    def _passes(
        self,
        tokens: TokenizedTexts,
        kinds: NDArray[np.int64] | None,
        batch_size: int | None = None,
        advance: Callable[[int], Any] = int,
    ) -> NDArray[np.float32]:
        found = np.empty((len(tokens), self.model.config.num_labels), np.float32)
        with no_grad():
            for batch in token_budget_batches(tokens.lengths, tokens_per_batch(runtime.num_threads()), batch_size):
                found[batch] = np.asarray(self.model.forward_ragged(**_gathered(tokens, kinds, batch)).logits)
                advance(len(batch))
        return found

    @property
    def _methods(self) -> Mapping[str, Callable[[NDArray[np.float32]], Any]]:
        """What each method makes of logits."""
        return {"logits": lambda logits: logits}

    def prepare(self, inputs: Inputs, method: str | None = None) -> list[Work]:
        """Each of `inputs` tokenised, see `Predictor.prepare`. `method` is "logits", or "probabilities" of a
        `Classifier`, or "scores" of a `Reranker`."""
        wanted = checks.choice("prepare: method", method or "__call__", self._methods)
        tokens, kinds = self._encode(*split_pairs("inputs", inputs))
        together = Together(self._compute, (wanted, kinds is None))
        return works_of(together, tokens, *([] if kinds is None else [kinds]))

    def _compute(self, data: list[tuple[NDArray[np.int64], ...]], method: str, single: bool) -> Any:
        tokens, kinds = joined(data)
        return self._methods[method](self._passes(tokens, None if single else kinds[0]))

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[TokenizedTexts, NDArray[np.int64] | None]:
        """The tokens, and for pairs the token types."""
        rows = self.model.config.vocab_size
        tokens = self.tokenizer.encode(
            texts, self.max_length, text_pairs=pairs, rows=rows, name="texts", pairs_name="pairs"
        )
        return tokens, None if pairs is None else token_types(self.model.config, tokens)

    def batches(self, data: Any) -> TokenBatches:
        """Batches of texts or pairs. Raises ValueError, with the place, for a label that the model does not have."""
        data = self.as_data("batches", data, self.recipe)
        targets = self._targets("batches", data)
        tokens, kinds = self._encode(data.texts, data.pairs)

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            return {**_gathered(tokens, kinds, indices), "labels": targets[indices]}

        return TokenBatches(
            tokens.lengths,
            load,
            **self.recipe.batching,
            settings={"ids_crc32": zlib.crc32(tokens.ids.tobytes())},
        )

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**batch).loss

    def check(self, data: Any) -> None:
        self._targets("evaluate", self.as_data("evaluate", data, self.recipe))

    def evaluate(self, data: Any) -> dict[str, float]:
        """Metrics of the answers to `data`. Raises as `check` does."""
        data = self.as_data("evaluate", data, self.recipe)
        self.check(data)
        return self._metrics(self._logits(data.texts, data.pairs), data)

    def configuration(self, data: LabelledTexts) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), "train_crc32": self.checksum(data)}

    @classmethod
    def read(
        cls,
        *sources: Any,
        columns: Sequence[str] | None = None,
        label: str | None = None,
        names: Sequence[str] | None = None,
        format: str | None = None,
    ) -> LabelledTexts:
        """Texts or pairs and their labels.

        Args:
            sources: files (TSV, CSV, JSON lines, Parquet), lists of dicts, pandas frames or `datasets` objects.
            columns, label, names, format: as the options of the recipe.

        Raises as `fastattn.text.read_rows` and `labelled_texts` do.
        """
        columns = [columns] if isinstance(columns, str) else columns
        rows = [partial(read_rows, source, names=names, format=format) for source in sources]
        return LabelledTexts.joined(
            [labelled_texts(some, cls._label_of, columns=columns, label=label) for some in rows]
        )

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> LabelledTexts:
        """The rows of a table, whose labels may be missing. A file of another kind has a text in each line, or a pair
        with a tab between."""
        kind = options.format or format_by_name(name)
        if kind is None:
            if options.names is options.columns is options.label is None:
                return plain_texts(lines, name)
            kind = "tsv"
        rows = partial(parse_rows, lines, name, format=kind, names=options.names)
        return labelled_texts(rows, self._label_of, columns=options.columns, label=options.label, labelled=False)

    def predict(self, data: LabelledTexts, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        logits = self._logits(data.texts, data.pairs)
        told = []
        if len(data) and None not in data.labels:
            try:
                self.check(data)
                told = [self.show(self._metrics(logits, data))]
            except ValueError as error:  # a test set whose labels are withheld may have others in their place
                told = [not_measured(error)]
        return written(self._answers(logits, data, options), options.answers), told

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them, and sentence-transformers
        as a cross-encoder."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder, model_max_length=self.max_length)
        config = {**self.model.config.to_dict(type(self.model).__name__), **self._more_config()}
        self.model.write_checkpoint(folder, config)

    def _more_config(self) -> dict[str, Any]:
        """Fields of config.json that the model itself does not have."""
        return {}


def config_of(transformer: Path) -> Any:
    """The configuration of the model in a folder, checked."""
    values, source = hugging_face.read_config(transformer), str(transformer / hugging_face.CONFIG)
    return family_of(transformer).config.from_dict(values, source)


def split_pairs(name: str, inputs: Any) -> tuple[list[str], list[str] | None]:
    """Texts, or the first and the second texts of pairs. Errors call them `name`.

    Raises TypeError, by index, for what is neither, and for pairs among single texts.

    >>> split_pairs("inputs", [("a", "b"), ("c", "d")])
    (['a', 'c'], ['b', 'd'])
    """
    found = list(checks.sequence(name, inputs, "str, or of pairs of str"))
    if not found or isinstance(found[0], str):
        return checks.texts(name, found), None
    first, second = [], []
    for i, pair in enumerate(found):
        texts = [] if isinstance(pair, str) else checks.texts(f"{name}[{i}]", pair)
        if len(texts) != 2:
            raise TypeError(f"{name}[{i}] must be a pair of str, got {shown(pair)}")
        first.append(texts[0])
        second.append(texts[1])
    return first, second


def _gathered(tokens: TokenizedTexts, kinds: NDArray[np.int64] | None, indices: NDArray[np.int64]) -> dict[str, Any]:
    """The arguments of a model for some of the sequences."""
    input_ids, cu_seqlens = gather(tokens.ids, tokens.cu_seqlens, indices)
    types = None if kinds is None else gather(kinds, tokens.cu_seqlens, indices)[0]
    return {"input_ids": input_ids, "cu_seqlens": cu_seqlens, "token_type_ids": types}
