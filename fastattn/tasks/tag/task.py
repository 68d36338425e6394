"""Words in, a label for each word out, such as its part of speech. Text in, entities out."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, runtime
from fastattn import functional as F
from fastattn.autograd import no_grad
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models.registry import load_head
from fastattn.random import manual_seed
from fastattn.tasks.base import make_recipe, model_name
from fastattn.tasks.embed.folder import find_start, read_sentence_folder
from fastattn.tasks.heads import head_of
from fastattn.tasks.limits import token_limit
from fastattn.tasks.tag.base import Data, TagTask, labels_of
from fastattn.tasks.tag.files import TAGGER_FILES, Layout, is_network
from fastattn.tasks.tag.network import NetworkTagger
from fastattn.tasks.tag.recipe import TagRecipe
from fastattn.tasks.tag.spans import STRATEGIES, Grouping, Text, Windows, texts_of, windows_of
from fastattn.tasks.work import Together, Work, joined_windows
from fastattn.text import (
    TokenizedWords,
    Tokenizer,
    encode_words,
    gather,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.tokenizer import CHUNK
from fastattn.training import TokenBatches

HEAD = "TokenClassification"


class Tagger(TagTask):
    """A model that labels words, and its tokenizer.

    A word gets the label of its first wordpiece. A sentence of more than `max_length` wordpieces is split into
    windows of whole words, and each window is labelled on its own (`fastattn.text.encode_words`). So every word gets a
    label. The labels of a sentence do not depend on the other sentences, their order or the number of threads. Many
    threads may call `tag` at once.

    Attributes:
        model: a model for token classification, such as `BertForTokenClassification`.
        tokenizer: its tokenizer.
        labels: the labels of words.
        layout: the file format of the data, the column of labels, and their scheme if they are tags of entities.
        max_length: the longest window in wordpieces, [CLS] and [SEP] included.
        recipe: how the model is trained.

    >>> tagger = Tagger.from_pretrained("path/to/tagger")                   # doctest: +SKIP
    >>> tagger.tag([["The", "cat", "sleeps", "."], ["Go", "!"]])            # doctest: +SKIP
    [['DET', 'NOUN', 'VERB', 'PUNCT'], ['VERB', 'PUNCT']]
    """

    heads = (HEAD,)

    def __init__(self, model: Any, folder: Path, recipe: TagRecipe | None = None, layout: Layout | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        self.model, self.recipe = model, recipe or TagRecipe()
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.labels: tuple[str, ...] = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
        self.tokenizer.warn_of_tokens_beyond(model.config.vocab_size)
        self.max_length: int = token_limit(self.tokenizer, model.config)
        self.layout = layout or Layout.read(folder, self.labels)
        self._folder = folder

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any) -> Any:
        """Load what `save_pretrained` or transformers' BertForTokenClassification wrote, frozen. See `Task`.

        A folder of `fastattn train tag --network lstm` or lstm-crf gives a `NetworkTagger`, which has the same verbs.
        """
        folder = find_model(name_or_folder, TAGGER_FILES, **hub)
        if is_network(folder):
            return NetworkTagger.from_pretrained(folder, weights=weights)
        cls.check_folder(folder)
        return cls(load_head(folder, HEAD, trainable=False, weights=weights, new_head="refuse"), folder)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        if is_network(folder):
            return
        head_of(folder, HEAD, refusal="not a tagger", end="; `fastattn train tag` makes one")

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str] | None, data: Any, recipe: TagRecipe | None = None, **options: Any
    ) -> Any:
        """Load a model to train as a tagger, or make a `NetworkTagger` if the recipe's `network` is an LSTM.

        Args:
            start: an encoder, as for `SentenceEncoder`. A missing classifier is drawn at random. For an LSTM, the
                frozen model whose `features` it reads; None without them.
            data: the sentences, whose tags become the labels: what `read` returns, or takes.
            recipe: the recipe; None is `TagRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, and ValueError for data with fewer than two tags, and for a `scheme` if
        the tags are none of entities.
        """
        recipe = make_recipe(TagRecipe, recipe, options)
        recipe.check_start(start)
        if start is None or recipe.network != "encoder":
            return NetworkTagger.for_training(start, data, recipe)
        data = cls.as_data("for_training", data, recipe)
        labels, layout = labels_of(data, recipe)
        folder = read_sentence_folder(find_start(start)).transformer
        names = dict(enumerate(labels))
        manual_seed(recipe.seed)
        numbers = {name: i for i, name in names.items()}
        model = load_head(folder, HEAD, trainable=True, new_head="draw", id2label=names, label2id=numbers)
        tagger = cls(model, folder, recipe, layout)
        tagger.base_model = model_name(start)
        return tagger

    def __repr__(self) -> str:
        return f"Tagger({str(self._folder)!r})"

    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """Label every word of `sentences`, sequences of words. The model must be in evaluation mode, as loaded.

        Raises TypeError, by index, for a sentence that is one str and for a word that is not a str, and ValueError for
        an empty word and one with a token that the model has no embedding for.
        """
        words = self._encode("tag: sentences", sentences)
        predicted = np.empty(len(words.ids), np.int64)
        self._run(words.ids, words.cu_seqlens, lambda logits: logits.argmax(axis=1), predicted)
        labels = [self.labels[i] for i in predicted[words.first]]
        return [labels[start:end] for start, end in itertools.pairwise(words.cu_words.tolist())]

    def entities(
        self, texts: Iterable[str], aggregation_strategy: str = "first", stride: int | None = None
    ) -> list[list[dict[str, Any]]]:
        """The entities in raw texts, or the runs of words with one label if the labels are no tags of entities.

        The strategies are those of transformers' token-classification pipeline. A word has the label of its first
        wordpiece ("first"), of the mean of the scores of all ("average") or of the surest one ("max"). "simple" joins
        wordpieces as if each were a word. "none" gives every wordpiece whose label is not O. A model that was trained
        on first wordpieces, as `Tagger` does, knows nothing of the others, so "first" is the default.

        A text of more than `max_length` tokens is read in windows of whole words. Each word gets its label in the
        window where it has the most context.

        Args:
            texts: the texts.
            aggregation_strategy: "none", "simple", "first", "average" or "max".
            stride: how many tokens neighbouring windows share, at most; None is a quarter of a window.

        Returns:
            For each text a list of dicts: `entity_group` (its type), `score` (the mean probability of its words),
            `word` (as the tokenizer writes it), `start` and `end` (its characters in the text). With "none" these are
            `entity` (the label), `score`, `index` (the place of the token), `word`, `start` and `end`.

        Raises TypeError, by index, for what is not a str, and ValueError for another strategy, a stride that is not
        less than a window, and a token that the model has no embedding for.

        >>> tagger.entities(["Ada lives in New York."])                         # doctest: +SKIP
        [[{'entity_group': 'PER', 'score': 0.99, 'word': 'ada', 'start': 0, 'end': 3},
          {'entity_group': 'LOC', 'score': 0.98, 'word': 'new york', 'start': 13, 'end': 21}]]
        """
        strategy, room, shared = self._span_options(aggregation_strategy, stride)
        all_texts = checks.texts("entities: texts", texts)
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(all_texts), CHUNK):
            some = all_texts[start : start + CHUNK]
            parts, windows = self._windows(some, start, room, shared)
            found += self._spans(some, parts, windows, self._shares(windows.ids, windows.cu_seqlens), strategy)
        return found

    def _span_options(self, aggregation_strategy: str, stride: int | None) -> tuple[str, int, int]:
        """The strategy, the room of a window, and how many tokens neighbours share."""
        strategy = checks.choice("entities: aggregation_strategy", aggregation_strategy, STRATEGIES)
        room = self.max_length - self.tokenizer.special_tokens
        wanted = f"an integer from 0 to {room - 1}, less than a window"
        shared = room // 4 if stride is None else checks.integer("entities: stride", stride, 0, room - 1, wanted)
        return strategy, room, shared

    def _windows(self, texts: list[str], first: int, room: int, stride: int) -> tuple[list[Text], Windows]:
        rows, name = self.model.config.vocab_size, "entities: texts"
        tokens = self.tokenizer.encode(texts, return_offsets_mapping=True, name=name, first=first, rows=rows)
        parts = [*texts_of(tokens)]
        return parts, windows_of(parts, self.tokenizer.around, room, stride)

    def _shares(self, ids: NDArray[np.int64], cu_seqlens: NDArray[np.int32]) -> NDArray[np.float32]:
        """The probability of each label for each token."""
        given = np.empty((len(ids), len(self.labels)), np.float32)
        self._run(ids, cu_seqlens, lambda logits: F.softmax(logits, dim=1), given)
        return given

    def _spans(
        self, texts: list[str], parts: list[Text], windows: Windows, given: NDArray[np.float32], strategy: str
    ) -> Iterator[list[dict[str, Any]]]:
        last = max((part.begin + len(part.ids) for part in parts), default=0)
        scores = np.full((last, len(self.labels)), np.nan, np.float32)
        scores[windows.tokens] = given[windows.rows]
        leading = len(self.tokenizer.around[0])
        grouping = Grouping(self.labels, self.layout.scheme, strategy, self.tokenizer.joined, leading)
        for text, part in zip(texts, parts, strict=True):
            written = self.tokenizer.tokens(part.ids)
            for i in np.flatnonzero(part.ids == self.tokenizer.unk_token_id).tolist():
                written[i] = text[slice(*part.offsets[i])]
            yield grouping.spans(part, written, scores[part.begin : part.begin + len(part.ids)])

    def prepare(
        self,
        inputs: Any,
        method: str | None = None,
        aggregation_strategy: str = "first",
        stride: int | None = None,
    ) -> list[Work]:
        """Each of `inputs` tokenised, see `Predictor.prepare`: sentences for `method` "tag" or None, texts for
        "entities", whose options the others are."""
        if checks.choice("prepare: method", method or "tag", ("tag", "entities")) == "tag":
            each = [self._encode("tag: sentences", [words]) for words in inputs]
            return [
                Work(Together(self._compute_tags), (words.ids, words.cu_seqlens, words), *[len(words.ids)] * 2)
                for words in each
            ]
        strategy, room, shared = self._span_options(aggregation_strategy, stride)
        together = Together(self._compute_spans, (strategy,))
        found = []
        for text in checks.texts("entities: texts", inputs):
            parts, windows = self._windows([text], 0, room, shared)
            data = windows.ids, windows.cu_seqlens, text, parts, windows
            found.append(Work(together, data, *[len(windows.ids)] * 2))
        return found

    def _compute_tags(self, data: list[Any]) -> list[list[str]]:
        ids, cu_seqlens = joined_windows([each[:2] for each in data])
        predicted = np.empty(len(ids), np.int64)
        self._run(ids, cu_seqlens, lambda logits: logits.argmax(axis=1), predicted)
        ends = np.cumsum([0, *(len(each[0]) for each in data)])
        return [
            [self.labels[i] for i in predicted[start:][words.first]]
            for start, (*_, words) in zip(ends, data, strict=False)
        ]

    def _compute_spans(self, data: list[Any], strategy: str) -> Iterator[list[dict[str, Any]]]:
        given = self._shares(*joined_windows([each[:2] for each in data]))
        start = 0
        for ids, _, text, parts, windows in data:
            yield from self._spans([text], parts, windows, given[start : start + len(ids)], strategy)
            start += len(ids)

    def _run(
        self,
        ids: NDArray[np.int64],
        cu_seqlens: NDArray[np.int32],
        reduce: Callable[[NDArray[np.float32]], NDArray[Any]],
        found: NDArray[Any],
    ) -> None:
        """Fill `found` with what `reduce` makes of the logits of sequences."""
        rows = np.arange(len(ids))
        with no_grad():
            for indices in token_budget_batches(np.diff(cu_seqlens), tokens_per_batch(runtime.num_threads())):
                logits = self.model.forward_ragged(*gather(ids, cu_seqlens, indices)).logits
                found[gather(rows, cu_seqlens, indices)[0]] = reduce(np.asarray(logits))

    def batches(self, data: Any) -> TokenBatches:
        """Batches of sentences, or windows of long ones. Only first wordpieces have a label.

        Raises ValueError for a tag that is not in `labels`, and for data without tags.
        """
        data = self.as_data("batches", data, self.recipe)
        words = self._encode("batches: data", [sentence.words for sentence in data])
        labels = np.full(len(words.ids), IGNORE_INDEX, np.int64)
        labels[words.first] = self._label_ids(data)
        learnt = np.add.reduceat(labels != IGNORE_INDEX, words.cu_seqlens[:-1]) if len(words.ids) else np.empty(0)
        windows = np.flatnonzero(learnt)
        if not len(windows):
            raise ValueError("batches: no word has a tag")

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            input_ids, cu_seqlens = gather(words.ids, words.cu_seqlens, windows[indices])
            return {
                "input_ids": input_ids,
                "cu_seqlens": cu_seqlens,
                "labels": gather(labels, words.cu_seqlens, windows[indices])[0],
            }

        return TokenBatches(
            words.lengths[windows],
            load,
            **self.recipe.batching,
            settings={"ids_crc32": zlib.crc32(words.ids.tobytes())},
        )

    def _encode(self, name: str, sentences: Iterable[Sequence[str]]) -> TokenizedWords:
        rows = self.model.config.vocab_size
        return encode_words(self.tokenizer, sentences, self.max_length, name=name, rows=rows)

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**batch).loss

    def configuration(self, data: Data) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), "train_crc32": self.checksum(data)}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them too."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)
        self.layout.write(Path(folder))
