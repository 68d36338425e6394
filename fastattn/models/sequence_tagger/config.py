"""The configuration of a tagger of words."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fastattn.checks import PROBABILITY, boolean, choice, config_integer, config_number, listed
from fastattn.models.config import LabelledConfig
from fastattn.nn.char_cnn import check_filters
from fastattn.text.entities import OUTSIDE, SCHEMES, crf_constraints

CHARACTERS = 261
"""The number of ids in `fastattn.text.characters`."""
FEATURES = ("bilm", "elmo", "bert")

_MOST = 1024
"""Filters, characters of a word and layers of features: a file has no tensors to compare these counts with in time."""


@dataclass(frozen=True, kw_only=True)
class SequenceTaggerConfig(LabelledConfig):
    """The shape of a `SequenceTagger`.

    - `vocab_size`, `word_dim`: the number of words, and of numbers for each
    - `characters`: how the characters of a word are read, "cnn", "lstm" or "none"
    - `char_dim`: the size of a character's embedding
    - `char_filters`: pairs (width, number) of the convolutions, at most 1024
    - `char_hidden_size`: the cells of the LSTM over characters, in each direction
    - `max_characters`: the bytes of a word that are read, with marks and padding, at most 1024
    - `hidden_size`: the cells of both LSTMs, in each direction
    - `features`: what a frozen model gives: "bilm" or "bert", states that are joined with those of the first LSTM;
      "elmo", layers of which two mixes are joined with the input of the first LSTM and the output of the second; None
    - `feature_layers`, `feature_dim`: the layers of features (1 unless "elmo"), and the numbers of a word in each
    - `crf`: whether a CRF scores sequences of labels, in place of a softmax for each word
    - `scheme`: "IOB1", "IOB2" or "BIOES" for a CRF that only allows labels which follow it, at most 1024; None

    Dropout, while training. A mask of features is the same at all words of a sentence:

    - `word_dropout`: of whole words, which become the word 2, `<UNK>`
    - `dropout`: of the input of both LSTMs and the output of the second one

    Labels are as in every model. Raises ValueError, naming the field and the value, for a value that no such model can
    have.
    """

    model_types = ("sequence-tagger",)
    sizes = ("vocab_size",)
    dropouts = ("word_dropout", "dropout")

    vocab_size: int = 3
    word_dim: int = 100
    characters: str = "cnn"
    char_dim: int = 25
    char_filters: tuple[tuple[int, int], ...] = ((2, 25), (3, 50), (4, 50))
    char_hidden_size: int = 50
    max_characters: int = 32
    hidden_size: int = 256
    features: str | None = None
    feature_layers: int = 1
    feature_dim: int = 0
    crf: bool = False
    scheme: str | None = None
    word_dropout: float = 0.1
    dropout: float = 0.5

    def _check_fields(self) -> None:
        self._check(config_integer, "word_dim", "char_dim", "char_hidden_size", "hidden_size")
        self._check(config_integer, "vocab_size", low=3)
        self._check(config_integer, "max_characters", low=3, high=_MOST + 1, wanted=f"from 3 to {_MOST}")
        self._check(choice, "characters", known=("cnn", "lstm", "none"))
        self._check(choice, "features", known=FEATURES)
        self._check(choice, "scheme", known=SCHEMES)
        self._check(boolean, "crf")
        self._check(config_number, *self.dropouts, **PROBABILITY)
        if isinstance(self.char_filters, Sized) and len(self.char_filters) > _MOST:
            raise ValueError(f"char_filters must be at most {_MOST} pairs, got {len(self.char_filters)}")
        self._check(check_filters, "char_filters", integer=config_integer)
        widest = max(self.char_filters)[0]
        if widest > self.max_characters:
            raise ValueError(
                f"char_filters must not be wider than max_characters = {self.max_characters}, got {widest}"
            )
        high, wanted = (_MOST, f"from 1 to {_MOST}") if self.features == "elmo" else (1, "1 without elmo")
        self._check(config_integer, "feature_layers", low=1, high=high + 1, wanted=wanted)
        if self.features is None:
            self._check(config_integer, "feature_dim", low=0, high=1, wanted="0 without features")
        else:
            self._check(config_integer, "feature_dim")
        if self.scheme is not None and not self.crf:
            raise ValueError(f"scheme must be None without crf, got {self.scheme!r}")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scheme is None:
            return
        if self.num_labels > _MOST:
            raise ValueError(f"id2label must have at most {_MOST} labels for a scheme, got {self.num_labels}")
        if OUTSIDE not in self.id2label.values():
            told = f"id2label must have {OUTSIDE} for the scheme {self.scheme}"
            raise ValueError(f"{told}, got {listed(self.id2label.values())}")
        try:
            self.constraints()
        except ValueError as error:
            raise ValueError(str(error).replace("crf_constraints: labels", "id2label")) from None

    def constraints(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None:
        """What the scheme allows, as the constraints of a CRF; None without one."""
        labels = [self.id2label[i] for i in range(self.num_labels)]
        return None if self.scheme is None else crf_constraints(labels, self.scheme)

    @property
    def char_outputs(self) -> int:
        """The numbers of a word that come from its characters."""
        found = {"cnn": sum(number for _, number in self.char_filters), "lstm": 2 * self.char_hidden_size, "none": 0}
        return found[self.characters]

    def to_dict(self, architecture: str = "") -> dict[str, Any]:
        """The object to write to config.json."""
        return super().to_dict(architecture or "SequenceTagger")
