# ruff: noqa: F401 (`__all__` exports the functions)
"""The kernels in plain NumPy: the names, arguments, results and errors of `fastattn.kernels`, in any float dtype.

In float64 these functions define what is correct, and every kernel is tested against them. In float32 they are the
baseline of every benchmark, so they are written as good NumPy is: whole arrays at a time, in place where that saves
memory traffic, matrix products left to BLAS. They check names of modes, ids, `cu_seqlens` and `reserve`, and leave the
rest to NumPy's own errors. `fastattn.kernels` checks everything.

>>> import numpy as np
>>> from fastattn import reference
>>> reference.softmax(np.array([0.0, np.log(3.0)])).round(6).tolist()
[0.25, 0.75]
"""

from fastattn import kernels

from .activation import activation, activation_backward
from .adamw import adamw
from .char_cnn import char_cnn, char_cnn_backward
from .cross_entropy import cross_entropy, cross_entropy_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward
from .gelu import gelu, gelu_backward
from .gradient_norm import gradient_norm
from .gru import gru, gru_backward, gru_cell
from .highway import highway, highway_backward
from .l2_normalize import l2_normalize, l2_normalize_backward
from .layer_norm import layer_norm, layer_norm_backward
from .linear import linear, linear_backward
from .log_softmax import log_softmax, log_softmax_backward
from .lstm import lstm, lstm_backward, lstm_cell
from .pooling import pooling, pooling_backward
from .scaled_dot_product_attention import scaled_dot_product_attention, scaled_dot_product_attention_backward
from .sgd import sgd
from .softmax import softmax, softmax_backward

__all__ = [name for name in kernels.__all__ if name != "PackedMatrix"]
