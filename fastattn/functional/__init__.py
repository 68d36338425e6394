"""The kernels under PyTorch's names and argument meanings: Tensors in, Tensor out; arrays in, arrays out.

Models are built from these functions. If an argument is a `fastattn.Tensor`, so is the result, and `backward()` goes
through it; otherwise the result is an array. A frozen `nn.Parameter` counts as an array. Arguments that PyTorch does
not have (`residual`, `activation`, `cu_seqlens_q`, `out`) are keywords. Arrays are float32, or any float dtype within
`fastattn.use_reference()`. `out` is an array, written and returned, for results that are not recorded. Errors are the
same as in `fastattn.kernels`. Dropout draws its seed from `fastattn.random`.

    >>> import numpy as np
    >>> from fastattn import functional as F
    >>> F.softmax(np.zeros((2, 4), np.float32), dim=0).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
"""

from fastattn.functional.additive_attention import additive_attention
from fastattn.functional.attention import kv_attention, qkv_attention, rotary_embedding, scaled_dot_product_attention
from fastattn.functional.char_cnn import char_cnn, highway
from fastattn.functional.crf import crf
from fastattn.functional.elementwise import (
    dropout,
    gated_activation,
    gelu,
    log_softmax,
    normalize,
    relu,
    sigmoid,
    silu,
    softmax,
    tanh,
)
from fastattn.functional.layers import layer_norm, linear
from fastattn.functional.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
    sampled_softmax_loss,
)
from fastattn.functional.recurrent import gru, gru_cell, lstm, lstm_cell
from fastattn.functional.rows import cat, embedding, embedding_sum, gather_rows, pooling, scatter_rows, stack
from fastattn.functional.similarity_losses import cosent_loss, cosine_similarity, multiple_negatives_ranking_loss

__all__ = [
    "additive_attention",
    "binary_cross_entropy_with_logits",
    "cat",
    "char_cnn",
    "cosent_loss",
    "cosine_similarity",
    "crf",
    "cross_entropy",
    "dropout",
    "embedding",
    "embedding_sum",
    "gated_activation",
    "gather_rows",
    "gelu",
    "gru",
    "gru_cell",
    "highway",
    "kv_attention",
    "layer_norm",
    "linear",
    "log_softmax",
    "lstm",
    "lstm_cell",
    "mse_loss",
    "multiple_negatives_ranking_loss",
    "normalize",
    "pooling",
    "qkv_attention",
    "relu",
    "rotary_embedding",
    "sampled_softmax_loss",
    "scaled_dot_product_attention",
    "scatter_rows",
    "sigmoid",
    "silu",
    "softmax",
    "stack",
    "tanh",
]
