"""The Transformer, encoder and decoder.

    >>> model = Transformer.from_pretrained("opus-mt-de-en")                                      # doctest: +SKIP
    >>> model(np.array([[72, 1511, 0]]), decoder_input_ids=np.array([[58100, 812]])).logits.shape  # doctest: +SKIP
    (1, 2, 58101)

Source: Vaswani et al. 2017, "Attention is all you need" (arXiv 1706.03762). Names, files and results match Hugging
Face's `MarianMTModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn import functional as F
from fastattn import kernels, nn, ragged
from fastattn.autograd import Tensor, mode, no_grad
from fastattn.checks import FRACTION, number
from fastattn.functional.losses import IGNORE_INDEX
from fastattn.models.config import ACTIVATIONS
from fastattn.models.inputs import Tokens, check_labels, pack, pack_ragged
from fastattn.models.outputs import Output, as_tensor, later
from fastattn.models.transformer.config import TransformerConfig
from fastattn.models.transformer.decoding import TransformerDecoder
from fastattn.models.transformer.inputs import (
    OWNER,
    check_pairs,
    check_states,
    shift_right,
    up_to_the_last_label,
)
from fastattn.models.transformer.pretrained import TransformerPreTrainedModel, computed_positions
from fastattn.nn.module import Values
from fastattn.nn.parameter import Matrix, Parameter, Table
from fastattn.nn.quantization import Normed, rows_of
from fastattn.nn.stacks import normed_layers

Weights = list[Any] | None


@dataclass(kw_only=True, eq=False, repr=False)
class TransformerOutput(Output):
    """The output of a call: Tensors from a trainable model, float32 arrays from a frozen one.

    - `loss`: always a Tensor of one number; None without labels
    - `logits`: `[batch, target_seq, decoder_vocab_size]`, 0 at the padding, and `encoder_last_hidden_state`
      `[batch, source_seq, d_model]`. They are computed on first read, the logits with the weights at that time and the
      kernels of the call. The loss needs neither
    - on request, the attention weights of each layer, 0 at the padding: `encoder_attentions`
      `[batch, heads, source_seq, source_seq]`, `decoder_attentions` `[batch, heads, target_seq, target_seq]` and
      `cross_attentions` `[batch, heads, target_seq, source_seq]`
    """

    loss: Tensor | None
    compute_logits: Callable[[], Any] = field(repr=False)
    decoder_attentions: tuple[Any, ...] | None = None
    cross_attentions: tuple[Any, ...] | None = None
    compute_encoder_last_hidden_state: Callable[[], Any] = field(repr=False)
    encoder_attentions: tuple[Any, ...] | None = None


class Stack(nn.Module):
    """The encoder or the decoder: embeddings, from a table that both may share, and the blocks above them."""

    def __init__(self, config: TransformerConfig, side: str, embed_tokens: nn.Embedding) -> None:
        dim, hidden_dim = config.d_model, getattr(config, f"{side}_ffn_dim")
        self.scale = dim**0.5 if config.scale_embedding else 1.0
        self.embed_tokens = embed_tokens
        self.embed_positions: nn.Embedding | nn.SinusoidalPositions
        if config.position_embedding_type in ("learned", "stored"):
            self.embed_positions = nn.Embedding(config.max_position_embeddings, dim, std=config.embedding_std)
            self.embed_positions.weight.requires_grad = config.position_embedding_type == "learned"
        else:
            self.embed_positions = computed_positions(config)
        self.dropout = nn.Dropout(config.dropout)
        block = nn.EncoderBlock if side == "encoder" else nn.DecoderBlock
        self.layers: list[Any] = [
            block(
                dim,
                getattr(config, f"{side}_attention_heads"),
                hidden_dim,
                ACTIVATIONS[config.activation_function],
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation_dropout=config.activation_dropout,
                norm_first=config.normalize_before,
                eps=config.layer_norm_eps,
                std=config.std(dim, dim),
                hidden_std=config.std(dim, hidden_dim),
            )
            for _ in range(getattr(config, f"{side}_layers"))
        ]
        self.layer_norm = nn.LayerNorm(dim, config.layer_norm_eps) if config.normalize_before else None

    def embed(self, ids: NDArray[np.int64], position_ids: NDArray[np.int64]) -> Any:
        """Dropout of scaled embeddings plus positions: `[tokens]` to `[tokens, d_model]`."""
        tokens, positions = self.embed_tokens, self.embed_positions
        table: Any
        if isinstance(positions, nn.Embedding):
            table, places = positions.weight, position_ids
        else:
            table, places = positions.lookup(position_ids)
        x = F.embedding_sum(
            ids,
            tokens.weight,
            position_ids=places,
            position_weight=table,
            scale=self.scale,
            padding_idx=tokens.padding_idx,
        )
        return self.dropout(x)

    def last_norm(self) -> nn.LayerNorm:
        """The norm whose results are those of the stack."""
        found: nn.LayerNorm = self.layer_norm or self.layers[-1].final_layer_norm
        return found

    def normed_layers(self) -> Iterator[Normed]:
        return normed_layers(self.layers)

    def finish(self, x: Values) -> Any:
        """The norm after the last layer with `normalize_before`, else `x` unchanged. Overwrites an array `x`."""
        norm = self.layer_norm
        if norm is None:
            return x
        return norm(x, out=x if norm.frozen and isinstance(x, np.ndarray) else None)


class Transformer(TransformerPreTrainedModel):
    """The encoder-decoder of the paper and of MarianMT.

    Both sides of a batch are ragged inside: no padding token is computed. Any number of threads may call it at once.

    >>> config = TransformerConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16,
    ...     decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2)
    >>> model = Transformer(config)
    >>> ids, mask = np.array([[5, 6, 2], [7, 2, 0]]), np.array([[1, 1, 1], [1, 1, 0]])
    >>> output = model(ids, mask, labels=np.array([[9, 2], [8, 2]]))
    >>> output.logits.shape, output.encoder_last_hidden_state.shape
    ((2, 2, 20), (2, 3, 8))
    >>> output.loss.backward()
    """

    checkpoint_names = {  # noqa: RUF012
        "shared": "model.shared",
        "encoder": "model.encoder",
        "decoder": "model.decoder",
    }

    def build(self, config: TransformerConfig) -> None:
        dim, std, pad = config.d_model, config.embedding_std, config.pad_token_id
        source = nn.Embedding(config.vocab_size, dim, pad, std=std)
        shared = config.share_encoder_decoder_embeddings
        target = source if shared else nn.Embedding(config.decoder_vocab_size, dim, pad, std=std)
        self.shared = source if shared else None
        self.encoder = Stack(config, "encoder", source)
        self.decoder = Stack(config, "decoder", target)
        self.lm_head = nn.Linear(
            dim, config.decoder_vocab_size, bias=False, std=config.std(dim, config.decoder_vocab_size)
        )
        if config.tie_word_embeddings:
            self.lm_head.weight = target.weight
        self.final_logits_bias = Parameter((1, config.decoder_vocab_size))
        self.final_logits_bias.requires_grad = False

    def normed_layers(self) -> Iterator[Normed]:
        for block in self.decoder.layers:
            yield block.encoder_attn.stacked_after(self.encoder.last_norm())
        yield Normed(self.decoder.last_norm(), self.lm_head)

    def forward(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        decoder_input_ids: ArrayLike | None = None,
        decoder_attention_mask: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        label_smoothing: float = 0.0,
        output_attentions: bool = False,
    ) -> TransformerOutput:
        """Score a padded batch; no padding token is computed.

        `input_ids` and `attention_mask` are `[batch, source_seq]`, the other arrays `[batch, target_seq]`: ids and
        labels of any integer dtype, masks of bools or integers with 1 at the tokens. Without a mask all are tokens.
        The position of a token is its column, even after left padding and gaps. `labels` are the words to predict, -100
        where there is none. The loss is the mean cross-entropy of the others, smoothed by `label_smoothing`, and scores
        are computed only for these. Without `decoder_input_ids` the decoder reads `decoder_start_token_id` and then the
        labels, up to the last label of each row that is not -100.

        Raises TypeError for ids, labels or a mask that are not integers. Raises ValueError for shapes that do not fit,
        ids outside the vocabulary, positions >= `max_position_embeddings`, a source row without tokens, and if neither
        `decoder_input_ids` nor `labels` are given.
        """
        source = pack(OWNER, "input_ids", input_ids, attention_mask)
        target, words = self._target(decoder_input_ids, decoder_attention_mask, labels)
        check_pairs(target, "input_ids", source.cu_seqlens)
        number(f"{OWNER}: label_smoothing", label_smoothing, **FRACTION)
        own: tuple[Weights, ...] = ([], [], []) if output_attentions else (None, None, None)
        memory = self._encode(source, own[0])
        hidden = self._decode(target, memory, source.cu_seqlens, own[1], own[2])
        loss = None if words is None else self._loss(hidden, words, label_smoothing)

        def attentions(weights: Weights, queries: Tokens, keys: Tokens) -> tuple[Any, ...] | None:
            given = weights if self.frozen or weights is None else map(as_tensor, weights)
            return None if given is None else tuple(queries.pad_weights(x, keys) for x in given)

        return TransformerOutput(
            loss=loss,
            compute_logits=later(lambda: target.pad(self.logits(hidden))),
            decoder_attentions=attentions(own[1], target, target),
            cross_attentions=attentions(own[2], target, source),
            compute_encoder_last_hidden_state=later(lambda: source.pad(memory)),
            encoder_attentions=attentions(own[0], source, source),
        )

    def encode_ragged(self, input_ids: ArrayLike, cu_seqlens: ArrayLike, position_ids: ArrayLike | None = None) -> Any:
        """Encode sequences that follow one another without padding: `[tokens]` to `[tokens, d_model]`.

        Sequence i is tokens `cu_seqlens[i]` to `cu_seqlens[i + 1]` of `input_ids`. `position_ids` `[tokens]` count from
        0 in each sequence unless given. Errors are as in the padded call.
        """
        return self._encode(pack_ragged(OWNER, "input_ids", input_ids, cu_seqlens, position_ids))

    def decode_ragged(
        self,
        decoder_input_ids: ArrayLike,
        cu_seqlens_q: ArrayLike,
        memory: Values,
        cu_seqlens_k: ArrayLike,
        position_ids: ArrayLike | None = None,
    ) -> Any:
        """The input of `logits`: from `decoder_input_ids` `[tokens]`, split by `cu_seqlens_q`, to `[tokens, d_model]`.

        `memory` `[source_tokens, d_model]`, split by `cu_seqlens_k`, is the result of `encode_ragged`. `position_ids`
        and errors are as in `encode_ragged`.
        """
        target = pack_ragged(OWNER, "decoder_input_ids", decoder_input_ids, cu_seqlens_q, position_ids, "cu_seqlens_q")
        check_states("memory", memory, self.config.d_model, self.final_logits_bias.dtype)
        offsets = ragged.check_cu_seqlens(cu_seqlens_k, memory.shape[0], f"{OWNER}: cu_seqlens_k")
        check_pairs(target, "memory", offsets)
        return self._decode(target, memory, offsets)

    def logits(self, hidden: Values) -> Any:
        """The scores of all words, `[rows, decoder_vocab_size]`, from `hidden` `[rows, d_model]` of `decode_ragged`."""
        check_states("hidden", hidden, self.config.d_model, self.final_logits_bias.dtype)
        return F.linear(hidden, self.lm_head.matrix, self.final_logits_bias.reshape(-1))

    def loss_ragged(
        self,
        source_ids: ArrayLike,
        cu_source: ArrayLike,
        target_in: ArrayLike,
        cu_target: ArrayLike,
        target_out: ArrayLike,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        """The loss of a ragged batch: the decoder reads `target_in` and should predict `target_out`.

        `source_ids`, split by `cu_source`, are the sources. `target_in` and `target_out` `[tokens]`, split by
        `cu_target`, are the targets, with -100 in `target_out` where there is nothing to predict. `label_smoothing` is
        as in a call. `reduction` is "mean", "sum" or "none" as in `fastattn.functional.cross_entropy`, over the tokens
        that count. Errors are as in the padded call.
        """
        source = pack_ragged(OWNER, "source_ids", source_ids, cu_source, None, "cu_source")
        target = pack_ragged(OWNER, "target_in", target_in, cu_target, None, "cu_target")
        check_pairs(target, "source_ids", source.cu_seqlens)
        number(f"{OWNER}: label_smoothing", label_smoothing, **FRACTION)
        words = check_labels(OWNER, "target_out", target_out, target.shape, self.config.decoder_vocab_size)
        hidden = self._decode(target, self._encode(source), source.cu_seqlens)
        return self._loss(hidden, words, label_smoothing, reduction)

    def begin(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        *,
        max_length: int,
        use_cache: bool = True,
        vocabulary: NDArray[np.int64] | None = None,
    ) -> TransformerDecoder:
        """Read sources to be decoded token by token; `fastattn.generation` calls this.

        `input_ids` and `attention_mask` are as in a call. No sequence grows beyond `max_length`. Only the words of
        `vocabulary`, ids, get scores; the scores of others are -inf. Nothing is recorded. Errors are as in a call; a
        model in training mode raises ValueError, since nothing is dropped.
        """
        if self.training:
            raise ValueError(f"{OWNER}: the model is in training mode; call eval() first")
        source = pack(OWNER, "input_ids", input_ids, attention_mask)
        empty = ragged.lengths(source.cu_seqlens) == 0
        if empty.any():
            i = int(empty.argmax())
            raise ValueError(f"{OWNER}: input_ids must have a token in each sequence, got none in sequence {i}")
        with no_grad():
            memory = self._encode(source)
            return TransformerDecoder(self, memory, source.cu_seqlens, max_length, use_cache, vocabulary)

    def output_layer(self, vocabulary: NDArray[np.int64] | None = None) -> tuple[Any, Any]:
        """The matrix and the bias of the scores, of some words or of all, as kernels take them.

        A table of embeddings is packed, too, if it is the matrix. A step of one sequence and 58101 words then takes
        half the time, and packing takes as long as three steps.
        """
        weight, bias = self.lm_head.weight, self.final_logits_bias.value.reshape(-1)
        if weight.weights != "float32":
            matrix = self.lm_head.matrix
            matrix = matrix.value if isinstance(matrix, Matrix) else matrix
            return (matrix, bias) if vocabulary is None else (rows_of(matrix, vocabulary), bias[vocabulary])
        if vocabulary is not None or mode.ops is not kernels:
            chosen = slice(None) if vocabulary is None else vocabulary
            rows, bias = weight.data[chosen], np.ascontiguousarray(bias[chosen])
            return rows if mode.ops is not kernels else kernels.PackedMatrix(rows), bias
        if isinstance(weight, Table):
            return weight.matrix, bias
        return weight.value if weight.frozen else kernels.PackedMatrix(weight.value), bias

    def _target(
        self, ids: ArrayLike | None, mask: ArrayLike | None, labels: ArrayLike | None
    ) -> tuple[Tokens, NDArray[np.int64] | None]:
        """The decoder's side of a padded batch, and the labels of its tokens."""
        config, mask_name = self.config, "decoder_attention_mask"
        target = None if ids is None else pack(OWNER, "decoder_input_ids", ids, mask, mask_name)
        if target is None and labels is not None:
            shape = np.shape(labels)
            if len(shape) != 2:
                raise ValueError(f"{OWNER}: labels must have shape (batch, seq), got {shape}")
            words = check_labels(OWNER, "labels", labels, shape, config.decoder_vocab_size)
            if config.pad_token_id is None:
                raise ValueError(f"{OWNER}: decoder_input_ids must be given, for pad_token_id of the config is None")
            shifted = shift_right(words, config.decoder_start_token_id, config.pad_token_id)
            target = pack(OWNER, "labels", shifted, up_to_the_last_label(words) if mask is None else mask, mask_name)
        if target is None:
            raise ValueError(f"{OWNER}: decoder_input_ids or labels must be given")
        if labels is None:
            return target, None
        return target, target.pack_labels(OWNER, labels, config.decoder_vocab_size, mask_name)

    def _encode(self, source: Tokens, attn_weights: Weights = None) -> Any:
        with self.one_pass():
            x = self._embed(self.encoder, source, self.config.vocab_size)
            return self.encoder.finish(nn.encode(self.encoder.layers, x, source.cu_seqlens, attn_weights=attn_weights))

    def _decode(
        self,
        target: Tokens,
        memory: Values,
        cu_seqlens_k: NDArray[np.int32],
        attn_weights: Weights = None,
        cross_weights: Weights = None,
    ) -> Any:
        weights = {"attn_weights": attn_weights, "cross_weights": cross_weights}
        with self.one_pass():
            x = self._embed(self.decoder, target, self.config.decoder_vocab_size)
            x = nn.decode(self.decoder.layers, x, target.cu_seqlens, memory, cu_seqlens_k, **weights)
            return self.decoder.finish(x)

    def _embed(self, stack: Stack, tokens: Tokens, vocab_size: int) -> Any:
        tokens.check_positions(self.config.max_position_embeddings)
        try:
            return stack.embed(tokens.ids, tokens.position_ids)
        except ValueError:
            tokens.check_ids(vocab_size)
            raise

    def _loss(self, hidden: Values, words: NDArray[np.int64], smoothing: float, reduction: str = "mean") -> Tensor:
        """The cross-entropy of the tokens that have a word to predict. The others get no scores."""
        places = np.flatnonzero(words != IGNORE_INDEX)
        if len(places) < len(words):
            hidden, words = F.gather_rows(hidden, places), words[places]
        loss = F.cross_entropy(self.logits(hidden), words, label_smoothing=smoothing, reduction=reduction)
        return as_tensor(loss)
