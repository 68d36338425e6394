"""Dropout's random numbers: known values, the right share of them, no pattern over rows, columns and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastattn import reference
from fastattn.reference._random import kept

SEEDS = (0, 1, 2**32, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15)
KNOWN = [
    "10101100000010000001001111111001",
    "01100011110111101011101101011111",
    "00000001010011101010111001000111",
    "10000111001000111001100000101100",
]


def is_kept(row: int, column: int, p: float, seed: int) -> bool:
    """One element, in whole numbers that are cut to their width by hand."""
    long, word = 2**64 - 1, 2**32 - 1
    z = (seed + 0x9E3779B97F4A7C15 * (row + 1)) & long
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & long
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & long
    z ^= z >> 31
    x = (column * 0x9E3779B9 + (z & word)) & word
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & word
    x ^= z >> 32
    x = ((x ^ (x >> 15)) * 0xD35A2D97) & word
    x ^= x >> 15
    return (x >> 8) >= math.floor(p * 2**24 + 0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_against_one_element_at_a_time(seed: int) -> None:
    rows = np.array([[0, 1, 2], [1000, 2**31 + 5, 2**40]])
    for p in (0.1, 0.5, 0.97):
        keep = kept(rows, 40, p, seed)
        assert keep.shape == (2, 3, 40)
        assert all(keep[(*i, c)] == is_kept(int(rows[i]), c, p, seed) for i in np.ndindex(2, 3) for c in range(40))


def test_known_values() -> None:
    """Written down once: no version may change them, or a run that is resumed drops other elements."""
    keep = kept(np.arange(4), 32, 0.5, seed=2024)
    assert ["".join("01"[bit] for bit in row.tolist()) for row in keep] == KNOWN
    assert [[is_kept(row, column, 0.5, 2024) for column in range(32)] for row in range(4)] == keep.tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(p: float, seed: int) -> None:
    """Within four standard deviations: of everything, and of the worst of the rows and columns (five and a half)."""
    n = 1024
    dropped = ~kept(np.arange(n), n, p, seed)
    assert abs(dropped.mean() - p) < 4 * math.sqrt(p * (1 - p)) / n
    for axis in (0, 1):
        assert np.abs(dropped.mean(axis=axis) - p).max() < 5.5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_are_independent(seed: int) -> None:
    """Rows, columns and seeds at many distances agree as often as two fair coins: a chance of 1/2, 2^20 times."""
    n = 1024
    keep = kept(np.arange(n), n, 0.5, seed)
    others = [np.roll(keep, distance, axis) for axis in (0, 1) for distance in (1, 2, 3, 4, 7, 8, 16, 64, 512)]
    others += [kept(np.arange(n), n, 0.5, seed ^ 1), kept(np.arange(n), n, 0.5, seed ^ (1 << 63))]
    for other in others:
        assert abs((keep == other).mean() - 0.5) < 5 * 0.5 / n


def test_rows_are_not_linear_in_each_other() -> None:
    """The parity of four places that make a rectangle is fair too: a plain xor of two hashes would always give 0."""
    n = 1024
    keep = kept(np.arange(n), n, 0.5, 5)
    for down, right in ((1, 1), (1, 2), (2, 1), (8, 16)):
        moved = np.roll(keep, down, 0)
        parity = keep ^ moved ^ np.roll(keep, right, 1) ^ np.roll(moved, right, 1)
        assert abs(parity.mean() - 0.5) < 5 * 0.5 / n


def test_an_array_is_rows_of_its_last_axis() -> None:
    p, seed = 0.3, 99
    x = np.random.default_rng(1).standard_normal((5, 3, 700))  # more than one block
    y = reference.dropout(x, p, seed)
    keep = kept(np.arange(15), 700, p, seed).reshape(x.shape)
    np.testing.assert_array_equal(y, np.where(keep, x * (1 / (1 - p)), 0))
    np.testing.assert_array_equal(reference.dropout(x[0, 0], p, seed), y[0, 0])
    np.testing.assert_array_equal(reference.dropout(x[::-1, :, ::2], p, seed).shape, (5, 3, 350))
    big = np.ones((1000, 100))
    whole = reference.dropout(big, p, seed)
    np.testing.assert_array_equal(whole[:700], reference.dropout(big[:700], p, seed))
    assert reference.dropout(x, p, seed, out=x) is x
    np.testing.assert_array_equal(x, y)


def test_what_is_dropped_leaves_no_trace() -> None:
    x = np.full((2, 64), np.nan)
    y = reference.dropout(x, 0.5, 1)
    assert set(np.isnan(y).ravel().tolist()) == {False, True}
    assert (y[~np.isnan(y)] == 0).all()


def test_p_of_zero_copies() -> None:
    x = np.array([1.0, np.nan, -np.inf])
    y = reference.dropout(x, 0.0, 1)
    np.testing.assert_array_equal(y, x)
    assert not np.shares_memory(x, y)


def test_p_is_a_share_of_2_to_the_24() -> None:
    """Less than half of 2^-24 drops nothing; almost 1 drops all, and does not overflow."""
    assert kept(np.arange(100), 100, 2.0**-26, 0).all()
    assert not kept(np.arange(100), 100, 1 - 2.0**-30, 0).any()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (2, 0, 4)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    assert reference.dropout(np.zeros(shape)).shape == shape
