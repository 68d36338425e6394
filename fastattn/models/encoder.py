"""What the families of encoders share: embeddings, a stack of blocks, a pooler, and the border of the model.

A family defines a config, the names of its checkpoints, and `build`. The heads are in `heads` and `masked_lm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from fastattn.models.config import ACTIVATIONS, LABELS
from fastattn.models.inputs import Tokens, pack, pack_ragged
from fastattn.models.outputs import EncoderOutput, as_tensor
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array
from fastattn.nn.quantization import Normed
from fastattn.nn.stacks import normed_layers
from fastattn.text import tokenizer_files

BERT_NAMES = {
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
"""The names of checkpoints in the families that descend from BERT's code."""


class EncoderFamily(PreTrainedModel):
    """An encoder, alone or under a head. A loaded head is trainable, a loaded encoder frozen."""

    tokenizer_files = tokenizer_files.NAMES
    files = Files((*HUGGING_FACE.patterns, *tokenizer_files), HUGGING_FACE.required)
    old_endings: ClassVar = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    loads_trainable = True
    unused_fields: ClassVar[tuple[str, ...]] = LABELS

    gradient_checkpointing = False

    def gradient_checkpointing_enable(self) -> None:
        """Keep only the input of each layer and recompute the layer in `backward()`: less memory, the same bits."""
        self._set_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all intermediate results of the layers."""
        self._set_checkpointing(False)

    def _set_checkpointing(self, enabled: bool) -> None:
        for module in self.modules():
            if isinstance(module, EncoderFamily):
                module.gradient_checkpointing = enabled


@dataclass(eq=False, repr=False)
class Batch(Tokens):
    """Tokens and, unless all are 0, their `token_type_ids`, int64 `[tokens]`.

    `choices` is `(batch, choices)` if the sequences are those of a multiple choice. `places` are the tokens that get
    scores of words, int64 `[n]`; None means all.
    """

    token_type_ids: NDArray[np.int64] | None = None
    choices: tuple[int, ...] = ()
    places: NDArray[np.int64] | None = None


class Embeddings(nn.Module):
    """The normalised sum of word, position and token type rows: `[tokens]` to `[tokens, dim]`.

    `dim` is `config.hidden_size` by default. Without token types in the config there is no such table, and without
    `positions` none of positions. The norm has a bias unless `norm_bias` is False.
    """

    def __init__(self, config: Any, dim: int | None = None, *, positions: bool = True, norm_bias: bool = True) -> None:
        dim, std, row = dim or config.hidden_size, config.initializer_range, config.uncounted
        self.word_embeddings = nn.Embedding(
            config.vocab_size, dim, config.pad_token_id if row is None else row, std=std
        )
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, dim, row, std=std) if positions else None
        )
        types = config.type_vocab_size
        self.token_type_embeddings = nn.Embedding(types, dim, std=std) if types else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(dim, config.layer_norm_eps, bias=norm_bias)

    def forward(
        self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64] | None, position_ids: NDArray[np.int64]
    ) -> Any:
        words, places, types, norm = (
            self.word_embeddings, self.position_embeddings, self.token_type_embeddings, self.LayerNorm,
        )  # fmt: skip
        weight, kinds = words.weight, None if types is None else types.weight
        rows = None if places is None else places.weight
        # If nothing is recorded, the norm is computed in the same pass, whether the model trains or not.
        quiet = not (mode.grad or self.training)
        x = F.embedding_sum(
            input_ids,
            weight,
            position_ids=None if places is None else position_ids,
            position_weight=rows,
            token_type_ids=token_type_ids,
            token_type_weight=kinds,
            norm_weight=norm.weight,
            norm_bias=norm.bias,
            eps=norm.eps,
            padding_idx=words.padding_idx,
            position_padding_idx=None if places is None else places.padding_idx,
            out=np.empty((len(input_ids), weight.shape[1]), weight.dtype) if quiet else None,
        )
        if quiet and tensors(weight, rows, kinds, norm.weight, norm.bias):
            return Tensor(x)
        return self.dropout(x)


def encoder_block(config: Any) -> nn.EncoderBlock:
    """A layer of BERT, with the sizes and rates of an `EncoderConfig`."""
    return nn.EncoderBlock(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        ACTIVATIONS[config.hidden_act],
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        eps=config.layer_norm_eps,
        std=config.initializer_range,
    )


class Encoder(EncoderFamily):
    """An encoder without a head. A loaded model is frozen unless `trainable` is set.

    Any number of threads may call it at once. The names of `tensors` match Hugging Face's. Without `add_pooling_layer`,
    or without `pooler.dense.weight` among the tensors, the model has no pooler.

    By default it is built as BERT. A family changes the class attributes, or overrides `build`, `embed`, `blocks` and
    `position_bias`.
    """

    loads_trainable = False
    options: ClassVar[tuple[str, ...]] = ("add_pooling_layer",)
    layer_names: ClassVar[Mapping[str, str]] = {"num_hidden_layers": "encoder.layer.{}."}
    whole: ClassVar[tuple[str, ...]] = ("embeddings.", "encoder.")
    passed_over: ClassVar[tuple[str, ...]] = ("embeddings.position_ids", "embeddings.token_type_ids")
    checkpoint_names: Mapping[str, str] = BERT_NAMES
    pools: ClassVar[bool] = True
    """Whether the family has a pooler."""
    gapless: ClassVar[bool] = False
    """Whether attention looks at the distance of two tokens, which padding between them would change."""

    embeddings: Embeddings
    layers: list[nn.EncoderBlock]
    pooler: nn.Linear | None
    final_norm: nn.LayerNorm | None = None
    """The norm after the last block, if its blocks are `norm_first`."""

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Array] | None = None,
        *,
        add_pooling_layer: bool = True,
        **options: Any,
    ) -> None:
        pooler = f"{self.checkpoint_names.get('pooler', 'pooler')}.weight"
        self._pools = self.pools and add_pooling_layer and (tensors is None or pooler in tensors)
        super().__init__(config, tensors, **options)

    def build(self, config: Any) -> None:
        self.embeddings = Embeddings(config)
        self.layers = [encoder_block(config) for _ in range(config.num_hidden_layers)]
        self._build_pooler(config)

    def _build_pooler(self, config: Any) -> None:
        dim = config.hidden_size
        self.pooler = nn.Linear(dim, dim, activation="tanh", std=config.initializer_range) if self._pools else None

    def embed(self, batch: Batch, token_type_ids: NDArray[np.int64] | None) -> Any:
        """The input of the first block, `[tokens, hidden_size]`."""
        return self.embeddings(batch.ids, token_type_ids, batch.position_ids)

    def blocks(self) -> Sequence[nn.EncoderBlock]:
        """The blocks in the order in which they run."""
        return self.layers

    def input_layer(self) -> nn.Linear | None:
        """The layer between the embeddings and the first block, if there is one."""
        return None

    def normed_layers(self) -> Iterator[Normed]:
        norm: nn.LayerNorm | None = self.embeddings.LayerNorm
        if norm is not None and (layer := self.input_layer()) is not None:
            yield Normed(norm, layer)
            norm = None
        blocks = self.blocks()
        yield from normed_layers(blocks, norm)
        last = self.final_norm or blocks[-1].final_layer_norm
        if self.pooler is not None:
            yield Normed(last, self.pooler)

    def position_bias(self) -> Any:
        """What all blocks add to their scores, see `nn.encode`; None for a family without."""
        return None

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderOutput:
        """Encode a padded batch; no padding token is computed.

        All arguments are `[batch, seq]`: ids of any integer dtype, a mask of bools or integers with 1 at the tokens. No
        mask means that all are tokens. The position of a token is its column, even after left padding and gaps, and the
        pooler reads the first token that the mask keeps. Padding ids are not read.

        Families with a `config.uncounted` (RoBERTa: `pad_token_id`) count positions from the number after it, and only
        the other ids, also where the mask is 0. The id itself has itself as its position.

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
    ) -> EncoderOutput:
        """Encode sequences that follow one another without padding.

        `input_ids` are integers `[tokens]`, and sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]`. Positions
        count from the family's first one in each sequence unless given. Errors are as in the padded call.
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
        tokens = pack_ragged(
            type(self).__name__, "input_ids", input_ids, cu_seqlens, position_ids, uncounted=self.config.uncounted
        )
        return self._checked(tokens, token_type_ids, given_positions=position_ids is not None)

    def pack(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, token_type_ids: ArrayLike | None = None
    ) -> Batch:
        """A padded batch with its padding removed; arguments and errors are as in the padded call.

        Raises ValueError too for a mask with gaps if the family is `gapless`.
        """
        tokens = pack(type(self).__name__, "input_ids", input_ids, attention_mask, uncounted=self.config.uncounted)
        if self.gapless and tokens.mask is not None:
            begins = np.diff(tokens.mask.astype(np.int8), axis=1, prepend=0) == 1
            several = np.flatnonzero(begins.sum(axis=1) > 1)
            if len(several):
                wanted = f"{type(self).__name__}: attention_mask must keep neighbouring tokens"
                raise ValueError(f"{wanted}, got a gap in row {several[0]}")
        return self._checked(tokens, token_type_ids)

    def _checked(self, batch: Tokens, token_type_ids: ArrayLike | None, given_positions: bool = False) -> Batch:
        config, owner = self.config, type(self).__name__
        if given_positions or batch.shape[-1] > config.max_tokens:
            batch.check_positions(config.max_position_embeddings)
        types = None
        if token_type_ids is not None:
            types = integers(f"{owner}: token_type_ids", token_type_ids, batch.shape)
            types = types.reshape(-1) if batch.mask is None else types[batch.mask]
            if not config.type_vocab_size:  # the families without token types take zeros
                batch.check_rows(f"{owner}: token_type_ids", types, 1)
        return Batch(**vars(batch), token_type_ids=types)

    def encode(
        self, batch: Batch, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> EncoderOutput:
        """Encode a batch made by `pack`. The result is ragged, as in `forward_ragged`."""
        with self.one_pass():
            return self._encode(batch, output_hidden_states, output_attentions)

    def _encode(self, batch: Batch, output_hidden_states: bool, output_attentions: bool) -> EncoderOutput:
        config, cu_seqlens, types = self.config, batch.cu_seqlens, batch.token_type_ids
        if not config.type_vocab_size:
            types = None
        elif types is None:
            types = np.zeros(len(batch.ids), np.int64)
        try:
            x = self.embed(batch, types)
        except ValueError:
            batch.check_ids(config.vocab_size)
            if types is not None:
                batch.check_rows(f"{type(self).__name__}: token_type_ids", types, config.type_vocab_size)
            raise
        states: Any = [x] if output_hidden_states else None
        attentions: Any = [] if output_attentions else None
        checkpointing = self.gradient_checkpointing
        given = {"position_ids": batch.position_ids, "states": states, "attn_weights": attentions}
        x = nn.encode(self.blocks(), x, cu_seqlens, self.position_bias(), **given, checkpointing=checkpointing)
        if self.final_norm is not None:
            x = self.final_norm(x, out=x if states is None and isinstance(x, np.ndarray) else None)
            if states is not None:
                states[-1] = x
        pooled = None if self.pooler is None else self._pool(self.pooler, x, cu_seqlens)
        extras = (given and tuple(given if self.frozen else map(as_tensor, given)) for given in (states, attentions))
        return EncoderOutput(x, pooled, *extras)

    def _pool(self, pooler: nn.Linear, x: Values, cu_seqlens: NDArray[np.int32]) -> Any:
        pooled = pooler(F.pooling(x, cu_seqlens, "cls"))
        full = cu_seqlens[1:] > cu_seqlens[:-1]
        if np.count_nonzero(full) == len(full):
            return pooled
        kept = full.nonzero()[0]
        return F.scatter_rows(F.gather_rows(pooled, kept), kept, len(full))
