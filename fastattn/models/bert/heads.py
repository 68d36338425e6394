"""BERT with a head for a task, named and behaving as in transformers.

    >>> model = BertForSequenceClassification.from_pretrained("models/bert-base", num_labels=3)  # doctest: +SKIP
    >>> output = model(input_ids, attention_mask=attention_mask, labels=labels)                  # doctest: +SKIP
    >>> output.loss.backward()                                                                   # doctest: +SKIP

All take padded batches as `BertModel` does, and raise its errors. What they give is in `bert.outputs`. Labels are
integers, -100 where they count for nothing, and checked: ValueError or TypeError, naming the argument, the value and
its place, for another shape, a label outside the classes, labels that are all -100, and one at the padding that is
not. A loss is the mean over what counts. The logits of a trainable model are Tensors, of which any other loss can be
computed.

Source: Devlin et al. 2019, section 4 and figure 4; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn
from fastattn.autograd import Tensor
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.bert.config import BertConfig
from fastattn.models.bert.model import Batch, BertModel, BertPreTrainedModel
from fastattn.models.bert.outputs import BertOutput, HeadOutput, QuestionAnsweringOutput
from fastattn.models.inputs import Tokens, check_labels, integers
from fastattn.nn.parameter import Array

__all__ = [
    "BertForMultipleChoice",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
]


class BertHeadModel(BertPreTrainedModel):
    """What the models with a head share."""

    bert: BertModel

    def _run(self, batch: Batch, target: Any, *outputs: bool) -> Any:
        """What the model gives for a batch, with the loss if there is a `target`; `outputs` are those of `encode`."""
        output = self.bert.encode(batch, *outputs)
        states, attentions = output.hidden_states, output.attentions
        extras = {
            "hidden_states": states and tuple(batch.pad(x) for x in states),
            "attentions": attentions and tuple(batch.pad_weights(x) for x in attentions),
        }
        return self._finish(batch, output, target, extras)

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> Any:
        raise NotImplementedError


class LabelledModel(BertHeadModel):
    """A head that `labels` are for."""

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Any:
        """The first three are `[batch, seq]`; `labels` are described with the class."""
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        target = None if labels is None else self._target(batch, labels)
        return self._run(batch, target, output_hidden_states, output_attentions)

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Any:
        """As `BertModel.forward_ragged`. Labels and logits of tokens are `[tokens, ..]`, those of sequences as in the
        padded call."""
        batch = self.bert.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids)
        target = None if labels is None else self._target(batch, labels)
        return self._run(batch, target, output_hidden_states, output_attentions)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        """The labels, checked, as `_finish` takes them."""
        raise NotImplementedError


class BertForTokenClassification(LabelledModel):
    """One of `num_labels` labels for every token: tagging, named entities.

    `labels` are `[batch, seq]`, in [0, num_labels) or -100. The result is a `HeadOutput`.
    """

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return batch.pack_labels("BertForTokenClassification", labels, self.config.num_labels)

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.classifier(self.dropout(output.last_hidden_state))
        loss = None if target is None else tensor(F.cross_entropy(scores, target))
        return HeadOutput(loss, batch.pad(scores), **extras)


class BertForQuestionAnswering(BertHeadModel):
    """The first and the last token of an answer within the text."""

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2, std=config.initializer_range)

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        start_positions: ArrayLike | None = None,
        end_positions: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> QuestionAnsweringOutput:
        """The first three are `[batch, seq]`; the positions, columns of `input_ids`, are `[batch]`.

        As in transformers a negative position is 0, and one from `seq` on, an answer that was cut off, is ignored.
        Other than there, the padding has no part in the softmax.
        """
        batch = self.bert.pack(input_ids, attention_mask, token_type_ids)
        targets = None
        if start_positions is not None or end_positions is not None:
            if start_positions is None or end_positions is None:
                raise ValueError("BertForQuestionAnswering: start_positions and end_positions must be given together")
            targets = [
                _check_positions(name, positions, batch)
                for name, positions in (("start_positions", start_positions), ("end_positions", end_positions))
            ]
        output: QuestionAnsweringOutput = self._run(batch, targets, output_hidden_states, output_attentions)
        return output

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> QuestionAnsweringOutput:
        scores = batch.pad(self.qa_outputs(output.last_hidden_state), fill=-np.inf)
        start, end = (_column(scores, i) for i in range(2))
        loss = None
        if target is not None:
            loss = tensor((F.cross_entropy(start, target[0]) + F.cross_entropy(end, target[1])) / 2)
        return QuestionAnsweringOutput(loss, start, end, **extras)


class PooledModel(LabelledModel):
    """A linear layer over the pooled first token of each sequence."""

    def build(self, config: BertConfig) -> None:
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, self._outputs(config), std=config.initializer_range)

    def _outputs(self, config: BertConfig) -> int:
        return config.num_labels


class BertForSequenceClassification(PooledModel):
    """A label, several, or numbers for a sentence or a pair of sentences.

    What `labels` mean is `config.problem_type`. Where that is None it is "regression" when `num_labels` is 1, else
    "single_label_classification" for integer labels and "multi_label_classification" for others. They are classes,
    integers `[batch]`; for regression numbers `[batch]`, or `[batch, num_labels]`, with the squared error; for several
    labels 0 and 1, `[batch, num_labels]`, with the binary cross-entropy. The result is a `HeadOutput`.
    """

    def _target(self, batch: Batch, labels: ArrayLike) -> tuple[Array, Callable[..., Any]]:
        owner, array, kind = "BertForSequenceClassification", np.asarray(labels), self.config.problem_type
        count, shape = self.config.num_labels, (batch.sequences,)
        if kind == "regression" or (kind is None and count == 1):
            return _numbers(owner, array, (*shape, count)), F.mse_loss
        if kind == "single_label_classification" or (kind is None and array.dtype.kind in "iu"):
            return check_labels(owner, "labels", labels, shape, count), F.cross_entropy
        return _several(owner, array, (*shape, count)), F.binary_cross_entropy_with_logits

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.classifier(self.dropout(output.pooler_output))
        loss = None
        if target is not None:
            wanted, loss_function = target
            loss = tensor(loss_function(scores, wanted))
        return HeadOutput(loss, scores, **extras)


class BertForMultipleChoice(PooledModel):
    """Which of several continuations fits.

    Arrays are `[batch, choices, seq]`; `labels`, the right choices, integers `[batch]`. The result is a `HeadOutput`.
    """

    def _outputs(self, config: BertConfig) -> int:
        return 1

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> HeadOutput:
        """The first three are `[batch, choices, seq]`; `labels` are described with the class."""
        owner = "BertForMultipleChoice"
        ids = integers(f"{owner}: input_ids", input_ids)
        if ids.ndim != 3:
            raise ValueError(f"{owner}: input_ids must have shape (batch, choices, seq), got {ids.shape}")
        named = (("attention_mask", attention_mask), ("token_type_ids", token_type_ids))
        flat = [_flat(owner, name, array, ids.shape) for name, array in named]
        wanted = None if labels is None else check_labels(owner, "labels", labels, ids.shape[:1], ids.shape[1])
        batch = self.bert.pack(ids.reshape(-1, ids.shape[2]), *flat)
        target = (ids.shape[:2], wanted)
        output: HeadOutput = self._run(batch, target, output_hidden_states, output_attentions)
        return output

    def _finish(self, batch: Batch, output: BertOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        shape, wanted = target
        scores = self.classifier(self.dropout(output.pooler_output)).reshape(shape)
        loss = None if wanted is None else tensor(F.cross_entropy(scores, wanted))
        return HeadOutput(loss, scores, **extras)


def tensor(loss: Any) -> Tensor:
    """A loss is a Tensor, also that of a frozen model."""
    return loss if isinstance(loss, Tensor) else Tensor(loss)


def _classifier_dropout(config: BertConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _column(x: Any, i: int) -> Any:
    """`[batch, seq]`, contiguous, out of `[batch, seq, 2]`."""
    return x[..., i] if isinstance(x, Tensor) else np.ascontiguousarray(x[..., i])


def _flat(owner: str, name: str, array: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    if array is None:
        return None
    given = np.asarray(array)
    if given.shape != shape:
        raise ValueError(f"{owner}: {name} must have shape {shape}, got {given.shape}")
    return given.reshape(-1, shape[2])


def _numbers(owner: str, labels: Array, shape: tuple[int, int]) -> Array:
    """Labels that are numbers, as float64 in this shape; those of one column may be without it."""
    if labels.dtype.kind not in "fiub":
        raise TypeError(f"{owner}: labels must be numbers, got {labels.dtype}")
    if labels.shape != shape and (shape[1] != 1 or labels.shape != shape[:1]):
        raise ValueError(f"{owner}: labels must have shape {shape[: 1 if shape[1] == 1 else 2]}, got {labels.shape}")
    if not np.isfinite(labels).all():
        place = np.argwhere(~np.isfinite(labels))[0]
        raise ValueError(f"{owner}: labels must be finite, got {labels[tuple(place)]} at {tuple(place.tolist())}")
    return labels.reshape(shape)


def _several(owner: str, labels: Array, shape: tuple[int, int]) -> Array:
    """Labels of `[batch, num_labels]`, each one's probability."""
    if labels.ndim == 1 and labels.dtype.kind in "fb":
        raise ValueError(
            f"{owner}: labels of {labels.dtype} mean several for each sequence and must have shape {shape}, "
            f"got {labels.shape}; classes are integers"
        )
    array = _numbers(owner, labels, shape)
    wrong = (array < 0) | (array > 1)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(f"{owner}: several labels must be in [0, 1], got {array[place]} at {place}")
    return array


def _check_positions(name: str, positions: ArrayLike, batch: Tokens) -> Array:
    """Columns as targets: -100 beyond the end, and none at the padding."""
    owner, seq = "BertForQuestionAnswering", batch.shape[1]
    columns = np.maximum(integers(f"{owner}: {name}", positions, batch.shape[:1]), 0)
    if (columns >= seq).all():
        raise ValueError(
            f"{owner}: {name} must have a position in [0, {seq}), the sequence: all {len(columns)} lie beyond it"
        )
    columns[columns >= seq] = IGNORE_INDEX
    columns = check_labels(owner, name, columns, batch.shape[:1], seq)
    if batch.mask is not None:
        for i, column in enumerate(columns):
            if column != IGNORE_INDEX and not batch.mask[i, column]:
                raise ValueError(f"{owner}: {name} must be at a token, got {column} at index {i}, which is padding")
    return columns
