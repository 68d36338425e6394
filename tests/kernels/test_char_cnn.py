"""char_cnn against the reference, and what must not change its bits. Its backward pass: test_char_cnn_backward.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, nan_out, place
from helpers_char_cnn import ACTIVATIONS, doubled, largest_at, operands, packed
from helpers_rows import check_bad_out
from hypothesis import given
from hypothesis import strategies as st

import fastattn
from fastattn import kernels, reference
from fastattn.kernels import PackedMatrix


@ACTIVATIONS
@pytest.mark.parametrize("form", ["plain", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, form: str, activation: str) -> None:
    for words, chars, dim, filters in (
        (1, 1, 1, ((1, 1),)),
        (3, 9, 4, ((5, 1), (16, 3), (33, 9))),
        (40, 50, 16, ((32, 1), (7, 2), (130, 7))),
        (9, 130, 3, ((17, 4), (1, 130))),
    ):
        ids, embedding, weights, biases = operands(words, chars, dim, filters)
        at = "plain" if layout == "strided" else layout  # what must be contiguous
        given = (
            place(ids, at),
            place(embedding, layout),
            packed(weights) if form == "packed" else [place(w, at) for w in weights],
            [place(b, at) for b in biases],
        )
        y = kernels.char_cnn(*given, activation=activation, out=nan_out(words, sum(n for n, _ in filters)))
        expected = reference.char_cnn(*doubled(ids, embedding, weights, biases), activation=activation)
        assert_close(y, expected, dim * max(width for _, width in filters))
        again, argmax = kernels.char_cnn(*given, activation=activation, return_argmax=True)
        assert_same_bits(again, y)
        assert argmax.dtype == np.int32
        largest_at(argmax, ids, embedding, weights)


@pytest.mark.parametrize("which", ["filters", "dim", "words"])
def test_odd_sizes(isa: str, threads: int, which: str) -> None:
    for size in SIZES[:-1]:
        words, dim, count = (size if which == name else 5 for name in ("words", "dim", "filters"))
        given = operands(words, 11, dim, ((count, 3), (2, 5)))
        y = kernels.char_cnn(*given, out=nan_out(words, count + 2))
        assert_close(y, reference.char_cnn(*doubled(*given)), 5 * dim)


def test_words_are_independent(isa: str, threads: int) -> None:
    """Alone, in any order, among words of NaN, packed or plain, with one thread or two: the same bits."""
    ids, embedding, weights, biases = operands(300, 50, 16, ((32, 1), (48, 3), (200, 7)))
    y, argmax = kernels.char_cnn(ids, embedding, weights, biases, return_argmax=True)
    panels = packed(weights)
    for mixed in (panels, [panels[0], weights[1], panels[2]], [weights[0], panels[1], weights[2]]):
        assert_same_bits(kernels.char_cnn(ids, embedding, mixed, biases), y)
    for n in (1, 2, 7, 40):
        for start in (0, 5, 300 - n):
            own = slice(start, start + n)
            part, places = kernels.char_cnn(ids[own], embedding, panels, biases, return_argmax=True)
            assert_same_bits(part, y[own])
            np.testing.assert_array_equal(places, argmax[own])
    order = np.random.default_rng(2).permutation(300)
    assert_same_bits(kernels.char_cnn(ids[order], embedding, panels, biases), y[order])
    poisoned = np.concatenate([embedding, np.full((1, 16), np.nan, np.float32)])
    spoilt = ids.copy()
    spoilt[::2, 3] = len(embedding)
    z = kernels.char_cnn(spoilt, poisoned, panels, biases)
    assert np.isnan(z[::2]).all()
    assert_same_bits(z[1::2], y[1::2])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.char_cnn(ids, embedding, weights, biases), y)


def test_every_value_is_one_fma_chain(isa: str) -> None:
    """Over the window from 0 upwards, then the maximum, then the bias: as a linear layer."""
    ids, embedding, weights, biases = operands(20, 12, 5, ((19, 4),))
    y = kernels.char_cnn(ids, embedding, weights, biases)
    windows = np.stack([embedding[ids[:, p : p + 4]].reshape(20, 20) for p in range(9)], axis=1)
    values = kernels.linear(windows, weights[0].reshape(19, 20)).max(axis=1)
    assert_same_bits(y, np.maximum(values + biases[0], 0))


def test_padding_is_an_ordinary_character(isa: str, threads: int) -> None:
    """The maximum may lie in the padding, and more of it changes nothing as soon as a whole window is padding."""
    _, embedding, weights, biases = operands(1, 1, 16, ((64, 1), (64, 3)))
    ids = np.full((9, 30), 4)
    for i in range(9):
        ids[i, :i] = np.arange(i) % 4
    y, argmax = kernels.char_cnn(ids, embedding, weights, biases, return_argmax=True)
    assert_same_bits(kernels.char_cnn(ids[:, :11].copy(), embedding, weights, biases), y)
    for i in range(9):
        assert argmax[i].max() == i
    assert_same_bits(kernels.char_cnn(ids, embedding, packed(weights), biases), y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 4, 8])
@ACTIVATIONS
def test_special_values(isa: str, activation: str, at: int, value: float) -> None:
    ids = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 0], [0] * 9, [3, 2, 1, 0, 3, 2, 1, 0, 3]])
    _, embedding, weights, biases = operands(1, 9, 6, ((20, 1), (20, 2)))
    embedding = np.concatenate([embedding[:4], np.full((1, 6), 0.5, np.float32)])
    embedding[4, 2] = value
    ids[0, at] = 4
    given = ids, embedding, weights, biases
    y, argmax = kernels.char_cnn(*given, activation=activation, return_argmax=True)
    expected, places = reference.char_cnn(*doubled(*given), activation=activation, return_argmax=True)
    for word, exact in zip(y, expected, strict=True):
        assert_close(word, exact, 12)
    np.testing.assert_array_equal(argmax[0], places[0])
    if np.isnan(value):
        assert (argmax[0] == [at] * 20 + [max(0, at - 1)] * 20).all()


def test_all_minus_infinity(isa: str) -> None:
    embedding = np.full((1, 1), -np.inf, np.float32)
    one = [np.ones((3, 2, 1), np.float32)], [np.zeros(3, np.float32)]
    y, argmax = kernels.char_cnn(np.zeros((1, 5), np.int64), embedding, *one, activation="tanh", return_argmax=True)
    assert (y == -1).all()
    assert not argmax.any()


@given(
    words=st.integers(0, 20),
    chars=st.integers(1, 20),
    dim=st.integers(1, 20),
    filters=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 20)), max_size=4),
    form=st.booleans(),
    activation=st.sampled_from(["relu", "tanh"]),
)
def test_any_shape(
    isa: str,
    threads: int,
    words: int,
    chars: int,
    dim: int,
    filters: list[tuple[int, int]],
    form: bool,
    activation: str,
) -> None:
    filters = [(count, min(width, chars)) for count, width in filters]
    ids, embedding, weights, biases = operands(words, chars, dim, filters)
    y = kernels.char_cnn(
        ids,
        embedding,
        packed(weights) if form else weights,
        biases,
        activation=activation,
        out=nan_out(words, sum(n for n, _ in filters)),
    )
    if y.size:
        assert_close(
            y,
            reference.char_cnn(*doubled(ids, embedding, weights, biases), activation=activation),
            dim * max(width for _, width in filters),
        )


def test_empty(isa: str, threads: int) -> None:
    ids, embedding, weights, biases = operands(3, 9, 4, ((5, 1), (0, 3)))
    y, argmax = kernels.char_cnn(ids[:0], embedding, weights, biases, return_argmax=True)
    assert y.shape == argmax.shape == (0, 5)
    assert kernels.char_cnn(ids, embedding, [], []).shape == (3, 0)
    assert kernels.char_cnn(ids, embedding, weights[1:], tuple(biases[1:])).shape == (3, 0)


def test_bad_input() -> None:
    ids, embedding, weights, biases = operands(4, 9, 6, ((5, 1), (2, 3)))

    def refused(error: type[Exception], message: str, *given: Any, **options: Any) -> None:
        with pytest.raises(error, match=f"^char_cnn: {message}"):
            kernels.char_cnn(*given, **options)

    good = (ids, embedding, weights, biases)
    check_bad_out("char_cnn", lambda x, out: kernels.char_cnn(x, *good[1:], out=out), ids, (4, 7))
    refused(TypeError, "char_ids must be int64, got int32$", ids.astype(np.int32), *good[1:])
    refused(TypeError, "char_ids must be .*, got list$", [[0]], *good[1:])
    refused(ValueError, r"char_ids must have 2 axes, got shape \(9,\)$", ids[0], *good[1:])
    refused(ValueError, "char_ids must be C-contiguous", ids[:, ::2], *good[1:])
    wrong = ids.copy()
    wrong[1, 2] = 5
    refused(ValueError, r"char_ids must be in \[0, 5\), the rows of embedding, got 5 at index 11$", wrong, *good[1:])
    wrong[1, 2] = -1
    refused(ValueError, "char_ids must be .*, got -1 at index 11$", wrong, *good[1:])
    refused(TypeError, "embedding must be float32, got float64$", ids, embedding.astype(float), weights, biases)
    refused(ValueError, r"embedding must have at least one column, got shape \(5, 0\)$", ids, embedding[:, :0], [], [])
    refused(ValueError, "embedding .*contiguous", ids, np.zeros((5, 12), np.float32)[:, ::2], weights, biases)
    refused(TypeError, "weights must be a list or tuple, got ndarray$", ids, embedding, weights[0], biases)
    refused(TypeError, "biases must be a list or tuple, got NoneType$", ids, embedding, weights, None)
    refused(ValueError, "biases must have 2 items, as many as weights, got 1$", ids, embedding, weights, biases[:1])
    refused(TypeError, r"weights\[1\] must be .*, got NoneType$", ids, embedding, [weights[0], None], biases)
    refused(TypeError, r"biases\[0\] must be float32, got float64$", ids, embedding, weights, [np.zeros(5), biases[1]])
    refused(ValueError, r"biases\[1\] must have shape \(2,\), got \(5,\)$", ids, embedding, weights, [biases[0]] * 2)

    def wrong_weight(message: str, weight: Any) -> None:
        refused(ValueError, rf"weights\[0\] {message}", ids, embedding, [weight, weights[1]], biases)

    wrong_weight(r"must have shape \(5, 2, 6\), got \(5, 2, 7\)$", np.zeros((5, 2, 7), np.float32))
    wrong_weight("must have 3 axes", np.zeros((5, 6), np.float32))
    wrong_weight("must be C-contiguous", np.zeros((5, 2, 12), np.float32)[:, :, ::2])
    wrong_weight("must have a width from 1 to 9, the characters of a word, got 10$", np.zeros((5, 10, 6), np.float32))
    wrong_weight("must have a width from 1 to 9, .*, got 0$", np.zeros((5, 0, 6), np.float32))
    wrong_weight(r"must be packed with width \* 6 columns, got 7$", PackedMatrix(np.zeros((5, 7), np.float32)))
    wrong_weight("must have a width from 1 to 9, .*, got 10$", PackedMatrix(np.zeros((5, 60), np.float32)))
    wrong_weight("must be packed with groups=1, got 5$", PackedMatrix(np.zeros((5, 6), np.float32), 5))
    refused(ValueError, "activation must be one of 'relu', 'tanh', got 'gelu'$", *good, activation="gelu")
    refused(TypeError, "activation must be a string, got NoneType$", *good, activation=None)
    room = np.zeros(40, np.float32)
    refused(
        ValueError,
        r"out must not overlap biases\[0\]$",
        *(ids, embedding, weights, [room[:5], biases[1]]),
        out=room[4:32].reshape(4, 7),
    )


def test_no_words_in_a_new_thread() -> None:
    """It has reserved no memory yet, and needs none."""
    embedding, weight, bias = np.ones((3, 2), np.float32), np.ones((1, 1, 2), np.float32), np.zeros(1, np.float32)
    ids, y, argmax = np.zeros((0, 4), np.int64), np.zeros((0, 1), np.float32), np.zeros((0, 1), np.int32)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(kernels.char_cnn_backward, y, ids, embedding, [weight], [bias], y, argmax)
        dembedding, (dweight,), (dbias,) = call.result()
    assert not dembedding.any()
    assert not dweight.any()
    assert not dbias.any()
