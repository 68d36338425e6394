"""BERT, the bidirectional encoder.

    >>> model = BertModel.from_pretrained("all-MiniLM-L6-v2")                 # doctest: +SKIP
    >>> model(np.array([[101, 7592, 102]])).last_hidden_state.shape           # doctest: +SKIP
    (1, 3, 384)

Source: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding". Names, files and results match Hugging Face's `BertModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import nn
from fastattn.autograd import Tensor, mode, tensors
from fastattn.checks import integers
from fastattn.hub import Files
from fastattn.models.base import HUGGING_FACE, PreTrainedModel
from fastattn.models.bert.config import LABELS, BertConfig
from fastattn.models.bert.outputs import BertOutput
from fastattn.models.config import ACTIVATIONS
from fastattn.models.inputs import Tokens, pack, pack_ragged
from fastattn.models.outputs import as_tensor
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.text import tokenizer_files

OWNER = "BertModel"
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants that old versions of transformers wrote."""


class BertPreTrainedModel(PreTrainedModel):
    """A BERT encoder, alone or under a head."""

    config_class = BertConfig
    tokenizer_files = tokenizer_files.NAMES
    files = Files((*HUGGING_FACE.patterns, *tokenizer_files), HUGGING_FACE.required)
    loads_trainable = True
    layer_names: ClassVar = {"num_hidden_layers": "bert.encoder.layer.{}."}
    required: ClassVar[tuple[str, ...]] = ("bert.embeddings.", "bert.encoder.")
    whole: ClassVar[tuple[str, ...]] = required
    passed_over: ClassVar[tuple[str, ...]] = tuple(f"bert.{name}" for name in _BUFFERS)
    prefix = "bert."
    prefixed: ClassVar[tuple[str, ...]] = ("embeddings.", "encoder.", "pooler.")
    unused_fields: ClassVar[tuple[str, ...]] = LABELS
    old_endings: ClassVar = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

    config: BertConfig
    gradient_checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        """Keep only the input of each layer and recompute the layer in `backward()`: less memory, the same bits."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all intermediate results of the layers."""
        self._set_checkpointing(False)

    def _set_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, BertPreTrainedModel):
                module.gradient_checkpointing = enabled


class BertEmbeddings(nn.Module):
    """The normalised sum of word, token type and position rows: `[tokens]` to `[tokens, hidden_size]`."""

    def __init__(self, config: BertConfig) -> None:
        dim, std = config.hidden_size, config.initializer_range
        self.word_embeddings = nn.Embedding(config.vocab_size, dim, config.pad_token_id, std=std)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, dim, std=std)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, dim, std=std)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(
        self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64], position_ids: NDArray[np.int64]
    ) -> Any:
        words, places, types, norm = (
            self.word_embeddings, self.position_embeddings, self.token_type_embeddings, self.LayerNorm,
        )  # fmt: skip
        weight = words.weight
        # If nothing is recorded, the norm is computed in the same pass, whether the model trains or not.
        quiet = not (mode.grad or self.training)
        x = F.embedding_sum(
            input_ids,
            weight,
            position_ids=position_ids,
            position_weight=places.weight,
            token_type_ids=token_type_ids,
            token_type_weight=types.weight,
            norm_weight=norm.weight,
            norm_bias=norm.bias,
            eps=norm.eps,
            padding_idx=words.padding_idx,
            out=np.empty((len(input_ids), weight.shape[1]), weight.dtype) if quiet else None,
        )
        if quiet and tensors(weight, places.weight, types.weight, norm.weight, norm.bias):
            return Tensor(x)
        return self.dropout(x)


@dataclass
class Batch(Tokens):
    """Tokens and, unless all are 0, their `token_type_ids`, int64 `[tokens]`.

    `choices` is `(batch, choices)` if the sequences are those of a multiple choice. `places` are the tokens that get
    scores of words, int64 `[n]`; None means all.
    """

    token_type_ids: NDArray[np.int64] | None = None
    choices: tuple[int, ...] = ()
    places: NDArray[np.int64] | None = None


class BertModel(BertPreTrainedModel):
    """A BERT encoder. A loaded model is frozen unless `trainable` is set.

    Any number of threads may call it at once. The names of `tensors` match Hugging Face's `BertModel`. Without
    `add_pooling_layer`, or without `pooler.dense.weight` among the tensors, the model has no pooler.
    """

    loads_trainable = False
    options = ("add_pooling_layer",)
    layer_names: ClassVar = {"num_hidden_layers": "encoder.layer.{}."}
    required = ("",)
    whole = ("embeddings.", "encoder.")
    passed_over = _BUFFERS
    prefixed = ()
    checkpoint_names = {  # noqa: RUF012
        "layers.{}.self_attn.q_proj": "encoder.layer.{}.attention.self.query",
        "layers.{}.self_attn.k_proj": "encoder.layer.{}.attention.self.key",
        "layers.{}.self_attn.v_proj": "encoder.layer.{}.attention.self.value",
        "layers.{}.self_attn.out_proj": "encoder.layer.{}.attention.output.dense",
        "layers.{}.self_attn_layer_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layers.{}.fc1": "encoder.layer.{}.intermediate.dense",
        "layers.{}.fc2": "encoder.layer.{}.output.dense",
        "layers.{}.final_layer_norm": "encoder.layer.{}.output.LayerNorm",
        "pooler": "pooler.dense",
    }

    def __init__(
        self,
        config: BertConfig,
        tensors: Mapping[str, Array] | None = None,
        *,
        add_pooling_layer: bool = True,
        **options: Any,
    ) -> None:
        self._pools = add_pooling_layer and (tensors is None or "pooler.dense.weight" in tensors)
        super().__init__(config, tensors, **options)

    def build(self, config: BertConfig) -> None:
        dim, std = config.hidden_size, config.initializer_range
        self.embeddings = BertEmbeddings(config)
        self.layers = [
            nn.EncoderBlock(
                dim,
                config.num_attention_heads,
                config.intermediate_size,
                ACTIVATIONS[config.hidden_act],
                dropout=config.hidden_dropout_prob,
                attention_dropout=config.attention_probs_dropout_prob,
                eps=config.layer_norm_eps,
                std=std,
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.pooler = nn.Linear(dim, dim, activation="tanh", std=std) if self._pools else None

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BertOutput:
        """Encode a padded batch; no padding token is computed.

        All arguments are `[batch, seq]`: ids of any integer dtype, a mask of bools or integers with 1 at the tokens. No
        mask means that all are tokens. The position of a token is its column, even after left padding and gaps, and the
        pooler reads the first token that the mask keeps. Padding ids are not read.

        Raises TypeError for ids or a mask that are not integers. Raises ValueError for shapes that differ, ids outside
        the vocabulary and positions >= `max_position_embeddings`.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        output = self.encode(batch, output_hidden_states, output_attentions)
        output.hidden_states = states = output.hidden_states and tuple(batch.pad(x) for x in output.hidden_states)
        output.last_hidden_state = states[-1] if states else batch.pad(output.last_hidden_state)
        output.attentions = output.attentions and tuple(batch.pad_weights(x) for x in output.attentions)
        return output

    def forward_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BertOutput:
        """Encode sequences that follow one another without padding.

        `input_ids` are integers `[tokens]`, and sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`. Positions
        count from 0 in each sequence unless given. Errors are as in the padded call.
        """
        batch = self.check_ragged(input_ids, cu_seqlens, token_type_ids, position_ids)
        return self.encode(batch, output_hidden_states, output_attentions)

    def check_ragged(
        self,
        input_ids: ArrayLike,
        cu_seqlens: ArrayLike,
        token_type_ids: ArrayLike | None = None,
        position_ids: ArrayLike | None = None,
    ) -> Batch:
        """A ragged batch for `encode`; arguments and errors are as in `forward_ragged`."""
        batch = pack_ragged(OWNER, "input_ids", input_ids, cu_seqlens, position_ids)
        return self._checked(batch, token_type_ids, given_positions=position_ids is not None)

    def pack(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, token_type_ids: ArrayLike | None = None
    ) -> Batch:
        """A padded batch with its padding removed; arguments and errors are as in the padded call."""
        return self._checked(pack(OWNER, "input_ids", input_ids, attention_mask), token_type_ids)

    def _checked(self, batch: Tokens, token_type_ids: ArrayLike | None, given_positions: bool = False) -> Batch:
        if given_positions or batch.shape[-1] > self.config.max_position_embeddings:
            batch.check_positions(self.config.max_position_embeddings)
        types = None
        if token_type_ids is not None:
            types = integers(f"{OWNER}: token_type_ids", token_type_ids, batch.shape)
            types = types.reshape(-1) if batch.mask is None else types[batch.mask]
        return Batch(**vars(batch), token_type_ids=types)

    def encode(self, batch: Batch, output_hidden_states: bool = False, output_attentions: bool = False) -> BertOutput:
        """Encode a batch made by `pack`. The result is ragged, as in `forward_ragged`."""
        with self.one_pass():
            return self._encode(batch, output_hidden_states, output_attentions)

    def _encode(self, batch: Batch, output_hidden_states: bool, output_attentions: bool) -> BertOutput:
        config, cu_seqlens, types = self.config, batch.cu_seqlens, batch.token_type_ids
        if types is None:
            types = np.zeros(len(batch.ids), np.int64)
        try:
            x = self.embeddings(batch.ids, types, batch.position_ids)
        except ValueError:
            batch.check_ids(config.vocab_size)
            batch.check_rows(f"{OWNER}: token_type_ids", types, config.type_vocab_size)
            raise
        states: Any = [x] if output_hidden_states else None
        attentions: Any = [] if output_attentions else None
        checkpointing = self.gradient_checkpointing
        x = nn.encode(self.layers, x, cu_seqlens, states=states, attn_weights=attentions, checkpointing=checkpointing)
        pooled = None if self.pooler is None else self._pool(self.pooler, x, cu_seqlens)
        extras = (given and tuple(given if self.frozen else map(as_tensor, given)) for given in (states, attentions))
        return BertOutput(x, pooled, *extras)

    def _pool(self, pooler: nn.Linear, x: Values, cu_seqlens: NDArray[np.int32]) -> Any:
        pooled = pooler(F.pooling(x, cu_seqlens, "cls"))
        full = cu_seqlens[1:] > cu_seqlens[:-1]
        if np.count_nonzero(full) == len(full):
            return pooled
        kept = full.nonzero()[0]
        return F.scatter_rows(F.gather_rows(pooled, kept), kept, len(full))
