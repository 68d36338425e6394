"""nn.LSTM, nn.GRU and their cells: names, shapes of every kind of input, states, dropout and freezing."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, cumulative, normal
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, nn, no_grad
from fastattn import functional as F
from fastattn.kernels import PackedMatrix

IN, SIZE = 5, 6
LENGTHS = (4, 1, 0, 7)
OFFSETS = cumulative(LENGTHS)
KINDS = pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])


@pytest.fixture
def rng() -> np.random.Generator:
    fastattn.manual_seed(1)
    return np.random.default_rng(0)


def states_of(result: Any) -> list[Any]:
    """(h, c) or h, as a list."""
    return list(result) if isinstance(result, tuple) else [result]


def arrays(*results: Any) -> list[Any]:
    return [x.data if isinstance(x, Tensor) else x for x in results]


class TestParameters:
    def test_names_and_shapes_of_an_lstm(self) -> None:
        lstm = nn.LSTM(IN, SIZE, 2, bidirectional=True, proj_size=4)
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, size in ((0, IN), (1, 8)):
            for suffix in (f"_l{layer}", f"_l{layer}_reverse"):
                shapes["weight_ih" + suffix] = (24, size)
                shapes["weight_hh" + suffix] = (24, 4)
                shapes["bias_ih" + suffix] = shapes["bias_hh" + suffix] = (24,)
                shapes["weight_hr" + suffix] = (4, SIZE)
        assert {name: p.shape for name, p in lstm.named_parameters()} == shapes
        assert list(dict(lstm.named_parameters())) == list(shapes)

    def test_names_and_shapes_of_the_others(self) -> None:
        gru = nn.GRU(IN, SIZE, bias=False)
        assert {name: p.shape for name, p in gru.named_parameters()} == {
            "weight_ih_l0": (18, IN),
            "weight_hh_l0": (18, SIZE),
        }
        for cell, rows in ((nn.LSTMCell(IN, SIZE), 24), (nn.GRUCell(IN, SIZE), 18)):
            assert {name: p.shape for name, p in cell.named_parameters()} == {
                "weight_ih": (rows, IN),
                "weight_hh": (rows, SIZE),
                "bias_ih": (rows,),
                "bias_hh": (rows,),
            }
        assert list(dict(nn.LSTMCell(IN, SIZE, bias=False).named_parameters())) == ["weight_ih", "weight_hh"]

    def test_first_values(self, rng: np.random.Generator) -> None:
        for name, p in nn.LSTM(50, 100, proj_size=60).named_parameters():
            assert 0.095 < np.abs(p.data).max() <= 0.1, name
            assert abs(p.data.mean()) < 0.02

    @KINDS
    def test_every_parameter_gets_its_gradient(self, kind: Any, rng: np.random.Generator) -> None:
        layers = kind(IN, SIZE, 2, bidirectional=True)
        output, _ = layers(normal(rng, 12, IN), cu_seqlens=OFFSETS)
        output.sum().backward()
        for name, p in layers.named_parameters():
            assert p.grad is not None, name
            assert p.grad.shape == p.shape

    @KINDS
    def test_copies(self, kind: Any, rng: np.random.Generator) -> None:
        layers, x = kind(IN, SIZE, 2), normal(rng, 12, IN)
        expected, _ = layers(x)
        for copied in (copy.deepcopy(layers), pickle.loads(pickle.dumps(layers)), copy.deepcopy(layers).freeze()):
            output, _ = copied(x)
            assert_same_bits(*arrays(output, expected))


class TestShapes:
    @KINDS
    @pytest.mark.parametrize("directions", [1, 2])
    def test_padded_ragged_and_alone(self, kind: Any, directions: int, rng: np.random.Generator, isa: str) -> None:
        """The same bits in every form, and PyTorch's shapes."""
        layers = kind(IN, SIZE, 2, bidirectional=directions == 2).freeze()
        batch_first = kind(IN, SIZE, 2, batch_first=True, bidirectional=directions == 2).freeze()
        batch_first.load_state_dict(layers.state_dict())
        x = normal(rng, 3, 7, IN)
        output, last = batch_first(x)
        assert output.shape == (3, 7, directions * SIZE)
        turned, turned_last = layers(np.ascontiguousarray(x.swapaxes(0, 1)))
        assert_same_bits(turned.swapaxes(0, 1), output)
        ragged, ragged_last = layers(x.reshape(21, IN), cu_seqlens=cumulative((7, 7, 7)))
        assert_same_bits(ragged.reshape(output.shape), output)
        for a, b, c in zip(*map(states_of, (last, turned_last, ragged_last)), strict=True):
            assert a.shape == (2 * directions, 3, SIZE)
            assert_same_bits(a, b)
            assert_same_bits(a, c)
        for i in range(3):
            alone, alone_last = layers(x[i])
            assert_same_bits(alone, output[i])
            for a, b in zip(states_of(alone_last), states_of(last), strict=True):
                assert_same_bits(a, b[:, i])

    @KINDS
    def test_states_continue_a_text(self, kind: Any, rng: np.random.Generator) -> None:
        layers, x = kind(IN, SIZE, 3).freeze(), normal(rng, 9, 2, IN)
        whole, last = layers(x)
        first, state = layers(x[:4])
        second, end = layers(x[4:], state)
        assert_same_bits(np.concatenate([first, second]), whole)
        for a, b in zip(states_of(end), states_of(last), strict=True):
            assert_same_bits(a, b)
        alone, state = layers(x[:4, 1])
        more, _ = layers(x[4:, 1], state)
        assert_same_bits(np.concatenate([alone, more]), np.ascontiguousarray(whole[:, 1]))

    def test_the_state_of_a_projection(self, rng: np.random.Generator) -> None:
        lstm = nn.LSTM(IN, SIZE, 2, proj_size=4, bidirectional=True)
        output, (h, c) = lstm(normal(rng, 12, IN), cu_seqlens=OFFSETS)
        assert (output.shape, h.shape, c.shape) == ((12, 8), (4, 4, 4), (4, 4, SIZE))
        again, _ = lstm(normal(rng, 12, IN), (h, c), OFFSETS)
        assert again.requires_grad

    @KINDS
    def test_nothing(self, kind: Any, rng: np.random.Generator) -> None:
        layers = kind(IN, SIZE, 2, bidirectional=True)
        for x, offsets, shape in (
            (np.ones((0, IN), np.float32), np.zeros(1, np.int32), (4, 0, SIZE)),
            (np.ones((0, IN), np.float32), np.zeros(3, np.int32), (4, 2, SIZE)),
            (np.ones((0, 2, IN), np.float32), None, (4, 2, SIZE)),
            (np.ones((0, IN), np.float32), None, (4, SIZE)),
        ):
            output, last = layers(x, cu_seqlens=offsets)
            assert output.shape == (*x.shape[:-1], 2 * SIZE)
            for state in states_of(last):
                assert state.shape == shape
                assert not state.data.any()
            output.sum().backward()


class TestComputation:
    def test_layers_and_directions(self, rng: np.random.Generator) -> None:
        """Two layers of two directions, by hand."""
        lstm, x = nn.LSTM(IN, SIZE, 2, bidirectional=True, cell_clip=0.3), normal(rng, 12, IN)
        state = (normal(rng, 4, 4, SIZE), normal(rng, 4, 4, SIZE))
        w = lstm.state_dict()
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        y, last = x, []
        for layer in range(2):
            outputs = []
            for d, suffix in enumerate((f"_l{layer}", f"_l{layer}_reverse")):
                weights = [(*(w[part + suffix] for part in parts), None)]
                hx = (state[0][2 * layer + d][None], state[1][2 * layer + d][None])
                output, end = F.lstm(y, OFFSETS, weights, hx, reverse=[d == 1], cell_clip=0.3)
                outputs.append(output)
                last.append(end)
            y = np.concatenate(outputs, axis=1)
        output, (h, c) = lstm(x, state, OFFSETS)
        assert_same_bits(output.data, y)
        assert_same_bits(h.data, np.concatenate([end[0] for end in last]))
        assert_same_bits(c.data, np.concatenate([end[1] for end in last]))
        assert np.abs(c.data[:, [0, 1, 3]]).max() == np.float32(0.3)

    def test_proj_clip(self, rng: np.random.Generator) -> None:
        lstm = nn.LSTM(IN, SIZE, proj_size=4, proj_clip=0.01)
        output, _ = lstm(normal(rng, 12, IN))
        assert np.abs(output.data).max() == np.float32(0.01)

    @KINDS
    def test_recompute_changes_nothing(self, kind: Any, rng: np.random.Generator, isa: str) -> None:
        plain, again = kind(IN, SIZE, 2), kind(IN, SIZE, 2, recompute=True)
        again.load_state_dict(plain.state_dict())
        x = normal(rng, 12, IN)
        for layers in (plain, again):
            layers(x, cu_seqlens=OFFSETS)[0].sum().backward()
        for (name, p), q in zip(plain.named_parameters(), again.parameters(), strict=True):
            np.testing.assert_allclose(q.grad, p.grad, rtol=0, atol=1e-5 * np.abs(p.grad).max(), err_msg=name)

    @KINDS
    def test_dropout_between_the_layers(self, kind: Any, rng: np.random.Generator) -> None:
        x = normal(rng, 12, IN)
        layers = kind(IN, SIZE, 2, dropout=0.5)
        expected, last = layers.eval()(x, cu_seqlens=OFFSETS)
        dropped, dropped_last = layers.train()(x, cu_seqlens=OFFSETS)
        other, _ = layers(x, cu_seqlens=OFFSETS)
        assert (dropped.data != expected.data).any()
        assert (dropped.data != other.data).any()
        assert dropped.data.all()  # nothing is dropped above the last layer
        for a, b in zip(states_of(dropped_last), states_of(last), strict=True):
            assert_same_bits(a.data[0], b.data[0])  # and nothing below the first
        alone = kind(IN, SIZE, 1, dropout=0.5)
        assert_same_bits(alone.train()(x)[0].data, alone.eval()(x)[0].data)

    @KINDS
    def test_central_differences(self, kind: Any) -> None:
        """Through padded input, states, layers and directions."""
        fastattn.manual_seed(2)
        layers = kind(2, 3, 2, bidirectional=True, dropout=0.2)
        layers.astype(np.float64)
        count = 2 if kind is nn.LSTM else 1

        def f(x: Tensor, *operands: Tensor) -> Tensor:
            fastattn.manual_seed(5)
            hx = operands[:count] if count == 2 else operands[0]
            output, last = layers(x, hx)
            return output + sum((state * state).sum() for state in states_of(last))

        states = [leaf(4, 2, 3, seed=i) for i in range(count)]
        check_tensor_gradients(f, leaf(3, 2, 2), *states, *layers.parameters())

    @KINDS
    def test_frozen(self, kind: Any, rng: np.random.Generator, isa: str) -> None:
        layers, x = kind(IN, SIZE, 2, bidirectional=True, dropout=0.3).eval(), normal(rng, 12, IN)
        expected, last = layers(x, cu_seqlens=OFFSETS)
        state = {name: np.array(array) for name, array in layers.state_dict().items()}
        with no_grad():
            assert_same_bits(layers(x, cu_seqlens=OFFSETS)[0], expected.data)
        layers.freeze()
        output, frozen_last = layers(x, cu_seqlens=OFFSETS)
        assert isinstance(output, np.ndarray)
        assert_same_bits(output, expected.data)
        for a, b in zip(states_of(frozen_last), states_of(last), strict=True):
            assert_same_bits(a, b.data)
        gates = {nn.LSTM: 4, nn.GRU: 3}[kind]
        for name, p in layers.named_parameters():
            assert isinstance(p, nn.Parameter)
            assert isinstance(p.value, PackedMatrix) == name.startswith("weight")
            if name.startswith("weight"):
                assert p.value.groups == (gates if "_hh_" in name else 1)
            assert_same_bits(np.array(p.data), state[name])
        tensor = Tensor(x, requires_grad=True)
        layers(tensor, cu_seqlens=OFFSETS)[0].sum().backward()
        assert tensor.grad is not None

    def test_a_frozen_layer_is_loaded(self, rng: np.random.Generator) -> None:
        lstm, x = nn.LSTM(IN, SIZE, proj_size=4), normal(rng, 12, IN)
        other = nn.LSTM(IN, SIZE, proj_size=4).freeze()
        other.load_state_dict(lstm.state_dict())
        assert_same_bits(other(x)[0], lstm(x)[0].data)


class TestCells:
    def test_steps_of_a_layer(self, rng: np.random.Generator, isa: str) -> None:
        x = normal(rng, 4, 3, IN)
        lstm, gru = nn.LSTM(IN, SIZE), nn.GRU(IN, SIZE)
        lstm_cell, gru_cell = nn.LSTMCell(IN, SIZE), nn.GRUCell(IN, SIZE)
        for cell, layer in ((lstm_cell, lstm), (gru_cell, gru)):
            cell.load_state_dict({name.removesuffix("_l0"): array for name, array in layer.state_dict().items()})
        whole, whole_gru = lstm(x)[0].data, gru(x)[0].data
        state, h = None, None
        for t in range(4):
            state, h = lstm_cell(x[t], state), gru_cell(x[t], h)
            assert_same_bits(state[0].data, np.ascontiguousarray(whole[t]))
            assert_same_bits(h.data, np.ascontiguousarray(whole_gru[t]))
        one, one_c = lstm_cell(x[0, 0], (state[0].data[0], state[1].data[0]))
        all_h, all_c = lstm_cell(x[0], state)
        assert_same_bits(one.data, all_h.data[0])
        assert_same_bits(one_c.data, all_c.data[0])
        assert_same_bits(gru_cell(x[0, 0], h.data[0]).data, gru_cell(x[0], h).data[0])
        assert lstm_cell(x[0, 0])[1].shape == gru_cell(x[0, 0]).shape == (SIZE,)


class TestErrors:
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell])
    def test_sizes(self, kind: Any) -> None:
        for sizes, message in (
            ((0, 3), "input_size must be a positive integer, got 0"),
            ((3, -1), "hidden_size .*got -1"),
        ):
            with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
                kind(*sizes)

    def test_settings(self) -> None:
        for options, message in (
            ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
            ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
            ({"weight_dropout": 1.0}, r"weight_dropout must be a number in \[0, 1\), got 1.0"),
            ({"proj_size": 3}, r"proj_size must be in \[0, 3\), less than hidden_size, got 3"),
            ({"cell_clip": 0.0}, r"cell_clip must be a number above 0, got 0.0"),
            ({"cell_clip": float("inf")}, r"cell_clip must be a number above 0, got inf"),
            ({"proj_clip": float("nan")}, r"proj_clip must be a number above 0, got nan"),
            ({"proj_clip": 1.0}, r"proj_clip must be None without proj_size, got 1.0"),
        ):
            with pytest.raises(ValueError, match=f"LSTM: {message}"):
                nn.LSTM(3, 3, **options)
        for size in (2.5, "3"):
            with pytest.raises(TypeError, match=f"LSTM: hidden_size must be a positive integer, got {size!r}"):
                nn.LSTM(3, size)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"LSTM: dropout must be a number in \[0, 1\), got 'x'"):
            nn.LSTM(3, 3, dropout="x")  # type: ignore[arg-type]

    @KINDS
    def test_inputs(self, kind: Any, rng: np.random.Generator) -> None:
        layers, name = kind(IN, SIZE, 2), kind.__name__
        for shape in ((12, 4), (IN,), (1, 2, 3, IN)):
            with pytest.raises(ValueError, match=rf"{name}: input must have shape \(tokens, 5\).*, got "):
                layers(normal(rng, *shape))
        with pytest.raises(TypeError, match=f"{name}: input must be an array or a Tensor, got list"):
            layers([[1.0] * IN])
        with pytest.raises(ValueError, match=r"input must have shape \(tokens, 5\) with cu_seqlens, got \(2, 3, 5\)"):
            layers(normal(rng, 2, 3, IN), cu_seqlens=OFFSETS)
        with pytest.raises(ValueError, match=r"cu_seqlens must end at .*11, .*got 12"):
            layers(normal(rng, 11, IN), cu_seqlens=OFFSETS)

    def test_states(self, rng: np.random.Generator) -> None:
        lstm, x = nn.LSTM(IN, SIZE, 2, proj_size=4), normal(rng, 3, 2, IN)
        h, c = normal(rng, 2, 2, 4), normal(rng, 2, 2, SIZE)
        lstm(x, (h, c))
        for hx, message in (
            ((h[:1], c), r"h_0 of hx must have shape \(2, 2, 4\), got \(1, 2, 4\)"),
            ((h, c[:, :1]), r"c_0 of hx must have shape \(2, 2, 6\), got \(2, 1, 6\)"),
        ):
            with pytest.raises(ValueError, match=f"LSTM: {message}"):
                lstm(x, hx)
        with pytest.raises(ValueError, match=r"h_0 of hx must have shape \(2, 4\), got \(2, 2, 4\)"):
            lstm(x[:, 0], (h, c))
        with pytest.raises(TypeError, match=r"LSTM: hx must be a tuple \(h_0, c_0\) or None, got ndarray"):
            lstm(x, h)
        with pytest.raises(ValueError, match=r"GRU: h_0 of hx must have shape \(2, 2, 6\), got \(2, 2, 4\)"):
            nn.GRU(IN, SIZE, 2)(x, h)
        with pytest.raises(TypeError, match=r"GRU: h_0 of hx must be an array or a Tensor, got tuple"):
            nn.GRU(IN, SIZE, 2)(x, (h,))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"LSTM: c_0 of hx must be an array or a Tensor, got list"):
            lstm(x, (h, c.tolist()))

    def test_states_of_cells(self, rng: np.random.Generator) -> None:
        x, h = normal(rng, 2, IN), normal(rng, 2, SIZE)
        lstm, gru = nn.LSTMCell(IN, SIZE), nn.GRUCell(IN, SIZE)
        for hx in (h, (h,), (h, h, h)):
            with pytest.raises(TypeError, match=r"lstm_cell: hx must be a tuple \(h_0, c_0\) or None, got "):
                lstm(x, hx)
        with pytest.raises(TypeError, match=r"gru_cell: hx must be an array, a Tensor or None, got tuple"):
            gru(x, (h,))  # type: ignore[arg-type]
        zeros = np.zeros_like(h)
        for rows in (slice(None), 0):
            for a, b in zip(lstm(x[rows], (h[rows], None)), lstm(x[rows], (h[rows], zeros[rows])), strict=True):
                assert_same_bits(a.data, b.data)


@pytest.mark.parametrize(("option", "value"), [("proj_size", 2), ("cell_clip", 1.0)])
def test_a_gru_has_no_projection_and_no_clips(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"GRU: {option} is for an LSTM alone, got {value}"):
        nn.GRU(3, 4, **{option: value})


def test_the_first_call_of_a_thread_is_recorded() -> None:
    """What a recorded call needs is kept for the backward pass, so the thread's scratch is still empty."""
    layer, x = nn.LSTM(8, 4), np.ones((40, 8), np.float32)
    with ThreadPoolExecutor(1) as pool:
        y, _ = pool.submit(layer, x, None, np.array([0, 40], np.int32)).result()
    assert y.shape == (40, 4)
