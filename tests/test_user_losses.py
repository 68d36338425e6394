"""Losses of users' own: a few lines over the logits of a module that trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, nn, no_grad, use_reference
from fastattn import functional as F
from fastattn.training import AdamW

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype(np.float32)
LABELS = (X[:, 0] + 0.5 * X[:, 1] > 1.0).astype(np.int64)  # a fifth of them are 1
ONE_HOT = np.eye(2, dtype=np.float32)[LABELS]


class Classifier(nn.Module):
    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, hidden), nn.Linear(hidden, 2)])

    def forward(self, x: Any) -> Any:
        return self.layers[1](F.tanh(self.layers[0](x)))


def focal_loss(logits: Any, one_hot: Any, gamma: float = 2.0) -> Any:
    """Lin et al. 2017 (arXiv 1708.02002), equation 4."""
    p = (F.softmax(logits, dim=-1) * one_hot).sum(axis=-1)
    log_p = (F.log_softmax(logits, dim=-1) * one_hot).sum(axis=-1)
    return -((1.0 - p) ** gamma * log_p).mean()


def distillation_loss(student: Any, teacher: Any, temperature: float = 2.0) -> Any:
    """Hinton et al. 2015 (arXiv 1503.02531), section 2."""
    wanted = F.softmax(teacher * (1.0 / temperature), dim=-1)
    return -(F.log_softmax(student / temperature, dim=-1) * wanted).sum(axis=-1).mean() * temperature**2


def train(model: nn.Module, loss: Any, steps: int = 60) -> list[float]:
    optimizer = AdamW(model.parameters(), lr=0.02)
    told = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(X))
        value.backward()
        optimizer.step()
        told.append(value.item())
    return told


@pytest.fixture(autouse=True)
def seed() -> None:
    fastattn.manual_seed(1)


def test_class_weights_find_more_of_the_rare_class() -> None:
    found = {}
    for name, weight in (("plain", None), ("weighted", np.array([1.0, 8.0]))):
        fastattn.manual_seed(1)
        model = Classifier(2)
        train(model, lambda y, weight=weight: F.cross_entropy(y, LABELS, weight), steps=15)
        found[name] = int((model.freeze()(X).argmax(axis=1)[LABELS == 1] == 1).sum())
    assert found["weighted"] > found["plain"]


def test_a_focal_loss() -> None:
    with use_reference():
        check_tensor_gradients(lambda y: focal_loss(y, ONE_HOT[:5].astype(float)), leaf(5, 2))
    losses = train(Classifier(), lambda y: focal_loss(y, ONE_HOT))
    assert losses[-1] < 0.3 * losses[0]
    logits = Tensor(X[:, :2])
    assert focal_loss(logits, ONE_HOT, 0.0).item() == pytest.approx(F.cross_entropy(logits, LABELS).item(), rel=1e-5)


def test_distillation() -> None:
    """The student learns the teacher's answers without seeing a label."""
    teacher = Classifier()
    train(teacher, lambda y: F.cross_entropy(y, LABELS))
    teacher.freeze()
    student = Classifier(4)
    losses = train(student, lambda y: distillation_loss(y, teacher(X)), steps=150)
    assert losses[-1] < losses[0]
    with no_grad():
        agree = student(X).data.argmax(axis=1) == teacher(X).argmax(axis=1)
    assert agree.mean() > 0.95


def test_distillation_of_attentions() -> None:
    """The gradient of the attention weights reaches queries and keys, and changes no value."""
    offsets = np.array([0, 3, 7], np.int32)
    student = nn.StackedLinear(8, {"query": 8, "key": 8, "value": 8})
    wanted = F.qkv_attention(RNG.normal(size=(7, 3, 2, 4)).astype(np.float32), offsets, return_attn_weights=True)[1]

    def loss() -> Any:
        parts = student(X[:7]).reshape(7, 3, 2, 4)
        return F.mse_loss(F.qkv_attention(parts, offsets, return_attn_weights=True)[1], wanted, reduction="sum")

    optimizer = AdamW(student.parameters(), lr=0.05, weight_decay=0.0)
    values = dict(student.named_parameters())["value.weight"].data.copy()
    first = loss().item()
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.1 * first
    np.testing.assert_array_equal(dict(student.named_parameters())["value.weight"].data, values)
