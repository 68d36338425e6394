"""`NetworkTagger`: words and characters into LSTMs, perhaps with the states of a frozen model, and a label for each
word out."""

from __future__ import annotations

import itertools
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged, runtime
from fastattn._types import IntArray
from fastattn.autograd import no_grad
from fastattn.checks import counted, shown
from fastattn.errors import OptionError
from fastattn.files import lines_crc32
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.hub import find_model
from fastattn.models.sequence_tagger.config import SequenceTaggerConfig
from fastattn.models.sequence_tagger.model import UNKNOWN as UNKNOWN_ID
from fastattn.models.sequence_tagger.model import SequenceTagger
from fastattn.random import manual_seed
from fastattn.tasks.base import make_recipe, model_name
from fastattn.tasks.tag.base import Data, TagTask, labels_of
from fastattn.tasks.tag.features import Features, KeptFeatures, load_features
from fastattn.tasks.tag.files import FEATURES, LAYOUT, TAGGER_FILES, VOCABULARY, Layout, is_network
from fastattn.tasks.tag.recipe import TagRecipe
from fastattn.tasks.tag.spans import STRATEGIES, Grouping, Unit
from fastattn.tasks.work import Together, Work
from fastattn.text import (
    Sentences,
    Vocabulary,
    character_ids,
    gather,
    read_word_vectors,
    split_words,
    token_budget_batches,
    tokens_per_batch,
)
from fastattn.text.entities import OUTSIDE
from fastattn.text.language_model import UNKNOWN
from fastattn.training import TokenBatches

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """Sentences as numbers. Row i of the first two is about form i, a distinct word.

    Attributes:
        word_ids: int64 `[forms]`.
        char_ids: int64 `[forms, max_characters]`.
        rows: int64 `[words]`, the form of each word.
        cu_seqlens: int32 `[sentences + 1]`.
    """

    word_ids: IntArray
    char_ids: IntArray
    rows: IntArray
    cu_seqlens: NDArray[np.int32]

    def batch(self, indices: IntArray) -> dict[str, Any]:
        """Arguments of a `SequenceTagger` for some sentences."""
        rows, offsets = gather(self.rows, self.cu_seqlens, indices)
        forms, index = np.unique(rows, return_inverse=True)
        words = {"word_ids": self.word_ids[rows], "cu_seqlens": offsets}
        return {**words, "char_ids": self.char_ids[forms], "char_index": index.reshape(-1)}


class NetworkTagger(TagTask):
    """A `SequenceTagger`, its words, and the frozen model whose states it reads.

    A word that is not in the vocabulary is read as its lower-case form, if that is there, otherwise as `<UNK>`.
    Sentences may have any length. The labels of a sentence do not depend on the other sentences, their order or the
    number of threads. Many threads may call `tag` at once. `Tagger.from_pretrained` and `Tagger.for_training` make one.

    Args:
        model: the network.
        vocabulary: its words, of which number 2 is `<UNK>`.
        features: the frozen model; None if the network reads none.
        layout: see `TagTask`.
        recipe: how the network is trained; None is a default recipe.

    Raises ValueError for a vocabulary or features that do not fit the model.
    """

    def __init__(
        self,
        model: SequenceTagger,
        vocabulary: Vocabulary,
        features: Features | None,
        layout: Layout,
        recipe: TagRecipe | None = None,
    ) -> None:
        config = model.config
        vocabulary.check_size(config.vocab_size)
        if (word := vocabulary.words[UNKNOWN_ID]) != UNKNOWN:
            raise ValueError(f"{vocabulary.source}:{UNKNOWN_ID + 1}: must be {UNKNOWN}, got {shown(word)}")
        self.model, self.vocabulary, self.layout = model, vocabulary, layout
        self.recipe = recipe or TagRecipe(network="lstm-crf" if config.crf else "lstm")
        self.labels = tuple(config.id2label[i] for i in range(config.num_labels))
        self._kept = None if features is None else KeptFeatures(features)

    @property
    def features(self) -> Features | None:
        """The frozen model, if the network reads one."""
        return None if self._kept is None else self._kept.features

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any
    ) -> NetworkTagger:
        """Load what `save_pretrained` wrote, frozen. See `Task`.

        Raises ValueError, by name, also for a vocabulary and for features that do not fit the network.
        """
        folder = find_model(name_or_folder, TAGGER_FILES, **hub)
        cls.check_folder(folder)
        model = SequenceTagger.from_pretrained(folder, trainable=False, weights=weights, new_head="refuse")
        vocabulary, config = Vocabulary.from_file(folder / VOCABULARY), model.config
        features = None if config.features is None else load_features(config.features, folder / FEATURES)
        if features is not None and (features.layers, features.dim) != (config.feature_layers, config.feature_dim):
            wanted = f"{counted(config.feature_layers, 'layer')} of {config.feature_dim} numbers, as the tagger reads"
            raise ValueError(f"{folder / FEATURES}: must give {wanted}, got {features.layers} of {features.dim}")
        return cls(model, vocabulary, features, Layout.from_file(folder / LAYOUT))

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        if not is_network(folder):
            raise ValueError(f"{folder}: not a tagger of LSTMs; `fastattn train tag --network lstm` makes one")

    @classmethod
    def for_training(
        cls, start: str | os.PathLike[str] | None, data: Any, recipe: TagRecipe | None = None, **options: Any
    ) -> NetworkTagger:
        """Make a new network for the labels and words of `data`. Arguments and errors are those of
        `Tagger.for_training`; the recipe's `network` is "lstm-crf" by default."""
        recipe = make_recipe(TagRecipe, recipe or TagRecipe(network="lstm-crf"), options)
        recipe.check_start(start)
        data = cls.as_data("for_training", data, recipe)
        labels, layout = labels_of(data, recipe)
        crf = recipe.network == "lstm-crf"
        if crf and layout.scheme is not None:
            labels = _completed(labels, layout.scheme)
        features = None if recipe.features is None or start is None else load_features(recipe.features, start)
        words = ([word for word in sentence.words if word.split() == [word]] for sentence in data)
        vocabulary = Vocabulary.build(Sentences.from_words(words, "for_training"), min_count=recipe.min_count or 1)
        sizes = recipe.sizes
        vectors = None if recipe.vectors is None else read_word_vectors(recipe.vectors, vocabulary.words)
        if vectors is not None:
            dim = vectors.vectors.shape[1]
            if sizes.setdefault("word_dim", dim) != dim:
                told = "{vectors}: {} has vectors of {} numbers, but {word_dim} is {}"
                raise OptionError(told, recipe.vectors, dim, recipe.word_dim)
            logger.info(
                "%s of %s have a vector in %s", len(vectors.places), counted(len(vocabulary), "word"), recipe.vectors
            )
        read: dict[str, Any] = {}
        if features is not None:
            read = {"features": features.kind, "feature_layers": features.layers, "feature_dim": features.dim}
        config = SequenceTaggerConfig(
            vocab_size=len(vocabulary),
            id2label=dict(enumerate(labels)),
            crf=crf,
            scheme=layout.scheme if crf else None,
            **sizes,
            **read,
        )
        manual_seed(recipe.seed)
        model = SequenceTagger(config)
        if vectors is not None:
            model.word_embedding.weight.data[vectors.places] = vectors.vectors
        tagger = cls(model, vocabulary, features, layout, recipe)
        if features is not None and start is not None:
            tagger._kept = KeptFeatures(features, recipe.features_cache, recipe.progress)
            tagger.base_model = model_name(start)
        return tagger

    def __repr__(self) -> str:
        return f"NetworkTagger({self.model.config.num_labels} labels, features={self.model.config.features!r})"

    def tag(self, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
        """Label every word of `sentences`, sequences of words. The model must be in evaluation mode, as loaded.

        Raises TypeError, by index, for a sentence that is one str and for a word that is not a str, and ValueError for
        an empty word.
        """
        some = _words_of("tag: sentences", sentences)
        predicted = np.empty(sum(map(len, some)), np.int64)
        for rows, logits, offsets in self._run(some):
            predicted[rows] = self.model.decode(logits, offsets)
        labels = [self.labels[i] for i in predicted]
        ends = np.cumsum([0, *map(len, some)]).tolist()
        return [labels[start:end] for start, end in itertools.pairwise(ends)]

    def _run(self, sentences: list[list[str]]) -> Iterator[tuple[IntArray, Any, NDArray[np.int32]]]:
        """The scores of words, batch by batch: which words these are, `[words, labels]`, and where sentences begin."""
        encoded = self._encode(sentences)
        words, lengths = np.arange(len(encoded.rows)), ragged.lengths(encoded.cu_seqlens)
        filled = np.flatnonzero(lengths)
        for batch in token_budget_batches(lengths[filled], tokens_per_batch(runtime.num_threads())):
            indices = filled[batch]
            arguments = self._with_features(encoded.batch(indices), [sentences[i] for i in indices])
            with no_grad():
                logits = self.model(**arguments).logits
            rows, offsets = gather(words, encoded.cu_seqlens, indices)
            yield rows, logits, offsets

    def _with_features(self, batch: dict[str, Any], sentences: list[list[str]]) -> dict[str, Any]:
        return batch if self._kept is None else {**batch, "features": self._kept.of(sentences)}

    def _encode(self, sentences: list[list[str]]) -> Encoded:
        places: dict[str, int] = {}
        index = [places.setdefault(word, len(places)) for words in sentences for word in words]
        forms = list(places)
        ids = self.vocabulary.ids(forms)
        unknown = np.flatnonzero(ids == UNKNOWN_ID)
        ids[unknown] = self.vocabulary.ids(forms[i].lower() for i in unknown)
        characters = character_ids(forms, self.model.config.max_characters)
        return Encoded(ids, characters, np.array(index, np.int64), ragged.cu_seqlens([*map(len, sentences)]))

    def entities(
        self, texts: Iterable[str], aggregation_strategy: str = "first", stride: int | None = None
    ) -> list[list[dict[str, Any]]]:
        """The entities in raw texts, or the runs of words with one label if the labels are no tags of entities.

        `fastattn.text.split_words` says what the words of a text are. Results are those of `Tagger.entities`. A word is
        read as a whole, so all strategies but "none" are the same, which gives each word whose label is not O. `score`
        is the mean probability of the words' labels; that of a CRF counts all sequences of labels. `word` is the text
        from `start` to `end`.

        Raises TypeError, by index, for what is not a str, and ValueError for another strategy and for a `stride`: a
        text is not split into windows.
        """
        strategy = _whole_texts(aggregation_strategy, stride)
        all_texts = checks.texts("entities: texts", texts)
        places = [split_words(text) for text in all_texts]
        words = [[text[a:b] for a, b in own] for text, own in zip(all_texts, places, strict=True)]
        label, score = np.empty(sum(map(len, words)), np.int64), np.empty(sum(map(len, words)), np.float32)
        for rows, logits, offsets in self._run(words):
            found = label[rows] = self.model.decode(logits, offsets)
            score[rows] = self.model.probabilities(logits, offsets)[np.arange(len(rows)), found]
        grouping = Grouping(self.labels, self.layout.scheme, strategy, " ".join, 0)
        results, at = [], 0
        for text, own in zip(all_texts, places, strict=True):
            units = [
                Unit(self.labels[label[at + i]], score[at + i], text[a:b], a, b, i) for i, (a, b) in enumerate(own)
            ]
            at += len(own)
            spans = grouping.joined_units(units)
            results.append([{**span, "word": text[span["start"] : span["end"]]} for span in spans])
        return results

    def prepare(self, inputs: Any, method: str | None = None, **options: Any) -> list[Work]:
        """Each of `inputs`, checked, see `Predictor.prepare`: sentences for `method` "tag" or None, texts for
        "entities" with its options."""
        if checks.choice("prepare: method", method or "tag", ("tag", "entities")) == "tag":
            some = _words_of("tag: sentences", inputs)
            return [Work(Together(self.tag), words, *[len(words)] * 2) for words in some]
        strategy = _whole_texts(**options)
        sizes = [(text, len(split_words(text))) for text in checks.texts("entities: texts", inputs)]
        return [Work(Together(self.entities, (strategy,)), text, size, size) for text, size in sizes]

    def batches(self, data: Any) -> TokenBatches:
        """Batches of sentences. A CRF learns those in which each word has a tag.

        Raises ValueError for a tag that is not in `labels`, and for data without tags.
        """
        data = self.as_data("batches", data, self.recipe)
        sentences = _words_of("batches: data", [sentence.words for sentence in data])
        encoded, labels = self._encode(sentences), self._label_ids(data)
        learnt = self._learnt(labels, encoded.cu_seqlens)
        self._keep([sentences[i] for i in learnt])

        def load(indices: NDArray[np.int64]) -> dict[str, Any]:
            chosen = learnt[indices]
            batch = self._with_features(encoded.batch(chosen), [sentences[i] for i in chosen])
            return {**batch, "labels": gather(labels, encoded.cu_seqlens, chosen)[0]}

        settings = {"ids_crc32": zlib.crc32(encoded.rows.tobytes())}
        lengths = ragged.lengths(encoded.cu_seqlens)[learnt]
        return TokenBatches(lengths, load, **self.recipe.batching, settings=settings)

    def _learnt(self, labels: IntArray, cu_seqlens: NDArray[np.int32]) -> IntArray:
        """The sentences that can be learnt."""
        lengths = ragged.lengths(cu_seqlens)
        tagged = np.diff(np.concatenate([[0], np.cumsum(labels != IGNORE_INDEX)])[cu_seqlens])
        found = np.flatnonzero(tagged)
        if self.model.config.crf:
            whole = np.flatnonzero((tagged == lengths) & (lengths > 0))
            if left := len(found) - len(whole):
                logger.info("not learnt: %s in which a word has no tag, which a CRF needs", counted(left, "sentence"))
            found = whole
        if not len(found):
            more = " in a sentence with a tag for each" if tagged.any() else ""
            raise ValueError(f"batches: no word has a tag{more}")
        return found

    def _keep(self, sentences: list[list[str]]) -> None:
        if self._kept is not None:
            self._kept.keep(sentences)

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self.model(**batch).loss

    def _tag_all(self, owner: str, data: Any) -> tuple[list[list[str]], list[Sequence[str]]]:
        data = self.as_data(owner, data, self.recipe)
        self._keep([sentence.words for sentence in data])
        return super()._tag_all(owner, data)

    def configuration(self, data: Data) -> dict[str, Any]:
        found = {
            "config": self.model.config.to_dict(),
            "vocabulary_crc32": lines_crc32(self.vocabulary.words),
            "train_crc32": self.checksum(data),
        }
        return found if self.features is None else {**found, "features_crc32": self.features.crc32}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model, its words, and a copy of the frozen model in `features/`, each file whole or not at all."""
        folder = Path(checks.path("save_pretrained: folder", folder))
        folder.mkdir(parents=True, exist_ok=True)
        if self.features is not None:
            self.features.save(folder / FEATURES)
        self.vocabulary.write(folder / VOCABULARY)
        self.layout.write(folder)
        self.model.save_pretrained(folder)


def _whole_texts(aggregation_strategy: str = "first", stride: int | None = None) -> str:
    """The options of `entities`, checked."""
    strategy: str = checks.choice("entities: aggregation_strategy", aggregation_strategy, STRATEGIES)
    if stride is not None:
        raise OptionError("{stride} is for models of wordpieces, this one reads a text as a whole")
    return strategy


def _words_of(name: str, sentences: Iterable[Sequence[str]]) -> list[list[str]]:
    """Sentences of words, checked."""
    given = enumerate(checks.sequence(name, sentences, "sentences, each a sequence of words"))
    found = [checks.texts(f"{name}[{i}]", words, "words") for i, words in given]
    for i, words in enumerate(found):
        if "" in words:
            raise ValueError(f"{name}[{i}][{words.index('')}] is an empty word")
    return found


def _completed(labels: Sequence[str], scheme: str) -> list[str]:
    """All tags of a scheme for the types in `labels`: constraints must allow any sentence."""
    prefixes = "BIES" if scheme == "BIOES" else "BI"
    types = sorted({label[2:] for label in labels if label != OUTSIDE})
    return [OUTSIDE, *(f"{prefix}-{type}" for type in types for prefix in prefixes)]
