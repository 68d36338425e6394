"""checkpoint computes again instead of keeping, with the same bits; and the tape keeps nothing that is done with."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, autograd, checkpoint, no_grad
from fastattn import functional as F


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestCheckpoint:
    @staticmethod
    def run(wrap: Callable[..., Any], seed: int = 5) -> list[Any]:
        """Loss and gradients of layers with dropout, shared weights and uses of x within, between and after."""
        fastattn.manual_seed(seed)
        x = leaf(6, 8, seed=1, dtype=np.float32)
        weight, bias = leaf(8, 8, seed=2, dtype=np.float32), leaf(8, seed=3, dtype=np.float32)

        def layer(x: Tensor, scale: float) -> Tensor:
            h = F.linear(x, weight, bias, activation="gelu")
            h = F.layer_norm(h, (8,), bias, residual=x, dropout_p=0.3)
            return F.dropout(h, 0.2) * scale + x

        h = wrap(layer, F.dropout(x, 0.1), 0.5)
        h = wrap(layer, h + x, 2.0)
        loss = (F.dropout(h, 0.5) * x).sum()
        loss.backward()
        return [loss.data, x.grad, weight.grad, bias.grad]

    def test_the_bits_are_the_same(self) -> None:
        plain = self.run(lambda f, *args: f(*args))
        state = fastattn.random.get_rng_state()
        for a, b in zip(self.run(checkpoint), plain, strict=True):
            assert_same_bits(a, b)
        assert fastattn.random.get_rng_state() == state
        assert self.run(checkpoint, seed=6)[0] != plain[0]

    def test_within_another(self) -> None:
        def nested(f: Callable[..., Any], *args: Any) -> Any:
            return checkpoint(lambda *inner: checkpoint(f, *inner) * 1.0, *args)

        def plain(f: Callable[..., Any], *args: Any) -> Any:
            return f(*args) * 1.0

        for a, b in zip(self.run(nested), self.run(plain), strict=True):
            assert_same_bits(a, b)

    def test_in_float64(self) -> None:
        weight = leaf(4, 4)

        def f(x: Tensor, weight: Tensor) -> Tensor:
            fastattn.manual_seed(3)
            y: Tensor = checkpoint(lambda x: F.dropout(F.gelu(F.linear(x, weight)), 0.3) + x, x)
            return y * x

        check_tensor_gradients(f, leaf(3, 4, seed=1), weight)

    def test_other_threads_draw_meanwhile(self) -> None:
        """The second run has the seeds of the first, whatever was drawn between them."""
        x = Tensor(np.ones((50, 8), np.float32), requires_grad=True)

        def f(x: Tensor) -> Tensor:
            first = F.dropout(x, 0.5)
            thread = threading.Thread(target=fastattn.random.next_seed)
            thread.start()
            thread.join()
            y: Tensor = F.dropout(first, 0.5)
            return y

        y = checkpoint(f, x)
        y.backward(np.ones((50, 8), np.float32))
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad, y.data)  # ones in: the output is the mask, scaled

    def test_what_it_keeps(self) -> None:
        kept = []

        def f(x: Tensor) -> Tensor:
            h = F.gelu(x)
            kept.append(weakref.ref(h.data))
            y: Tensor = F.gelu(h)
            return y

        x = leaf(4, 4, dtype=np.float32)
        y = checkpoint(f, x)
        assert kept[0]() is None
        assert y.requires_grad
        y.backward(np.ones((4, 4), np.float32))
        assert len(kept) == 2
        assert kept[1]() is None
        with pytest.raises(RuntimeError, match="used before"):
            y.backward(np.ones((4, 4), np.float32))

    def test_without_gradients_it_is_a_call(self) -> None:
        x = leaf(3)
        with no_grad():
            assert not checkpoint(lambda x: x * x, x).requires_grad
        np.testing.assert_array_equal(checkpoint(lambda x: x * 2, np.ones(3)), 2)

    def test_nothing_inside_requires_a_gradient(self) -> None:
        x, weight = Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=True)
        for f in (lambda x: x * 2.0, lambda x: (weight * x).detach(), lambda x: checkpoint(lambda x: x, x)):
            y = checkpoint(f, x)
            assert not y.requires_grad
            with pytest.raises(RuntimeError, match="nothing that this Tensor was computed from requires a gradient"):
                y.sum().backward()
        y = checkpoint(lambda x: checkpoint(lambda x: weight * x, x), x)
        assert y.requires_grad
        y.sum().backward()
        np.testing.assert_array_equal(weight.grad, [1.0, 2.0])

    def test_what_is_no_tensor_is_refused(self) -> None:
        """Gradients would be lost silently."""
        x = leaf(3)
        functions: list[Any] = [lambda x: (x, x), lambda x: None, lambda x: {"loss": x}]
        for f in functions:
            for enabled in (True, False):
                with (
                    autograd.setting(grad=enabled),
                    pytest.raises(TypeError, match="checkpoint: fn must return a Tensor"),
                ):
                    checkpoint(f, x)
        with pytest.raises(TypeError, match="must return a Tensor, got ndarray"):
            checkpoint(lambda x: x.numpy() * 2, x)
        with no_grad():
            np.testing.assert_array_equal(checkpoint(lambda x: x.numpy(), x), x.data)

    def test_an_argument_given_back(self) -> None:
        x = leaf(3)
        checkpoint(lambda x: x, x).backward(np.ones(3))
        np.testing.assert_array_equal(x.grad, 1)

    def test_a_function_that_is_not_the_same_twice(self) -> None:
        calls: list[int] = []

        def f(x: Tensor) -> Tensor:
            calls.append(1)
            for _ in calls:
                x = F.dropout(x, 0.5)
            return x

        y = checkpoint(f, leaf(2, 2, dtype=np.float32))
        with pytest.raises(RuntimeError, match="drew more random numbers"):
            y.backward(np.ones((2, 2), np.float32))
        training = True
        y = checkpoint(lambda x: F.dropout(x, 0.5, training) * 1.0, leaf(2, 2, dtype=np.float32))
        training = False
        with pytest.raises(RuntimeError, match="drew fewer random numbers"):
            y.backward(np.ones((2, 2), np.float32))


class TestMemory:
    """Everything goes with the last reference: no cycle is left for the garbage collector."""

    @staticmethod
    def step(backward: bool) -> None:
        x, weight = leaf(6, 12, dtype=np.float32), leaf(12, 12, seed=1, dtype=np.float32)
        table, norm = leaf(9, 12, dtype=np.float32), leaf(12, dtype=np.float32)
        offsets = np.array([0, 2, 6], np.int32)

        def layer(x: Tensor) -> Any:
            q = F.linear(x, weight, norm, activation="gelu", residual=x)
            a = F.scaled_dot_product_attention(*(q.reshape(6, 3, 4) for _ in range(3)), cu_seqlens_q=offsets)
            b = F.qkv_attention(q.reshape(6, 3, 2, 2), offsets, dropout_p=0.1)
            c = F.layer_norm(a.reshape(6, 12), (12,), norm, norm, residual=q, dropout_p=0.1)
            return c + F.normalize(F.softmax(F.gelu(c), 1)) + F.log_softmax(c, 0) + b.sum()

        h = F.embedding(np.array([1, 2, 3, 1, 0, 8]), table) + F.dropout(x, 0.1)
        h = layer(checkpoint(layer, h))
        pooled = F.pooling(F.scatter_rows(F.gather_rows(h, np.array([1, 0])), np.array([3, 1]), 6), offsets)
        loss = F.cross_entropy(pooled, np.array([1, -100])) + F.mse_loss(h, np.zeros((6, 12))) / 2
        loss = loss - F.binary_cross_entropy_with_logits(h[0], np.ones(12)) * 0.5
        if backward:
            loss.backward()

    @pytest.mark.parametrize("backward", [True, False])
    def test_no_cycles(self, backward: bool) -> None:
        self.step(backward)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                self.step(backward)
            assert gc.collect() == 0
        finally:
            gc.enable()

    def test_arrays_go_during_backward(self) -> None:
        """When the second node runs, what the first one saved is gone, though the loss is still there."""
        x = leaf(4, 4, dtype=np.float32)
        saved = []
        alive: list[bool] = []
        y = F.gelu(x)
        middle = autograd.record(y.data.copy(), (y,), lambda dy: (alive.append(saved[0]() is not None) or dy,))
        last = F.gelu(middle)
        saved.append(weakref.ref(middle.data))
        del middle
        loss = last.sum()
        del last
        loss.backward()
        assert alive == [False]

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm, which Linux has")
    @pytest.mark.parametrize("backward", [True, False])
    def test_it_stays_flat(self, backward: bool) -> None:
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        for _ in range(50):
            self.step(backward)
        before = resident()
        for _ in range(400):
            self.step(backward)
        assert resident() - before < 2 * 2**20
