"""A step is an ordered sum of the gradients of micro-batches, each computed on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_run import Run

from fastattn import functional as F
from fastattn import nn
from fastattn.random import manual_seed
from fastattn.training import SGD, Trainer
from fastattn.training.micro_batches import add_gradients

LENGTHS = (700, 300, 900)  # rows; the products that make gradients are sums over blocks of rows


class Twice(nn.Module):
    """A linear layer that is used twice, and a packed projection."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.attention = nn.MultiHeadAttention(16, 2)

    def forward(self, x: Any, cu_seqlens: Any) -> Any:
        return self.attention(self.linear(F.gelu(self.linear(x))), cu_seqlens_q=cu_seqlens)


class Pieces:
    """One step of three micro-batches."""

    accumulation, settings = 3, {}

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rows = [rng.standard_normal((length, 16)).astype(np.float32) for length in LENGTHS]

    def epoch(self, number: int) -> list[int]:
        return [0, 1, 2]

    def tokens(self, batch: int) -> int:
        return LENGTHS[batch]

    def load(self, batch: int) -> dict[str, Any]:
        return {"x": self.rows[batch], "cu_seqlens": np.array([0, LENGTHS[batch]])}


def gradients(model: nn.Module) -> list[np.ndarray]:
    return [parameter.grad.copy() for parameter in model.parameters()]


def test_the_sum_has_the_bits_of_its_parts_computed_apart() -> None:
    """As processes would compute them that share a step."""
    manual_seed(0)
    model, pieces = Twice(), Pieces()

    def loss(batch: Any) -> Any:
        y = model(**batch)
        return (y * y).mean()

    parts = []
    for batch in range(3):
        model.zero_grad()
        (loss(pieces.load(batch)) / 3).backward()
        parts.append(gradients(model))
    expected = [a + b + c for a, b, c in zip(*parts, strict=True)]

    found = []
    model.zero_grad()
    optimizer = SGD(model.parameters(), lr=0.1)
    step = optimizer.step
    optimizer.step = lambda: (found.extend(gradients(model)), step())  # type: ignore[method-assign]
    Trainer(model, optimizer, None, pieces, epochs=1, loss=loss, accumulation=3, max_norm=None).train()
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_weight_that_only_some_micro_batches_use() -> None:
    parameter, other = nn.Parameter(np.ones(2, np.float32)), nn.Parameter(np.ones(2, np.float32))
    for used in ((parameter,), (other,), (parameter, other)):
        loss = sum(((weight * 2.0).sum() for weight in used), start=0.0)
        add_gradients(loss, [parameter, other])
    assert parameter.grad.tolist() == other.grad.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_loss_of_a_step_is_the_mean_of_its_micro_batches(accumulation: int) -> None:
    run = Run(batch_tokens=4, epochs=1, accumulation=accumulation)
    losses: list[float] = []
    steps: list[float] = []

    def loss(batch: Any) -> Any:
        value = run.model(**batch).loss
        losses.append(value.item())
        return value

    run = Run(batch_tokens=4, epochs=1, accumulation=accumulation, loss=loss)
    train_step = run.trainer._train_step
    run.trainer._train_step = lambda *a: steps.append((made := train_step(*a))["loss"]) or made  # type: ignore
    run.trainer.train()
    groups = [losses[i : i + accumulation] for i in range(0, len(losses), accumulation)]
    assert steps == pytest.approx([sum(group) / len(group) for group in groups], rel=1e-6)
