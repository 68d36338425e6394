"""Words in, perplexities out: what language models of streams share."""

from __future__ import annotations

import logging
import math
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fastattn import checks
from fastattn.checks import shown
from fastattn.files import lines_crc32, utf8_lines
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files, find_model
from fastattn.models.base import PreTrainedModel
from fastattn.tasks.base import Task, metric_text
from fastattn.tasks.streams.loss import StreamLoss, perplexities
from fastattn.tasks.streams.recipe import StreamRecipe
from fastattn.text import Sentences, StreamBatches, Vocabulary, read_sentences, sentence_batches, unigram_perplexity
from fastattn.text.streams import BOTH, Characters

VOCABULARY = "vocab.txt"
FILES = Files(NAMES := ("config.json", "model.safetensors", VOCABULARY), required=NAMES)
"""The files of a language model."""

logger = logging.getLogger(__name__)


class StreamTask(Task):
    """A language model and its vocabulary. `BiLM` and `LanguageModel` say what differs.

    Args:
        model: the model.
        vocabulary: the words that it predicts.
        recipe: how it is trained; None is the default recipe.
        learnt: the text that it learns. `evaluate` compares with a unigram model of this text.

    Attributes:
        model, vocabulary, recipe: the arguments.

    Raises ValueError for a vocabulary of another size than the model's.
    """

    data_class = Sentences
    model_class: ClassVar[type[PreTrainedModel]]
    recipe_class: ClassVar[type[StreamRecipe]]
    kind: ClassVar[str]
    """What it is, for errors about other models."""
    characters: Characters = None
    """Gives the characters that the model reads; None if it reads ids of words."""

    def __init__(self, model: Any, vocabulary: Vocabulary, recipe: Any = None, learnt: Sentences | None = None) -> None:
        vocabulary.check_size(model.config.vocabulary_size)
        self.model, self.vocabulary, self.recipe = model, vocabulary, recipe or self.recipe_class()
        self.carried = self._stream = StreamLoss(model, self.recipe.reset)
        self._learnt = learnt

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], *, weights: str | None = None, **hub: Any) -> Any:
        """Load what `save_pretrained` wrote, frozen. See `Task`."""
        folder = find_model(name_or_folder, FILES, **hub)
        cls.check_folder(folder)
        model = cls.model_class.from_pretrained(folder, trainable=False, weights=weights, new_head="refuse")
        return cls(model, Vocabulary.from_file(folder / VOCABULARY))

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in cls.model_class.config_class.model_types:
            raise ValueError(f"{folder}: not {cls.kind}, its model_type is {shown(kind)}")

    @staticmethod
    def make_vocabulary(data: Sentences, recipe: StreamRecipe) -> Vocabulary:
        """The vocabulary that a recipe names, or the words of a text."""
        if recipe.vocabulary:
            return Vocabulary.from_file(recipe.vocabulary)
        return Vocabulary.build(data, recipe.vocabulary_size, recipe.min_count or 2)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write model and vocabulary, each file whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.vocabulary.write(folder / VOCABULARY)  # a folder with a model has its vocabulary
        self.model.save_pretrained(folder)

    @property
    def directions(self) -> Sequence[int]:
        """What the model reads, see `StreamBatches`."""
        return BOTH

    def __call__(self, inputs: Iterable[Sequence[str]]) -> list[float]:
        """The perplexity of each sentence, a sequence of words, on its own; NaN for one without words.

        Raises TypeError for one str, and, by index, for a sentence that is none and a word that is not a str.
        """
        name = f"{type(self).__name__}: inputs"
        given = enumerate(checks.sequence(name, inputs, "sentences, each a sequence of words"))
        inputs = [checks.texts(f"{name}[{i}]", words, "words") for i, words in given]
        found = (self._sentences(Sentences.from_words([words])) if words else {} for words in inputs)
        return [values.get("perplexity", math.nan) for values in found]

    def _sentences(self, data: Sentences) -> dict[str, float]:
        """The perplexities of a text whose sentences are read on their own."""
        batches = sentence_batches(data, self.vocabulary, self.characters, directions=self.directions)
        return perplexities(self.model, batches)

    def _streams(self, data: Sentences, **options: Any) -> StreamBatches:
        return StreamBatches(data, self.vocabulary, self.characters, directions=self.directions, **options)

    def batches(self, data: Any) -> StreamBatches:
        """Batches of steps of streams of sentences."""
        recipe = self.recipe
        data = self.as_data("batches", data, recipe)
        names = ("batch_size", "unroll_steps", "seed", "shuffle")
        batches = self._streams(data, **{name: getattr(recipe, name) for name in names}, **self.stream_options)
        sizes = len(data.words), len(data), len(self.vocabulary)
        logger.info("%d words in %d sentences, %d of vocabulary", *sizes)
        return batches

    @property
    def stream_options(self) -> dict[str, Any]:
        """More options of the batches."""
        return {}

    def loss(self, batch: Mapping[str, Any]) -> Any:
        return self._stream(batch)

    @abstractmethod
    def measure(self, data: Sentences) -> dict[str, float]:
        """The perplexities of a text."""

    def evaluate(self, data: Any) -> dict[str, float]:
        """The perplexities of a text, and the perplexity of a unigram model of the training text."""
        data = self.as_data("evaluate", data, self.recipe)
        found = self.measure(data)
        if self._learnt is not None:
            found["unigram_perplexity"] = unigram_perplexity(self._learnt, data, self.vocabulary)
        return found

    def configuration(self, data: Sentences) -> dict[str, Any]:
        return {"reset": self.recipe.reset, "vocabulary_crc32": lines_crc32(self.vocabulary.words)}

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
        both = [
            f"{each} {metric_text(metrics[name], 2)}"
            for each in ("forward", "backward")
            if (name := f"{each}_perplexity") in metrics
        ]
        return f"perplexity {metric_text(metrics['perplexity'], 2)}" + (f" ({', '.join(both)})" if both else "")

    def report(self, evaluations: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        entries = list(evaluations)
        yield from super().report(entries)
        if entries:
            yield f"unigram model: perplexity {entries[-1]['metrics']['unigram_perplexity']:.2f}"
