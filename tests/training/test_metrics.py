"""Metrics against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastattn.training import accuracy, f1_scores


def test_accuracy() -> None:
    assert accuracy([[1, 2], [3, 4]], [[1, 2], [0, 4]]) == 0.75
    assert accuracy([1, 2, 7], [1, 0, -100]) == 0.5
    assert accuracy([1, 2, 7], [1, 0, 9], ignore_index=9) == 0.5
    assert math.isnan(accuracy([1], [-100]))
    assert math.isnan(accuracy([], []))


def test_f1_by_hand() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    labels[:50] = -100
    scores = f1_scores(predictions, labels, 5)
    for label in range(4):
        there, said = labels[50:] == label, predictions[50:] == label
        precision, recall = (there & said).sum() / said.sum(), (there & said).sum() / there.sum()
        assert scores[label] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-12)
    assert math.isnan(scores[4])


def test_f1_of_labels_never_right() -> None:
    assert f1_scores([0, 1], [1, 0], 2).tolist() == [0.0, 0.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(1,\)"):
        accuracy([1, 2], [1])
    with pytest.raises(ValueError, match=r"f1_scores: predictions must be from 0 to 1, got 2"):
        f1_scores([2], [0], 2)
    with pytest.raises(ValueError, match=r"f1_scores: labels must be from 0 to 1, got -1"):
        f1_scores([0], [-1], 2)
