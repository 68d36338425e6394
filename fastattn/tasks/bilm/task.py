"""Words in, perplexities out: a bidirectional language model."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastattn import checks
from fastattn.checks import shown
from fastattn.files import lines_crc32, utf8_lines
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files, find_model
from fastattn.models import BidirectionalLanguageModel, ElmoConfig
from fastattn.random import manual_seed
from fastattn.tasks.base import Task, make_recipe, metric_text
from fastattn.tasks.bilm.recipe import BiLMRecipe
from fastattn.tasks.bilm.streams import StreamLoss, perplexities
from fastattn.text import (
    Sentences,
    StreamBatches,
    Vocabulary,
    character_ids,
    read_sentences,
    sentence_batches,
    unigram_perplexity,
)

VOCABULARY = "vocab.txt"
FILES = Files(NAMES := ("config.json", "model.safetensors", VOCABULARY), required=NAMES)
"""The files of a language model."""

SMALL: dict[str, Any] = {
    "char_cnn": {"activation": "relu", "embedding": {"dim": 16}, "filters": [[1, 32], [2, 32], [3, 64], [4, 128]],
                 "max_characters_per_token": 50, "n_highway": 1},
    "lstm": {"cell_clip": 3, "dim": 256, "n_layers": 2, "proj_clip": 3, "projection_dim": 64,
             "use_skip_connections": True},
}  # fmt: skip
"""A model that two cores train in minutes."""

Start = str | os.PathLike[str] | Mapping[str, Any] | None

logger = logging.getLogger(__name__)


class BiLM(Task):
    """ELMo's bidirectional language model and its vocabulary.

    Args:
        model: a `BidirectionalLanguageModel`.
        vocabulary: the words that it predicts.
        recipe: how it is trained; None is `BiLMRecipe()`.
        learnt: the text that it learns. `evaluate` compares with a unigram model of this text.

    Attributes:
        model, vocabulary, recipe: the arguments.

    >>> bilm = BiLM.from_pretrained("path/to/bilm")                         # doctest: +SKIP
    >>> bilm([["The", "cat", "sleeps", "."], ["cat", "The", ".", "sleeps"]])    # doctest: +SKIP
    [41.7, 1210.3]
    """

    data_class = Sentences
    model: BidirectionalLanguageModel

    def __init__(
        self,
        model: BidirectionalLanguageModel,
        vocabulary: Vocabulary,
        recipe: BiLMRecipe | None = None,
        learnt: Sentences | None = None,
    ) -> None:
        self.model, self.vocabulary, self.recipe = model, vocabulary, recipe or BiLMRecipe()
        self.carried = self._stream = StreamLoss(model, self.recipe.reset)
        self._characters = partial(character_ids, max_characters=model.config.max_characters_per_token)
        self._learnt = learnt

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **hub: Any) -> BiLM:
        """Load what `save_pretrained` wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        model = BidirectionalLanguageModel.from_pretrained(folder, trainable=False, new_head="refuse")
        return cls(model, Vocabulary.from_file(folder / VOCABULARY))

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        kind = read_json(folder / "config.json").get("model_type")
        if kind != "elmo":
            raise ValueError(f"{folder}: not a bidirectional language model, its model_type is {shown(kind)}")

    @classmethod
    def for_training(cls, start: Start, data: Any, recipe: BiLMRecipe | None = None, **options: Any) -> BiLM:
        """Make a new model, and its vocabulary from the text.

        Args:
            start: the sizes of the network: an options.json of bilm-tf or AllenNLP, or the contents of such a file.
                None is a small network.
            data: the sentences: what `read` returns, or takes.
            recipe: the recipe; None is `BiLMRecipe()`.
            options: replace fields of the recipe. Some replace sizes of `start`.

        Raises OSError, and ValueError, by name, for a file that is damaged and numbers that do not fit.
        """
        recipe = make_recipe(BiLMRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        if recipe.vocabulary:
            vocabulary = Vocabulary.from_file(recipe.vocabulary)
        else:
            vocabulary = Vocabulary.build(data, recipe.vocabulary_size, recipe.min_count or 2)
        config = _config(start, recipe).replace(
            vocabulary_size=len(vocabulary), num_sampled=recipe.num_sampled, lstm_dropout=recipe.dropout
        )
        manual_seed(recipe.seed)
        return cls(BidirectionalLanguageModel(config), vocabulary, recipe, data)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and vocabulary, each file whole or not at all. `Elmo.from_pretrained` reads them too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.vocabulary.write(folder / VOCABULARY)  # a folder with a model has its vocabulary
        self.model.save_pretrained(folder)

    def __call__(self, inputs: Iterable[Sequence[str]]) -> list[float]:
        """The perplexity of each sentence, a sequence of words, on its own; NaN for one without words.

        Raises TypeError for one str, and, by index, for a sentence that is none and a word that is not a str.
        """
        inputs = list(checks.sequence("BiLM: inputs", inputs, "sentences, each a sequence of words"))
        for i, words in enumerate(inputs):
            checks.texts(f"BiLM: inputs[{i}]", words, "words")
        found = (self._perplexities(Sentences.from_words([words])) if words else {} for words in inputs)
        return [values.get("perplexity", math.nan) for values in found]

    def _perplexities(self, data: Sentences) -> dict[str, float]:
        return perplexities(self.model, sentence_batches(data, self.vocabulary, self._characters))

    def batches(self, data: Any) -> StreamBatches:
        """Batches of steps of streams of sentences."""
        recipe = self.recipe
        data = self.as_data("batches", data, recipe)
        batches = StreamBatches(
            data,
            self.vocabulary,
            self._characters,
            batch_size=recipe.batch_size,
            unroll_steps=recipe.unroll_steps,
            seed=recipe.seed,
            shuffle=recipe.shuffle,
        )
        sizes = len(data.words), len(data), len(self.vocabulary)
        logger.info("%d words in %d sentences, %d of vocabulary", *sizes)
        return batches

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self._stream(batch)

    def evaluate(self, data: Any) -> dict[str, float]:
        """The perplexities of a text, and the perplexity of a unigram model of the training text."""
        data = self.as_data("evaluate", data, self.recipe)
        found = self._perplexities(data)
        if self._learnt is not None:
            found["unigram_perplexity"] = unigram_perplexity(self._learnt, data, self.vocabulary)
        return found

    def configuration(self, data: Sentences) -> dict[str, Any]:
        return {
            "config": self.model.config.to_options(),
            "dropout": self.recipe.dropout,
            "num_sampled": self.recipe.num_sampled,
            "reset": self.recipe.reset,
            "vocabulary_crc32": lines_crc32(self.vocabulary.words),
        }

    @classmethod
    def read(cls, *sources: Any) -> Sentences:
        """The sentences of files, or of one sequence of sentences, each a sequence of words."""
        if len(sources) == 1 and not isinstance(sources[0], str | os.PathLike):
            return Sentences.from_words(sources[0], "data")
        return read_sentences(sources)

    def read_input(self, lines: Iterable[bytes], name: str, options: Any) -> list[list[str]]:
        return [line.split() for line in utf8_lines(lines, name)]

    def predict(self, data: Sequence[Sequence[str]], options: Any) -> tuple[Iterable[str], Iterable[str]]:
        found = self(data)
        texts = [f"{value:.4f}\n" if words else "\n" for words, value in zip(data, found, strict=True)]
        losses = [(len(words) + 1, math.log(value)) for words, value in zip(data, found, strict=True) if words]
        if not losses:
            return texts, []
        mean = math.fsum(tokens * loss for tokens, loss in losses) / sum(tokens for tokens, _ in losses)
        return texts, [f"perplexity: {math.exp(mean):.2f} ({len(losses)} sentences)"]

    def show(self, metrics: Mapping[str, float | None]) -> str:
        each = (metrics[f"{name}perplexity"] for name in ("", "forward_", "backward_"))
        both, forward, backward = (metric_text(value, 2) for value in each)
        return f"perplexity {both} (forward {forward}, backward {backward})"

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        entries = list(evaluations)
        yield from super().report(entries)
        if entries:
            yield f"unigram model: perplexity {entries[-1]['metrics']['unigram_perplexity']:.2f}"


def _config(start: Start, recipe: BiLMRecipe) -> ElmoConfig:
    """The options of `start`, with the sizes that the recipe names."""
    options: Mapping[str, Any] = SMALL if start is None else start if isinstance(start, Mapping) else read_json(start)
    source = "options" if start is None or isinstance(start, Mapping) else os.fspath(start)
    changes = {"dim": recipe.dim, "projection_dim": recipe.projection_dim, "n_layers": recipe.layers}
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(options.get("lstm"), dict):
        options = {**options, "lstm": {**options["lstm"], **given}}
    return ElmoConfig.from_dict(options, source)
