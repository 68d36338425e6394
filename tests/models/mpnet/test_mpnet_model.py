"""What is MPNet's alone: distances and their buckets, far positions, gaps, its config. See also test_families*."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from helpers import array, assert_same_bits
from helpers_families import new_model, weights

import fastattn
from fastattn.models import MPNetConfig, MPNetModel
from fastattn.models.mpnet.model import _DISTANCES

FIELDS: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 30,
}  # fmt: skip


def model(**options: Any) -> Any:
    return new_model("mpnet", seed=1, **FIELDS, max_position_embeddings=302, **options)


def test_buckets_by_hand() -> None:
    found = dict(zip(range(-128, 129), _DISTANCES, strict=True))
    assert [found[-n] for n in range(8)] == [*range(8)]
    assert [found[n] for n in range(1, 8)] == [*range(17, 24)]
    for n in range(8, 129):
        bucket = 8 + math.floor(round(math.log(n / 8) / math.log(16) * 8, 9))
        assert found[-n] == min(bucket, 15)
        assert found[n] == min(bucket, 15) + 16


def test_against_transformers_in_a_long_text() -> None:
    """All buckets, to the right and to the left; hidden states and the gradient of the bias."""
    torch = pytest.importorskip("torch", reason="torch, the other side of this test, is not installed")
    theirs_of = pytest.importorskip("transformers", reason="transformers is not installed").models.mpnet.modeling_mpnet
    distances = torch.arange(-600, 601)
    buckets = theirs_of.MPNetEncoder.relative_position_bucket(distances).numpy()
    np.testing.assert_array_equal(_DISTANCES[distances.numpy().clip(-128, 128) + 128], buckets)

    config = theirs_of.MPNetConfig(**FIELDS, max_position_embeddings=302, attn_implementation="eager")
    theirs = theirs_of.MPNetModel(config).double().eval()
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, values in weights({name: tuple(p.shape) for name, p in parameters.items()}).items():
            parameters[name].copy_(torch.tensor(values))
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(2, 40, (2, 300)), np.ones((2, 300), np.int64)
    mask[1, :90] = 0  # padding to the left
    ids[mask == 0] = 1
    dy = rng.normal(size=(2, 300, 24)) * mask[..., None]
    expected = theirs(torch.tensor(ids), torch.tensor(mask)).last_hidden_state
    expected.backward(torch.tensor(dy))
    wanted = expected.detach().numpy() * mask[..., None]
    table = parameters["encoder.relative_attention_bias.weight"].grad.numpy()
    assert np.abs(np.delete(table, 16, axis=0)).min() > 0  # bucket 16 would be the distance 0 to the right

    ours = MPNetModel(MPNetConfig.from_dict(config.to_dict()))
    ours.load_state_dict({name: tensor.float().numpy() for name, tensor in theirs.state_dict().items()})
    got = array(ours.eval()(ids, mask).last_hidden_state)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    ours.astype(np.float64)
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    with fastattn.use_reference():
        states = ours(ids, mask).last_hidden_state
        np.testing.assert_allclose(states.data, wanted, rtol=0, atol=1e-9)
        states.backward(dy)
    np.testing.assert_allclose(ours.relative_attention_bias.weight.grad, table, rtol=0, atol=1e-9 * np.abs(table).max())


def test_distances_decide() -> None:
    """A constant in all buckets changes nothing, the bucket of far keys before only the queries that have such keys."""
    ours = model()
    ids = np.random.default_rng(2).integers(2, 40, (1, 150))
    before = array(ours(ids, output_hidden_states=True).hidden_states[1])
    state, name = copy.deepcopy(ours.state_dict()), "encoder.relative_attention_bias.weight"
    ours.load_state_dict({**state, name: state[name] + np.float32(3)})
    np.testing.assert_allclose(array(ours(ids, output_hidden_states=True).hidden_states[1]), before, rtol=0, atol=1e-4)
    other = state[name].copy()
    other[15] += 3
    ours.load_state_dict({**state, name: other})
    after = array(ours(ids, output_hidden_states=True).hidden_states[1])
    assert_same_bits(after[:, :91], before[:, :91])
    assert (np.abs(after - before)[:, 91:].max(axis=(0, 2)) > 1e-3).all()


def test_gaps_are_refused() -> None:
    ours, ids = model(), np.full((3, 5), 7)
    mask = np.array([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]])
    with pytest.raises(
        ValueError, match=r"^MPNetModel: attention_mask must keep neighbouring tokens, got a gap in row 2$"
    ):
        ours(ids, mask)
    mask[2, 4] = 0
    assert ours(ids, mask).last_hidden_state.shape == (3, 5, 24)
    with pytest.raises(ValueError, match=r"gap in row 1$"):
        new_model("mpnet", "TokenClassification")(ids, [[1] * 5, [1, 0, 1, 1, 1], [1] * 5])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "relative_attention_num_buckets",
            16,
            "relative_attention_num_buckets must be an integer of at least 32, got 16",
        ),
        ("type_vocab_size", 2, "type_vocab_size must be 0, got 2"),
        ("max_position_embeddings", 2, r"max_position_embeddings must be more than pad_token_id \+ 1 = 2, got 2"),
    ],
)
def test_fields_that_are_refused(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        MPNetConfig(**{**FIELDS, name: value})


def test_positions_beyond_the_table() -> None:
    ours = model()
    assert ours(np.full((1, 300), 7)).last_hidden_state.shape == (1, 300, 24)
    with pytest.raises(ValueError, match="302"):
        ours(np.full((1, 301), 7))
