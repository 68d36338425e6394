"""Recurrent layers as differentiable functions: which output is used, what the weights are, and where they run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_gradients import check_tensor_gradients, leaf

from fastattn import Tensor, checkpoint, use_reference
from fastattn import functional as F
from fastattn.kernels import PackedMatrix

OFFSETS = np.array([0, 3, 3, 5, 9], np.int32)
BATCH, TOKENS, IN, CELLS, STATE = 4, 9, 3, 4, 2
SHAPES = {
    "lstm": ((4 * CELLS, IN), (4 * CELLS, STATE), (4 * CELLS,), (4 * CELLS,), (STATE, CELLS)),
    "gru": ((3 * STATE, IN), (3 * STATE, STATE), (3 * STATE,), (3 * STATE,)),
}
WIDTHS = {"lstm": (STATE, CELLS), "gru": (STATE,)}
"""Of the states."""


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    """What is tested here is not the kernels'."""
    with use_reference():
        yield


def weights(kind: str, directions: int, dtype: Any = np.float64) -> list[Tensor]:
    return [
        leaf(*shape, seed=10 * d + i, dtype=dtype) for d in range(directions) for i, shape in enumerate(SHAPES[kind])
    ]


def states(kind: str, directions: int, dtype: Any = np.float64) -> list[Tensor]:
    return [leaf(directions, BATCH, width, seed=50 + i, dtype=dtype) for i, width in enumerate(WIDTHS[kind])]


def run(kind: str, x: Any, hx: Any, flat: Any, **options: Any) -> list[Any]:
    """[output, h_n] and for an LSTM c_n."""
    size = len(SHAPES[kind])
    directions = [tuple(flat[i : i + size]) for i in range(0, len(flat), size)]
    if kind == "gru":
        return list(F.gru(x, OFFSETS, directions, *(hx or ()), **options))
    output, (h, c) = F.lstm(x, OFFSETS, directions, tuple(hx) if hx else None, **options)
    return [output, h, c]


def mixed(outputs: list[Any], used: str) -> Any:
    """One number in which those of the outputs count whose letters are in `used`."""
    total: Any = 0.0
    for letter, output in zip("ohc", outputs, strict=False):
        if letter in used:
            total = total + (output * np.random.default_rng(ord(letter)).normal(size=output.shape)).sum()
    return total.reshape(1)


CASES = [
    (kind, directions, used)
    for kind, every in (("lstm", ["o", "h", "c", "oh", "hc", "ohc"]), ("gru", ["o", "h", "oh"]))
    for directions in (1, 2)
    for used in every
]


class TestGradients:
    @pytest.mark.parametrize(("kind", "directions", "used"), CASES)
    def test_of_every_output_through_every_operand(self, kind: str, directions: int, used: str) -> None:
        operands = [leaf(TOKENS, IN), *states(kind, directions), *weights(kind, directions)]
        count = 1 + len(WIDTHS[kind])

        def f(*operands: Any) -> Any:
            return mixed(run(kind, operands[0], operands[1:count], operands[count:]), used)

        check_tensor_gradients(f, *operands)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_of_one_input_for_each_direction(self, kind: str) -> None:
        flat = weights(kind, 2)

        def f(x: Any, y: Any, *flat: Any) -> Any:
            return mixed(run(kind, (x, y), None, flat, reverse=(False, False)), "ohc")

        check_tensor_gradients(f, leaf(TOKENS, IN), leaf(TOKENS, IN, seed=1), *flat)
        check_tensor_gradients(lambda x: f(x, x, *flat), leaf(TOKENS, IN))
        check_tensor_gradients(lambda x: f(x, np.ones((TOKENS, IN)), *flat), leaf(TOKENS, IN))

    def test_of_clipped_cells_and_projections(self) -> None:
        operands = [leaf(TOKENS, IN), *states("lstm", 1), *weights("lstm", 1)]

        def f(x: Any, h: Any, c: Any, *flat: Any) -> Any:
            outputs = run("lstm", x, (h, c), flat, cell_clip=0.7, proj_clip=0.4, recompute=True)
            assert 0 < (np.abs(outputs[0].data) == 0.4).mean() < 1
            assert 0 < (np.abs(outputs[2].data) == 0.7).mean() < 1
            return mixed(outputs, "ohc")

        check_tensor_gradients(f, *operands)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    @pytest.mark.parametrize("given", [0, 1])
    def test_of_one_bias(self, kind: str, given: int) -> None:
        flat: list[Any] = weights(kind, 1)
        flat[2 + given] = None
        leaves = [w for w in flat if w is not None]

        def f(*leaves: Any) -> Any:
            operands = list(leaves)
            operands.insert(2 + given, None)
            return mixed(run(kind, np.ones((TOKENS, IN)), None, operands), "ohc")

        check_tensor_gradients(f, *leaves)

    def test_of_one_state(self) -> None:
        flat = weights("lstm", 1)
        h, c = states("lstm", 1)
        check_tensor_gradients(lambda c: mixed(run("lstm", np.ones((TOKENS, IN)), (None, c), flat), "ohc"), c)
        check_tensor_gradients(lambda h: mixed(run("lstm", np.ones((TOKENS, IN)), (h, None), flat), "ohc"), h)

    @pytest.mark.parametrize("used", ["o", "h", "ohc"])
    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_within_a_checkpoint(self, kind: str, used: str) -> None:
        """Layers above layers, which hand their states on: the same bits."""

        def stack(x: Any, *flat: Any) -> Any:
            outputs = run(kind, x, None, flat)
            again = run(kind, F.linear(outputs[0], np.ones((IN, STATE))), outputs[1:], flat)
            return mixed(again, used)

        def run_twice(wrap: Callable[..., Any]) -> list[Any]:
            operands = [leaf(TOKENS, IN), *weights(kind, 1)]
            y = wrap(*operands)
            y.backward(np.ones(1))
            return [y.data, *(x.grad for x in operands)]

        for a, b in zip(run_twice(stack), run_twice(lambda *t: checkpoint(stack, *t)), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_through_many_calls(self) -> None:
        """Truncated nowhere: the states carry gradients from call to call."""
        flat, offsets = weights("gru", 1), np.array([0, 1], np.int32)

        def f(x: Any, *flat: Any) -> Any:
            h = None
            for t in range(4):
                y, h = F.gru(x[t : t + 1], offsets, [flat], h)
            return y * 1.0

        x = leaf(4, IN)
        check_tensor_gradients(f, x, *flat)
        whole, _ = F.gru(x, np.array([0, 4], np.int32), [flat])
        np.testing.assert_allclose(f(x, *flat).data, whole.data[3:], atol=1e-15)


class TestWeights:
    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_gradients_are_added_in_place_and_never_alias(self, kind: str) -> None:
        x, flat = leaf(TOKENS, IN), weights(kind, 2)
        loss = mixed(run(kind, x, None, flat), "oh")
        loss.backward(np.ones(1))
        first = [w.grad for w in flat]
        copies = [grad.copy() for grad in first]
        for i, grad in enumerate(first):
            assert not any(np.shares_memory(grad, other) for other in first[:i])
        mixed(run(kind, x, None, flat), "oh").backward(np.ones(1))
        for w, grad, copy in zip(flat, first, copies, strict=True):
            assert w.grad is grad
            np.testing.assert_allclose(grad, 2 * copy, atol=1e-12)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_shared_by_two_directions(self, kind: str) -> None:
        x, flat, apart = leaf(TOKENS, IN), weights(kind, 1), weights(kind, 2)
        for i, w in enumerate(apart):
            w.data[...] = flat[i % len(flat)].data
        for _ in range(2):  # the second time the gradients are there
            mixed(run(kind, x, None, [*flat, *flat]), "ohc").backward(np.ones(1))
            mixed(run(kind, x, None, apart), "ohc").backward(np.ones(1))
        for i, w in enumerate(flat):
            np.testing.assert_allclose(w.grad, apart[i].grad + apart[i + len(flat)].grad, atol=1e-12)

    def test_one_tensor_for_both_biases(self) -> None:
        flat = weights("lstm", 1)
        flat[3] = flat[2]
        check_tensor_gradients(
            lambda b: mixed(run("lstm", np.ones((TOKENS, IN)), None, [*flat[:2], b, b, flat[4]]), "oc"), flat[2]
        )

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_those_that_are_not_trained_keep_their_gradient(self, kind: str) -> None:
        for i in range(len(SHAPES[kind])):
            flat = weights(kind, 1)
            flat[i].requires_grad = False
            flat[i].grad = np.full(flat[i].shape, 7.0)
            mixed(run(kind, leaf(TOKENS, IN), None, flat), "ohc").backward(np.ones(1))
            np.testing.assert_array_equal(flat[i].grad, 7.0)
            assert all(w.grad is not None for w in flat)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_arrays_and_packed_matrices_among_tensors(self, kind: str) -> None:
        """The others' gradients have the same bits; alone they pass the gradient on."""
        gates = {"lstm": 4, "gru": 3}[kind]

        def run_with(frozen: tuple[int, ...], packed: bool) -> tuple[list[Any], Tensor]:
            flat: list[Any] = weights(kind, 1, np.float32)
            x = leaf(TOKENS, IN, dtype=np.float32)
            for i in frozen:
                flat[i] = flat[i].data
                if packed and flat[i].ndim == 2:
                    flat[i] = PackedMatrix(flat[i], gates if i == 1 else 1)
            output = run(kind, x, None, flat)[0]
            output.backward(np.ones(output.shape, np.float32))
            return flat, x

        expected, x = run_with((), False)
        every = tuple(range(len(expected)))
        for frozen in (*((i,) for i in every), every):
            for packed in (False, True):
                flat, again = run_with(frozen, packed)
                assert_same_bits(again.grad, x.grad)
                for i in set(every) - set(frozen):
                    assert_same_bits(flat[i].grad, expected[i].grad)


class TestCalls:
    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_arrays_in_arrays_out(self, kind: str) -> None:
        x, flat = leaf(TOKENS, IN), weights(kind, 2)
        recorded = run(kind, x, None, flat)
        plain = run(kind, x.data, None, [w.data for w in flat])
        for a, b in zip(plain, recorded, strict=True):
            assert isinstance(a, np.ndarray)
            np.testing.assert_array_equal(a, b.data)

    def test_a_step_is_a_layer_of_one_step(self) -> None:
        flat, x = weights("lstm", 1), leaf(BATCH, IN)
        h, c = states("lstm", 1)
        output, (_, last) = F.lstm(x, np.arange(BATCH + 1, dtype=np.int32), [flat], (h, c))
        h_1, c_1 = F.lstm_cell(x, (h[0], c[0]), *flat)
        np.testing.assert_array_equal(h_1.data, output.data)
        np.testing.assert_array_equal(c_1.data, last.data[0])
        zeros = np.zeros((BATCH, STATE)), np.zeros((BATCH, CELLS))
        for a, b in zip(F.lstm_cell(x, None, *flat), F.lstm_cell(x, zeros, *flat), strict=True):
            np.testing.assert_array_equal(a.data, b.data)

    def test_a_graph_is_used_once(self) -> None:
        output, h, _ = run("lstm", leaf(TOKENS, IN), None, weights("lstm", 1))
        output.sum().backward()
        with pytest.raises(RuntimeError, match="this graph was used before"):
            h.sum().backward()

    def test_a_kept_state_keeps_no_gradients(self) -> None:
        """As the states that are carried from one part of a text to the next."""
        output, h, _ = run("lstm", leaf(TOKENS, IN), None, weights("lstm", 1))
        dy = np.ones(output.shape)
        kept = weakref.ref(dy)
        output.backward(dy)
        del dy
        assert kept() is None
        assert h.requires_grad

    def test_graphs_of_many_threads(self) -> None:
        flat, results = weights("lstm", 2), []

        def work() -> None:
            with use_reference():
                x = leaf(TOKENS, IN)
                mixed(run("lstm", x, None, [w.data for w in flat]), "ohc").backward(np.ones(1))
                results.append(x.grad)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


class TestErrors:
    x = np.ones((TOKENS, IN))

    def test_weights(self) -> None:
        flat = weights("lstm", 1)
        with pytest.raises(
            ValueError,
            match=r"lstm: weights must have \(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr\) for each direction, "
            "got 4 of them",
        ):
            F.lstm(self.x, OFFSETS, [flat[:4]])
        with pytest.raises(ValueError, match=r"gru: weights must have \(weight_ih, .*bias_hh\) .*got 5 of them"):
            F.gru(self.x, OFFSETS, [flat])
        flat[3] = Tensor(np.ones(1))
        with pytest.raises(ValueError, match=r"lstm: bias_hh must have shape \(16,\), got \(1,\)"):
            F.lstm(self.x, OFFSETS, [flat])
        with pytest.raises(ValueError, match="weights must be those of 1 or 2 directions, got 0"):
            F.lstm(self.x, OFFSETS, [])

    def test_states(self) -> None:
        h = np.ones((1, BATCH, STATE))
        for hx in (h, [h], "hc!"):
            with pytest.raises(TypeError, match=r"lstm: hx must be a tuple \(h_0, c_0\) or None, got "):
                F.lstm(self.x, OFFSETS, [weights("lstm", 1)], hx)  # type: ignore[arg-type]


@pytest.mark.parametrize("directions", [1, 2])
def test_a_residual_has_the_gradient_of_the_output(directions: int) -> None:
    flat, (h, c) = weights("lstm", directions), states("lstm", directions)
    x, added = leaf(TOKENS, IN, seed=3), leaf(TOKENS, directions * STATE, seed=4)
    given = [x, added, h, c, *flat]
    found = []
    for options in ({"residual": added}, {}):
        output, *last = run("lstm", x, (h, c), flat, **options)
        mixed([output if options else output + added, *last], "ohc").backward()
        found.append([tensor.grad for tensor in given])
        for tensor in given:
            tensor.grad = None
    for ours, theirs in zip(*found, strict=True):
        assert ours.tobytes() == theirs.tobytes()
