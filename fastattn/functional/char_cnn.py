"""Words from their characters: the convolutions and highway layers of ELMo's character encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from fastattn.autograd import mode, needs, record, recording, values
from fastattn.checks import integers
from fastattn.errors import named
from fastattn.functional._common import Array, Values, Weights, gradient, plain


@named()
def char_cnn(
    char_ids: ArrayLike,
    embedding: Values,
    weights: Sequence[Weights],
    biases: Sequence[Values],
    *,
    activation: str = "relu",
    out: Array | None = None,
) -> Any:
    """`activation(max over all positions of the convolution + bias)`, for every filter of every word.

    `char_ids` `[words, chars]`, integers, index the rows of `embedding` `[characters, dim]`. For each width, `weights`
    has one `[filters, width, dim]` (or a `PackedMatrix` of it as `[filters, width * dim]`, which has no gradient) and
    `biases` one `[filters]`. Returns `[words, sum of filters]`. `activation` is "relu" or "tanh". `out`, an array, is
    written and returned. Raises TypeError if `char_ids` does not hold integers. The other errors are described in
    `fastattn.kernels.char_cnn`.

    >>> from fastattn import Tensor
    >>> letters = Tensor(np.array([[0.0], [1.0], [3.0]], np.float32), requires_grad=True)
    >>> weight, bias = np.array([[[1.0], [-1.0]]], np.float32), np.zeros(1, np.float32)
    >>> y = char_cnn(np.array([[2, 1, 0, 0]]), letters, [weight], [bias])
    >>> y.numpy().tolist()
    [[2.0]]
    >>> y.sum().backward()
    >>> letters.grad.tolist()
    [[0.0], [-1.0], [1.0]]
    """
    ids = integers("char_cnn: char_ids", char_ids)
    ops = mode.ops
    operands = (embedding, *weights, *biases)
    count = len(weights)
    arrays = plain("char_cnn", out, *operands)
    table, *rest = arrays or values(*operands)
    w, b = rest[:count], rest[count:]
    if arrays:
        return ops.char_cnn(ids, table, w, b, activation=activation, out=out)
    wanted = needs(*operands)
    argmax = None
    if recording(*operands):
        y, argmax = ops.char_cnn(ids, table, w, b, activation=activation, return_argmax=True)
    else:
        y = ops.char_cnn(ids, table, w, b, activation=activation)

    def backward(dy: Array) -> list[Array | None]:
        given = [gradient(operand) if need else None for operand, need in zip(operands, wanted, strict=True)]
        dembedding, dweights, dbiases = ops.char_cnn_backward(
            dy,
            ids,
            table,
            w,
            b,
            y,
            argmax,
            activation=activation,
            need_dembedding=wanted[0],
            need_dweights=any(wanted[1 : 1 + count]),
            need_dbiases=any(wanted[1 + count :]),
            dembedding=given[0],
            dweights=given[1 : 1 + count],
            dbiases=given[1 + count :],
        )
        gradients = [dembedding, *(dweights or [None] * count), *(dbiases or [None] * count)]
        return [g if need else None for g, need in zip(gradients, wanted, strict=True)]

    return record(y, operands, backward)


@named(x="input")
def highway(input: Values, weight: Weights, bias: Values, *, out: Array | None = None) -> Any:
    """`sigmoid(t) relu(h) + (1 - sigmoid(t)) input`, where h and t are the halves of `input weight^T + bias`.

    `input` is `[..., dim]`, `weight` `[2 dim, dim]` (an array, a Tensor or a `PackedMatrix`, which has no gradient) and
    `bias` `[2 dim]`. Returns `[..., dim]`. `out`, an array, is written and returned, and may be `input`. The errors are
    described in `fastattn.kernels.highway`.

    >>> weight, bias = np.array([[2.0], [0.0]], np.float32), np.zeros(2, np.float32)  # h = 2 x, a gate of 1/2
    >>> highway(np.array([[4.0], [-4.0]], np.float32), weight, bias).tolist()
    [[6.0], [-2.0]]
    """
    ops = mode.ops
    operands = (input, weight, bias)
    arrays = plain("highway", out, *operands)
    x, w, b = arrays or values(*operands)
    if arrays:
        return ops.highway(x, w, b, out=out)
    need_dx, need_dweight, need_dbias = needs(*operands)
    projection = None
    if recording(*operands):
        y, projection = ops.highway(x, w, b, return_projection=True)
    else:
        y = ops.highway(x, w, b)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        gradients: tuple[Array | None, ...] = ops.highway_backward(
            dy,
            x,
            w,
            projection,
            need_dx=need_dx,
            need_dweight=need_dweight,
            need_dbias=need_dbias,
            dweight=gradient(weight),
            dbias=gradient(bias),
        )
        return gradients

    return record(y, operands, backward)
