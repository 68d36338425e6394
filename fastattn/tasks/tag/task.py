"""Words in, a label for each word out, such as its part of speech. Text in, entities out."""

from __future__ import annotations

import itertools
import math
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
from fastattn.checks import listed, shown
from fastattn.errors import OptionError
from fastattn.files import json_line, utf8_lines
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models.registry import load_head
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, model_name, not_measured
from fastattn.tasks.embed.folder import find_start, read_sentence_folder
from fastattn.tasks.heads import head_of
from fastattn.tasks.limits import token_limit
from fastattn.tasks.tag.files import TAGGER_FILES, Input, Layout, Sentence, parse_input, read_tagged, tagged_format
from fastattn.tasks.tag.recipe import TagOptions, TagRecipe
from fastattn.tasks.tag.scores import check_tags, count_right, report, scores_of, tags_of
from fastattn.tasks.tag.spans import STRATEGIES, Grouping, texts_of, windows_of
from fastattn.text import (
    TokenizedWords,
    Tokenizer,
    convert_tags,
    encode_words,
    gather,
    scheme_of,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.conllu import NO_TAG
from fastattn.text.tokenizer import CHUNK
from fastattn.training import EntityScore, TokenBatches

HEAD = "TokenClassification"

Data = Sequence[Sentence]


class Tagger(Task):
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
    data_class, item_class = Sequence, Sentence

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
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **hub: Any) -> Tagger:
        """Load what `save_pretrained` or transformers' BertForTokenClassification wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, TAGGER_FILES, **hub)
        cls.check_folder(folder)
        return cls(load_head(folder, HEAD, trainable=False, new_head="refuse"), folder)

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        head_of(folder, HEAD, refusal="not a tagger", end="; `fastattn train tag` makes one")

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str], data: Any, recipe: TagRecipe | None = None, **options: Any
    ) -> Tagger:
        """Load a model to train as a tagger.

        Args:
            start: an encoder, as for `SentenceEncoder`. A missing classifier is drawn at
                random.
            data: the sentences, whose tags become the labels: what `read` returns, or takes.
            recipe: the recipe; None is `TagRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, and ValueError for data with fewer than two tags, and for a `scheme` if
        the tags are none of entities.
        """
        recipe = make_recipe(TagRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        found = scheme_of([each.tags for each in data if NO_TAG not in each.tags])
        if recipe.scheme and not found:
            told = "for_training: {scheme} {} is for tags of entities, which {train} does not have"
            raise OptionError(told, recipe.scheme)
        scheme = recipe.scheme or found
        labels = sorted({tag for tags in tags_of("for_training", data, scheme) for tag in tags} - {NO_TAG})
        if not labels:
            raise ValueError("for_training: no word has a tag")
        layout = Layout.of(data, scheme)
        if len(labels) < 2:
            column = recipe.tag_column or (layout.tag_column if layout.format == "conllu" else "of tags")
            told = "for_training: the column {} must have two labels or more in {train}, got {}"
            raise OptionError(told, column, labels)
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

    __call__ = tag

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
        strategy = checks.choice("entities: aggregation_strategy", aggregation_strategy, STRATEGIES)
        room = self.max_length - self.tokenizer.special_tokens
        wanted = f"an integer from 0 to {room - 1}, less than a window"
        shared = room // 4 if stride is None else checks.integer("entities: stride", stride, 0, room - 1, wanted)
        all_texts = checks.texts("entities: texts", texts)
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(all_texts), CHUNK):
            found += self._entities(all_texts[start : start + CHUNK], start, strategy, room, shared)
        return found

    def _entities(
        self, texts: list[str], first: int, strategy: str, room: int, stride: int
    ) -> Iterator[list[dict[str, Any]]]:
        rows, name = self.model.config.vocab_size, "entities: texts"
        tokens = self.tokenizer.encode(texts, return_offsets_mapping=True, name=name, first=first, rows=rows)
        parts, around = [*texts_of(tokens)], self.tokenizer.around
        windows = windows_of(parts, around, room, stride)
        given = np.empty((len(windows.ids), len(self.labels)), np.float32)
        self._run(windows.ids, windows.cu_seqlens, lambda logits: F.softmax(logits, dim=1), given)
        scores = np.full((len(tokens.ids), len(self.labels)), np.nan, np.float32)
        scores[windows.tokens] = given[windows.rows]
        grouping = Grouping(self.labels, self.layout.scheme, strategy, self.tokenizer.joined, len(around[0]))
        for text, part in zip(texts, parts, strict=True):
            written = self.tokenizer.tokens(part.ids)
            for i in np.flatnonzero(part.ids == self.tokenizer.unk_token_id).tolist():
                written[i] = text[slice(*part.offsets[i])]
            yield grouping.spans(part, written, scores[part.begin : part.begin + len(part.ids)])

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

    def _label_ids(self, data: Data) -> NDArray[np.int64]:
        numbers = {**{label: i for i, label in enumerate(self.labels)}, NO_TAG: IGNORE_INDEX}
        ids = []
        for i, tags in enumerate(tags_of("batches", data, self.layout.scheme)):
            for name in tags:
                if name not in numbers:
                    place = data[i].place or f"data[{i}]"
                    raise ValueError(f"batches: {place}: the tag {shown(name)} is none of {listed(self.labels)}")
                ids.append(numbers[name])
        return np.array(ids, np.int64)

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**batch).loss

    def evaluate(self, data: Any) -> dict[str, float]:
        """The `accuracy`: the share of words that get the tag of the data. Words without a tag do not count.

        For tags of entities, `f1`, `precision` and `recall` of entities come first, as seqeval counts them.
        `entity_scores` has them by type.

        Raises ValueError, with file and line, for a tag that is none of `labels`; for tags of entities, of a type that
        is not among them.
        """
        found, gold = self._tag_all("evaluate", data)
        right, total = count_right(found, gold)
        metrics = {"accuracy": right / total if total else math.nan}
        if self.layout.scheme is None:
            return metrics
        score, _ = scores_of(found, gold)
        return {"f1": score.f1, "precision": score.precision, "recall": score.recall, **metrics}

    def entity_scores(self, data: Any) -> tuple[EntityScore, dict[str, EntityScore]]:
        """Precision, recall and F1 of all entities together, and by type; see `fastattn.training.entity_scores`.

        Sentences in which a word has no tag do not count. Raises ValueError as `evaluate` does, and for labels that are
        no tags of entities.
        """
        if self.layout.scheme is None:
            raise ValueError(f"entity_scores: the labels are no tags of entities: {listed(self.labels)}")
        return scores_of(*self._tag_all("entity_scores", data))

    def _tag_all(self, owner: str, data: Any) -> tuple[list[list[str]], list[Sequence[str]]]:
        """The labels of words, and the right ones."""
        data = self.as_data(owner, data, self.recipe)
        check_tags(owner, data, self.labels, self.layout.scheme)
        gold = [*tags_of(owner, data, self.layout.scheme)]
        return self.tag([sentence.words for sentence in data]), gold

    def check(self, data: Any) -> None:
        data = self.as_data("evaluate", data, self.recipe)
        check_tags("evaluate", data, self.labels, self.layout.scheme)

    def configuration(self, data: Data) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), "train_crc32": self.checksum(data)}

    def checksum(self, data: Data) -> int:
        return zlib.crc32("".join(sentence.with_tags(sentence.tags) for sentence in data).encode())

    @classmethod
    def read(
        cls,
        *sources: Any,
        format: str | None = None,
        word_column: int | str | None = None,
        tag_column: int | str | None = None,
    ) -> list[Sentence]:
        """The sentences of files, or of rows: lists of dicts, frames, datasets.

        Args:
            sources: CoNLL-U, CoNLL columns, JSON lines (.jsonl), Parquet (.parquet), or rows in memory.
            format: "conllu" or "conll"; None decides by the end of a file's name, and takes another one for CoNLL-U.
                JSON lines, Parquet and rows have a list of words and one of tags.
            word_column: the number of the column of words in CoNLL columns (default: 0), or its name in rows (default:
                "tokens").
            tag_column: the column to learn: its name in CoNLL-U (default: "UPOS"), its number in CoNLL columns
                (default: -1), or its name in rows (default: "tags").

        Raises as `read_conllu` and `read_conll` do, and ValueError for a CoNLL-U file without tags.
        """
        options = TagRecipe(format=format, word_column=word_column, tag_column=tag_column)  # type: ignore[arg-type]
        data: list[Sentence] = []
        for source in sources:
            data += read_tagged(source, **options.reading)
        return data

    def read_input(self, lines: Iterable[bytes], name: str, options: TagOptions) -> Input:
        if options.format == "text":
            if options.append or options.word_column or options.tag_column or options.scheme:
                raise OptionError("{append}, {word_column}, {tag_column} and {scheme} are for files with columns")
            return Input([*utf8_lines(lines, name)])
        if options.aggregation or options.stride is not None:
            raise OptionError("{aggregation} and {stride} are for {format} text")
        if options.scheme and self.layout.scheme is None:
            raise OptionError("{scheme} {} is for tags of entities, not for {}", options.scheme, listed(self.labels))
        layout = self.layout.of_input(options, name)
        guess = f"{name} is read as {layout.described(options.append)}; --format text reads raw text"
        known = options.format or tagged_format(name)
        try:
            data = parse_input(lines, name, layout, options.append)
            if not known and not options.tag_column and layout.format == "conll":
                self._check_guess(data)
            return Input(data, None if known else guess)
        except ValueError as error:
            if not known:
                error.__notes__ = [guess]  # type: ignore[attr-defined]  # add_note, which Python 3.10 does not have
            raise

    def _check_guess(self, data: list[Sentence]) -> None:
        """Raise OptionError if what would be overwritten are other words than tags, as in raw text."""
        try:
            check_tags("read_input", data, self.labels, self.layout.scheme)
        except ValueError as error:
            raise OptionError("{}; {format} conll overwrites the column", error) from None

    def predict(self, data: Input, options: TagOptions) -> tuple[Iterable[str], Iterable[str]]:
        if options.format == "text":
            return self._json_lines(data.data, options), []
        return self._retagged(data.data, options, [] if data.guess is None else [data.guess])

    def _retagged(
        self, data: list[Sentence], options: TagOptions, told: list[str]
    ) -> tuple[Iterable[str], Iterable[str]]:
        found, scheme = self.tag([sentence.words for sentence in data]), options.scheme or self.layout.scheme
        try:
            self.check(data)
            told += report(found, [sentence.tags for sentence in data], self.layout.scheme)
        except ValueError as error:  # other tags may stand in the place of those that are withheld
            told.append(not_measured(error))
        if scheme is not None:
            found = [convert_tags(tags, scheme) for tags in found]
        return (sentence.with_tags(tags) for sentence, tags in zip(data, found, strict=True)), told

    def _json_lines(self, texts: list[str], options: TagOptions) -> Iterator[str]:
        for start in range(0, len(texts), CHUNK):
            some = texts[start : start + CHUNK]
            for text, found in zip(
                some, self.entities(some, options.aggregation or "first", options.stride), strict=True
            ):
                yield json_line({"text": text, "entities": found})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them too."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)
        self.layout.write(Path(folder))
