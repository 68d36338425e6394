"""A tagger of words: characters and words into a bidirectional LSTM, a second one above it, and a softmax or a CRF.

A frozen model may help. The states of its last layer are joined with those of the first LSTM (TagLM), or two mixes of
all its layers with the input of the first and the output of the second (ELMo). A batch is ragged: rows are words, and
sentence i is rows `cu_seqlens[i]` to `cu_seqlens[i + 1]`.

Source: Peters et al. 2017 (arXiv 1705.00108), section 2; Peters et al. 2018 (arXiv 1802.05365), section 3.3; characters
by a CNN: Ma and Hovy 2016 (arXiv 1603.01354), by an LSTM: Lample et al. 2016 (arXiv 1603.01360).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn._core import run_pass
from fastattn._types import IntArray
from fastattn.autograd import values
from fastattn.checks import integers, operand
from fastattn.models.base import PreTrainedModel
from fastattn.models.layers import by_layer
from fastattn.models.outputs import HeadOutput, as_tensor, loss_of
from fastattn.models.sequence_tagger.config import CHARACTERS, SequenceTaggerConfig
from fastattn.nn.dropout import locked_dropout
from fastattn.nn.module import Values
from fastattn.nn.parameter import AnyParameter
from fastattn.text.characters import PADDING

UNKNOWN = 2
"""The word that stands for those which dropout leaves out, and for all that are no words of the vocabulary."""


class CharacterLSTM(nn.Module):
    """A vector for each word: the last states of an LSTM over its characters, in both directions."""

    def __init__(self, config: SequenceTaggerConfig) -> None:
        self.embedding = nn.Embedding(CHARACTERS, config.char_dim, std=config.char_dim**-0.5)
        self.lstm = nn.LSTM(config.char_dim, config.char_hidden_size, bidirectional=True)

    def forward(self, char_ids: IntArray) -> Any:
        """From `char_ids` int64 `[words, max_characters]` to `[words, 2 * char_hidden_size]`."""
        read = char_ids != PADDING
        offsets = ragged.cu_seqlens(read.sum(axis=1))
        _, (h, _) = self.lstm(self.embedding(char_ids[read]), cu_seqlens=offsets)
        return F.cat([h[0], h[1]], 1)


class SequenceTagger(PreTrainedModel):
    """One of `num_labels` labels for every word.

    >>> config = SequenceTaggerConfig(vocab_size=10, word_dim=4, hidden_size=6, characters="none", crf=True)
    >>> model = SequenceTagger(config).eval()
    >>> output = model([3, 4, 5], cu_seqlens=[0, 2, 3], labels=[0, 1, 1])
    >>> output.logits.shape, output.loss.shape, model.decode(output.logits, [0, 2, 3]).shape
    ((3, 2), (), (3,))
    """

    config_class = SequenceTaggerConfig
    loads_trainable = True
    whole = ("",)

    config: SequenceTaggerConfig

    def build(self, config: SequenceTaggerConfig) -> None:
        size, features = config.word_dim + config.char_outputs, config.feature_dim
        mixed, joined = (features, 0) if config.features == "elmo" else (0, features)
        self.word_embedding = nn.Embedding(config.vocab_size, config.word_dim, std=config.word_dim**-0.5)
        self.characters: Any = None
        if config.characters == "cnn":
            self.characters = nn.CharCNN(CHARACTERS, config.char_dim, config.char_filters)
        elif config.characters == "lstm":
            self.characters = CharacterLSTM(config)
        self.mixes = [nn.ScalarMix(config.feature_layers) for _ in range(2 if mixed else 0)]
        self.first = nn.LSTM(size + mixed, config.hidden_size, bidirectional=True)
        self.second = nn.LSTM(2 * config.hidden_size + joined, config.hidden_size, bidirectional=True)
        self.classifier = nn.Linear(2 * config.hidden_size + mixed, config.num_labels, std=config.hidden_size**-0.5)
        self.crf = nn.CRF(config.num_labels, config.constraints()) if config.crf else None

    def forward(
        self,
        word_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        char_ids: ArrayLike | None = None,
        char_index: ArrayLike | None = None,
        features: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> HeadOutput:
        """The scores of labels `[words, num_labels]`, and the loss if there are `labels`.

        Args:
            word_ids: integers `[words]`, ids of the vocabulary.
            cu_seqlens: integers `[sentences + 1]`.
            char_ids: integers `[forms, max_characters]`, from `fastattn.text.character_ids`, of the distinct words.
                None without `characters`.
            char_index: integers `[words]`, which row of `char_ids` each word has; None if there is one for each.
            features: float32 `[feature_layers, words, feature_dim]`; None without `features`.
            labels: integers `[words]`, in [0, num_labels). A softmax takes -100 for none. The loss is the mean over the
                words that have one.

        Raises TypeError and ValueError for other types and shapes, ids out of range, and labels that the scheme of a
        CRF forbids.
        """
        owner, config = type(self).__name__, self.config
        offsets = ragged.check_cu_seqlens(cu_seqlens, None, f"{owner}: cu_seqlens")
        count = int(offsets[-1])
        ids = integers(f"{owner}: word_ids", word_ids, (count,))
        target = None if labels is None else integers(f"{owner}: labels", labels, (count,))
        given = self._check_features(features, count)
        parts = [self.word_embedding(self._without_dropped(ids))]
        if self.characters is not None:
            parts.append(self._characters(char_ids, char_index, count))
        mixes = [mix(given) for mix in self.mixes]
        rate = self.dropout_rate(config.dropout)
        x = F.cat(parts + mixes[:1], 1) if len(parts + mixes[:1]) > 1 else parts[0]
        x, _ = self.first(locked_dropout(x, offsets, rate), cu_seqlens=offsets)
        if given and not mixes:
            x = F.cat([x, *given], 1)
        x, _ = self.second(locked_dropout(x, offsets, rate), cu_seqlens=offsets)
        if mixes:
            x = F.cat([x, mixes[1]], 1)
        scores = self.classifier(locked_dropout(x, offsets, rate))
        if self.crf is None or target is None:
            return HeadOutput(loss_of(scores, target), scores)
        return HeadOutput(as_tensor(self.crf(scores, target, offsets, "token_mean")) * -1.0, scores)

    def layer_groups(self) -> list[list[AnyParameter]]:
        """The parameters by layer, see `PreTrainedModel`: what is read, both LSTMs, and the scores of labels."""
        read, scored = ("word_embedding.", "characters.", "mixes."), ("classifier.", "crf.")
        groups = [by_layer(self._named(part), []) for part in (read, ("first.",), ("second.",), scored)]
        return list(chain.from_iterable(groups))

    def _named(self, begins: tuple[str, ...]) -> list[tuple[str, AnyParameter]]:
        """The parameters whose names begin so."""
        return [pair for pair in self._names() if pair[0].startswith(begins)]

    def _check_features(self, features: ArrayLike | None, words: int) -> list[Any]:
        """The features of each layer."""
        config, name = self.config, f"{type(self).__name__}: features"
        if (features is None) != (config.features is None):
            wanted = "None" if config.features is None else f"those of {config.features}"
            raise ValueError(f"{name} must be {wanted}, got {'None' if features is None else 'some'}")
        if features is None:
            return []
        shape = (config.feature_layers, words, config.feature_dim)
        if (found := operand(name, features).shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {found}")
        return [*np.asarray(features)]

    def _characters(self, char_ids: ArrayLike | None, index: ArrayLike | None, words: int) -> Any:
        name = f"{type(self).__name__}: char_ids"
        if char_ids is None:
            raise ValueError(f"{name} must be given, the model reads characters")
        ids = integers(name, char_ids)
        if ids.ndim != 2 or ids.shape[1] != self.config.max_characters:
            raise ValueError(f"{name} must have shape (forms, {self.config.max_characters}), got {ids.shape}")
        rows = np.arange(len(ids)) if index is None else index
        return F.embedding(integers(f"{type(self).__name__}: char_index", rows, (words,)), self.characters(ids))

    def _without_dropped(self, ids: IntArray) -> IntArray:
        """The ids of words, of which dropout leaves some out."""
        rate = self.dropout_rate(self.config.word_dropout)
        if not rate:
            return ids
        kept = F.dropout(np.ones(len(ids), np.float32), rate)
        run_pass()
        return np.where(kept > 0, ids, UNKNOWN)

    def decode(self, logits: Values, cu_seqlens: ArrayLike) -> NDArray[np.int64]:
        """The best labels for scores `[words, num_labels]`, int64 `[words]`: those of the best sequences for a CRF."""
        if self.crf is not None:
            found: NDArray[np.int64] = self.crf.decode(logits, cu_seqlens)[0][0]
            return found
        (scores,) = values(operand("decode: logits", logits))
        run_pass()
        found = scores.argmax(axis=1)
        return found

    def probabilities(self, logits: Values, cu_seqlens: ArrayLike) -> NDArray[np.float32]:
        """The probability of each label at each word, `[words, num_labels]`, whatever the labels of the others."""
        (scores,) = values(operand("probabilities: logits", logits))
        found = F.softmax(scores, dim=1) if self.crf is None else self.crf.marginals(scores, cu_seqlens)
        run_pass()
        return np.asarray(found, np.float32)
