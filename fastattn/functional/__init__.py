"""The kernels under PyTorch's names and argument meanings: Tensors in, Tensor out; arrays in, arrays out.

Models are written in these functions. Where an argument is a `fastattn.autograd.Tensor` the result is one too, and
`backward()` goes through it; where all are arrays it is an array, and nothing else happens. What is not PyTorch's
(`residual`, `activation`, `cu_seqlens_q`, `out`) comes as keywords. Arrays are float32 (any float dtype within
`fastattn.use_reference()`), `out` is written and returned and is for arrays alone, and errors are those of
`fastattn.kernels`. Dropout draws its seed from `fastattn.random`.

    >>> import numpy as np
    >>> from fastattn import functional as F
    >>> F.softmax(np.zeros((2, 4), np.float32), dim=0).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
"""

from fastattn.functional.additive_attention import additive_attention
from fastattn.functional.attention import kv_attention, qkv_attention, scaled_dot_product_attention
from fastattn.functional.char_cnn import char_cnn, highway
from fastattn.functional.elementwise import dropout, gelu, log_softmax, normalize, softmax
from fastattn.functional.layers import layer_norm, linear
from fastattn.functional.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    mse_loss,
    sampled_softmax_loss,
)
from fastattn.functional.recurrent import gru, gru_cell, lstm, lstm_cell
from fastattn.functional.rows import embedding, embedding_sum, gather_rows, pooling, scatter_rows

__all__ = [
    "additive_attention",
    "binary_cross_entropy_with_logits",
    "char_cnn",
    "cross_entropy",
    "dropout",
    "embedding",
    "embedding_sum",
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
    "normalize",
    "pooling",
    "qkv_attention",
    "sampled_softmax_loss",
    "scaled_dot_product_attention",
    "scatter_rows",
    "softmax",
]
