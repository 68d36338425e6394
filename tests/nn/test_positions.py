"""Sinusoidal positions: the formula, the orders, and the same bits in every table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

from fastattn import nn


def angle(position: int, i: int, dim: int, max_timescale: float = 10000.0) -> float:
    return float(position / max_timescale ** (2 * i / dim))


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_the_papers_order(dim: int) -> None:
    rows = nn.SinusoidalPositions(dim)(np.arange(100))
    assert rows.shape == (100, dim)
    assert rows.dtype == np.float32
    for position in (0, 1, 63, 64, 99):
        for column in range(dim):
            wave = np.cos if column % 2 else np.sin
            assert rows[position, column] == pytest.approx(wave(angle(position, column // 2, dim)), abs=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_the_other_order_has_the_same_columns(dim: int) -> None:
    """Sines first, one more of them in an odd dimension, as in transformers' Marian."""
    rows = nn.SinusoidalPositions(dim)(np.arange(70))
    other = nn.SinusoidalPositions(dim, order="concatenated")(np.arange(70))
    assert_same_bits(other[:, : (dim + 1) // 2], np.ascontiguousarray(rows[:, 0::2]))
    assert_same_bits(other[:, (dim + 1) // 2 :], np.ascontiguousarray(rows[:, 1::2]))


def test_the_first_position() -> None:
    """The 65th row of a table may stand elsewhere in NumPy's vectors than the 64th: almost the same."""
    later = nn.SinusoidalPositions(16, first_position=5)
    np.testing.assert_allclose(later(np.arange(90)), nn.SinusoidalPositions(16)(np.arange(5, 95)), atol=1e-7)


def test_the_time_scale() -> None:
    rows = nn.SinusoidalPositions(8, max_timescale=50.0)(np.array([7]))
    assert rows[0, 6] == pytest.approx(np.sin(angle(7, 3, 8, 50.0)), abs=1e-6)
    h = 16  # tensor2tensor's wavelengths end at the time-scale, as the docstring says
    rows = nn.SinusoidalPositions(2 * h, order="concatenated", max_timescale=10000 ** (h / (h - 1)))(np.arange(30))
    steps = np.exp(-np.arange(h) * np.log(10000.0) / (h - 1))
    wanted = np.arange(30)[:, None] * steps
    np.testing.assert_allclose(rows, np.concatenate([np.sin(wanted), np.cos(wanted)], axis=1), atol=1e-6)


def test_a_position_has_the_same_bits_in_all_company() -> None:
    positions = nn.SinusoidalPositions(48)
    whole = positions(np.arange(1000))
    for size in (1, 63, 64, 65, 128, 500, 513):
        assert_same_bits(positions(np.arange(size)), whole[:size])
    ids = np.array([[3, 700], [0, 64]])
    assert_same_bits(positions(ids), whole[ids])
    assert_same_bits(positions(ids.astype(np.uint8)[:1, :1]), whole[ids[:1, :1]])


@pytest.mark.parametrize(
    "ids", [[70, 127], [0, 200], [4095, 0], [4096, 3], [64 * 4096, 5, 2**40], [[1, 2], [900, 5000]]]
)
def test_the_rows_of_a_table(ids: Any) -> None:
    positions = nn.SinusoidalPositions(6)
    table, rows = positions.lookup(np.array(ids))
    assert not table.flags.writeable or len(table) <= 64 * np.size(ids)
    assert rows.shape == np.shape(ids)
    for place in np.ndindex(rows.shape):
        assert_same_bits(table[rows[place]], positions(np.array([np.array(ids)[place]]))[0])


def test_tables_are_kept() -> None:
    """A pass holds none of its own, whatever the lengths of its sequences."""
    positions = nn.SinusoidalPositions(6)
    assert len({id(positions.lookup(np.arange(length))[0]) for length in range(2049, 4096, 100)}) == 1
    assert len({id(positions.lookup(np.arange(length, length + 9))[0]) for length in range(64, 100)}) == 1


def test_a_far_position_costs_no_more_than_a_near_one() -> None:
    """No table of all positions before it: that of 2^40 would not fit."""
    far, near = nn.SinusoidalPositions(4)(np.array([2**40, 3])), nn.SinusoidalPositions(4)(np.array([3]))
    np.testing.assert_allclose(far[0, :2], [np.sin(2.0**40), np.cos(2.0**40)], atol=1e-6)
    assert_same_bits(far[1], near[0])


def test_nothing_to_load_or_train() -> None:
    positions = nn.SinusoidalPositions(8)
    assert positions.state_dict() == {}
    assert positions(np.zeros(0, np.int64)).shape == (0, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "mixed"}, "order must be one of interleaved, concatenated, got 'mixed'"),
        ({"dim": 0}, "dim must be a positive integer, got 0"),
        ({"first_position": -1}, "first_position must be an integer of at least 0, got -1"),
        ({"max_timescale": 0.0}, "max_timescale must be a number above 0, got 0.0"),
        ({"max_timescale": float("nan")}, "max_timescale must be a number above 0, got nan"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.SinusoidalPositions(**{"dim": 8, **options})


def test_a_negative_position() -> None:
    with pytest.raises(ValueError, match="position_ids must not be negative, got -2"):
        nn.SinusoidalPositions(8)(np.array([0, -2]))
