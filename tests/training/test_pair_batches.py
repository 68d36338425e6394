"""Batches of pairs: what the decoder reads and says, and steps in parts."""

from __future__ import annotations

import numpy as np
import pytest

from fastattn import ragged
from fastattn.training import PairBatches, TokenBatches, pair_arguments
from fastattn.training.pair_batches import Ragged

RNG = np.random.default_rng(0)


def sequences(lengths: list[int]) -> Ragged:
    return RNG.integers(3, 50, sum(lengths)), ragged.cu_seqlens(lengths).astype(np.int64)


LENGTHS = [3, 9, 1, 4, 4, 7, 2, 5, 6, 1], [2, 8, 1, 1, 6, 5, 2, 9, 1, 3]
SOURCE, TARGET = (sequences(lengths) for lengths in LENGTHS)


def make(**options: int) -> PairBatches:
    return PairBatches(SOURCE, TARGET, 0, **{"step_tokens": 30, "max_tokens": 30, "seed": 5, **options})


def test_arguments() -> None:
    found = pair_arguments(SOURCE, TARGET, 99, np.array([4, 2]))
    assert found["source_ids"].tolist() == [*SOURCE[0][17:21], SOURCE[0][12]]
    assert (found["cu_source"].tolist(), found["cu_target"].tolist()) == ([0, 4, 5], [0, 6, 7])
    said = [*TARGET[0][12:18], TARGET[0][10]]
    assert found["target_out"].tolist() == said
    assert found["target_in"].tolist() == [99, *said[:5], 99]
    assert found["cu_source"].dtype == found["cu_target"].dtype == np.int32


def test_the_order_is_that_of_token_batches() -> None:
    ours, theirs = make(), TokenBatches(np.add(*LENGTHS), lambda indices: {}, batch_tokens=30, seed=5)
    assert ours.accumulation == 1
    assert ours.count is None
    assert make(step_tokens=500, max_tokens=500).count == 1
    for epoch in range(3):
        batches = ours.epoch(epoch)
        assert [indices.tolist() for indices, _ in batches] == [indices.tolist() for indices in theirs.epoch(epoch)]
        assert {share for _, share in batches} == {1.0}
        assert sum(ours.tokens(batch) for batch in batches) == sum(map(sum, LENGTHS))


def test_a_step_in_parts_has_the_loss_of_the_whole() -> None:
    batches = make(step_tokens=60, max_tokens=25)
    assert batches.accumulation == 3
    every = batches.epoch(0)
    assert len(every) % 3  # the last step has fewer
    for start in range(0, len(every), 3):
        group = every[start : start + 3]
        losses = [np.sin(batches.load(batch)["target_out"]) for batch in group]
        mean = sum(loss.mean() * share for loss, (_, share) in zip(losses, group, strict=True)) / len(group)
        assert mean == pytest.approx(np.concatenate(losses).mean(), rel=1e-12)
        assert [batches.load(batch)["share"] for batch in group] == [share for _, share in group]


def test_settings_know_limits_order_and_data() -> None:
    other = (SOURCE[0] + 1, SOURCE[1])
    found = [
        make().settings,
        make(seed=6).settings,
        make(step_tokens=31, max_tokens=31).settings,
        PairBatches(other, TARGET, 0, step_tokens=30, max_tokens=30, seed=5).settings,
        PairBatches(SOURCE, TARGET, 1, step_tokens=30, max_tokens=30, seed=5).settings,
    ]
    assert make().settings == found[0]
    assert len({tuple(settings.items()) for settings in found}) == len(found) - 1  # the start is the model's


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="PairBatches: max_tokens must be a positive integer, got 0"):
        make(max_tokens=0)
    with pytest.raises(ValueError, match="PairBatches: step_tokens must be a positive integer, got 0"):
        make(step_tokens=0)
    with pytest.raises(ValueError, match="seed must be an integer of at least 0"):
        make(seed=-1)
