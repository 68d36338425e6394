"""fastattn.autograd: graphs of every form, what they keep, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_gradients import check_tensor_gradients, leaf

from fastattn import Tensor, autograd, nn, no_grad, use_reference
from fastattn import functional as F


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestTensor:
    def test_data(self) -> None:
        array = np.ones((2, 3), np.float32)
        x = Tensor(array)
        assert x.data is array
        assert (x.shape, x.ndim, x.dtype, x.requires_grad, x.grad) == ((2, 3), 2, np.float32, False, None)
        assert Tensor(2.5).item() == 2.5
        assert Tensor([1, 2]).dtype == np.float32
        assert repr(Tensor(1.0, requires_grad=True)) == "Tensor(array(1., dtype=float32), requires_grad=True)"
        with pytest.raises(TypeError, match="Tensor: data must be floating point, got int64"):
            Tensor(np.arange(3))

    def test_as_an_array(self) -> None:
        x = leaf(2, 3)
        with pytest.raises(TypeError, match=r"call .numpy\(\)"):
            np.asarray(x)
        assert x.numpy() is x.data
        np.testing.assert_array_equal(np.asarray(x.detach()), x.data)
        assert np.concatenate([x.detach(), x.detach()]).shape == (4, 3)

    def test_operators(self) -> None:
        a, b = leaf(3, 4, seed=1), leaf(3, 4, seed=2)
        b.data += np.sign(b.data)  # away from 0
        c = np.random.default_rng(3).normal(size=(3, 4))
        check_tensor_gradients(lambda a, b: a + b, a, b)
        a, b = leaf(3, 4, seed=1), b.detach()
        b.requires_grad = True
        check_tensor_gradients(
            lambda a, b: a * b - b / 3 + a / b - (-a) * c + (2.0 - b) + (1 - a) * 2 + c + np.float32(2) * a, a, b
        )
        assert isinstance(c + a, Tensor)
        assert isinstance(c * a, Tensor)
        assert (a + 1).dtype == np.float64
        assert (Tensor([1.0]) * np.float64(2)).dtype == np.float32

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (2, 3, 4), (2, 1, 1)])
    def test_operators_broadcast(self, shape: tuple[int, ...]) -> None:
        for f in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a / (b * b + 1.0), lambda a, b: b - a):
            check_tensor_gradients(f, leaf(3, 4, seed=1), leaf(*shape, seed=2))

    def test_another_dtype_is_refused(self) -> None:
        x = leaf(2, dtype=np.float32)
        for other in (np.ones(2), leaf(2)):
            with pytest.raises(TypeError, match="the other operand must be float32 too, got float64"):
                x * other
        assert (x * np.array([True, False])).data[1] == 0

    @pytest.mark.parametrize("other", [2, np.uint8(2), np.array([2], np.uint8), np.array([True]), [2.0]], ids=repr)
    def test_the_other_operand_is_converted_first(self, other: Any) -> None:
        x, number = Tensor([5.0]), float(np.asarray(other)[..., None].ravel()[0])
        for actual, wanted in (
            (x - other, 5 - number),
            (other - x, number - 5),
            (x / other, 5 / number),
            (other / x, number / 5),
        ):
            assert actual.dtype == np.float32
            assert actual.data.item() == pytest.approx(wanted)

    def test_powers_and_quotients(self) -> None:
        x = Tensor(np.array([[0.5, 2.0], [3.0, 1.5]]), requires_grad=True)
        for exponent in (0, 1, 2, 3.0, -1, 0.5, np.float32(2)):
            check_tensor_gradients(lambda x, p=exponent: x**p, x)  # type: ignore[misc]
            x.grad = None
        check_tensor_gradients(lambda x: 1 / x + np.ones((2, 2)) / x, x)
        zero = Tensor([0.0], requires_grad=True)
        (zero**0 + zero**2 + zero).backward(np.ones(1, np.float32))
        assert zero.grad is not None
        assert zero.grad.item() == 1
        assert (Tensor(2.0) ** 0.5).dtype == np.float32
        with pytest.raises(TypeError):
            x**x  # type: ignore[operator]

    def test_sums_and_means_along_axes(self) -> None:
        for options in (
            {},
            {"axis": 1},
            {"axis": -1, "keepdims": True},
            {"axis": (0, 2)},
            {"dim": 0, "keepdim": True},
            {"dim": [1, 2]},
        ):
            x = leaf(2, 3, 4)
            numpys = {{"dim": "axis", "keepdim": "keepdims"}.get(k, k): v for k, v in options.items()}
            if "axis" in numpys:
                numpys["axis"] = tuple(np.atleast_1d(numpys["axis"]).tolist())
            np.testing.assert_allclose(x.sum(**options).data, x.data.sum(**numpys))  # type: ignore[arg-type]  # made above
            np.testing.assert_allclose(x.mean(**options).data, x.data.mean(**numpys))  # type: ignore[arg-type]  # made above
            check_tensor_gradients(lambda x, o=options: x.sum(**o) * 2.0 + x.mean(**o), x)
        assert x.sum(1, True).shape == (2, 1, 4)
        small = Tensor(np.full((2, 20000), 0.1, np.float32)).sum(axis=1)
        assert small.dtype == np.float32
        np.testing.assert_allclose(small.data, 20000 * np.float32(0.1).astype(float), rtol=1e-7)
        with pytest.raises(ValueError, match="axis 3 is out of bounds"):
            x.sum(axis=3)

    def test_axes_in_another_order(self) -> None:
        x = leaf(2, 3, 4)
        assert x.T.shape == (4, 3, 2)
        assert x.permute(2, 0, 1).shape == x.permute((2, 0, 1)).shape == x.permute(-1, 0, -2).shape == (4, 2, 3)
        assert x.transpose(0, -1).shape == (4, 3, 2)
        assert x.permute(1, 0, 2).data.flags.c_contiguous
        np.testing.assert_array_equal(x.transpose(1, 2).data, x.data.swapaxes(1, 2))
        weights = np.random.default_rng(5).normal(size=(4, 2, 3))
        check_tensor_gradients(lambda x: x.permute(2, 0, 1) * weights + x.transpose(0, 2).transpose(1, 2) ** 2, x)
        check_tensor_gradients(lambda x: x.T * np.ones((4, 3)) * weights[:, 0], leaf(3, 4))
        with pytest.raises(ValueError, match="axes"):
            x.permute(0, 1)
        with pytest.raises(IndexError):
            x.transpose(0, 3)

    def test_length_and_parts(self) -> None:
        x = leaf(3, 2)
        assert len(x) == 3
        assert [part.shape for part in x] == [(2,)] * 3
        first, *_ = x
        check_tensor_gradients(lambda x: sum(part * float(i) for i, part in enumerate(x)), x)
        assert x.tolist() == x.data.tolist()
        assert bool(Tensor(1.0))
        assert not Tensor([0.0])
        with pytest.raises(TypeError, match=r"len\(\) of a Tensor without axes"):
            len(Tensor(1.0))
        with pytest.raises(ValueError, match="ambiguous"):
            bool(x)
        assert first.requires_grad

    @pytest.mark.parametrize(
        ("a", "b"),
        [
            ((3, 4), (4, 5)),
            ((4,), (4,)),
            ((4,), (4, 5)),
            ((3, 4), (4,)),
            ((2, 3, 4), (4, 5)),
            ((2, 3, 4), (4,)),
            ((3, 4), (2, 4, 5)),
            ((2, 1, 3, 4), (6, 4, 5)),
            ((4,), (2, 4, 5)),
            ((2, 3, 4), (2, 4, 1)),
        ],
    )
    def test_matrix_products(self, a: tuple[int, ...], b: tuple[int, ...]) -> None:
        x, y = leaf(*a, seed=1), leaf(*b, seed=2)
        with use_reference():
            np.testing.assert_allclose((x @ y).data, x.data @ y.data, atol=1e-12)
            check_tensor_gradients(lambda x, y: x @ y, x, y)
            for left, right in ((x, y.data), (x.data, y)):
                product = left @ right  # type: ignore[operator]  # NumPy leaves it to the Tensor
                assert isinstance(product, Tensor)
                np.testing.assert_allclose(product.data, x.data @ y.data, atol=1e-12)
                product.sum().backward()

    def test_the_bits_of_a_matrix_product_are_those_of_linear(self, rng: np.random.Generator, isa: str) -> None:
        x, w = normal(rng, 2, 7, 16), normal(rng, 9, 16)
        product = Tensor(x) @ Tensor(w).T
        assert_same_bits(product.data, F.linear(x, w))
        assert_same_bits((Tensor(x[1, 2]) @ w.T).data, product.data[1, 2])
        assert_same_bits((Tensor(x) @ np.broadcast_to(w.T, (2, 16, 9))).data, product.data)
        for a, b in (((2, 3), (4, 5)), ((3,), (2,)), ((), (2, 2)), ((2, 3), (2, 4, 5))):
            with pytest.raises(ValueError, match="Tensor: @ needs shapes"):
                Tensor(np.ones(a, np.float32)) @ Tensor(np.ones(b, np.float32))

    def test_numbers(self) -> None:
        assert float(Tensor(2.5)) == 2.5
        assert leaf(2, 3).numel() == 6
        assert nn.Parameter((4, 5)).numel() == 20
        with pytest.raises(ValueError, match="size 1"):
            float(leaf(2))

    def test_any_layout_of_data_and_gradients(self) -> None:
        """Kernels take contiguous arrays: what is recorded is one, and so is every gradient."""
        weight = leaf(2, 4, seed=1, dtype=np.float32)
        for other in (
            np.asfortranarray(np.ones((3, 4), np.float32)),
            np.ones((3, 8), np.float32)[:, ::2],
            np.broadcast_to(np.float32(1), (3, 4)),
        ):
            x = Tensor(np.ones((3, 1), np.float32), requires_grad=True)
            for y in (x * other, x + other, x - other, x / other, other / x):
                F.linear(y, weight).sum().backward()
                F.gelu(F.linear(y.detach(), weight)).backward(np.asfortranarray(np.ones((3, 2), np.float32)))
            h = F.linear(x, np.ones((4, 1), np.float32))
            (F.gelu(h) * other).sum().backward()
            F.mse_loss(F.gelu(h.detach() + x), other).backward()
            F.gelu(x * np.ones(4, np.float32)).backward(other)
            assert x.grad is not None
            assert x.grad.flags.c_contiguous

    def test_shapes_sums_and_parts(self) -> None:
        check_tensor_gradients(lambda x: x.reshape(4, 3) * np.arange(12.0).reshape(4, 3), leaf(2, 6))
        check_tensor_gradients(lambda x: x.reshape((3, -1))[1:], leaf(2, 6))
        check_tensor_gradients(lambda x: x[..., 1], leaf(2, 3, 4))
        check_tensor_gradients(lambda x: x[1, ::2], leaf(2, 5))
        check_tensor_gradients(lambda x: x[0], leaf(2))
        check_tensor_gradients(lambda x: (x * x).sum(), leaf(2, 6))
        check_tensor_gradients(lambda x: (x * x).mean() * x.sum(), leaf(2, 6))
        assert leaf(2, 3, 4)[..., 1].data.flags.c_contiguous
        for index in (np.array([0]), [0], True, None):
            with pytest.raises(TypeError, match="index must consist of integers"):
                leaf(2)[index]


class TestErrors:
    def test_backward_twice(self) -> None:
        x = leaf(3)
        y = x * x
        loss = y.sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="this graph was used before"):
            loss.backward()
        with pytest.raises(RuntimeError, match="this graph was used before"):
            (y + 1.0).sum().backward()
        np.testing.assert_array_equal(x.grad, 2 * x.data)

    def test_nothing_requires_a_gradient(self) -> None:
        for x in (Tensor([1.0, 2.0]), leaf(2).detach()):
            with pytest.raises(RuntimeError, match="backward: nothing that this Tensor was computed from requires"):
                (x * 2.0).sum().backward()

    def test_a_gradient_that_does_not_fit(self) -> None:
        x = leaf(2, 3)
        with pytest.raises(RuntimeError, match=r"gradient must be given for a Tensor of shape \(2, 3\)"):
            (x * 2.0).backward()
        with pytest.raises(ValueError, match=r"gradient must have shape \(2, 3\), got \(3, 2\)"):
            (x * 2.0).backward(np.ones((3, 2)))
        with pytest.raises(TypeError, match="gradient must be float64, got float32"):
            (x * 2.0).backward(np.ones((2, 3), np.float32))
        wrong: Any
        for wrong, name in (([1.0, 1.0], "list"), (1.0, "float"), (x, "Tensor")):
            with pytest.raises(TypeError, match=f"^backward: gradient must be an array, got {name}$"):
                (x * 2.0).backward(wrong)

    def test_tensors_recorded_within_use_reference_and_outside(self) -> None:
        x = leaf(2, 3, dtype=np.float32)
        with use_reference():
            inside = F.gelu(x)
            assert F.gelu(x.data).dtype == np.float32
        outside = F.gelu(x)
        for call in (
            lambda y: F.gelu(y),
            lambda y: y + 1.0,
            lambda y: y.sum(),
            lambda y: y[0],
            lambda y: F.linear(x, np.ones((4, 3), np.float32), residual=y),
        ):
            with pytest.raises(ValueError, match=r"recorded with fastattn\.reference cannot be used with .*kernels"):
                call(inside)
            with (
                use_reference(),
                pytest.raises(ValueError, match=r"recorded with fastattn\.kernels cannot be used with .*reference"),
            ):
                call(outside)
        inside.backward(np.ones((2, 3), np.float32))  # walked with what it was recorded with
        with use_reference():
            outside.backward(np.ones((2, 3), np.float32))

    def test_a_wrong_dtype_is_the_kernels_error(self) -> None:
        with pytest.raises(TypeError, match="gelu: input must be float32, got float64"):
            F.gelu(leaf(2))

    def test_out_is_for_arrays(self) -> None:
        x = leaf(2, 3, dtype=np.float32)
        for call in (lambda out: F.gelu(x, out=out), lambda out: F.layer_norm(x, (3,), out=out)):
            with pytest.raises(TypeError, match="out must be None"):
                call(np.empty((2, 3), np.float32))


class TestNoGrad:
    def test_nothing_is_recorded(self) -> None:
        x = leaf(3)
        with no_grad():
            assert not autograd.is_grad_enabled()
            y = x * x
            with no_grad():
                pass
            assert not autograd.is_grad_enabled()
        assert not y.requires_grad
        assert autograd.is_grad_enabled()
        assert (x * x).requires_grad

    def test_as_a_decorator(self) -> None:
        x = leaf(3)

        @no_grad()
        def square(x: Tensor) -> Tensor:
            """A square."""
            return x * x

        assert square.__doc__ == "A square."
        for _ in range(2):
            assert not square(x).requires_grad
            assert (x * x).requires_grad

    def test_an_error_ends_it(self) -> None:
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        assert autograd.is_grad_enabled()

    def test_threads_have_their_own(self) -> None:
        x = leaf(3)
        inside, checked = threading.Event(), threading.Event()
        recorded: list[bool] = []

        def other() -> None:
            with no_grad(), use_reference():
                inside.set()
                checked.wait()
                recorded.append((x * x).requires_grad)

        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
        y = F.gelu(Tensor(np.ones(3, np.float32), requires_grad=True))
        recorded.append(y.requires_grad)
        checked.set()
        thread.join()
        assert recorded == [True, False]
        y.backward(np.ones(3, np.float32))

    def test_graphs_of_many_threads(self) -> None:
        def step(seed: int, results: dict[int, Any]) -> None:
            x = leaf(6, 8, seed=seed, dtype=np.float32)
            weight = leaf(8, 8, seed=seed + 1, dtype=np.float32)
            h: Tensor = x
            for _ in range(5):
                h = F.layer_norm(F.linear(h, weight, activation="gelu"), (8,), residual=h)
            h.sum().backward()
            results[seed] = x.grad, weight.grad

        together: dict[int, Any] = {}
        threads = [threading.Thread(target=step, args=(seed, together)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed in range(8):
            alone: dict[int, Any] = {}
            step(seed, alone)
            for a, b in zip(together[seed], alone[seed], strict=True):
                assert_same_bits(a, b)


def test_a_number_used_three_times() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    total = x.sum()
    ((total + total) + total).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


def test_a_number_is_formatted_and_compared() -> None:
    loss = Tensor(np.array(0.25, np.float32), requires_grad=True)
    assert f"{loss:.3f}" == "0.250"
    assert f"{loss}" == repr(loss)
    assert loss < 0.5 <= Tensor(np.array(0.5, np.float32))
    assert loss > 0.0
    assert (Tensor([1.0, 3.0]) >= np.array([2.0, 2.0])).tolist() == [False, True]


def test_a_product_of_vectors_has_no_axes() -> None:
    a, b = Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0, 4.0])
    product = a @ b
    assert product.shape == ()
    product.backward()
    assert a.grad is not None
    assert a.grad.tolist() == [3.0, 4.0]


def test_the_mean_of_nothing_is_nan() -> None:
    """As in NumPy and PyTorch; 0 would pass for a result."""
    x = Tensor(np.ones((0, 3), np.float32), requires_grad=True)
    assert np.isnan(x.mean().numpy())
    assert np.isnan(x.mean(0).numpy()).tolist() == [True] * 3
    assert x.mean(1).shape == (0,)


@pytest.mark.parametrize(
    ("data", "got"),
    [(np.ma.MaskedArray([1.0, 2.0], [False, True]), "a MaskedArray"), (None, "object"), ([None], "object"),
     ("3.5", "<U3"), ([1j], "complex128")],
)  # fmt: skip
def test_what_is_no_number_is_no_tensor(data: Any, got: str) -> None:
    """NumPy makes NaN of None, a number of text, and forgets a mask."""
    with pytest.raises(TypeError, match=f"^Tensor: data must be .*, got {got}$"):
        Tensor(data)
