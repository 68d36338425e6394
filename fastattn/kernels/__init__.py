"""The compiled kernels as functions on NumPy arrays.

Every array of floats is float32 and is taken as it is: nothing is cast or copied on the way in, a wrong dtype, shape or
stride is a TypeError or ValueError that names the argument and the value it had. Results are new arrays, or `out`: a
writable, C-contiguous array of the result's shape, which must not overlap an input unless the docstring allows it.
"Evenly spaced rows" means that the leading axes can be read as one axis with a single stride: any slice of the rows of
a contiguous array, or of its columns, is so.

The bits of one row (one token, one sequence) depend on that row, the weights and the instruction set only: not on what
else is in the call and not on the number of threads. `fastattn.reference` has the same functions in plain NumPy.

>>> import numpy as np
>>> from fastattn import kernels
>>> kernels.softmax(np.zeros((1, 4), np.float32)).tolist()
[[0.25, 0.25, 0.25, 0.25]]
"""

from .embedding import embedding
from .gelu import gelu
from .l2_normalize import l2_normalize
from .layer_norm import layer_norm
from .linear import PackedMatrix, linear
from .log_softmax import log_softmax
from .pooling import pooling
from .scaled_dot_product_attention import scaled_dot_product_attention
from .softmax import softmax

__all__ = [
    "PackedMatrix",
    "embedding",
    "gelu",
    "l2_normalize",
    "layer_norm",
    "linear",
    "log_softmax",
    "pooling",
    "scaled_dot_product_attention",
    "softmax",
]
