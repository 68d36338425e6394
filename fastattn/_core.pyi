from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Optional = npt.NDArray[Any] | None

class PackedMatrix:
    def __init__(self, weight: _Floats, groups: int = 1) -> None: ...
    @property
    def groups(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[np.float32]: ...
    @property
    def nbytes(self) -> int: ...
    def unpack(self) -> _Floats: ...

class RecurrentReserve: ...

def isa() -> str: ...
def isa_reason() -> str: ...
def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def num_threads() -> int: ...
def num_threads_reason() -> str: ...
def set_num_threads(n: int) -> None: ...
def cpu_name(cpuinfo: str = ...) -> str: ...
def build_info() -> dict[str, Any]: ...
def keep_memory() -> None: ...
def kept_memory() -> int: ...
def empty_memory() -> None: ...
def fma_peak(seconds: float) -> float: ...
def linear(
    x: _Floats,
    weight: _Floats | PackedMatrix,
    bias: _Optional,
    residual: _Optional,
    activation: str | None,
    return_pre_activation: bool,
    out: _Optional,
    /,
) -> Any: ...
def linear_backward(
    dy: _Floats,
    x: _Floats,
    weight: _Floats | PackedMatrix,
    activation: str | None,
    pre_activation: _Optional,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
    dweight: _Optional,
    dbias: _Optional,
    /,
) -> tuple[Any, Any, Any]: ...
def scaled_dot_product_attention(
    q: _Floats,
    k: _Floats,
    v: _Floats,
    cu_seqlens_q: _Optional,
    cu_seqlens_k: _Optional,
    attn_mask: _Optional,
    is_causal: bool,
    softmax_scale: float | None,
    causal_alignment: str,
    dropout_p: float,
    seed: int,
    return_softmax_lse: bool,
    return_attn_weights: bool,
    out: _Optional,
    /,
) -> Any: ...
def scaled_dot_product_attention_backward(
    dout: _Floats,
    q: _Floats,
    k: _Floats,
    v: _Floats,
    out: _Floats,
    softmax_lse: _Floats,
    cu_seqlens_q: _Optional,
    cu_seqlens_k: _Optional,
    attn_mask: _Optional,
    is_causal: bool,
    softmax_scale: float | None,
    causal_alignment: str,
    dropout_p: float,
    seed: int,
    dq: _Optional,
    dk: _Optional,
    dv: _Optional,
    /,
) -> tuple[_Floats, _Floats, _Floats]: ...
def layer_norm(
    x: _Floats,
    weight: _Optional,
    bias: _Optional,
    eps: float,
    residual: _Optional,
    dropout_p: float,
    seed: int,
    return_stats: bool,
    out: _Optional,
    /,
) -> Any: ...
def layer_norm_backward(
    dy: _Floats,
    x: _Floats,
    weight: _Optional,
    mean: _Floats,
    rstd: _Floats,
    residual: _Optional,
    dropout_p: float,
    seed: int,
    need_dx: bool,
    need_dresidual: bool,
    need_dweight: bool,
    need_dbias: bool,
    dweight: _Optional,
    dbias: _Optional,
    /,
) -> tuple[_Floats | None, _Floats | None, _Floats | None, _Floats | None]: ...
def activation(x: _Floats, function: str, out: _Optional, /) -> _Floats: ...
def activation_backward(dy: _Floats, x: _Floats, function: str, out: _Optional, /) -> _Floats: ...
def gelu(x: _Floats, approximate: str, out: _Optional, /) -> _Floats: ...
def gelu_backward(dy: _Floats, x: _Floats, approximate: str, out: _Optional, /) -> _Floats: ...
def softmax(x: _Floats, out: _Optional, /) -> _Floats: ...
def softmax_backward(dy: _Floats, y: _Floats, out: _Optional, /) -> _Floats: ...
def log_softmax(x: _Floats, out: _Optional, /) -> _Floats: ...
def log_softmax_backward(dy: _Floats, y: _Floats, out: _Optional, /) -> _Floats: ...
def embedding(
    input_ids: npt.NDArray[np.int64],
    weight: _Floats,
    position_ids: _Optional,
    position_weight: _Optional,
    token_type_ids: _Optional,
    token_type_weight: _Optional,
    norm_weight: _Optional,
    norm_bias: _Optional,
    eps: float,
    out: _Optional,
    /,
) -> _Floats: ...
def embedding_backward(
    dy: _Floats,
    input_ids: npt.NDArray[np.int64],
    num_embeddings: int,
    padding_idx: int | None,
    dweight: _Optional,
    /,
) -> _Floats: ...
def char_cnn(
    char_ids: npt.NDArray[np.int64],
    embedding: _Floats,
    weights: Sequence[_Floats | PackedMatrix],
    biases: Sequence[_Floats],
    activation: str,
    return_argmax: bool,
    out: _Optional,
    /,
) -> Any: ...
def char_cnn_backward(
    dy: _Floats,
    char_ids: npt.NDArray[np.int64],
    embedding: _Floats,
    weights: Sequence[_Floats | PackedMatrix],
    biases: Sequence[_Floats],
    y: _Floats,
    argmax: npt.NDArray[np.int32],
    activation: str,
    need_dembedding: bool,
    need_dweights: bool,
    need_dbiases: bool,
    dembedding: _Optional,
    dweights: Sequence[_Optional] | None,
    dbiases: Sequence[_Optional] | None,
    /,
) -> tuple[Any, Any, Any]: ...
def highway(
    x: _Floats, weight: _Floats | PackedMatrix, bias: _Floats, return_projection: bool, out: _Optional, /
) -> Any: ...
def highway_backward(
    dy: _Floats,
    x: _Floats,
    weight: _Floats | PackedMatrix,
    projection: _Floats,
    need_dx: bool,
    need_dweight: bool,
    need_dbias: bool,
    dweight: _Optional,
    dbias: _Optional,
    /,
) -> tuple[Any, Any, Any]: ...
def lstm(
    x: _Floats | Sequence[_Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: _Optional,
    c0: _Optional,
    reverse: Sequence[bool],
    cell_clip: float | None,
    proj_clip: float | None,
    return_reserve: bool,
    recompute: bool,
    /,
) -> Any: ...
def lstm_backward(
    dout: _Optional,
    dh_n: _Optional,
    dc_n: _Optional,
    x: _Floats | Sequence[_Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: RecurrentReserve,
    h0: _Optional,
    c0: _Optional,
    reverse: Sequence[bool],
    cell_clip: float | None,
    proj_clip: float | None,
    need_dx: bool,
    need_dweights: bool,
    dweights: Sequence[Any] | None,
    /,
) -> tuple[Any, Any, _Floats, _Floats]: ...
def gru(
    x: _Floats | Sequence[_Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    h0: _Optional,
    reverse: Sequence[bool],
    return_reserve: bool,
    recompute: bool,
    /,
) -> Any: ...
def gru_backward(
    dout: _Optional,
    dh_n: _Optional,
    x: _Floats | Sequence[_Floats],
    cu_seqlens: npt.NDArray[np.int32],
    weights: Sequence[Any],
    reserve: RecurrentReserve,
    h0: _Optional,
    reverse: Sequence[bool],
    need_dx: bool,
    need_dweights: bool,
    dweights: Sequence[Any] | None,
    /,
) -> tuple[Any, Any, _Floats]: ...
def pooling(x: _Floats, cu_seqlens: npt.NDArray[np.int32], mode: str, out: _Optional, /) -> _Floats: ...
def pooling_backward(
    dy: _Floats, x: _Floats, cu_seqlens: npt.NDArray[np.int32], mode: str, out: _Optional, /
) -> _Floats: ...
def l2_normalize(x: _Floats, eps: float, out: _Optional, /) -> _Floats: ...
def l2_normalize_backward(dy: _Floats, x: _Floats, eps: float, out: _Optional, /) -> _Floats: ...
def cross_entropy(
    logits: _Floats, target: npt.NDArray[np.int64], ignore_index: int, label_smoothing: float, /
) -> tuple[_Floats, npt.NDArray[np.float64]]: ...
def cross_entropy_backward(
    dloss: _Floats,
    logits: _Floats,
    target: npt.NDArray[np.int64],
    lse: npt.NDArray[np.float64],
    ignore_index: int,
    label_smoothing: float,
    out: _Optional,
    /,
) -> _Floats: ...
def dropout(x: _Floats, p: float, seed: int, residual: _Optional, out: _Optional, /) -> _Floats: ...
def dropout_backward(dy: _Floats, p: float, seed: int, out: _Optional, /) -> _Floats: ...
def adamw(
    param: _Floats,
    grad: _Floats,
    exp_avg: _Floats,
    exp_avg_sq: _Floats,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    /,
) -> None: ...
def sgd(
    param: _Floats,
    grad: _Floats,
    momentum_buffer: _Optional,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
    /,
) -> None: ...
def gradient_norm(gradients: Sequence[_Floats], /) -> float: ...
