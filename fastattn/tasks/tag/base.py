"""What taggers share: data, labels, scores, and files of CoNLL-U, CoNLL columns and text."""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.checks import listed, shown
from fastattn.errors import OptionError
from fastattn.files import json_line, utf8_lines
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.tasks.base import Task, not_measured
from fastattn.tasks.tag.files import Input, Layout, Sentence, parse_input, read_tagged, tagged_format
from fastattn.tasks.tag.recipe import TagOptions, TagRecipe
from fastattn.tasks.tag.scores import check_tags, count_right, report, scores_of, tags_of
from fastattn.text import convert_tags, scheme_of
from fastattn.text.conllu import NO_TAG
from fastattn.text.tokenizer import CHUNK
from fastattn.training import EntityScore

Data = Sequence[Sentence]


class TagTask(Task):
    """A model that labels words. `Tagger` and `NetworkTagger` say what differs.

    Attributes:
        labels: the labels of words.
        layout: the file format of the data, the column of labels, and their scheme if they are tags of entities.
        recipe: how the model is trained.
    """

    data_class, item_class = Sequence, Sentence
    labels: tuple[str, ...]
    layout: Layout
    recipe: TagRecipe

    @abstractmethod
    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """Label every word of `sentences`, sequences of words."""

    @abstractmethod
    def entities(
        self, texts: Iterable[str], aggregation_strategy: str = "first", stride: int | None = None
    ) -> list[list[dict[str, Any]]]:
        """The entities in raw texts, or the runs of words with one label if the labels are no tags of entities."""

    def __call__(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """`tag`."""
        return self.tag(sentences)

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


def labels_of(data: Data, recipe: TagRecipe) -> tuple[list[str], Layout]:
    """The labels to learn, and the layout of the data.

    Raises ValueError for data with fewer than two tags, and for a `scheme` if the tags are none of entities.
    """
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
    return labels, layout
