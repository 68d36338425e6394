"""The losses of fastattn.functional, and joining, dropout and activations, which need more than a case of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits

import fastattn
from fastattn import Tensor
from fastattn import functional as F


class TestJoining:
    def test_what_does_not_fit(self) -> None:
        x = np.ones((2, 3), np.float32)
        for function in (F.cat, F.stack):
            name = function.__name__
            with pytest.raises(ValueError, match=f"{name}: need at least one array"):
                function([])
            with pytest.raises(ValueError, match=f"{name}: "):
                function([x, x[:, :, None]])
            with pytest.raises(TypeError, match=f"{name}: tensors must have one dtype, got float32, float64"):
                function([Tensor(x), x.astype(np.float64)])
            with pytest.raises(ValueError, match=f"{name}: axis 5 is out of bounds"):
                function([x, x], dim=5)

    def test_frozen_parts_beside_trained_ones(self) -> None:
        x, y = Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((1, 3), np.float32), requires_grad=True)
        F.cat([x, y]).sum().backward()
        assert x.grad is None
        assert y.grad is not None
        assert y.grad.tolist() == [[1, 1, 1]]


def test_activations_take_any_shape(isa: str) -> None:
    for function in (F.relu, F.tanh, F.sigmoid, F.silu):
        one = Tensor(np.float32(0.7), requires_grad=True)
        y = function(one)
        assert y.shape == ()
        y.backward()
        assert one.grad is not None
        assert one.grad.shape == ()
        x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
        out = np.empty_like(x)
        assert function(x, out=out) is out
        assert_same_bits(out, function(x))


class TestDropout:
    def test_rate_and_scale(self) -> None:
        fastattn.manual_seed(1)
        y = F.dropout(np.ones((1000, 100), np.float32), 0.3)
        assert abs((y == 0).mean() - 0.3) < 0.005
        np.testing.assert_array_equal(np.unique(y), np.array([0, 1 / 0.7], np.float32))
        assert not np.array_equal(F.dropout(np.ones((1000, 100), np.float32), 0.3), y)

    def test_without_it_the_input_comes_back(self) -> None:
        x = Tensor([1.0, 2.0])
        state = fastattn.random.get_rng_state()
        assert F.dropout(x, 0.5, training=False) is x
        assert F.dropout(x, 0.0) is x
        assert fastattn.random.get_rng_state() == state

    @pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
    def test_a_rate_that_is_none(self, p: float) -> None:
        x = np.ones((2, 3), np.float32)
        with pytest.raises(ValueError, match=rf"dropout: p must be a number in \[0, 1\), got {p}"):
            F.dropout(x, p)


class TestLosses:
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

    @pytest.mark.parametrize(
        ("target", "options", "error", "message"),
        [
            ([0, 1], {}, ValueError, r"target must have shape \(3,\), got \(2,\)"),
            ([0.0, 1.0, 2.0], {}, TypeError, "target must be an integer array, got float64"),
            ([0, 4, 1], {}, ValueError, r"target must .*got 4 at index 1"),
            ([0, -1, 1], {}, ValueError, r"target must .*got -1 at index 1"),
            ([-100] * 3, {}, ValueError, "target must have an entry that counts, for a mean"),
            ([0, 1, 2], {"reduction": "median"}, ValueError, "reduction must be one of mean, sum, none, got 'median'"),
            ([0, 1, 2], {"label_smoothing": 1.5}, ValueError, "label_smoothing"),
        ],
    )
    def test_bad_targets_of_cross_entropy(
        self, target: Any, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        for x in (self.x, Tensor(self.x, requires_grad=True)):
            with pytest.raises(error, match=message):
                F.cross_entropy(x, np.array(target), **options)

    def test_bad_input_of_cross_entropy(self) -> None:
        with pytest.raises(ValueError, match=r"input must have shape \(rows, classes\), got \(12,\)"):
            F.cross_entropy(self.x.ravel(), np.zeros(12, int))

    def test_bad_weights(self) -> None:
        target = np.array([0, 1, 2])
        with pytest.raises(ValueError, match=r"cross_entropy: weight must have shape \(4,\), got \(3,\)"):
            F.cross_entropy(self.x, target, np.ones(3))
        with pytest.raises(ValueError, match="cross_entropy: target must have an entry that counts, for a mean"):
            F.cross_entropy(self.x, target, [0.0, 0.0, 0.0, 1.0])
        with pytest.raises(ValueError, match=r"label_smoothing"):
            F.cross_entropy(self.x, target, np.ones(4), label_smoothing=1.5)
        with pytest.raises(ValueError, match=r"target must have shape \(2, 5\), got \(10,\)"):
            F.cross_entropy(np.zeros((2, 3, 5), np.float32), np.zeros(10, int))
        for argument in ("weight", "pos_weight"):
            for shape in ((3,), (2, 3, 4)):
                with pytest.raises(ValueError, match=rf"{argument}|broadcast"):
                    F.binary_cross_entropy_with_logits(self.x, self.x > 0, **{argument: np.ones(shape)})

    def test_weights_of_one_change_nothing(self, isa: str) -> None:
        target = np.array([0, -100, 2])
        for how in ("mean", "sum", "none"):
            assert_same_bits(
                F.cross_entropy(self.x, target, np.ones(4), reduction=how),
                F.cross_entropy(self.x, target, reduction=how),
            )

    def test_nothing_counts(self) -> None:
        x = Tensor(self.x, requires_grad=True)
        loss = F.cross_entropy(x, np.full(3, -100), reduction="sum")
        loss.backward()
        assert loss.item() == 0
        assert not x.grad.any()

    @pytest.mark.parametrize("name", ["mse_loss", "binary_cross_entropy_with_logits"])
    def test_bad_targets(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name}: target must have shape \(3, 4\), got \(4,\)"):
            getattr(F, name)(self.x, np.ones(4))
        with pytest.raises(ValueError, match=rf"{name}: reduction must be"):
            getattr(F, name)(self.x, self.x, reduction="max")
        with pytest.raises(ValueError, match=rf"{name}: target must have an entry"):
            getattr(F, name)(self.x[:0], self.x[:0])

    def test_far_logits_stay_finite(self) -> None:
        x = Tensor(np.array([[1e4, -1e4, 1e4, -1e4]], np.float32), requires_grad=True)
        loss = F.binary_cross_entropy_with_logits(x, np.array([[1.0, 0.0, 0.0, 1.0]]), reduction="none")
        np.testing.assert_array_equal(loss.data, [[0, 0, 1e4, 1e4]])
        loss.sum().backward()
        np.testing.assert_array_equal(x.grad, [[0, 0, 1, -1]])


def test_complex_numbers_are_refused() -> None:
    """Their imaginary part would be left out."""
    x, z = np.ones((2, 3), np.float32), np.ones((2, 3), np.complex64)
    calls: list[Any] = [
        lambda: F.mse_loss(z, x),
        lambda: F.mse_loss(x, z),
        lambda: F.binary_cross_entropy_with_logits(x, z),
        lambda: F.binary_cross_entropy_with_logits(x, x, z),
        lambda: F.binary_cross_entropy_with_logits(x, x, pos_weight=z),
        lambda: F.cross_entropy(x, [0, 1], weight=z[0]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="got complex64"):
            call()
