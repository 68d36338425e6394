"""Words in, perplexities out: a bidirectional language model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastattn.formats.hugging_face import read_json
from fastattn.models import BidirectionalLanguageModel, ElmoConfig
from fastattn.random import manual_seed
from fastattn.tasks.base import make_recipe
from fastattn.tasks.bilm.recipe import BiLMRecipe
from fastattn.tasks.streams.task import StreamTask
from fastattn.text import Sentences, Vocabulary, character_ids

SMALL: dict[str, Any] = {
    "char_cnn": {"activation": "relu", "embedding": {"dim": 16}, "filters": [[1, 32], [2, 32], [3, 64], [4, 128]],
                 "max_characters_per_token": 50, "n_highway": 1},
    "lstm": {"cell_clip": 3, "dim": 256, "n_layers": 2, "proj_clip": 3, "projection_dim": 64,
             "use_skip_connections": True},
}  # fmt: skip
"""A model that two cores train in minutes."""

Start = str | os.PathLike[str] | Mapping[str, Any] | None


class BiLM(StreamTask):
    """ELMo's bidirectional language model and its vocabulary. `Elmo.from_pretrained` reads its folder too.

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

    model_class = BidirectionalLanguageModel
    recipe_class = BiLMRecipe
    kind = "a bidirectional language model"
    model: BidirectionalLanguageModel
    recipe: BiLMRecipe

    def __init__(
        self,
        model: BidirectionalLanguageModel,
        vocabulary: Vocabulary,
        recipe: BiLMRecipe | None = None,
        learnt: Sentences | None = None,
    ) -> None:
        super().__init__(model, vocabulary, recipe, learnt)
        self.characters = partial(character_ids, max_characters=model.config.max_characters_per_token)

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
        vocabulary = cls.make_vocabulary(data, recipe)
        config = _config(start, recipe).replace(
            vocabulary_size=len(vocabulary), num_sampled=recipe.num_sampled, lstm_dropout=recipe.dropout
        )
        manual_seed(recipe.seed)
        return cls(BidirectionalLanguageModel(config), vocabulary, recipe, data)

    def measure(self, data: Sentences) -> dict[str, float]:
        """The perplexities of a text whose sentences are read on their own."""
        return self._sentences(data)

    def configuration(self, data: Sentences) -> dict[str, Any]:
        own = {"config": self.model.config.to_options(), "dropout": self.recipe.dropout}
        return {**own, "num_sampled": self.recipe.num_sampled, **super().configuration(data)}


def _config(start: Start, recipe: BiLMRecipe) -> ElmoConfig:
    """The options of `start`, with the sizes that the recipe names."""
    options: Mapping[str, Any] = SMALL if start is None else start if isinstance(start, Mapping) else read_json(start)
    source = "options" if start is None or isinstance(start, Mapping) else os.fspath(start)
    changes = {"dim": recipe.dim, "projection_dim": recipe.projection_dim, "n_layers": recipe.layers}
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(options.get("lstm"), dict):
        options = {**options, "lstm": {**options["lstm"], **given}}
    return ElmoConfig.from_dict(options, source)
