"""layer_norm_backward against the reference, and what must not change its bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, normal, place

import fastattn
from fastattn import kernels, reference

NAMES = ("dx", "dresidual", "dweight", "dbias")


def arguments(rows: int, dim: int, *, affine: bool = True, residual: bool = False, p: float = 0.0) -> dict[str, Any]:
    """All that layer_norm_backward takes, the statistics from the forward kernel; an eps for rows of one element."""
    rng = np.random.default_rng(1)
    dy, x = normal(rng, rows, dim), normal(rng, rows, dim, mean=0.5)
    weight = normal(rng, dim) if affine else None
    given: dict[str, Any] = {
        "residual": normal(rng, rows, dim) if residual else None,
        "dropout_p": p,
        "seed": 2**64 - 7,
    }
    _, mean, rstd = kernels.layer_norm(x, weight, None, 0.1, return_stats=True, **given)
    return {"dy": dy, "x": x, "weight": weight, "mean": mean, "rstd": rstd, **given}


def placed(given: dict[str, Any], layout: str) -> dict[str, Any]:
    return {name: place(value, layout) if isinstance(value, np.ndarray) else value for name, value in given.items()}


def in_double(given: dict[str, Any]) -> dict[str, Any]:
    return {name: double(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}


def assert_all_close(results: Any, given: dict[str, Any]) -> None:
    """Each gradient by the terms of its sums."""
    rows, dim = given["dy"].reshape(-1, given["dy"].shape[-1]).shape
    for name, actual, expected in zip(NAMES, results, reference.layer_norm_backward(**in_double(given)), strict=True):
        assert (actual is None) == (expected is None), name
        if actual is not None:
            length = dim if name in ("dx", "dresidual") else rows
            # dx: what is left where the terms of one element cancel is no measure of them
            assert_close(actual, expected, length, c=16, magnitude=float(np.abs(given["rstd"]).max()))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_values(isa: str, threads: int, layout: str, p: float) -> None:
    """Every size with every choice of arguments, in rows that are no multiple of anything."""
    for dim, (affine, residual) in product(SIZES, product((False, True), repeat=2)):
        given = placed(arguments(7, dim, affine=affine, residual=residual, p=p), layout)
        assert_all_close(kernels.layer_norm_backward(**given), given)


def test_many_rows(isa: str, threads: int) -> None:
    """Several chunks of rows, the last one not whole, and the same bits with one thread."""
    for rows in (63, 64, 65, 1031):
        given = arguments(rows, 257, residual=True, p=0.1)
        results = kernels.layer_norm_backward(**given)
        assert_all_close(results, given)
        fastattn.set_num_threads(1)
        for actual, again in zip(results, kernels.layer_norm_backward(**given), strict=True):
            assert_same_bits(actual, again)
        fastattn.set_num_threads(threads)


def test_rows_are_independent(isa: str, threads: int) -> None:
    """dx of a row alone, among NaN, in more axes."""
    for dim in (1, 7, 16, 33, 130, 768):
        given = arguments(24, dim, residual=True)
        dx, dresidual, dweight, dbias = kernels.layer_norm_backward(**given)
        for i in (0, 1, 5, 23):
            alone = {name: value[i : i + 1] if len(np.shape(value)) and name != "weight" else value
                     for name, value in given.items()}  # fmt: skip
            results = kernels.layer_norm_backward(**alone)
            assert_same_bits(results[0], dx[i : i + 1])
            assert_same_bits(results[1], dresidual[i : i + 1])
        spoilt = {**given, "dy": given["dy"].copy()}
        spoilt["dy"][3, 0] = np.nan
        results = kernels.layer_norm_backward(**spoilt)
        assert np.isnan(results[0][3]).all()
        assert_same_bits(np.delete(results[0], 3, axis=0), np.delete(dx, 3, axis=0))
        assert np.isnan(results[3][0])
        assert_same_bits(results[3][1:], dbias[1:])
        folded = {name: value.reshape(2, 3, 4, *value.shape[1:])
                  if len(np.shape(value)) and name != "weight" else value for name, value in given.items()}  # fmt: skip
        results = kernels.layer_norm_backward(**folded)
        assert_same_bits(results[0], dx.reshape(2, 3, 4, dim))
        assert_same_bits(results[2], dweight)


def test_one_row_without_axes(isa: str) -> None:
    given = arguments(1, 19)
    alone = {name: value[0] if np.ndim(value) > 1 else value for name, value in given.items()}
    alone["mean"], alone["rstd"] = kernels.layer_norm(alone["x"], eps=0.1, return_stats=True)[1:]
    assert_same_bits(kernels.layer_norm_backward(**alone)[0], kernels.layer_norm_backward(**given)[0][0])


def test_what_is_not_needed(isa: str, threads: int) -> None:
    """None in its place, and the rest as before."""
    given = arguments(130, 33, residual=True, p=0.2)
    everything = kernels.layer_norm_backward(**given)
    for needs in product((False, True), repeat=4):
        results = kernels.layer_norm_backward(
            **given, **{f"need_{name}": need for name, need in zip(NAMES, needs, strict=True)}
        )
        for actual, full, need in zip(results, everything, needs, strict=True):
            if need:
                assert_same_bits(actual, full)
            else:
                assert actual is None


def test_without_dropout_the_residual_has_the_same_gradient(isa: str) -> None:
    dx, dresidual, _, _ = kernels.layer_norm_backward(**arguments(9, 33, residual=True))
    assert_same_bits(dx, dresidual)
    assert not np.shares_memory(dx, dresidual)


def test_dropout_of_the_forward_pass_is_that_of_the_backward_pass(isa: str) -> None:
    given = arguments(9, 33, residual=True, p=0.4)
    dx, dresidual, _, _ = kernels.layer_norm_backward(**given)
    assert_same_bits(dx, kernels.dropout_backward(dresidual, 0.4, given["seed"]))


def test_accumulate(isa: str, threads: int) -> None:
    given = arguments(130, 65)
    _, _, dweight, dbias = kernels.layer_norm_backward(**given)
    sums = [place(normal(np.random.default_rng(2), 65), "end") for _ in range(2)]
    before = [array.copy() for array in sums]
    results = kernels.layer_norm_backward(**given, dweight=sums[0], dbias=sums[1])
    assert results[2] is sums[0]
    assert results[3] is sums[1]
    assert_same_bits(sums[0], before[0] + dweight)
    assert_same_bits(sums[1], before[1] + dbias)


def test_empty(isa: str, threads: int) -> None:
    for shape in ((0, 5), (3, 0), (2, 0, 4)):
        x, stats, weight = np.zeros(shape, np.float32), np.zeros(shape[:-1], np.float32), np.ones(shape[-1], np.float32)
        dx, dresidual, dweight, dbias = kernels.layer_norm_backward(x, x, weight, stats, stats, residual=x)
        assert dx is not None
        assert dresidual is not None
        assert dx.shape == dresidual.shape == shape
        assert_same_bits(dweight, np.zeros(shape[-1], np.float32))
        assert_same_bits(dbias, np.zeros(shape[-1], np.float32))


def test_bad_input() -> None:
    good = arguments(4, 6, residual=True)

    def refused(error: type[Exception], message: str, **changed: Any) -> None:
        with pytest.raises(error, match=f"^layer_norm_backward: {message}"):
            kernels.layer_norm_backward(**(good | changed))

    for name in ("dy", "x", "weight", "mean", "rstd", "residual"):
        refused(TypeError, f"{name} must be float32, got float64$", **{name: double(good[name])})
        refused(TypeError, f"{name} must be .*, got list$", **{name: [1.0]})
    for name in ("x", "residual"):
        refused(ValueError, rf"{name} must have shape \(4, 6\), got \(6,\)$", **{name: good["x"][0]})
    for name in ("dy", "x", "residual"):
        refused(ValueError, f"{name} .*contiguous", **{name: np.zeros((4, 12), np.float32)[:, ::2]})
    for name in ("mean", "rstd"):
        refused(ValueError, rf"{name} must have shape \(4,\), got \(3,\)$", **{name: good["mean"][:3]})
        refused(ValueError, f"{name} .*contiguous", **{name: np.zeros(8, np.float32)[::2]})
    refused(ValueError, r"weight must have shape \(6,\), got \(5,\)$", weight=good["weight"][:5])
    for p in (-0.1, 1.0, np.nan):
        refused(ValueError, rf"dropout_p must be in \[0, 1\), got {p}$", dropout_p=p)
    for seed in (-1, 2**64):
        refused(ValueError, rf"seed must be in \[0, 2\^64\), got {seed}$", seed=seed)
    for name in ("dweight", "dbias"):
        refused(ValueError, rf"{name} must have shape \(6,\), got \(5,\)$", **{name: np.zeros(5, np.float32)})
        refused(ValueError, f"{name} .*read-only", **{name: place(good["weight"], "read-only")})
        refused(ValueError, f"{name} must not overlap weight$", **{name: good["weight"]})
    shared = np.zeros(7, np.float32)
    refused(ValueError, "dbias must not overlap dweight$", dweight=shared[:6], dbias=shared[1:])
