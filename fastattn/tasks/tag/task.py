"""Words in, a label for each word out, such as its part of speech."""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, runtime
from fastattn.autograd import no_grad
from fastattn.checks import listed, shown
from fastattn.formats import hugging_face
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models.config import architectures
from fastattn.models.registry import load_head
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, model_name
from fastattn.tasks.embed.folder import FILES, read_sentence_folder
from fastattn.tasks.tag.recipe import TagRecipe
from fastattn.text import (
    ConlluSentence,
    TokenizedWords,
    Tokenizer,
    encode_words,
    gather,
    parse_conllu,
    read_conllu,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.conllu import NO_TAG
from fastattn.training import TokenBatches

HEAD = "TokenClassification"

Data = Sequence[ConlluSentence]


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
        max_length: the longest window in wordpieces, [CLS] and [SEP] included.
        recipe: how the model is trained.

    >>> tagger = Tagger.from_pretrained("path/to/tagger")                   # doctest: +SKIP
    >>> tagger.tag([["The", "cat", "sleeps", "."], ["Go", "!"]])            # doctest: +SKIP
    [['DET', 'NOUN', 'VERB', 'PUNCT'], ['VERB', 'PUNCT']]
    """

    def __init__(self, model: Any, folder: Path, recipe: TagRecipe | None = None) -> None:
        """Combine a model and the tokenizer in `folder`."""
        self.model, self.recipe = model, recipe or TagRecipe()
        self.tokenizer = Tokenizer.from_pretrained(folder)
        self.labels: tuple[str, ...] = tuple(model.config.id2label[i] for i in range(model.config.num_labels))
        self.tokenizer.warn_of_tokens_beyond(model.config.vocab_size)
        limit = model.config.max_position_embeddings
        self.max_length: int = min(self.tokenizer.model_max_length or limit, limit)
        self._folder = folder

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **hub: Any) -> Tagger:
        """Load what `save_pretrained` or transformers' BertForTokenClassification wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        try:
            named = architectures(hugging_face.read_config(folder))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        if named and not any(name.endswith(HEAD) for name in named):
            found = listed(named)
            raise ValueError(f"{folder}: not a tagger, its architecture is {found}; `fastattn train tag` makes one")
        return cls(load_head(folder, HEAD, trainable=False, new_head="refuse"), folder)

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str], data: Data, recipe: TagRecipe | None = None, **options: Any
    ) -> Tagger:
        """Load a model to train as a tagger.

        Args:
            start: a BERT or sentence-transformers model, as for `SentenceEncoder`. A missing classifier is drawn at
                random.
            data: the sentences, whose tags become the labels.
            recipe: the recipe; None is `TagRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained` does, and ValueError for data without tags.
        """
        recipe = make_recipe(TagRecipe, recipe, options)
        labels = sorted(tags_of(_check("for_training", data)))
        if not labels:
            raise ValueError("for_training: no word has a tag")
        folder = read_sentence_folder(find_model(start, FILES)).transformer
        names = dict(enumerate(labels))
        manual_seed(recipe.seed)
        numbers = {name: i for i, name in names.items()}
        model = load_head(folder, HEAD, trainable=True, new_head="draw", id2label=names, label2id=numbers)
        tagger = cls(model, folder, recipe)
        tagger.base_model = model_name(start)
        return tagger

    def __repr__(self) -> str:
        return f"Tagger({str(self._folder)!r})"

    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """Label every word of `sentences`, sequences of words. The model must be in evaluation mode, as loaded.

        Raises TypeError, by index, for a sentence that is one str and for a word that is not a str, and ValueError for
        a word with a token that the model has no embedding for.
        """
        words = self._encode("tag: sentences", sentences)
        rows = np.arange(len(words.ids))
        predicted = np.empty(len(words.ids), np.int64)
        with no_grad():
            for indices in token_budget_batches(words.lengths, tokens_per_batch(runtime.num_threads())):
                input_ids, cu_seqlens = gather(words.ids, words.cu_seqlens, indices)
                logits = np.asarray(self.model.forward_ragged(input_ids, cu_seqlens).logits)
                predicted[gather(rows, words.cu_seqlens, indices)[0]] = logits.argmax(axis=1)
        labels = [self.labels[i] for i in predicted[words.first]]
        return [labels[start:end] for start, end in itertools.pairwise(words.cu_words.tolist())]

    __call__ = tag

    def batches(self, data: Data) -> TokenBatches:
        """Batches of sentences, or windows of long ones. Only first wordpieces have a label.

        Raises ValueError for a tag that is not in `labels`, and for data without tags.
        """
        words = self._encode("batches: data", [sentence.words for sentence in _check("batches", data)])
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
            batch_tokens=self.recipe.batch_tokens,
            batch_size=self.recipe.batch_size,
            accumulation=self.recipe.accumulation,
            seed=self.recipe.seed,
            settings={"ids_crc32": zlib.crc32(words.ids.tobytes())},
        )

    def _encode(self, name: str, sentences: Iterable[Sequence[str]]) -> TokenizedWords:
        rows = self.model.config.vocab_size
        return encode_words(self.tokenizer, sentences, self.max_length, name=name, rows=rows)

    def _label_ids(self, data: Data) -> NDArray[np.int64]:
        numbers = {**{label: i for i, label in enumerate(self.labels)}, NO_TAG: IGNORE_INDEX}
        ids = []
        for i, sentence in enumerate(data):
            for name in sentence.upos:
                if name not in numbers:
                    raise ValueError(f"batches: the tag {shown(name)} of sentence {i} is none of {listed(self.labels)}")
                ids.append(numbers[name])
        return np.array(ids, np.int64)

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model.forward_ragged(**batch).loss

    def evaluate(self, data: Data) -> dict[str, float]:
        """The share of words that get the tag of the data. Words without a tag do not count."""
        _, right, total = self._tag_and_count(_check("evaluate", data))
        return {"accuracy": right / total if total else math.nan}

    def _tag_and_count(self, data: Data) -> tuple[list[list[str]], int, int]:
        """The labels, and what `count_right` says of them."""
        found = self.tag([sentence.words for sentence in data])
        return found, *count_right(found, [sentence.upos for sentence in data])

    def configuration(self, data: Data) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), "train_crc32": self.checksum(data)}

    def checksum(self, data: Data) -> int:
        return zlib.crc32("".join(sentence.with_upos(sentence.upos) for sentence in data).encode())

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> list[ConlluSentence]:
        """The sentences of CoNLL-U files. Raises as `read_conllu` does, and ValueError for a file without tags."""
        data: list[ConlluSentence] = []
        for path in paths:
            sentences = read_conllu(path)
            if not tags_of(sentences):
                raise ValueError(f"{os.fspath(path)}: no word has a tag in the UPOS column")
            data += sentences
        return data

    @classmethod
    def read_input(cls, lines: Iterable[bytes], name: str, options: Any) -> list[ConlluSentence]:
        data = []
        for sentence in parse_conllu(lines, name):
            if sentence.words and sentence.upos_column is None:
                raise ValueError(f"{name}:{sentence.line}: global.columns has no UPOS, so there is no place for tags")
            data.append(sentence)
        return data

    def predict(self, data: Data, options: Any) -> tuple[Iterable[str], Iterable[str]]:
        found, right, total = self._tag_and_count(data)
        told = [f"accuracy: {right / total:.4f} ({right} of {total} words)"] if total else []
        return map(ConlluSentence.with_upos, data, found), told

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and tokenizer, each file whole or not at all. transformers reads them too."""
        checks.path("save_pretrained: folder", folder)
        self.tokenizer.save_pretrained(folder)
        self.model.save_pretrained(folder)


def _check(owner: str, data: Data) -> Data:
    """`data`, if they are sentences."""
    for i, sentence in enumerate(checks.sequence(f"{owner}: data", data, "ConlluSentence")):
        if not isinstance(sentence, ConlluSentence):
            raise TypeError(f"{owner}: data[{i}] must be a ConlluSentence, got {type(sentence).__name__}")
    return data


def tags_of(data: Iterable[ConlluSentence]) -> set[str]:
    """The tags of all words."""
    return {tag for sentence in data for tag in sentence.upos} - {NO_TAG}


def count_right(predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many labels are those of `gold`, and how many labels of `gold` count. "_" does not count.

    >>> count_right([["NOUN", "VERB", "X"]], [["NOUN", "ADJ", "_"]])
    (1, 2)
    """
    words = [pair for tags in zip(predicted, gold, strict=True) for pair in zip(*tags, strict=True)]
    counted = [(label, tag) for label, tag in words if tag != NO_TAG]
    return sum(label == tag for label, tag in counted), len(counted)
