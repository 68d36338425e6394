"""Words in, perplexities out: an AWD-LSTM."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastattn.errors import OptionError
from fastattn.hub import find_model
from fastattn.models import AwdLstmConfig, AwdLstmForLanguageModel
from fastattn.random import manual_seed
from fastattn.tasks.base import make_recipe, model_name
from fastattn.tasks.heads import head_of
from fastattn.tasks.language_model.recipe import LanguageModelRecipe
from fastattn.tasks.streams.loss import perplexities
from fastattn.tasks.streams.task import FILES, VOCABULARY, StreamTask
from fastattn.text import Sentences, Vocabulary

STREAMS = 32
"""The most streams of a text that is measured, and the steps of each in a batch."""


class LanguageModel(StreamTask):
    """An AWD-LSTM and its vocabulary.

    Args:
        model: an `AwdLstmForLanguageModel`.
        vocabulary: the words that it reads and predicts.
        recipe: how it is trained; None is `LanguageModelRecipe()`.
        learnt: the text that it learns. `evaluate` compares with a unigram model of this text.

    Attributes:
        model, vocabulary, recipe: the arguments.

    >>> language_model = LanguageModel.from_pretrained("path/to/lm")                  # doctest: +SKIP
    >>> language_model([["The", "cat", "sleeps", "."], ["cat", "The", ".", "sleeps"]])  # doctest: +SKIP
    [61.3, 960.2]
    """

    heads = ("LanguageModel",)
    model_class = AwdLstmForLanguageModel
    recipe_class = LanguageModelRecipe
    kind = "an AWD-LSTM language model"
    model: AwdLstmForLanguageModel
    recipe: LanguageModelRecipe

    @classmethod
    def check_folder(cls, folder: Path) -> None:
        super().check_folder(folder)
        head_of(folder, *cls.heads, refusal=f"not {cls.kind}")

    @classmethod
    def for_training(
        cls,
        start: str | os.PathLike[str] | None,
        data: Any,
        recipe: LanguageModelRecipe | None = None,
        **options: Any,
    ) -> LanguageModel:
        """Load a model, or make one, and its vocabulary from the text.

        Args:
            start: the language model to continue from: a folder or a name. None makes a new one.
            data: the sentences: what `read` returns, or takes.
            recipe: the recipe; None is `LanguageModelRecipe()`.
            options: replace fields of the recipe.

        Raises as `from_pretrained`, OptionError for an option of a new model together with `start` and for `add_words`
        without it, and OSError and ValueError, by name, for a vocabulary that is damaged.
        """
        recipe = make_recipe(LanguageModelRecipe, recipe, options)
        data = cls.as_data("for_training", data, recipe)
        if start is None:
            if recipe.add_words:
                raise OptionError("{add_words} needs {model}, whose vocabulary they are added to")
            vocabulary = cls.make_vocabulary(data, recipe)
            config = AwdLstmConfig(vocabulary_size=len(vocabulary), **recipe.sizes, **recipe.regularization)
            manual_seed(recipe.seed)
            return cls(AwdLstmForLanguageModel(config), vocabulary, recipe, data)
        recipe.check_start()
        folder = find_model(start, FILES)
        cls.check_folder(folder)
        manual_seed(recipe.seed)
        model = AwdLstmForLanguageModel.from_pretrained(folder, new_head="refuse", **recipe.regularization)
        vocabulary = Vocabulary.from_file(folder / VOCABULARY)
        if recipe.add_words:
            vocabulary.check_size(model.config.vocabulary_size)
            known, found = {*vocabulary.words}, Vocabulary.build(data, min_count=recipe.min_count or 2)
            words = [word for word in found.words if word not in known]
            model = model.with_words(len(words))
            vocabulary = Vocabulary([*vocabulary.words, *words], vocabulary.source)
        task = cls(model, vocabulary, recipe, data)
        task.base_model = model_name(start)
        return task

    @property
    def directions(self) -> Sequence[int]:
        return self.model.config.directions

    @property
    def stream_options(self) -> dict[str, Any]:
        return {"varied": self.recipe.varied}

    def measure(self, data: Sentences) -> dict[str, float]:
        """The perplexities of a text that is read in its order: in streams, each from zeros, with the state carried on.

        There are 32 streams, or fewer of at least 32 tokens each. The last tokens of the text, fewer than the streams,
        are left out.
        """
        streams = max(1, min(STREAMS, data.tokens // STREAMS))
        batches = self._streams(data, batch_size=streams, unroll_steps=STREAMS, shuffle=False)
        return perplexities(self.model, map(batches.load, batches.epoch(0)), carry=True)

    def configuration(self, data: Sentences) -> dict[str, Any]:
        return {"config": self.model.config.to_dict(), **super().configuration(data)}
