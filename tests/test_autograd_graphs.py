"""The graph of the tape: its order, its memory, and graphs made at random, against central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_gradients import check_tensor_gradients, differences, leaf
from hypothesis import given, settings
from hypothesis import strategies as st

import fastattn
from fastattn import Tensor, checkpoint, no_grad, use_reference
from fastattn import functional as F


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestGraphs:
    def test_shared_expressions(self) -> None:
        def f(x: Tensor) -> Tensor:
            a = x * x
            b = a + x
            c = a * b
            return c + b * a - a

        check_tensor_gradients(f, leaf(3))

    def test_diamonds(self) -> None:
        def f(x: Tensor) -> Tensor:
            for _ in range(12):  # 2^12 paths, 24 nodes
                x = x * 0.5 + x * x * 0.1
            return x

        check_tensor_gradients(f, leaf(3))

    def test_a_tensor_used_directly_and_below(self) -> None:
        def f(x: Tensor, y: Tensor) -> Tensor:
            return (F.gelu(x) + x) * y + x + y

        check_tensor_gradients(f, leaf(3, 4), leaf(3, 4, seed=1))

    def test_gradients_that_pass_through_are_not_mixed_up(self) -> None:
        """`+` and reshape hand their gradient on as it is: what is added to one operand's stays out of the other's."""

        def f(x: Tensor, y: Tensor) -> Tensor:
            s = x + y
            return s.reshape(4, 3).reshape(3, 4) * x + (s + y) + s

        check_tensor_gradients(f, leaf(3, 4), leaf(3, 4, seed=1))
        x, y = leaf(3), leaf(3, seed=1)
        total = x + y
        gradient = np.ones(3)
        total.backward(gradient)
        assert x.grad is not None
        assert y.grad is not None
        assert not np.shares_memory(x.grad, y.grad)
        assert not np.shares_memory(x.grad, gradient)
        x.grad[...] = 7
        np.testing.assert_array_equal(y.grad, 1)
        np.testing.assert_array_equal(gradient, 1)

    def test_residual_gradients_keep_their_own_memory(self, rng: np.random.Generator) -> None:
        x, residual = (Tensor(normal(rng, 5, 8), requires_grad=True) for _ in range(2))
        weight = Tensor(normal(rng, 8, 8), requires_grad=True)
        gradient = normal(rng, 5, 8)
        kept = gradient.copy()
        for call in (
            lambda: F.linear(x, weight, residual=residual),
            lambda: F.layer_norm(x, (8,), residual=residual),
        ):
            for tensor in (x, residual, weight):
                tensor.grad = None
            call().backward(gradient)
            assert x.grad is not None
            assert residual.grad is not None
            for other in (gradient, residual.grad, x.data):
                assert not np.shares_memory(x.grad, other)
            assert not np.shares_memory(residual.grad, gradient)
            np.testing.assert_array_equal(gradient, kept)

    def test_gradients_accumulate(self, rng: np.random.Generator) -> None:
        """In `grad`, by the kernels themselves where they can; the array stays the same one."""
        x, weight, bias = (Tensor(normal(rng, *s), requires_grad=True) for s in ((5, 8), (6, 8), (6,)))
        table, norm = Tensor(normal(rng, 9, 8), requires_grad=True), Tensor(normal(rng, 8), requires_grad=True)
        ids = np.array([1, 2, 1, 0, 8])

        def loss() -> Tensor:
            h = F.layer_norm(x + F.embedding(ids, table), (8,), norm, norm)
            return (F.linear(h, weight, bias, activation="gelu") * np.arange(6, dtype=np.float32)).sum()

        leaves = (x, weight, bias, table, norm)
        loss().backward()
        first = [t.grad for t in leaves]
        once = [np.array(t.grad) for t in leaves]
        loss().backward()
        for tensor, array, single in zip(leaves, first, once, strict=True):
            assert tensor.grad is array
            np.testing.assert_allclose(tensor.grad, 2 * single, rtol=1e-5, atol=1e-6)
            tensor.grad = None
        loss().backward()
        for tensor, single in zip(leaves, once, strict=True):
            assert tensor.grad is not None
            assert_same_bits(tensor.grad, single)

    def test_a_weight_used_twice(self) -> None:
        """Tied: a table of words and the matrix of their scores."""
        ids = np.array([1, 2, 1, 0])

        def f(table: Tensor, middle: Tensor) -> Tensor:
            h = F.linear(F.embedding(ids, table), middle, activation="tanh")
            return F.linear(F.linear(h, middle), table)

        check_tensor_gradients(f, leaf(5, 3), leaf(3, 3, seed=1))

    def test_what_needs_no_gradient_gets_none(self) -> None:
        x, weight, bias = leaf(2, 3), leaf(4, 3), leaf(4)
        weight.requires_grad = False
        with use_reference():
            F.linear(x, weight, bias).backward(np.ones((2, 4)))
        assert weight.grad is None
        assert x.grad is not None
        assert bias.grad is not None

    def test_it_is_as_it_was_recorded(self) -> None:
        """What happens to `requires_grad` later changes nothing."""
        x = leaf(3)
        y = (x * x).sum()
        x.requires_grad = False
        y.backward()
        np.testing.assert_array_equal(x.grad, 2 * x.data)
        assert not (x * x).requires_grad

    def test_deep_graphs(self) -> None:
        """Neither backward() nor throwing a graph away recurses."""
        x = Tensor(1.0, requires_grad=True)
        y = x
        for _ in range(50_000):
            y = y + 1.0
        y.backward()
        assert x.grad is not None
        assert x.grad.item() == 1
        z = x
        for _ in range(50_000):
            z = z + 1.0
        del z

    def test_a_given_gradient(self) -> None:
        x = leaf(2, 3)
        (x * 2.0).backward(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
        np.testing.assert_array_equal(x.grad, 2 * np.arange(6.0).reshape(2, 3))
        x.backward(np.ones((2, 3)))
        np.testing.assert_array_equal(x.grad, 2 * np.arange(6.0).reshape(2, 3) + 1)


class TestRandomGraphs:
    """Operations drawn one after the other, each of results drawn from all before."""

    @staticmethod
    def build(program: list[tuple[int, int, int]], leaves: list[Tensor], run: Callable[..., Any]) -> Tensor:
        values = list(leaves)
        weight = np.random.default_rng(0).normal(size=(4, 4)).astype(leaves[0].dtype)
        operations: list[Callable[[Tensor, Tensor], Tensor]] = [
            lambda a, b: a + b,
            lambda a, b: a * b * 0.5,
            lambda a, b: a - b.reshape(4, 3).reshape(3, 4),
            lambda a, b: F.linear(a, weight, residual=b, activation="tanh"),
            lambda a, b: F.layer_norm(a, (4,), residual=b, dropout_p=0.2),
            lambda a, b: F.dropout(a, 0.3) + b[1],
            lambda a, b: F.gelu(a) / (b * b + 1.0),
            lambda a, b: F.linear(a, b.reshape(4, 3)[:3].reshape(9)[:4].reshape(1, 4)) * b,
        ]
        for operation, i, j in program:
            values.append(run(operations[operation], values[i % len(values)], values[j % len(values)]))
        total = values[-1]
        for value in values[2::3]:
            total = total + value
        return total

    programs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12)

    @given(programs)
    @settings(max_examples=30)
    def test_central_differences(self, program: list[tuple[int, int, int]]) -> None:
        def f(*leaves: Tensor) -> Tensor:
            fastattn.manual_seed(1)
            return self.build(program, [*leaves], lambda operation, a, b: operation(a, b)) * 0.1

        leaves = [leaf(3, 4, seed=i) for i in range(2)]
        with use_reference():
            y = f(*leaves)
            weights = np.random.default_rng(9).normal(size=y.shape)
            y.backward(weights)
            for x in leaves:
                with no_grad():
                    wanted = differences(lambda: f(*leaves).data, x.data, weights)
                actual = np.zeros((3, 4)) if x.grad is None else x.grad
                np.testing.assert_allclose(actual, wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()))

    @given(programs, st.integers(0, 2**12 - 1))
    def test_checkpoints_anywhere_change_no_bit(self, program: list[tuple[int, int, int]], where: int) -> None:
        results = []
        for mask in (0, where, 2**12 - 1):
            fastattn.manual_seed(1)
            leaves = [leaf(3, 4, seed=i, dtype=np.float32) for i in range(2)]
            calls = iter(range(12))

            def run(operation: Any, a: Any, b: Any, mask: int = mask, calls: Iterator[int] = calls) -> Any:
                return checkpoint(operation, a, b) if mask >> next(calls) & 1 else operation(a, b)

            y = self.build(program, leaves, run)
            y.backward(np.ones((3, 4), np.float32))
            results.append([y.data, *(x.grad if x.grad is not None else np.zeros(1, np.float32) for x in leaves)])
        for other in results[1:]:
            for a, b in zip(other, results[0], strict=True):
                assert_same_bits(a, b)
