"""nn.CRF and functional.crf: against all tag sequences; constraints, reductions, company, errors."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, cumulative, normal
from helpers_crf import ranked, scores, sequences

import fastattn
from fastattn import Tensor, nn
from fastattn import functional as F
from fastattn.text import crf_constraints

LABELS = ("O", "B-A", "I-A", "B-B", "I-B")
TAGS = np.array([0, 1, 2, 3, 4, 4, 1])
ENDS = cumulative([3, 0, 3, 1])


def make(scheme: str | None = "IOB2") -> nn.CRF:
    layer = nn.CRF(5, None if scheme is None else crf_constraints(LABELS, scheme))
    rng = np.random.default_rng(0)
    layer.load_state_dict({name: normal(rng, *array.shape) for name, array in layer.state_dict().items()})
    return layer


def emissions() -> Any:
    return normal(np.random.default_rng(1), 7, 5)


def constrained(layer: nn.CRF) -> dict[str, Any]:
    """A call of the kernel, with -inf where the layer forbids."""
    masks = layer.constraints or [True] * 3
    names = ("transitions", "start_transitions", "end_transitions")
    state = layer.state_dict()
    given = {name: np.where(mask, state[name], -np.inf) for name, mask in zip(names, masks, strict=True)}
    return given | {"emissions": emissions(), "tags": TAGS, "cu_seqlens": ENDS}


@pytest.mark.parametrize("scheme", [None, "IOB2"])
def test_the_likelihood_and_its_reductions(isa: str, scheme: str | None) -> None:
    layer = make(scheme)
    wanted = np.zeros(4)
    for i, own in enumerate(sequences(constrained(layer))):
        found = scores(own)
        wanted[i] = found[tuple(own["tags"].tolist())] - math.log(math.fsum(map(math.exp, found.values())))
    terms = layer(emissions(), TAGS, ENDS, reduction="none")
    assert isinstance(terms, Tensor)
    np.testing.assert_allclose(terms.data, wanted, rtol=1e-5)
    for reduction, divisor in (("sum", 1), ("mean", 4), ("token_mean", 7)):
        assert layer(emissions(), TAGS, ENDS, reduction).item() == pytest.approx(wanted.sum() / divisor, rel=1e-5)
    assert layer(emissions(), TAGS, ENDS).item() == layer(emissions(), TAGS, ENDS, "sum").item()


@pytest.mark.parametrize("scheme", [None, "IOB2"])
def test_the_best_tags(isa: str, threads: int, scheme: str | None) -> None:
    layer = make(scheme)
    tags, found = layer.decode(emissions(), ENDS, 3)
    assert (tags.dtype, tags.shape, found.dtype, found.shape) == (np.int64, (3, 7), np.float32, (4, 3))
    for i, own in enumerate(sequences(constrained(layer))):
        begin, end = ENDS[i : i + 2]
        for rank, (path, score) in enumerate(ranked(own, 3)):
            assert tags[rank, begin:end].tolist() == [*path]
            assert found[i, rank] == pytest.approx(score, rel=1e-5)
    best, score = layer.decode(Tensor(emissions(), requires_grad=True), ENDS.tolist())
    np.testing.assert_array_equal(best, tags[:1])
    assert_same_bits(score, found[:, :1].copy())


def test_what_is_forbidden_learns_nothing(isa: str) -> None:
    layer = make()
    x = Tensor(emissions(), requires_grad=True)
    layer(x, TAGS, ENDS).backward()
    assert layer.constraints is not None
    for parameter, mask in zip(layer.parameters(), layer.constraints, strict=True):
        assert not parameter.grad[~mask].any()
        assert parameter.grad[mask].any()
    np.testing.assert_allclose(x.grad.sum(axis=1), 0, atol=1e-6)


def test_training_finds_the_tags(isa: str) -> None:
    fastattn.manual_seed(1)
    layer = nn.CRF(5, crf_constraints(LABELS, "IOB2"))
    optimizer = fastattn.training.SGD(layer.parameters(), lr=0.5)
    for _ in range(60):
        loss = -layer(np.zeros((7, 5), np.float32), TAGS, ENDS, "mean")
        layer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.5 < math.log(20)
    assert layer.transitions.data[1, 2] > layer.transitions.data[1, 1]


def test_company(isa: str, threads: int) -> None:
    """Neither other sequences, nor being frozen, copied or within a pass changes the bits."""
    layer = make()
    terms = layer(emissions(), TAGS, ENDS, "none").data
    for i, own in enumerate(sequences(constrained(layer))):
        assert_same_bits(layer(own["emissions"], own["tags"], own["cu_seqlens"], "none").data, terms[i : i + 1])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), make().freeze()):
        assert_same_bits(other(emissions(), TAGS, ENDS, "none"), terms)
        np.testing.assert_array_equal(other.decode(emissions(), ENDS)[0], layer.decode(emissions(), ENDS)[0])
    assert isinstance(make().freeze()(emissions(), TAGS, ENDS, "none"), np.ndarray)


def test_new_parameters() -> None:
    fastattn.manual_seed(0)
    layer = nn.CRF(40)
    assert {name: array.shape for name, array in layer.state_dict().items()} == {
        "transitions": (40, 40),
        "start_transitions": (40,),
        "end_transitions": (40,),
    }
    for array in layer.state_dict().values():
        assert np.abs(array).max() <= 0.1
        assert array.std() == pytest.approx(0.1 / 3**0.5, rel=0.3)
    assert repr(layer) == "CRF(num_tags=40, constraints=False)"
    assert repr(make()) == "CRF(num_tags=5, constraints=True)"


def test_the_masks_of_a_layer_are_its_own() -> None:
    masks = [np.ones((5, 5), bool), np.ones(5, bool), np.ones(5, bool)]
    layer = nn.CRF(5, masks)
    before = layer.decode(emissions(), ENDS)[1]
    for mask in masks:
        mask[...] = False
    assert_same_bits(layer.decode(emissions(), ENDS)[1], before)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([2, 1, 1, 0, 0, 0, 0], "got 2 at the start of a sequence, at index 0"),
        ([0, 1, 1, 0, 0, 0, 4], "got 4 at the start of a sequence, at index 6"),
        ([0, 1, 4, 0, 0, 0, 0], "got 4 after 1, at index 2"),
        ([0, 1, 1, 3, 2, 4, 0], "got 2 after 3, at index 4"),
        ([0, 1, 2, 0, 0, 3, 0], "got 3 at the end of a sequence, at index 5"),
        ([0, 1, 2, 0, 0, 1, 3], "got 3 at the end of a sequence, at index 6"),
    ],
)
def test_tags_that_the_constraints_forbid(tags: list[int], message: str) -> None:
    """Whatever the emissions are."""
    steps, first, _ = crf_constraints(LABELS, "IOB2")
    layer = nn.CRF(5, [steps, first, np.arange(5) != 3])
    for x in (emissions(), np.full((7, 5), np.nan, np.float32)):
        for reduction in ("sum", "none"):
            with pytest.raises(ValueError, match=f"^crf: tags must follow the constraints, {message}$"):
                layer(x, tags, ENDS, reduction)
    with fastattn.use_reference(), pytest.raises(ValueError, match=f"^crf: tags must follow .*, {message}$"):
        layer(emissions(), tags, ENDS)


MASKS = [np.ones((5, 5), bool), np.ones(5, bool), np.ones(5, bool)]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tags": [0, 5, 0, 0, 0, 0, 0]}, ValueError, r"tags must be in \[0, 5\), .*, got 5 at index 1"),
        ({"tags": [0, 0, 0, -1, 0, 0, 0]}, ValueError, r"tags must be in \[0, 5\), .*, got -1 at index 3"),
        ({"tags": TAGS + 0.0}, TypeError, "tags must be an integer array, got float64"),
        ({"tags": TAGS[1:]}, ValueError, r"tags must have shape \(7,\), got \(6,\)"),
        ({"emissions": [[0.0] * 5] * 7}, TypeError, "emissions must be an array or a Tensor, got list"),
        ({"emissions": np.zeros((7, 5))}, TypeError, "emissions must be float32, got float64"),
        (
            {"emissions": np.zeros((7, 4), np.float32)},
            ValueError,
            r"transitions must have shape \(4, 4\), got \(5, 5\)",
        ),
        ({"emissions": np.zeros((6, 5), np.float32)}, ValueError, "cu_seqlens must end at the number of tokens, 6"),
        ({"cu_seqlens": [0, 8]}, ValueError, "cu_seqlens must end at the number of tokens, 7, got 8"),
        ({"cu_seqlens": [0.0, 7.0]}, TypeError, "cu_seqlens must be an integer array, got float64"),
        ({"start_transitions": np.zeros(4, np.float32)}, ValueError, r"start_transitions must have shape \(5,\)"),
        ({"reduction": "max"}, ValueError, "reduction must be one of sum, mean, token_mean, none, got 'max'"),
        ({"constraints": MASKS[:2]}, ValueError, "constraints must be three masks, of transitions, .*, got 2"),
        ({"constraints": 5}, TypeError, "constraints must be a sequence of masks, got int"),
        (
            {"constraints": [[[True], [True, False]], *MASKS[1:]]},
            ValueError,
            r"constraints\[0\] must have the shape of transitions, \(5, 5\), got rows of different lengths",
        ),
        ({"constraints": [*MASKS[:2], np.ones(5)]}, TypeError, r"constraints\[2\] must be bool, got float64"),
        (
            {"constraints": [np.ones((1, 5), bool), *MASKS[1:]]},
            ValueError,
            r"constraints\[0\] must have the shape of transitions, \(5, 5\), got \(1, 5\)",
        ),
        (
            {"constraints": MASKS, "transitions": np.zeros((5, 1), np.float32)},
            ValueError,
            r"constraints\[0\] must have the shape of transitions, \(5, 1\), got \(5, 5\)",
        ),
    ],
)
def test_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"emissions": emissions(), "tags": TAGS, "cu_seqlens": ENDS, **make(None).state_dict()}
    with pytest.raises(error, match=f"^crf: {message}"):
        F.crf(**given | changes)


def test_a_mean_of_nothing() -> None:
    layer, nothing = make(), np.zeros((0, 5), np.float32)
    assert layer(nothing, np.zeros(0, int), [0]).item() == 0
    assert layer(nothing, np.zeros(0, int), [0, 0], "mean").item() == 0
    for ends, reduction in (([0], "mean"), ([0, 0], "token_mean")):
        with pytest.raises(ValueError, match=r"^crf: tags must have an entry that counts, for a mean, got none$"):
            layer(nothing, np.zeros(0, int), ends, reduction)


def test_refused_by_the_layer() -> None:
    for given, error, message in (
        ((0,), ValueError, "CRF: num_tags must be a positive integer, got 0"),
        ((2.0,), TypeError, r"CRF: num_tags must be a positive integer, got 2\.0"),
        ((4, MASKS), ValueError, r"CRF: constraints\[0\] must have the shape of transitions, \(4, 4\), got \(5, 5\)"),
        ((5, MASKS[:1]), ValueError, "CRF: constraints must be three masks, .*, got 1"),
        ((5, 1), TypeError, "CRF: constraints must be a sequence of masks, got int"),
        ((5, [mask + 0 for mask in MASKS]), TypeError, r"CRF: constraints\[0\] must be bool, got int64"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            nn.CRF(*given)
    for changes, error, message in (
        ({"n": 0}, ValueError, "n must be from 1 to 3355443, .*, got 0"),
        ({"n": 1.5}, TypeError, "n must be an integer, got float"),
        ({"emissions": [[0.0] * 5] * 7}, TypeError, "emissions must be an array or a Tensor, got list"),
        ({"emissions": np.zeros((7, 6), np.float32)}, ValueError, r"transitions must have shape \(6, 6\)"),
        ({"emissions": np.zeros(7, np.float32)}, ValueError, "emissions must have 2 axes"),
        ({"cu_seqlens": [0, 3]}, ValueError, "cu_seqlens must end at the number of tokens, 7, got 3"),
    ):
        with pytest.raises(error, match=f"^decode: {message}"):
            make().decode(**{"emissions": emissions(), "cu_seqlens": ENDS} | changes)


@pytest.mark.parametrize("scheme", [None, "IOB2"])
def test_the_probability_of_each_tag(isa: str, scheme: str | None) -> None:
    layer = make(scheme)
    wanted = np.zeros((7, 5))
    for i, own in enumerate(sequences(constrained(layer))):
        found = scores(own)
        total = math.fsum(map(math.exp, found.values()))
        for path, score in found.items():
            wanted[np.arange(ENDS[i], ENDS[i + 1]), path] += math.exp(score) / total
    found = layer.marginals(emissions(), ENDS)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    alone = layer.marginals(emissions()[3:6], [0, 3])
    assert_same_bits(alone, found[3:6])
    nothing = (np.ones((2, 2), bool), np.zeros(2, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="marginals: constraints must allow a sequence of this length"):
        nn.CRF(2, nothing).marginals(np.zeros((1, 2), np.float32), [0, 1])
