"""nn.LSTM, nn.GRU and their cells against torch: outputs, states, every gradient, and state dicts exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import cumulative, normal
from helpers_heads import assert_gradients

from fastattn import Tensor, nn, ragged

torch = pytest.importorskip("torch", reason="torch, the other side of the parity tests, is not installed")

IN, SIZE, LENGTHS = 20, 24, (5, 13, 1, 8)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM both layers": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "LSTM projection": ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 10}),
    "LSTM no bias": ("LSTM", {"bias": False}),
    "GRU": ("GRU", {}),
    "GRU both layers": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "GRU no bias": ("GRU", {"bias": False}),
}


def pair(name: str, batch_first: bool = False) -> tuple[Any, Any]:
    """Ours and theirs, in float64: some gradients are sums that nearly cancel. Weights are twice the usual."""
    kind, options = CASES[name]
    torch.manual_seed(1)
    theirs = getattr(torch.nn, kind)(IN, SIZE, batch_first=batch_first, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter *= 2
    ours = getattr(nn, kind)(IN, SIZE, batch_first=batch_first, **options)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    return ours, theirs.double()


def states(rng: np.random.Generator, name: str, batch: int) -> list[Any]:
    kind, options = CASES[name]
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    widths = [options.get("proj_size") or SIZE, *([SIZE] if kind == "LSTM" else [])]
    return [normal(rng, rows, batch, width) for width in widths]


def hx_of(states: list[Any]) -> Any:
    return tuple(states) if len(states) == 2 else states[0]


def last_of(last: Any) -> list[Any]:
    return list(last) if isinstance(last, tuple) else [last]


def compare(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(getattr(a, "data", a), b.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_ragged_against_packed_sequences(name: str, isa: str) -> None:
    ours, theirs = pair(name)
    rng = np.random.default_rng(0)
    x, given = normal(rng, sum(LENGTHS), IN), states(rng, name, len(LENGTHS))
    offsets = cumulative(LENGTHS)
    leaves = [Tensor(array, requires_grad=True) for array in (x, *given)]
    output, last = ours(leaves[0], hx_of(leaves[1:]), offsets)

    padded = torch.tensor(ragged.unpack(x, offsets), dtype=torch.float64, requires_grad=True)
    their_states = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in given]
    packed = torch.nn.utils.rnn.pack_padded_sequence(padded, LENGTHS, batch_first=True, enforce_sorted=False)
    result, their_last = theirs(packed, hx_of(their_states))
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(result, batch_first=True)
    wanted = torch.cat([wanted[i, :length] for i, length in enumerate(LENGTHS)])
    compare([output, *last_of(last)], [wanted, *last_of(their_last)])

    weights = [normal(rng, *part.shape) for part in (output, *last_of(last))]
    sum((part * w).sum() for part, w in zip([output, *last_of(last)], weights, strict=True)).backward()
    sum(
        (part * torch.tensor(w)).sum() for part, w in zip([wanted, *last_of(their_last)], weights, strict=True)
    ).backward()
    got = {name: p.grad for name, p in ours.named_parameters()}
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    got["x"] = leaves[0].grad
    expected["x"] = np.concatenate([padded.grad.numpy()[i, :length] for i, length in enumerate(LENGTHS)])
    for i, (a, b) in enumerate(zip(leaves[1:], their_states, strict=True)):
        got[f"state {i}"], expected[f"state {i}"] = a.grad, b.grad.numpy()
    assert_gradients(got, expected)


@pytest.mark.parametrize("name", CASES)
def test_padded_and_alone(name: str) -> None:
    rng = np.random.default_rng(0)
    for batch_first, shape in ((False, (7, 3, IN)), (True, (3, 7, IN)), (False, (7, IN)), (True, (7, IN))):
        ours, theirs = pair(name, batch_first)
        x = normal(rng, *shape)
        given = states(rng, name, 3) if len(shape) == 3 else [state[:, 0] for state in states(rng, name, 1)]
        for hx, their_hx in ((None, None), (hx_of(given), hx_of([torch.tensor(array).double() for array in given]))):
            output, last = ours(x, hx)
            wanted, their_last = theirs(torch.tensor(x).double(), their_hx)
            compare([output, *last_of(last)], [wanted, *last_of(their_last)])
            frozen = getattr(nn, CASES[name][0])(IN, SIZE, batch_first=batch_first, **CASES[name][1]).freeze()
            frozen.load_state_dict(ours.state_dict())
            output, last = frozen(x, hx)
            compare([output, *last_of(last)], [wanted, *last_of(their_last)])


@pytest.mark.parametrize("name", CASES)
def test_torch_reads_our_state_and_the_names_are_in_its_order(name: str) -> None:
    ours, theirs = pair(name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    state = {name: torch.tensor(np.array(array)) for name, array in ours.state_dict().items()}
    theirs.load_state_dict(state)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind: str, bias: bool) -> None:
    theirs = getattr(torch.nn, kind)(IN, SIZE, bias=bias)
    ours = getattr(nn, kind)(IN, SIZE, bias=bias)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(0)
    for shape in ((3, IN), (IN,)):
        x = normal(rng, *shape)
        given = [normal(rng, *shape[:-1], SIZE) for _ in range(2 if kind == "LSTMCell" else 1)]
        compare(last_of(ours(x)), last_of(theirs(torch.tensor(x))))
        theirs_now = theirs(torch.tensor(x), hx_of([torch.tensor(array) for array in given]))
        compare(last_of(ours(x, hx_of(given))), last_of(theirs_now))


@pytest.mark.parametrize("name", ["LSTM projection", "GRU"])
def test_first_values_are_distributed_as_theirs(name: str) -> None:
    kind, options = CASES[name]
    theirs, ours = getattr(torch.nn, kind)(300, 400, **options), getattr(nn, kind)(300, 400, **options)
    mine = dict(ours.named_parameters())
    for key, parameter in theirs.named_parameters():
        wanted, array = parameter.detach().numpy(), mine[key].data
        assert abs(array.mean()) < 5 * wanted.std() / array.size**0.5, key
        assert array.std() == pytest.approx(wanted.std(), rel=5 / array.size**0.5), key
        assert np.abs(array).max() == pytest.approx(0.05, rel=0.02)
