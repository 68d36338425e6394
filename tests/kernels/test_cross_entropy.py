"""cross_entropy and cross_entropy_backward against the reference, and what must not change their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import EPS, LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import check_bad_out

import fastattn
from fastattn import kernels, reference

SMOOTHING = pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
CLASSES = (*SIZES, 2047, 2048, 2049, 30522)
"""Around the blocks that the forward pass reads, too; and a vocabulary."""


def arguments(rows: int, classes: int, seed: int = 1) -> tuple[Any, Any, Any]:
    """logits, target (some ignored), dloss."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, rows)
    target[2::3] = -100
    return 3 * normal(rng, rows, classes), target, normal(rng, rows)


@SMOOTHING
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str, label_smoothing: float) -> None:
    for classes in CLASSES:
        logits, target, dloss = (place(array, layout) for array in arguments(7, classes))
        loss, lse = kernels.cross_entropy(logits, target, label_smoothing=label_smoothing)
        expected = reference.cross_entropy(double(logits), target, label_smoothing=label_smoothing)
        assert_close(loss, expected[0], classes, magnitude=1.0)
        assert lse.dtype == np.float64
        assert_close(lse.astype(np.float32), expected[1], classes, magnitude=1.0)
        assert (loss[2::3] == 0).all()
        lse = place(lse, layout)
        dlogits = kernels.cross_entropy_backward(
            dloss, logits, target, lse, label_smoothing=label_smoothing, out=nan_out(7, classes)
        )
        exact = reference.cross_entropy_backward(
            double(dloss), double(logits), target, lse, label_smoothing=label_smoothing
        )
        assert_close(dlogits, exact, classes, magnitude=float(np.abs(dloss).max()))
        assert (dlogits[2::3] == 0).all()


def test_many_rows(isa: str, threads: int) -> None:
    logits, target, dloss = arguments(1031, 257)
    loss, lse = kernels.cross_entropy(logits, target)
    dlogits = kernels.cross_entropy_backward(dloss, logits, target, lse)
    assert_close(loss, reference.cross_entropy(double(logits), target)[0], 257)
    fastattn.set_num_threads(1)
    again = kernels.cross_entropy(logits, target)
    assert_same_bits(again[0], loss)
    np.testing.assert_array_equal(again[1], lse)
    assert_same_bits(kernels.cross_entropy_backward(dloss, logits, target, lse), dlogits)


def test_rows_are_independent(isa: str, threads: int) -> None:
    for classes in (1, 7, 33, 768, 5000):
        logits, target, dloss = arguments(24, classes)
        loss, lse = kernels.cross_entropy(logits, target)
        dlogits = kernels.cross_entropy_backward(dloss, logits, target, lse)
        for i in (0, 1, 5, 23):
            one = slice(i, i + 1)
            spoilt = np.full_like(logits, np.nan)
            spoilt[one] = logits[one]
            for given, at in ((logits[one], slice(None)), (spoilt, one)):
                targets, gradients = (target[one], dloss[one]) if given.shape[0] == 1 else (target, dloss)
                alone = kernels.cross_entropy(given, targets)
                assert_same_bits(alone[0][at], loss[one])
                np.testing.assert_array_equal(alone[1][at], lse[one])
                back = kernels.cross_entropy_backward(gradients, given, targets, alone[1])
                assert_same_bits(back[at], dlogits[one])


def test_the_loss_of_a_sure_answer_is_exact(isa: str) -> None:
    """Where the target has nearly all of the probability, the loss is small, and right to its own last digits."""
    logits = np.array([[20.0, 0.0, 0.0], [1000.0, 984.0, -1e30]], np.float32)
    loss, _ = kernels.cross_entropy(logits, np.array([0, 0]))
    exact = np.log1p([2 * np.exp(-20.0), np.exp(-16.0)])
    assert (np.abs(loss - exact) <= EPS).all()


@SMOOTHING
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 1e6, 1e8])
def test_an_offset_of_all_logits_takes_no_digits(isa: str, offset: float, label_smoothing: float) -> None:
    """Loss and gradient are those of the logits without it, as far as float32 knows the differences."""
    for classes in (5, 33, 2049, 6000):
        logits, target, _ = arguments(7, classes)
        logits += np.float32(offset)
        logits[4, : classes - 2] -= 64  # the largest one comes late
        options: dict[str, Any] = {"label_smoothing": label_smoothing}
        loss, lse = kernels.cross_entropy(logits, target, **options)
        dlogits = kernels.cross_entropy_backward(np.ones(7, np.float32), logits, target, lse, **options)
        exact, exact_lse = reference.cross_entropy(double(logits), target, **options)
        assert_close(loss, exact, classes, c=4, magnitude=1.0)
        expected = reference.cross_entropy_backward(np.ones(7), double(logits), target, exact_lse, **options)
        np.testing.assert_allclose(dlogits, expected, rtol=2e-6, atol=1e-7)


def test_masked_classes(isa: str) -> None:
    """A logit of -inf takes no part; as a target it costs infinitely much."""
    logits = np.array([[1.0, -np.inf, 1.0], [-np.inf, 5.0, -np.inf], [0.0, -np.inf, 0.0]], np.float32)
    target = np.array([0, 1, 1])
    loss, lse = kernels.cross_entropy(logits, target)
    np.testing.assert_allclose(loss, [np.log(2), 0, np.inf], rtol=1e-6)
    dlogits = kernels.cross_entropy_backward(np.ones(3, np.float32), logits, target, lse)
    np.testing.assert_allclose(dlogits, [[-0.5, 0, 0.5], [0, 0, 0], [0.5, -1, 0.5]], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 7, 16, 18, 2047, 2048, 4000])
def test_special_values(isa: str, at: int, value: float) -> None:
    classes = 19 if at < 19 else 4001
    logits, target, dloss = arguments(4, classes)
    clean = kernels.cross_entropy(logits, target)
    logits[1, at] = value
    loss, lse = kernels.cross_entropy(logits, target)
    assert np.isnan(loss[1])
    assert np.isnan(lse[1])
    assert_same_bits(loss[[0, 2, 3]], clean[0][[0, 2, 3]])
    dlogits = kernels.cross_entropy_backward(dloss, logits, target, lse)
    assert np.isnan(dlogits[1]).all()
    assert np.isfinite(dlogits[[0, 2, 3]]).all()


def test_ignored_rows_are_not_read(isa: str) -> None:
    logits, target, dloss = arguments(6, 33)
    logits[2::3] = np.nan
    loss, lse = kernels.cross_entropy(logits, target)
    dlogits = kernels.cross_entropy_backward(dloss, logits, target, lse)
    for array in (loss, lse, dlogits):
        assert (array[2::3] == 0).all()


def test_another_ignore_index(isa: str) -> None:
    """It may be a class, which then is none."""
    logits, target, dloss = arguments(6, 3)
    target[:] = [0, 1, 2, 0, 1, 2]
    loss, lse = kernels.cross_entropy(logits, target, ignore_index=1)
    np.testing.assert_array_equal(loss == 0, target == 1)
    dlogits = kernels.cross_entropy_backward(dloss, logits, target, lse, ignore_index=1)
    np.testing.assert_array_equal((dlogits == 0).all(axis=1), target == 1)


@SMOOTHING
def test_in_place(isa: str, threads: int, label_smoothing: float) -> None:
    logits, target, dloss = arguments(6, 2049)
    _, lse = kernels.cross_entropy(logits, target)
    expected = kernels.cross_entropy_backward(dloss, logits, target, lse, label_smoothing=label_smoothing)
    again = kernels.cross_entropy_backward(dloss, logits, target, lse, label_smoothing=label_smoothing, out=logits)
    assert again is logits
    assert_same_bits(logits, expected)


def test_more_than_the_caches_hold(isa: str, threads: int) -> None:
    """Streamed results are the others."""
    logits, target, dloss = arguments(4, 3000)
    _, lse = kernels.cross_entropy(logits, target)
    expected = kernels.cross_entropy_backward(dloss, logits, target, lse)
    many = [np.repeat(array, 700, axis=0) for array in (dloss, logits, target, lse)]
    assert_same_bits(kernels.cross_entropy_backward(*many)[::700], expected)


def test_empty(isa: str, threads: int) -> None:
    for rows, classes in ((0, 5), (3, 0)):
        logits, target = np.zeros((rows, classes), np.float32), np.full(rows, -100)
        loss, lse = kernels.cross_entropy(logits, target)
        assert loss.tolist() == lse.tolist() == [0] * rows
        assert kernels.cross_entropy_backward(loss, logits, target, lse).shape == (rows, classes)


def forward(logits: Any, target: Any, **options: Any) -> Any:
    return kernels.cross_entropy(logits, target, **options)


def backward(logits: Any, target: Any, **options: Any) -> Any:
    return kernels.cross_entropy_backward(np.zeros(4, np.float32), logits, target, np.zeros(4), **options)


@pytest.mark.parametrize(("name", "call"), [("cross_entropy", forward), ("cross_entropy_backward", backward)])
def test_bad_input(name: str, call: Any) -> None:
    logits, target = np.zeros((4, 6), np.float32), np.arange(4)

    def refused(error: type[Exception], message: str, *given: Any, **options: Any) -> None:
        with pytest.raises(error, match=f"^{name}: {message}"):
            call(*given, **options)

    refused(TypeError, "logits must be float32, got float64$", double(logits), target)
    refused(TypeError, "logits must be .*, got list$", [[0.0]], target)
    refused(ValueError, r"logits must have 2 axes, got shape \(6,\)$", logits[0], target)
    refused(ValueError, "logits .*contiguous", np.zeros((4, 12), np.float32)[:, ::2], target)
    refused(TypeError, "target must be int64, got int32$", logits, target.astype(np.int32))
    refused(TypeError, "target must be .*, got list$", logits, [0, 1, 2, 3])
    refused(ValueError, r"target must have shape \(4,\), got \(3,\)$", logits, target[:3])
    refused(ValueError, "target .*contiguous", logits, np.zeros(8, np.int64)[::2])
    for value, at in ((6, 0), (-1, 3), (-100, 1), (2**40, 2)):
        wrong = target.copy()
        wrong[at] = value
        message = rf"target must be in \[0, 6\) or ignore_index \(-7\), got {value} at index {at}$"
        refused(ValueError, message, logits, wrong, ignore_index=-7)
    refused(TypeError, "ignore_index must be an integer, got float$", logits, target, ignore_index=1.0)
    for smoothing in (-0.1, np.nan):
        refused(ValueError, f"label_smoothing must be .*, got {smoothing}$", logits, target, label_smoothing=smoothing)
    refused(ValueError, r"label_smoothing must be in \[0, 1\], got 1.5$", logits, target, label_smoothing=1.5)


def test_bad_input_of_the_backward_pass() -> None:
    logits, target = np.zeros((4, 6), np.float32), np.arange(4)
    row, lse = np.zeros(4, np.float32), np.zeros(4)
    check_bad_out("cross_entropy_backward", lambda x, **out: backward(x, target, **out), logits, (4, 6))
    for name, at, good, other in (("dloss", 0, row, "float64"), ("lse", 3, lse, "float32")):
        for bad, error, message in (
            (good.astype(other), TypeError, f"must be {good.dtype}, got {other}$"),
            (good[:3], ValueError, r"must have shape \(4,\), got \(3,\)$"),
            (np.zeros(8, good.dtype)[::2], ValueError, ".*contiguous"),
        ):
            given: list[Any] = [row, logits, target, lse]
            given[at] = bad
            with pytest.raises(error, match=f"^cross_entropy_backward: {name} {message}"):
                kernels.cross_entropy_backward(*given)
