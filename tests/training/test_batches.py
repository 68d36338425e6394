"""Batches of about equally many tokens, in an order that the seed and the epoch decide."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from fastattn.training import TokenBatches, count_steps
from fastattn.training import batches as batches_module

LENGTHS = np.random.default_rng(1).integers(1, 40, 200)


def batches(**options: int) -> TokenBatches:
    return TokenBatches(LENGTHS, lambda indices: {"items": indices}, **options)  # type: ignore[arg-type]


def flat(epoch: list[np.ndarray]) -> list[int]:
    return np.concatenate(epoch).tolist()


def test_an_epoch_holds_every_item_once() -> None:
    for options in ({"batch_tokens": 100}, {"batch_size": 7}, {"batch_tokens": 100, "batch_size": 3}):
        epoch = batches(**options).epoch(0)
        assert sorted(flat(epoch)) == list(range(len(LENGTHS)))
        assert {batch.dtype for batch in epoch} == {np.dtype(np.int64)}


def test_batches_are_as_large_as_the_limits_allow() -> None:
    made = batches(batch_tokens=100, batch_size=6)
    epoch = made.epoch(0)
    for batch, following in itertools.pairwise(epoch):
        assert made.tokens(batch) <= 100
        assert len(batch) <= 6
        assert len(batch) == 6 or made.tokens(batch) + LENGTHS[following[0]] > 100


def test_a_long_item_is_a_batch_of_its_own() -> None:
    made = TokenBatches([3, 50, 4, 0], lambda indices: {}, batch_tokens=8)
    assert [1] in [batch.tolist() for batch in made.epoch(0)]


def test_seed_and_epoch_decide_the_order() -> None:
    assert flat(batches(batch_size=9, seed=4).epoch(2)) == flat(batches(batch_tokens=50, seed=4).epoch(2))
    orders = [flat(batches(batch_size=9, seed=seed).epoch(epoch)) for seed, epoch in ((4, 2), (4, 3), (5, 2))]
    assert len({tuple(order) for order in orders}) == 3


def test_load_and_settings() -> None:
    made = batches(batch_size=2, seed=9)
    assert made.load(np.array([3]))["items"].tolist() == [3]
    assert made.settings["seed"] == 9
    assert made.settings != TokenBatches(LENGTHS[::-1], lambda indices: {}, batch_size=2, seed=9).settings


def test_steps_are_counted_by_epoch() -> None:
    made = batches(batch_size=30)  # 7 batches
    assert count_steps(made, 3) == 21
    assert count_steps(made, 3, accumulation=2) == 12
    assert count_steps(made, 3, accumulation=100) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 7},
        {"batch_size": 1, "batch_tokens": 50},
        {"batch_size": 4, "batch_tokens": 4 * int(LENGTHS.max())},
        {"batch_tokens": int(LENGTHS.max()) * len(LENGTHS)},
        {"batch_size": 4, "batch_tokens": 4 * int(LENGTHS.max()) - 1},
        {"batch_tokens": 50},
    ],
)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_million_epochs_are_not_built_to_count_them(
    options: dict[str, Any], accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    epoch = TokenBatches.epoch

    def counted(self: TokenBatches, number: int) -> Any:
        built.append(number)
        return epoch(self, number)

    made = batches(**options)
    exact = sum(-(-len(made.epoch(number)) // accumulation) for number in range(6))
    monkeypatch.setattr(TokenBatches, "epoch", counted)
    assert count_steps(made, 6, accumulation) == exact
    assert built == ([] if made.count else [*range(6)])
    many = count_steps(made, 10**6, accumulation)
    assert len(built) <= 6 + batches_module.MOST_BUILT
    assert many / 10**6 == pytest.approx(exact / 6, rel=0.05)


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([], {"batch_size": 1}, "lengths must be counts of tokens, one or more"),
        ([[1]], {"batch_size": 1}, "lengths must be counts of tokens"),
        ([-1], {"batch_size": 1}, "lengths must be counts of tokens"),
        ([1], {}, "batch_tokens or batch_size must be given"),
        ([1], {"batch_tokens": 0}, "batch_tokens must be a positive integer, got 0"),
        ([1], {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ([1], {"batch_size": 1, "seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_bad_input(lengths: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBatches(lengths, lambda indices: {}, **options)


def test_numbers_of_another_type() -> None:
    made = TokenBatches([1], lambda indices: {}, batch_size=np.int64(3), seed=np.uint8(4))
    assert json.loads(json.dumps(made.settings)) == made.settings
    with pytest.raises(TypeError, match=r"TokenBatches: batch_size must be a positive integer, got 1\.5"):
        TokenBatches([1], lambda indices: {}, batch_size=1.5)  # type: ignore[arg-type]
