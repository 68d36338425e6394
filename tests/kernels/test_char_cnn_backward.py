"""The backward pass of char_cnn against the reference and torch, and what must not change its bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, normal, place
from helpers_char_cnn import ACTIVATIONS, doubled, operands, packed

import fastattn
from fastattn import kernels, reference


def forward(given: tuple[Any, ...], activation: str = "relu") -> tuple[Any, Any, Any]:
    """dy, y, argmax."""
    y, argmax = kernels.char_cnn(*given, activation=activation, return_argmax=True)
    return normal(np.random.default_rng(7), *y.shape), y, argmax


def flat(gradients: Any) -> list[Any]:
    dembedding, dweights, dbiases = gradients
    return [dembedding, *dweights, *dbiases]


def check(gradients: Any, given: tuple[Any, ...], saved: tuple[Any, Any, Any], activation: str = "relu") -> None:
    """Against the reference in float64."""
    dy, y, argmax = saved
    expected = reference.char_cnn_backward(double(dy), *doubled(*given), double(y), argmax, activation=activation)
    words, filters = y.shape
    width = max(weight.shape[1] for weight in given[2])
    assert isinstance(gradients[1], tuple)
    assert isinstance(gradients[2], tuple)
    for i, (a, b) in enumerate(zip(flat(gradients), flat(expected), strict=True)):
        assert_close(a, b, words * filters * width if i == 0 else words, magnitude=1.0)


@ACTIVATIONS
@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, form: str, activation: str) -> None:
    at = "plain" if layout == "strided" else layout  # what must be contiguous
    for words, chars, dim, filters in (
        (1, 1, 1, ((1, 1),)),
        (3, 9, 4, ((5, 1), (16, 3), (33, 9))),
        (40, 50, 16, ((32, 1), (7, 2), (70, 7))),
    ):
        given = operands(words, chars, dim, filters)
        dy, y, argmax = forward(given, activation)
        ids, embedding, weights, biases = given
        gradients = kernels.char_cnn_backward(
            place(dy, layout),
            place(ids, at),
            place(embedding, layout),
            packed(weights) if form == "packed" else [place(w, at) for w in weights],
            biases,
            place(y, layout),
            place(argmax, at),
            activation=activation,
        )
        check(gradients, given, (dy, y, argmax), activation)


@pytest.mark.parametrize("which", ["filters", "dim", "words"])
def test_odd_sizes(isa: str, threads: int, which: str) -> None:
    for size in SIZES[:-1]:
        words, dim, count = (size if which == name else 5 for name in ("words", "dim", "filters"))
        given = operands(words, 11, dim, ((count, 3), (2, 5)))
        saved = forward(given)
        dy, y, argmax = saved
        check(kernels.char_cnn_backward(dy, *given, y, argmax), given, saved)


def test_more_words_than_a_block(isa: str) -> None:
    given = operands(2100, 6, 3, ((4, 2),))
    saved = forward(given)
    dy, y, argmax = saved
    check(kernels.char_cnn_backward(dy, *given, y, argmax), given, saved)


def test_bits(isa: str, threads: int) -> None:
    """The same for any number of threads, and for two halves of the words, one after the other into the same arrays."""
    given = operands(1500, 12, 16, ((40, 2), (33, 5)))
    dy, y, argmax = forward(given, "tanh")
    ids, *parameters = given
    gradients = kernels.char_cnn_backward(dy, *given, y, argmax, activation="tanh")
    halves: Any = (None, None, None)
    for rows in (slice(0, 701), slice(701, 1500)):
        into = dict(zip(("dembedding", "dweights", "dbiases"), halves, strict=True))
        halves = kernels.char_cnn_backward(
            dy[rows], ids[rows], *parameters, y[rows], argmax[rows], activation="tanh", **into
        )
    fastattn.set_num_threads(3 - threads)
    others = kernels.char_cnn_backward(dy, *given, y, argmax, activation="tanh")
    fastattn.set_num_threads(threads)
    for a, b, c in zip(flat(gradients), flat(halves), flat(others), strict=True):
        assert_same_bits(b, a)
        assert_same_bits(c, a)


def test_only_what_is_needed(isa: str) -> None:
    given = operands(30, 9, 6, ((20, 2), (17, 3)))
    dy, y, argmax = forward(given)
    everything = kernels.char_cnn_backward(dy, *given, y, argmax)
    ids, embedding, weights, biases = given
    for mixed in ([packed(weights)[0], weights[1]], [weights[0], packed(weights)[1]]):
        gradients = kernels.char_cnn_backward(dy, ids, embedding, mixed, biases, y, argmax)
        for a, b in zip(flat(gradients), flat(everything), strict=True):
            assert_same_bits(a, b)
    for needed in product((False, True), repeat=3):
        flags = dict(zip(("need_dembedding", "need_dweights", "need_dbiases"), needed, strict=True))
        gradients = kernels.char_cnn_backward(dy, *given, y, argmax, **flags)
        for gradient, expected, wanted in zip(gradients, everything, needed, strict=True):
            if not wanted:
                assert gradient is None
                continue
            for a, b in zip(*((g if isinstance(g, tuple) else (g,)) for g in (gradient, expected)), strict=True):
                assert_same_bits(a, b)


def test_accumulates(isa: str, threads: int) -> None:
    given = operands(30, 9, 6, ((20, 2), (17, 3)))
    dy, y, argmax = forward(given)
    fresh = kernels.char_cnn_backward(dy, *given, y, argmax)
    dembedding, dweight, dbias = (place(np.ones_like(a), "end") for a in (fresh[0], fresh[1][1], fresh[2][0]))
    added = kernels.char_cnn_backward(
        dy, *given, y, argmax, dembedding=dembedding, dweights=[None, dweight], dbiases=(dbias, None)
    )
    assert added[0] is dembedding
    assert added[1][1] is dweight
    assert added[2][0] is dbias
    ones = [1, 0, 1, 1, 0]
    for a, b, one in zip(flat(added), flat(fresh), ones, strict=True):
        assert_close(a, one + double(b), 30 * 37 * 3, magnitude=1.0)


def test_what_passes_nothing_is_not_read(isa: str) -> None:
    """relu at 0 and below, and windows without the maximum: an infinite weight or character there changes nothing."""
    ids, embedding, weights, biases = operands(8, 9, 6, ((20, 2),))
    biases[0][3] = -1e3  # never above 0
    dy, y, argmax = forward((ids, embedding, weights, biases))
    assert (y[:, 3] == 0).all()
    clean = kernels.char_cnn_backward(dy, ids, embedding, weights, biases, y, argmax)
    spoilt = weights[0].copy()
    spoilt[3] = np.inf
    dembedding, (dweight,), (dbias,) = kernels.char_cnn_backward(dy, ids, embedding, [spoilt], biases, y, argmax)
    assert_same_bits(dembedding, clean[0])
    assert not dweight[3].any()
    assert dbias[3] == 0
    y[0, 0] = np.nan  # NaN passes dy on, as in PyTorch
    alone = np.zeros_like(dy)
    alone[0, 0] = 2
    assert kernels.char_cnn_backward(alone, ids, embedding, weights, biases, y, argmax)[2][0][0] == 2


def test_empty(isa: str, threads: int) -> None:
    given = operands(3, 9, 4, ((5, 1), (0, 3)))
    dy, y, argmax = forward(given)
    ids, *parameters = given
    gradients = flat(kernels.char_cnn_backward(dy[:0], ids[:0], *parameters, y[:0], argmax[:0]))
    assert [g.shape for g in gradients] == [(5, 4), (5, 1, 4), (0, 3, 4), (5,), (0,)]
    assert not any(g.any() for g in gradients)
    none = kernels.char_cnn_backward(dy[:, :0], ids, given[1], [], [], y[:, :0], argmax[:, :0])
    assert none[0].shape == (5, 4)
    assert none[1:] == ((), ())


def test_bad_input() -> None:
    given = operands(4, 9, 6, ((5, 1), (2, 3)))
    ids, embedding, weights, biases = given
    dy, y, argmax = forward(given)

    def refused(error: type[Exception], message: str, *changed: Any, **options: Any) -> None:
        with pytest.raises(error, match=f"^char_cnn_backward: {message}"):
            kernels.char_cnn_backward(*changed, **options)

    good = (dy, *given, y, argmax)
    refused(TypeError, "dy must be float32, got float64$", double(dy), *good[1:])
    refused(ValueError, r"dy must have shape \(4, 7\), got \(3, 7\)$", dy[:3], *good[1:])
    refused(ValueError, "dy .*contiguous", np.zeros((4, 14), np.float32)[:, ::2], *good[1:])
    refused(ValueError, r"y must have shape \(4, 7\), got \(4, 5\)$", *good[:5], y[:, :5], argmax)
    refused(TypeError, "argmax must be int32, got int64$", *good[:6], argmax.astype(np.int64))
    refused(ValueError, r"argmax must have shape \(4, 7\), got \(3, 7\)$", *good[:6], argmax[:3])
    for value, column, positions in ((9, 0, 9), (7, 5, 7), (-1, 6, 7)):
        wrong = argmax.copy()
        wrong[2, column] = value
        refused(
            ValueError,
            rf"argmax must be in \[0, {positions}\), the positions of width .*, got {value} at index \(2, {column}\)$",
            *good[:6],
            wrong,
        )
    refused(ValueError, "char_ids must be in .*, got 9 at index 0$", dy, ids * 0 + 9, *good[2:])
    refused(ValueError, "biases must have 2 items", *good[:4], biases[:1], y, argmax)
    refused(ValueError, "activation must be one of 'relu', 'tanh', got 'elu'$", *good, activation="elu")
    refused(ValueError, r"dembedding must have shape \(5, 6\), got \(4, 6\)$", *good, dembedding=embedding[:4].copy())
    refused(ValueError, "dembedding must not overlap embedding$", *good, dembedding=embedding)
    refused(TypeError, "dweights must be a list or tuple, got ndarray$", *good, dweights=weights[0])
    refused(ValueError, "dweights must have 2 items, as many as weights, got 1$", *good, dweights=[None])
    refused(
        ValueError,
        r"dweights\[1\] must have shape \(2, 3, 6\), got \(5, 1, 6\)$",
        *good,
        dweights=[None, np.zeros((5, 1, 6), np.float32)],
    )
    refused(ValueError, r"dweights\[0\] must not overlap weights\[0\]$", *good, dweights=weights)
    refused(ValueError, r"dbiases\[1\] .*read-only", *good, dbiases=[None, place(np.zeros(2, np.float32), "read-only")])
    room = np.zeros(40, np.float32)
    refused(
        ValueError,
        r"dbiases\[0\] must not overlap dembedding$",
        *good,
        dembedding=room[:30].reshape(5, 6),
        dbiases=[room[29:34], None],
    )


@ACTIVATIONS
def test_same_as_torch(activation: str) -> None:
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    ids, embedding, weights, biases = operands(40, 50, 16, ((32, 1), (64, 3), (100, 7)))
    y, argmax = kernels.char_cnn(ids, embedding, weights, biases, activation=activation, return_argmax=True)
    table = torch.tensor(embedding, requires_grad=True)
    matrices = [torch.tensor(w.transpose(0, 2, 1).copy(), requires_grad=True) for w in weights]
    vectors = [torch.tensor(b, requires_grad=True) for b in biases]
    x = table[torch.tensor(ids)].transpose(1, 2)
    pools = [torch.conv1d(x, w, b).amax(-1) for w, b in zip(matrices, vectors, strict=True)]
    wanted = getattr(torch, activation)(torch.cat(pools, dim=1))
    np.testing.assert_allclose(y, wanted.detach().numpy(), rtol=0, atol=1e-5)
    dy = normal(np.random.default_rng(7), *y.shape)
    wanted.backward(torch.tensor(dy))
    dembedding, dweights, dbiases = kernels.char_cnn_backward(
        dy, ids, embedding, weights, biases, y, argmax, activation=activation
    )
    pairs = [(dembedding, table.grad), *zip(dbiases, (v.grad for v in vectors), strict=True)]
    pairs += [(d, m.grad.transpose(1, 2)) for d, m in zip(dweights, matrices, strict=True)]
    for gradient, grad in pairs:
        np.testing.assert_allclose(gradient, grad.numpy(), rtol=0, atol=2e-5 * float(grad.abs().max()))
