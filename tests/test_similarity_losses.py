"""The losses of similarities: against their definitions, and against sentence-transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastattn import Tensor
from fastattn import functional as F

RNG = np.random.default_rng(3)
A, B, HARD = (RNG.normal(size=(6, 8)).astype(np.float32) for _ in range(3))
SCORES = np.array([0.2, 0.8, 0.2, 1.0, 0.0, 0.8], np.float32)


def cosines(a: Any, b: Any) -> Any:
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def test_cosine_similarity() -> None:
    np.testing.assert_allclose(F.cosine_similarity(A, B), cosines(A, B).diagonal(), atol=1e-6)
    np.testing.assert_allclose(F.cosine_similarity(A.T, B.T, dim=0), cosines(A, B).diagonal(), atol=1e-6)
    assert F.cosine_similarity(A * 0, B).tolist() == [0.0] * 6


def test_ranking_is_a_cross_entropy_over_the_candidates() -> None:
    logits = 20 * cosines(A, np.concatenate([B, HARD]))
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits.diagonal())
    loss = F.multiple_negatives_ranking_loss(A, np.concatenate([B, HARD]))
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_a_candidate_with_the_text_of_the_positive_is_no_negative() -> None:
    ids = [0, 1, 0, 3, 4, 5]
    logits = 20 * cosines(A, B)
    logits[0, 2] = logits[2, 0] = -np.inf
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits.diagonal())
    assert float(F.multiple_negatives_ranking_loss(A, B, ids=ids)) == pytest.approx(wanted, rel=1e-5)
    # two equal rows alone have nothing to learn
    x = Tensor(A[:2].copy(), requires_grad=True)
    loss = F.multiple_negatives_ranking_loss(x, B[:2], ids=[7, 7])
    loss.backward()
    assert x.grad is not None
    assert (loss.item(), np.abs(x.grad).max()) == (0.0, 0.0)


def test_cosent_is_the_sum_over_all_pairs_in_the_wrong_order() -> None:
    s = cosines(A, B).diagonal()
    wanted = np.log(1 + sum(np.exp(20 * (s[j] - s[i])) for i in range(6) for j in range(6) if SCORES[i] > SCORES[j]))
    assert float(F.cosent_loss(s.astype(np.float32), SCORES)) == pytest.approx(wanted, rel=1e-5)
    assert float(F.cosent_loss(np.zeros(0, np.float32), [])) == 0.0


def test_cosent_does_not_overflow() -> None:
    x = Tensor(np.array([-1.0, 1.0, 0.0], np.float32), requires_grad=True)
    loss = F.cosent_loss(x, [2, 0, 1], scale=1000.0)
    loss.backward()
    assert x.grad is not None
    assert (loss.item(), x.grad.tolist()) == (2000.0, [-1000.0, 1000.0, 0.0])


def test_bad_arguments() -> None:
    ranking = F.multiple_negatives_ranking_loss
    cases: list[tuple[Any, str]] = [
        (lambda: F.cosine_similarity(A, B[:3]), r"cosine_similarity: x1 and x2 must have one shape, got \(6, 8\) and"),
        (lambda: ranking(A, B[:3]), r"multiple_negatives_ranking_loss: input must have shape \(rows, dim\)"),
        (lambda: ranking(A, B, 0), "multiple_negatives_ranking_loss: scale must be a number above 0, got 0"),
        (lambda: ranking(A, B, ids=[0.5] * 6), "multiple_negatives_ranking_loss: ids must be an integer array"),
        (lambda: F.cosent_loss(A, A), r"cosent_loss: input must be floating point of shape \(n,\)"),
        (lambda: F.cosent_loss(A[0], [1, 2]), r"cosent_loss: target must have shape \(8,\), got \(2,\)"),
    ]
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            call()


def test_sentence_transformers_has_the_same_losses() -> None:
    torch = pytest.importorskip("torch", reason="compares with sentence-transformers")
    losses = pytest.importorskip("sentence_transformers.losses", reason="compares with sentence-transformers")
    labels = torch.tensor(SCORES)

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]
        similarity_fn_name = "cosine"

    cases: dict[str, tuple[Any, Any, list[Any]]] = {
        "ranking": (
            lambda a, b: F.multiple_negatives_ranking_loss(a, b),
            losses.MultipleNegativesRankingLoss(Model()),
            [A, B],
        ),
        "hard negatives": (
            lambda a, b, c: F.multiple_negatives_ranking_loss(a, F.cat([b, c]), 15.0),
            losses.MultipleNegativesRankingLoss(Model(), scale=15.0),
            [A, B, HARD],
        ),
        "cosent": (lambda a, b: F.cosent_loss(F.cosine_similarity(a, b), SCORES), losses.CoSENTLoss(Model()), [A, B]),
        "cosine": (
            lambda a, b: F.mse_loss(F.cosine_similarity(a, b), SCORES),
            losses.CosineSimilarityLoss(Model()),
            [A, B],
        ),
    }
    for name, (ours, theirs, arrays) in cases.items():
        leaves = [Tensor(x, requires_grad=True) for x in arrays]
        tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
        loss, wanted = ours(*leaves), theirs.compute_loss_from_embeddings(tensors, labels)
        loss.backward()
        wanted.backward()
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-5), name
        for leaf, tensor in zip(leaves, tensors, strict=True):
            np.testing.assert_allclose(leaf.grad, tensor.grad.numpy(), atol=1e-5, err_msg=name)
