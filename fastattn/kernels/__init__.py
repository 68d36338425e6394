"""The compiled kernels as functions on NumPy arrays.

Floats are float32. Inputs are never cast or copied: a wrong dtype raises TypeError, a wrong shape or stride raises
ValueError, and both name the argument and its value. Results are new arrays, or `out`: a writable, C-contiguous array
of the result's shape, which must not overlap an input unless the docstring allows it. "Evenly spaced rows" means that
the leading axes can be read as one axis with a single stride. Any slice of rows or columns of a contiguous array has
them. The bits of one row (one token, one sequence) depend only on that row, the weights and the instruction set, not on
the rest of the call or the number of threads. `fastattn.reference` has the same functions in plain NumPy.

>>> import numpy as np
>>> from fastattn import kernels
>>> kernels.softmax(np.zeros((1, 4), np.float32)).tolist()
[[0.25, 0.25, 0.25, 0.25]]
"""

from .activation import activation, activation_backward
from .adamw import adamw
from .char_cnn import char_cnn, char_cnn_backward
from .crf import crf, crf_backward
from .crf_viterbi import crf_viterbi
from .cross_entropy import cross_entropy, cross_entropy_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward
from .gated_activation import gated_activation, gated_activation_backward
from .gelu import gelu, gelu_backward
from .gradient_norm import gradient_norm
from .gru import gru, gru_backward, gru_cell
from .highway import highway, highway_backward
from .l2_normalize import l2_normalize, l2_normalize_backward
from .layer_norm import layer_norm, layer_norm_backward
from .linear import PackedMatrix, linear, linear_backward
from .log_softmax import log_softmax, log_softmax_backward
from .log_softmax_topk import log_softmax_topk
from .lstm import lstm, lstm_backward, lstm_cell
from .pooling import pooling, pooling_backward
from .rotary_embedding import rotary_embedding, rotary_embedding_backward
from .scaled_dot_product_attention import scaled_dot_product_attention, scaled_dot_product_attention_backward
from .scatter_rows import scatter_rows
from .sgd import sgd
from .softmax import softmax, softmax_backward

__all__ = [
    "PackedMatrix",
    "activation",
    "activation_backward",
    "adamw",
    "char_cnn",
    "char_cnn_backward",
    "crf",
    "crf_backward",
    "crf_viterbi",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "gated_activation",
    "gated_activation_backward",
    "gelu",
    "gelu_backward",
    "gradient_norm",
    "gru",
    "gru_backward",
    "gru_cell",
    "highway",
    "highway_backward",
    "l2_normalize",
    "l2_normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_topk",
    "lstm",
    "lstm_backward",
    "lstm_cell",
    "pooling",
    "pooling_backward",
    "rotary_embedding",
    "rotary_embedding_backward",
    "scaled_dot_product_attention",
    "scaled_dot_product_attention_backward",
    "scatter_rows",
    "sgd",
    "softmax",
    "softmax_backward",
]
