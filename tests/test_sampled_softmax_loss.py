"""F.sampled_softmax_loss against its definition, and against the whole softmax that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, checkpoint, nn
from fastattn import functional as F
from fastattn.functional import losses
from fastattn.kernels import PackedMatrix

ROWS, DIM, CLASSES = 12, 5, 30


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def problem(rng: np.random.Generator, dtype: Any = np.float32) -> tuple[Any, Any, Any, Any]:
    """Input, target, weight and bias; frequent classes have low numbers."""
    target = (np.exp(rng.random(ROWS) * np.log(CLASSES + 1)) - 1).astype(np.int64)
    arrays = (rng.normal(size=shape).astype(dtype) for shape in ((ROWS, DIM), (CLASSES, DIM), (CLASSES,)))
    x, weight, bias = arrays
    return x, target, weight, bias


def defined(x: Any, target: Any, weight: Any, bias: Any, drawn: Any, tries: int) -> Any:
    """As TensorFlow documents it: `[rows]`, in float64."""
    classes = np.arange(len(weight))
    p = np.log((classes + 2) / (classes + 1)) / np.log(len(weight) + 1)
    assert p.sum() == pytest.approx(1)
    expected = 1 - (1 - p) ** tries
    loss = np.empty(len(x))
    for i, row in enumerate(x.astype(np.float64)):
        others = [k for k in drawn if k != target[i]]
        kept = [target[i], *others]
        logits = weight[kept].astype(np.float64) @ row + bias[kept] - np.log(expected[kept])
        loss[i] = np.log(np.exp(logits).sum()) - logits[0]
    return loss


@pytest.mark.parametrize("num_sampled", [1, 7, CLASSES])
def test_the_definition(num_sampled: int, rng: np.random.Generator, isa: str) -> None:
    x, target, weight, bias = problem(rng)
    fastattn.manual_seed(4)
    drawn, tries = losses._draw_classes(CLASSES, num_sampled)
    fastattn.manual_seed(4)
    actual = F.sampled_softmax_loss(x, target, weight, bias, num_sampled, reduction="none")
    wanted = defined(x, target, weight, bias, drawn, tries)
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-5)
    for reduction, value in (("mean", wanted.mean()), ("sum", wanted.sum())):
        fastattn.manual_seed(4)
        loss = F.sampled_softmax_loss(x, target, weight, bias, num_sampled, reduction=reduction)
        assert float(loss) == pytest.approx(value, rel=1e-5)


class TestDraws:
    def test_different_ones_as_often_as_expected(self) -> None:
        fastattn.manual_seed(1)
        counts, expected = np.zeros(CLASSES), np.zeros(CLASSES)
        for _ in range(2000):
            drawn, tries = losses._draw_classes(CLASSES, 8)
            assert drawn.shape == (8,)
            assert drawn.dtype == np.int64
            assert len(set(drawn.tolist())) == 8
            assert tries >= 8
            counts[drawn] += 1
            expected += np.exp(losses._log_expected(np.arange(CLASSES), tries, CLASSES))
        np.testing.assert_allclose(counts, expected, rtol=0.25)
        assert (counts[:-1] >= counts[1:] - 100).all()  # frequent ones first

    def test_the_tries_are_those_until_the_last_one(self) -> None:
        fastattn.manual_seed(1)
        drawn, tries = losses._draw_classes(5, 5)
        assert sorted(drawn) == [0, 1, 2, 3, 4]
        fastattn.manual_seed(1)
        first, fewer = losses._draw_classes(5, 4)
        assert_equal_lists(first, drawn[:4])
        assert fewer < tries

    def test_one_class(self) -> None:
        drawn, tries = losses._draw_classes(1, 1)
        assert (drawn.tolist(), tries) == ([0], 1)
        assert losses._log_expected(np.array([0]), 1, 1).tolist() == [0.0]

    def test_seeds_decide(self, rng: np.random.Generator) -> None:
        x, target, weight, bias = problem(rng)
        fastattn.manual_seed(4)
        first = F.sampled_softmax_loss(x, target, weight, bias, 5)
        state = fastattn.random.get_rng_state()
        second = F.sampled_softmax_loss(x, target, weight, bias, 5)
        fastattn.random.set_rng_state(state)
        assert_same_bits(F.sampled_softmax_loss(x, target, weight, bias, 5), second)
        assert first != second


def assert_equal_lists(a: Any, b: Any) -> None:
    assert a.tolist() == b.tolist()


class TestGradients:
    @pytest.mark.parametrize("num_sampled", [1, 7, CLASSES])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_central_differences(self, num_sampled: int, reduction: str, rng: np.random.Generator) -> None:
        _, target, _, _ = problem(rng)

        def f(x: Any, weight: Any, bias: Any) -> Any:
            fastattn.manual_seed(4)
            return F.sampled_softmax_loss(x, target, weight, bias, num_sampled, reduction=reduction)

        check_tensor_gradients(f, leaf(ROWS, DIM), leaf(CLASSES, DIM, seed=1), leaf(CLASSES, seed=2))

    def test_of_one_operand_alone_and_added(self, rng: np.random.Generator, isa: str) -> None:
        x, target, *others = problem(rng)
        tensors = [Tensor(array, requires_grad=True) for array in (x, *others)]

        def f(operands: Any) -> None:
            fastattn.manual_seed(4)
            F.sampled_softmax_loss(operands[0], target, *operands[1:], 7).backward()

        f(tensors)
        expected = [tensor.grad.copy() for tensor in tensors]
        places = [tensor.grad for tensor in tensors]
        for i, gradient in enumerate(expected):
            operands: list[Any] = [tensor.data for tensor in tensors]
            operands[i] = Tensor(operands[i], requires_grad=True)
            f(operands)
            assert_same_bits(operands[i].grad, gradient)
        f(tensors)
        for tensor, place, gradient in zip(tensors, places, expected, strict=True):
            assert tensor.grad is place
            np.testing.assert_allclose(place, 2 * gradient, rtol=0, atol=1e-6)

    def test_only_rows_that_are_drawn_or_wanted(self, rng: np.random.Generator) -> None:
        """The others are not even read."""
        x, target, weight, bias = problem(rng)
        fastattn.manual_seed(4)
        drawn, _ = losses._draw_classes(CLASSES, 3)
        untouched = np.setdiff1d(np.arange(CLASSES), np.concatenate([drawn, target]))
        assert len(untouched) > 5
        weight[untouched], bias[untouched] = np.nan, np.nan
        w, b = Tensor(weight, requires_grad=True), Tensor(bias, requires_grad=True)
        fastattn.manual_seed(4)
        loss = F.sampled_softmax_loss(x, target, w, b, 3)
        loss.backward()
        assert np.isfinite(loss.item())
        for gradient in (w.grad, b.grad):
            assert not gradient[untouched].any()
            touched = np.delete(gradient, untouched, axis=0).reshape(CLASSES - len(untouched), -1)
            assert touched.any(axis=1).all()

    def test_within_a_checkpoint(self, rng: np.random.Generator) -> None:
        x, target, weight, bias = problem(rng)
        gradients = []
        for wrap in (lambda f, w: f(w), checkpoint):
            fastattn.manual_seed(4)
            w = Tensor(weight, requires_grad=True)
            wrap(lambda w: F.sampled_softmax_loss(x, target, w, bias, 5), w).backward()
            gradients.append(w.grad)
        assert_same_bits(*gradients)

    def test_of_a_layer(self, rng: np.random.Generator) -> None:
        x, target, _, _ = problem(rng)
        layer = nn.Linear(DIM, CLASSES)
        F.sampled_softmax_loss(x, target, layer.weight, layer.bias, 7).backward()
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None


def test_with_many_classes_it_is_near_the_whole_softmax(rng: np.random.Generator) -> None:
    """Loss and gradient, on average over draws, and the nearer the more are drawn."""
    x, target, weight, bias = problem(rng)
    tensors = [Tensor(array, requires_grad=True) for array in (x, weight, bias)]
    F.cross_entropy(F.linear(*tensors), target).backward()
    whole = float(F.cross_entropy(F.linear(x, weight, bias), target))
    wanted = [tensor.grad for tensor in tensors]
    errors = []
    for num_sampled in (3, 12, 25):
        fastattn.manual_seed(1)
        sampled = [Tensor(array, requires_grad=True) for array in (x, weight, bias)]
        draws, total = 400, 0.0
        for _ in range(draws):
            loss = F.sampled_softmax_loss(sampled[0], target, sampled[1], sampled[2], num_sampled)
            loss.backward()
            total += loss.item() / draws
        error = max(float(np.abs(a.grad / draws - b).max()) for a, b in zip(sampled, wanted, strict=True))
        errors.append((abs(total - whole), error))
    largest = max(float(np.abs(gradient).max()) for gradient in wanted)
    assert errors[2][0] < 0.02 * whole
    assert errors[2][1] < 0.06 * largest
    for i in range(2):
        assert errors[0][i] > errors[1][i] > errors[2][i]


class TestErrors:
    x, weight, bias, target = np.ones((2, 3), "f4"), np.ones((4, 3), "f4"), np.ones(4, "f4"), np.array([0, 3])

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"input": np.ones((2, 4), "f4")}, ValueError, r"input must have shape \(rows, 3\), got \(2, 4\)"),
            ({"target": np.array([0.0, 1.0])}, TypeError, "target must be an integer array, got float64"),
            ({"target": np.array([0])}, ValueError, r"target must have shape \(2,\), got \(1,\)"),
            ({"target": np.array([0, 4])}, ValueError, r"target must be in \[0, 4\), got 4 at index 1"),
            ({"target": np.array([-1, 0])}, ValueError, r"target must be in \[0, 4\), got -1 at index 0"),
            ({"weight": np.ones(4, "f4")}, ValueError, r"weight must have shape \(classes, dim\), got \(4,\)"),
            ({"bias": np.ones(3, "f4")}, ValueError, r"bias must have shape \(4,\), got \(3,\)"),
            ({"num_sampled": 0}, ValueError, r"num_sampled must be in \[1, 4\], the classes, got 0"),
            ({"num_sampled": 2.5}, ValueError, r"num_sampled must be in \[1, 4\], the classes, got 2\.5"),
            ({"bias": None}, TypeError, "bias must be an array or a Tensor, got NoneType"),
            ({"num_sampled": 5}, ValueError, r"num_sampled must be in \[1, 4\], the classes, got 5"),
            ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none, got 'max'"),
            (
                {"input": np.ones((0, 3), "f4"), "target": np.zeros(0, int)},
                ValueError,
                "target must have an entry that counts, for a mean",
            ),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, Any], error: type[Exception], message: str) -> None:
        arguments = {"input": self.x, "target": self.target, "weight": self.weight, "bias": self.bias, "num_sampled": 2}
        with pytest.raises(error, match=f"sampled_softmax_loss: {message}"):
            F.sampled_softmax_loss(**{**arguments, **changes})

    def test_a_packed_weight(self) -> None:
        with pytest.raises(TypeError, match="weight must be an array or a Tensor, got PackedMatrix"):
            F.sampled_softmax_loss(self.x, self.target, PackedMatrix(self.weight), self.bias, 2)  # type: ignore[arg-type]

    def test_no_rows(self) -> None:
        arguments = (np.ones((0, 3), "f4"), np.zeros(0, int), Tensor(self.weight, requires_grad=True), self.bias, 2)
        loss = F.sampled_softmax_loss(*arguments, reduction="sum")
        loss.backward()
        assert loss.item() == 0
        assert not arguments[2].grad.any()
