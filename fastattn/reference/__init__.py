"""The kernels in plain NumPy: the same names and signatures as `fastattn.kernels`, in any float dtype.

In float64 these functions are the definition of correct that every kernel is tested against; in float32 they
are the baseline of every benchmark, so they are written as good NumPy is: whole arrays at a time, in place
where that saves memory traffic, matrix products left to BLAS. They check what an answer depends on (names of
modes, ids, `cu_seqlens`) and leave the rest to NumPy's own errors; `fastattn.kernels` has the strict border.

>>> import numpy as np
>>> from fastattn import reference
>>> reference.softmax(np.array([0.0, np.log(3.0)])).round(6).tolist()
[0.25, 0.75]
"""

from .embedding import embedding
from .gelu import gelu
from .l2_normalize import l2_normalize
from .layer_norm import layer_norm
from .linear import linear
from .log_softmax import log_softmax
from .pooling import pooling
from .scaled_dot_product_attention import scaled_dot_product_attention
from .softmax import softmax

__all__ = [
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
