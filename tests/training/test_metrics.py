"""Metrics against their definitions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastattn.training import accuracy, bleu, character_error_rate, chrf, edit_distance, f1_scores


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
