"""The kernels in plain NumPy: the names, arguments, results and errors of `fastattn.kernels`, in any float dtype.

In float64 these functions define what is correct, and every kernel is tested against them. In float32 they are the
baseline of every benchmark, so they are written as good NumPy: whole arrays at a time, in place where that saves
memory traffic, matrix products left to BLAS. They check mode names, ids, `cu_seqlens` and `reserve`, and leave the
rest to NumPy's own errors. `fastattn.kernels` checks everything.

>>> import numpy as np
>>> from fastattn import reference
>>> reference.softmax(np.array([0.0, np.log(3.0)])).round(6).tolist()
[0.25, 0.75]
"""

from types import FunctionType

from .activation import activation as activation
from .activation import activation_backward as activation_backward
from .adamw import adamw as adamw
from .char_cnn import char_cnn as char_cnn
from .char_cnn import char_cnn_backward as char_cnn_backward
from .crf import crf as crf
from .crf import crf_backward as crf_backward
from .crf_viterbi import crf_viterbi as crf_viterbi
from .cross_entropy import cross_entropy as cross_entropy
from .cross_entropy import cross_entropy_backward as cross_entropy_backward
from .dropout import dropout as dropout
from .dropout import dropout_backward as dropout_backward
from .embedding import embedding as embedding
from .embedding import embedding_backward as embedding_backward
from .gated_activation import gated_activation as gated_activation
from .gated_activation import gated_activation_backward as gated_activation_backward
from .gelu import gelu as gelu
from .gelu import gelu_backward as gelu_backward
from .gradient_norm import gradient_norm as gradient_norm
from .gru import gru as gru
from .gru import gru_backward as gru_backward
from .gru import gru_cell as gru_cell
from .highway import highway as highway
from .highway import highway_backward as highway_backward
from .l2_normalize import l2_normalize as l2_normalize
from .l2_normalize import l2_normalize_backward as l2_normalize_backward
from .layer_norm import layer_norm as layer_norm
from .layer_norm import layer_norm_backward as layer_norm_backward
from .linear import linear as linear
from .linear import linear_backward as linear_backward
from .log_softmax import log_softmax as log_softmax
from .log_softmax import log_softmax_backward as log_softmax_backward
from .log_softmax_topk import log_softmax_topk as log_softmax_topk
from .lstm import lstm as lstm
from .lstm import lstm_backward as lstm_backward
from .lstm import lstm_cell as lstm_cell
from .pooling import pooling as pooling
from .pooling import pooling_backward as pooling_backward
from .rotary_embedding import rotary_embedding as rotary_embedding
from .rotary_embedding import rotary_embedding_backward as rotary_embedding_backward
from .scaled_dot_product_attention import scaled_dot_product_attention as scaled_dot_product_attention
from .scaled_dot_product_attention import scaled_dot_product_attention_backward as scaled_dot_product_attention_backward
from .scatter_rows import scatter_rows as scatter_rows
from .sgd import sgd as sgd
from .softmax import softmax as softmax
from .softmax import softmax_backward as softmax_backward

__all__ = [name for name, value in globals().items() if isinstance(value, FunctionType)]
