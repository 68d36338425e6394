"""The kernels under PyTorch's names and argument meanings: arrays in, arrays out.

What is not PyTorch's (`residual`, `activation`, `cu_seqlens_q`, `out`) comes as keywords. Arrays are
float32, `out` is written and returned, and errors are those of `fastattn.kernels`. Models are written in
these functions.

    >>> import numpy as np
    >>> from fastattn import functional as F
    >>> F.softmax(np.zeros((2, 4), np.float32), dim=0).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fastattn import kernels

if TYPE_CHECKING:
    from fastattn.kernels import PackedMatrix

__all__ = [
    "embedding",
    "embedding_sum",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "normalize",
    "pooling",
    "scaled_dot_product_attention",
    "softmax",
]

Array = NDArray[np.float32]


def linear(
    input: Array,
    weight: Array | PackedMatrix,
    bias: Array | None = None,
    *,
    residual: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """`activation(input weight^T + bias) + residual`: `[..., in]` times `[out, in]` gives `[..., out]`.

    `activation` is None, "relu", "gelu", "gelu_tanh", "silu" or "tanh". See `fastattn.kernels.linear`.
    """
    return kernels.linear(input, weight, bias, residual, activation=activation, out=out)


@overload
def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    cu_seqlens_q: NDArray[np.int32] | None = None,
    cu_seqlens_k: NDArray[np.int32] | None = None,
    return_attn_weights: Literal[False] = False,
    out: Array | None = None,
) -> Array: ...


@overload
def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    cu_seqlens_q: NDArray[np.int32] | None = None,
    cu_seqlens_k: NDArray[np.int32] | None = None,
    return_attn_weights: Literal[True],
    out: Array | None = None,
) -> tuple[Array, Array]: ...


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: NDArray[Any] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    cu_seqlens_q: NDArray[np.int32] | None = None,
    cu_seqlens_k: NDArray[np.int32] | None = None,
    return_attn_weights: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """Attention over padded `[batch, heads, seq, dim]` arrays, or ragged `[tokens, heads, dim]` ones.

    Arrays are ragged when `cu_seqlens_q`, int32 `[batch + 1]`, is given; `cu_seqlens_k` is the same unless
    given.

    `attn_mask` is bool (True: may attend) or float32 (added), broadcast to `[batch, heads, seq_q, seq_k]`.
    A causal query i sees the keys 0 to i, as in PyTorch; `fastattn.kernels.scaled_dot_product_attention`
    aligns the last ones instead. With `return_attn_weights` the result is `(out, weights)`, weights
    `[batch, heads, longest_q, longest_k]`.

    Raises ValueError for a `dropout_p` other than 0 and for `attn_mask` together with `is_causal`.
    """
    if dropout_p != 0.0:
        raise ValueError(f"scaled_dot_product_attention: dropout_p must be 0.0, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError("scaled_dot_product_attention: attn_mask must be None when is_causal=True")
    result: Array | tuple[Array, Array] = kernels.scaled_dot_product_attention(
        query,
        key,
        value,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        attn_mask=attn_mask,
        is_causal=is_causal,
        softmax_scale=scale,
        causal_alignment="top_left",
        return_attn_weights=return_attn_weights,
        out=out,
    )
    return result


def layer_norm(
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    residual: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Layer normalisation of `input + residual` over its last axes, which are `normalized_shape`.

    `weight` and `bias` have `normalized_shape`. `out` may be `input` or `residual`. Raises ValueError when
    `input` does not end in `normalized_shape`.
    """
    y: Array
    if len(normalized_shape) == 1 and input.shape[-1:] == normalized_shape:
        y = kernels.layer_norm(input, weight, bias, eps, residual=residual, out=out)
        return y
    axes = len(normalized_shape)
    if axes == 0 or input.shape[-axes:] != tuple(normalized_shape):
        shape = (..., *normalized_shape)
        raise ValueError(f"layer_norm: input must have shape {shape}, got {input.shape}".replace("Ellipsis", "..."))
    size = (*input.shape[:-axes], -1)
    y = kernels.layer_norm(
        input.reshape(size),
        None if weight is None else weight.reshape(-1),
        None if bias is None else bias.reshape(-1),
        eps,
        residual=None if residual is None else residual.reshape(size),
        out=_reshape_out("layer_norm", out, input.shape, size),
    )
    return y.reshape(input.shape) if out is None else out


def gelu(input: Array, approximate: str = "none", *, out: Array | None = None) -> Array:
    """`input * Phi(input)`, with erf (`approximate="none"`) or its tanh form (`"tanh"`)."""
    return kernels.gelu(input, approximate, out=out)


def softmax(input: Array, dim: int, *, out: Array | None = None) -> Array:
    """`exp(input) / sum(exp(input))` along the axis `dim`; 0 where all of it is -inf."""
    return _along("softmax", input, dim, out)


def log_softmax(input: Array, dim: int, *, out: Array | None = None) -> Array:
    """The logarithm of `softmax(input, dim)`, without its loss of digits."""
    return _along("log_softmax", input, dim, out)


def normalize(input: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12, *, out: Array | None = None) -> Array:
    """`input / max(norm, eps)`, Euclidean norms along the axis `dim`. Raises ValueError for another `p`."""
    if p != 2.0:
        raise ValueError(f"normalize: p must be 2.0, got {p}")
    return _along("l2_normalize", input, dim, out, eps)


def embedding(input: NDArray[np.integer[Any]], weight: Array, *, out: Array | None = None) -> Array:
    """The rows of `weight` `[rows, dim]` that the integers `input` `[...]` name: `[..., dim]`.

    Raises TypeError for an `input` that does not hold integers, ValueError for an index outside `weight`.
    """
    if input.dtype.kind not in "iu":
        raise TypeError(f"embedding: input must be an integer array, got {input.dtype}")
    ids = input.astype(np.int64, copy=False)
    shape = (*ids.shape, weight.shape[-1])
    rows = _reshape_out("embedding", out, shape, (ids.size, shape[-1]))
    y = kernels.embedding(ids.reshape(-1), weight, out=rows)
    return y.reshape(shape) if out is None else out


def embedding_sum(
    input_ids: NDArray[np.int64],
    weight: Array,
    *,
    position_ids: NDArray[np.int64] | None = None,
    position_weight: Array | None = None,
    token_type_ids: NDArray[np.int64] | None = None,
    token_type_weight: Array | None = None,
    norm_weight: Array | None = None,
    norm_bias: Array | None = None,
    eps: float = 1e-12,
    out: Array | None = None,
) -> Array:
    """Word, token type and position rows, summed in one pass, then layer-normalised given `norm_weight`.

    Ids are int64 `[tokens]`, tables `[rows, dim]`; returns `[tokens, dim]`. See `fastattn.kernels.embedding`.
    """
    return kernels.embedding(
        input_ids,
        weight,
        position_ids=position_ids,
        position_weight=position_weight,
        token_type_ids=token_type_ids,
        token_type_weight=token_type_weight,
        norm_weight=norm_weight,
        norm_bias=norm_bias,
        eps=eps,
        out=out,
    )


def pooling(input: Array, cu_seqlens: NDArray[np.int32], mode: str = "mean", *, out: Array | None = None) -> Array:
    """One row per sequence, `[tokens, dim]` to `[batch, dim]`, zeros for an empty one.

    `mode` is "mean", "cls", "max", "last", "mean_sqrt_len" or "weighted_mean". See
    `fastattn.kernels.pooling`.
    """
    return kernels.pooling(input, cu_seqlens, mode, out=out)


def _along(name: str, input: Array, dim: int, out: Array | None, *arguments: float) -> Array:
    """A kernel that works on the last axis, along the axis `dim`."""
    kernel = getattr(kernels, name)
    if not -input.ndim <= dim < input.ndim:
        raise IndexError(f"{name}: dim must be an axis of input, which has {input.ndim}, got {dim}")
    y: Array
    if dim in (-1, input.ndim - 1):
        y = kernel(input, *arguments, out=out)
        return y
    _reshape_out(name, out, input.shape, input.shape)
    y = np.moveaxis(kernel(np.ascontiguousarray(np.moveaxis(input, dim, -1)), *arguments), -1, dim)
    if out is None:
        return np.ascontiguousarray(y)
    out[...] = y
    return out


def _reshape_out(name: str, out: Array | None, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array | None:
    """`out`, which must be what a result of this shape can be written into, as `new_shape`."""
    if out is None:
        return None
    if out.dtype != np.float32:
        raise TypeError(f"{name}: out must be float32, got {out.dtype}")
    if out.shape != shape or not out.flags.c_contiguous:
        raise ValueError(f"{name}: out must be C-contiguous and have shape {shape}, got {out.shape}")
    return out.reshape(new_shape)
