"""Metrics against their definitions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastattn.training import (
    accuracy,
    bleu,
    character_error_rate,
    chrf,
    edit_distance,
    f1_scores,
    matthews_correlation,
    multi_label_f1_scores,
    pearson_correlation,
    spearman_correlation,
)


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
    others = f1_scores(predictions, np.where(labels == -100, 9, labels), 5, ignore_index=9)
    np.testing.assert_array_equal(others, scores)


def test_f1_of_labels_never_right() -> None:
    assert f1_scores([0, 1], [1, 0], 2).tolist() == [0.0, 0.0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(1,\)"):
        accuracy([1, 2], [1])
    with pytest.raises(ValueError, match=r"f1_scores: predictions must be from 0 to 1, got 2"):
        f1_scores([2], [0], 2)
    with pytest.raises(ValueError, match=r"f1_scores: labels must be from 0 to 1, got -1"):
        f1_scores([0], [-1], 2)


def distance_by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance_by_definition(a[1:], b) + 1,
        distance_by_definition(a, b[1:]) + 1,
        distance_by_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


@given(st.text("ab猫", max_size=5), st.text("ab猫", max_size=5))
def test_edit_distance(a: str, b: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance_by_definition(a, b)
    assert edit_distance(list(a), tuple(b)) == edit_distance(a, b)


def test_edit_distance_of_long_texts() -> None:
    text = "the cat sat on the mat, " * 40
    assert edit_distance(text, text) == 0
    assert edit_distance(text, text[3:-4] + "x") == 3 + 4  # three go, and of the last four one becomes x
    assert edit_distance("", text) == len(text)


def test_character_error_rate() -> None:
    assert character_error_rate(["abc", ""], ["abd", "xy"]) == 3 / 5
    assert character_error_rate(["aaaa"], ["b"]) == 4.0
    assert character_error_rate(["a"], ["b"]) == 1.0
    assert character_error_rate(["a\u0308"], ["ä"]) == 2.0  # code points
    assert math.isnan(character_error_rate([""], [""]))
    assert math.isnan(character_error_rate([], []))


def test_bleu_and_chrf_are_sacrebleus() -> None:
    library = pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    texts = ["The cat sat on a mat.", "Nobody knows, he said!", "x"]
    right = ["The cat sat on the mat.", "“Nobody knows”, he said.", "y"]
    assert bleu(texts, right) == library.corpus_bleu(texts, [right]).score
    assert chrf(tuple(texts), tuple(right)) == library.corpus_chrf(texts, [right]).score
    assert bleu(right, right) == pytest.approx(100)


@pytest.mark.parametrize("metric", [bleu, chrf, character_error_rate])
def test_texts_that_do_not_fit(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=rf"{metric.__name__}: 2 predictions, but 1 references"):
        metric(["a", "b"], ["a"])
    with pytest.raises(TypeError, match=rf"{metric.__name__}: references must be a sequence of str, got the str"):
        metric(["a", "b"], "ab")


def test_a_missing_sacrebleu_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r'pip install "fastattn\[translate\]"'):
        bleu(["a"], ["a"])


def labels_of(rng: np.random.Generator, classes: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    right = rng.integers(0, classes, rows)
    return np.where(rng.random(rows) < 0.6, right, rng.integers(0, classes, rows)), right


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_matthews_correlation_is_that_of_indicators(classes: int) -> None:
    """Gorodkin's R is Pearson's correlation of the indicators of classes, each less its mean over rows."""
    predicted, right = labels_of(np.random.default_rng(classes), classes, 200)
    a, b = (np.eye(classes)[values] - np.eye(classes)[values].mean(axis=0) for values in (predicted, right))
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert matthews_correlation(predicted, right) == pytest.approx(expected, rel=1e-12)
    assert matthews_correlation(right, right) == pytest.approx(1)


def test_matthews_correlation_of_one_class() -> None:
    assert matthews_correlation([1, 1], [0, 1]) == matthews_correlation([0, 1], [1, 1]) == 0.0
    assert matthews_correlation([], []) == 0.0
    assert matthews_correlation([0, 1, 5], [0, 1, -100]) == 1.0
    with pytest.raises(ValueError, match=r"matthews_correlation: predictions must not be negative, got -1"):
        matthews_correlation([-1], [0])


def test_multi_label_f1() -> None:
    predicted = [[True, False, False], [True, True, False], [False, True, False]]
    right = [[True, False, False], [False, True, False], [True, True, False]]
    micro, each = multi_label_f1_scores(predicted, right)
    assert micro == 2 * 3 / (4 + 4)
    np.testing.assert_array_equal(each, [0.5, 1.0, np.nan])
    assert math.isnan(multi_label_f1_scores([[False]], [[False]])[0])
    with pytest.raises(ValueError, match=r"one shape \(rows, labels\), got \(1,\) and \(1,\)"):
        multi_label_f1_scores([True], [True])


def test_correlations() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(100), rng.standard_normal(100)
    assert pearson_correlation(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    assert pearson_correlation(1e9 + a, 1e-200 * a) == pytest.approx(1)
    assert spearman_correlation(a, np.exp(3 * a)) == pytest.approx(1)
    assert spearman_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    for metric in (pearson_correlation, spearman_correlation):
        assert metric([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
        assert all(math.isnan(metric(*pair)) for pair in (([], []), ([1, 1], [1, 2]), ([1, 2, np.nan], [1, 2, 3])))
        with pytest.raises(ValueError, match=r"one axis and one length, got shapes \(2,\) and \(1,\)"):
            metric([1, 2], [1])


def test_scores_are_those_of_sklearn_and_scipy() -> None:
    theirs = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    stats = pytest.importorskip("scipy.stats", reason="compares with SciPy")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        classes, rows = int(rng.integers(2, 6)), int(rng.integers(2, 60))
        predicted, right = labels_of(rng, classes, rows)
        expected = theirs.matthews_corrcoef(right, predicted)
        assert matthews_correlation(predicted, right) == pytest.approx(expected, abs=1e-12)
        macro = np.nanmean(f1_scores(predicted, right, classes))
        assert macro == pytest.approx(theirs.f1_score(right, predicted, average="macro"), abs=1e-12)
        several, gold = rng.random((2, rows, classes)) < 0.3
        micro, each = multi_label_f1_scores(several, gold)
        options = {"zero_division": 0.0}
        assert np.nan_to_num(micro) == pytest.approx(theirs.f1_score(gold, several, average="micro", **options))
        assert np.nan_to_num(each).mean() == pytest.approx(theirs.f1_score(gold, several, average="macro", **options))
        a, b = rng.integers(0, 9, rows) / 2, rng.standard_normal(rows)
        if len(set(a)) > 1:
            assert pearson_correlation(a, b) == pytest.approx(stats.pearsonr(a, b)[0], abs=1e-12)
            assert spearman_correlation(a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)
