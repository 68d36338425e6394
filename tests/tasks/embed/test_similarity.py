"""Similarities against their definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastattn.tasks.embed.similarity import SIMILARITIES, similarity, similarity_pairwise


def definition(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    if name == "cosine":
        return (a * b).sum(-1) / (np.sqrt((a * a).sum(-1)) * np.sqrt((b * b).sum(-1)))
    if name == "dot":
        return (a * b).sum(-1)
    if name == "euclidean":
        return -np.sqrt(((a - b) ** 2).sum(-1))
    return -np.abs(a - b).sum(-1)


@pytest.fixture
def embeddings() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((7, 33), dtype=np.float32), rng.standard_normal((5, 33), dtype=np.float32)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_all_pairs(embeddings, name):
    a, b = embeddings
    scores = similarity(a, b, name)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, definition(a, b, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_pairs(embeddings, name):
    a, b = embeddings
    scores = similarity_pairwise(a[:5], b, name)
    np.testing.assert_allclose(scores, np.diag(definition(a[:5], b, name)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_score_depends_on_its_pair_alone(embeddings, name, isa, monkeypatch):
    a, b = embeddings
    scores = similarity(a, b, name)
    np.testing.assert_array_equal(similarity(a[3], b[::-1], name)[0], scores[3, ::-1])
    np.testing.assert_array_equal(similarity(a[2:4], b[1], name)[1], scores[3, 1:2])
    pairs = similarity_pairwise(a[:5], b, name)
    np.testing.assert_array_equal(similarity_pairwise(a[3], b[3], name), pairs[3:4])
    np.testing.assert_array_equal(similarity_pairwise(a[4:0:-1], b[:0:-1], name), pairs[:0:-1])
    monkeypatch.setattr("fastattn.tasks.embed.similarity._BLOCK", 64)  # one row at a time
    np.testing.assert_array_equal(similarity(a, b, name), scores)


@pytest.mark.parametrize("name", ["euclidean", "manhattan"])
def test_equal_rows_have_distance_zero(embeddings, name):
    a, _ = embeddings
    assert not np.signbit(similarity_pairwise(a, a, name)).any()
    np.testing.assert_array_equal(np.diag(similarity(a, a, name)), 0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_shapes(name):
    row = np.ones(3, np.float32)
    none = np.zeros((0, 3), np.float32)
    assert similarity(row, row, name).shape == (1, 1)
    assert similarity([[1, 2, 3], [4, 5, 6]], [row], name).shape == (2, 1)
    assert similarity(none, [row, row], name).shape == (0, 2)
    assert similarity([row, row], none, name).shape == (2, 0)
    assert similarity_pairwise(none, none, name).shape == (0,)


def test_a_zero_row_has_cosine_zero():
    assert similarity([0, 0], [1, 2])[0, 0] == 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="a has 2 dimensions, b has 3"):
        similarity([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"a has shape \(1, 2\), b has \(2, 2\)"):
        similarity_pairwise([1, 2], [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"a must have shape \[n, dim\] or \[dim\], got \(1, 1, 1\)"):
        similarity([[[1]]], [1])
    with pytest.raises(ValueError, match="name must be one of cosine, dot, euclidean, manhattan, got 'cos'"):
        similarity([1], [1], "cos")


def test_a_cosine_is_at_most_1() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    assert np.abs(similarity(rows, np.concatenate([rows, -rows]))).max() <= 1
    assert np.abs(similarity_pairwise(np.concatenate([rows, -rows]), np.concatenate([rows, rows]))).max() <= 1
    assert similarity(rows, rows, "dot").max() > 1
