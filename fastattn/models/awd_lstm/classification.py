"""ULMFiT's classifier: what an AWD-LSTM has read, pooled, and two layers above it.

Source: Howard and Ruder 2018 (arXiv 1801.06146), section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn._types import CuSeqlens, IntArray
from fastattn.checks import integers
from fastattn.models.awd_lstm.config import AwdLstmConfig
from fastattn.models.awd_lstm.model import AwdLstm, AwdLstmModel
from fastattn.models.inputs import sequence_target
from fastattn.models.outputs import HeadOutput, loss_of

POOLED = ("last", "max", "mean")


class PooledClassifier(nn.Module):
    """Classes of sequences by the last, the largest and the mean of their states."""

    def __init__(self, config: AwdLstmConfig) -> None:
        self.config = config
        self.dense = nn.Linear(len(POOLED) * config.sizes[-1][1], config.pooled_dim, activation="relu")
        self.output = nn.Linear(config.pooled_dim, config.num_labels)

    def forward(self, states: Any, cu_seqlens: CuSeqlens) -> Any:
        """From states `[tokens, dim]` to scores `[batch, num_labels]`."""
        pooled = F.cat([F.pooling(states, cu_seqlens, mode) for mode in POOLED], dim=1)
        pooled = F.dropout(pooled, self.dropout_rate(self.config.output_dropout))
        return self.output(F.dropout(self.dense(pooled), self.dropout_rate(self.config.pooled_dropout)))


class AwdLstmForSequenceClassification(AwdLstmModel):
    """An `AwdLstm` for each direction and a `PooledClassifier` above it. The logits are the mean of both directions'.

    >>> config = AwdLstmConfig(vocabulary_size=10, embedding_dim=4, dim=6, n_layers=2, num_labels=3)
    >>> model = AwdLstmForSequenceClassification(config)
    >>> model.forward_ragged([0, 5, 6, 1, 0, 7, 1], [0, 4, 7]).logits.shape
    (2, 3)
    """

    whole = ("networks.",)
    required = ("networks.",)
    common_head = above = "classifiers."

    def build(self, config: AwdLstmConfig) -> None:
        self.networks = [AwdLstm(config) for _ in config.directions]
        self.classifiers = [PooledClassifier(config) for _ in self.networks]

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: None = None,
        labels: ArrayLike | None = None,
    ) -> HeadOutput:
        """Read texts, each in the order of its words, with <S> before and </S> behind it.

        Args:
            input_ids: integers `[tokens]`. As in the language model, the last word in reading order, a mark, is not
                read: </S> forward, <S> backward.
            cu_seqlens: integers `[batch + 1]`.
            token_type_ids: words have none.
            labels: classes, integers `[batch]`, or several labels each, 0 or 1, `[batch, num_labels]`; see
                `BertForSequenceClassification`.

        The loss is the sum over the directions, so that each trains as it would alone.

        Raises TypeError and ValueError for other types and shapes, for ids out of range and for an empty sequence.
        """
        owner = type(self).__name__
        ids = integers(f"{owner}: input_ids", input_ids)
        offsets = ragged.check_cu_seqlens(cu_seqlens, len(ids), f"{owner}: cu_seqlens")
        if len(empty := np.flatnonzero(ragged.lengths(offsets) < 1)):
            raise ValueError(f"{owner}: cu_seqlens must have no empty sequence, got one at {empty[0]}")
        if token_type_ids is not None:
            raise ValueError(f"{owner}: token_type_ids must be None, words have no types")
        target = None if labels is None else sequence_target(owner, self.config, labels, len(offsets) - 1)
        scores = []
        with self.one_pass():
            for direction, network, classifier in zip(
                self.config.directions, self.networks, self.classifiers, strict=True
            ):
                read, places = _in_reading_order(ids, offsets, backward=direction == 1)
                scores.append(classifier(network.states(read, places)[0], places))
        loss = None
        if target is not None:
            losses = [loss_of(each, *target) for each in scores]
            loss = losses[0] if len(losses) == 1 else losses[0] + losses[1]  # type: ignore[operator]
        return HeadOutput(loss, scores[0] if len(scores) == 1 else (scores[0] + scores[1]) * np.float32(0.5))

    forward = forward_ragged


def _in_reading_order(ids: IntArray, cu_seqlens: CuSeqlens, backward: bool) -> tuple[IntArray, CuSeqlens]:
    """The words of each sequence without the last one, in reading order, and where these begin."""
    lengths = ragged.lengths(cu_seqlens).astype(np.int64) - 1
    read = ragged.cu_seqlens(lengths)
    steps = ragged.positions(read)
    places = np.repeat(cu_seqlens[:-1].astype(np.int64), lengths)
    places += np.repeat(lengths, lengths) - steps if backward else steps
    return ids[places], read
