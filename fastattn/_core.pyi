from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Optional = npt.NDArray[Any] | None

class PackedMatrix:
    def __init__(self, weight: _Floats) -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[np.float32]: ...
    @property
    def nbytes(self) -> int: ...
    def unpack(self) -> _Floats: ...

def isa() -> str: ...
def isa_reason() -> str: ...
def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def num_threads() -> int: ...
def num_threads_reason() -> str: ...
def set_num_threads(n: int) -> None: ...
def cpu_name() -> str: ...
def build_info() -> dict[str, Any]: ...
def fma_peak(seconds: float) -> float: ...
def linear(
    x: _Floats,
    weight: _Floats | PackedMatrix,
    bias: _Optional,
    residual: _Optional,
    activation: str | None,
    out: _Optional,
    /,
) -> _Floats: ...
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
    return_softmax_lse: bool,
    return_attn_weights: bool,
    out: _Optional,
    /,
) -> Any: ...
def layer_norm(
    x: _Floats,
    weight: _Optional,
    bias: _Optional,
    eps: float,
    residual: _Optional,
    return_stats: bool,
    out: _Optional,
    /,
) -> Any: ...
def gelu(x: _Floats, approximate: str, out: _Optional, /) -> _Floats: ...
def softmax(x: _Floats, out: _Optional, /) -> _Floats: ...
def log_softmax(x: _Floats, out: _Optional, /) -> _Floats: ...
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
def pooling(x: _Floats, cu_seqlens: npt.NDArray[np.int32], mode: str, out: _Optional, /) -> _Floats: ...
def l2_normalize(x: _Floats, eps: float, out: _Optional, /) -> _Floats: ...
