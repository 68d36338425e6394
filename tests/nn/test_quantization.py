"""Freezing with weights of fewer bits: which matrices become what, and what a LayerNorm says of their input."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastattn
from fastattn import Tensor, nn
from fastattn import functional as F
from fastattn.kernels import PackedMatrix
from fastattn.nn.linear import StackedLinear
from fastattn.nn.quantization import bfloat16_bits, input_scales, packed, round_rows, usual_sizes
from fastattn.nn.stacks import normed_layers

CU_SEQLENS = np.array([0, 3, 7], np.int32)
REDUCED = ("bfloat16", "int8")


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


class Net(nn.Module):
    def __init__(self) -> None:
        self.embedding = nn.Embedding(10, 16)
        self.lstm = nn.LSTM(16, 8)
        self.norm = nn.LayerNorm(8)
        self.heads = StackedLinear(8, {"a": 3, "b": 5})
        self.out = nn.Linear(8, 4, activation="tanh")
        self.again = nn.Linear(8, 4)
        self.again.weight = self.out.weight

    def forward(self, ids: Any) -> Any:
        x, _ = self.lstm(self.embedding(ids), cu_seqlens=CU_SEQLENS)
        y = self.heads(self.norm(x))
        return F.cat([self.out(y), self.again(y)], 1)


def new_net() -> Net:
    fastattn.manual_seed(1)
    return Net()


def block(kind: type = nn.EncoderBlock, **options: Any) -> Any:
    fastattn.manual_seed(2)
    made = kind(16, 2, 32, "gelu", **options)
    for module in made.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data[...] = 1 + np.abs(normal(16))
            module.bias.data[...] = 0.1
    return made


def scales_of(layer: Any) -> Any:
    return layer.weight.value.numbers().get("input_scales")


@pytest.mark.parametrize("weights", REDUCED)
def test_the_matrices_of_linear_layers_become_what_is_asked_for_and_nothing_else(weights):
    net, plain = new_net().freeze(weights), new_net().freeze()
    held = {name: p.value.dtype for name, p in net.named_parameters() if isinstance(p, nn.Parameter)}
    assert [name for name, dtype in held.items() if dtype == weights] == ["out.weight"]
    assert net.heads.weight.value.dtype == weights
    assert net.lstm._members()[0][0][1].value.dtype == "float32"
    x = net(np.arange(7))
    np.testing.assert_allclose(x, plain(np.arange(7)), atol=0.05)
    assert x.tobytes() != plain(np.arange(7)).tobytes()
    assert net.out.weight is net.again.weight


@pytest.mark.parametrize("weights", REDUCED)
def test_a_layer_computes_with_the_matrix_that_the_kernel_would_pack(weights):
    layer = nn.Linear(33, 9)
    expected = PackedMatrix(layer.weight.data, dtype=weights)
    layer.freeze(weights)
    x = normal(5, 33)
    assert layer(x).tobytes() == F.linear(x, expected, layer.bias.data).tobytes()
    np.testing.assert_array_equal(layer.weight.data, expected.unpack())


@pytest.mark.parametrize("weights", REDUCED)
def test_pickles_and_copies_have_the_same_bits(weights):
    net = new_net().freeze(weights)
    expected = net(np.arange(7)).tobytes()
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), copy.copy(net)):
        assert other(np.arange(7)).tobytes() == expected
        assert other.out.weight.weights == weights


def test_a_frozen_model_becomes_one_of_fewer_bits_and_stays_so():
    net = new_net().freeze()
    net.freeze("int8")
    expected = new_net().freeze("int8")(np.arange(7)).tobytes()
    assert net(np.arange(7)).tobytes() == expected
    for weights in ("float32", "bfloat16", "int8"):
        assert net.freeze(weights)(np.arange(7)).tobytes() == expected


def test_what_a_file_holds():
    net = new_net().freeze("int8")
    numbers = net.numbers()
    whole = net.heads.weight.value.numbers()
    assert numbers["heads.a.weight"].dtype == numbers["heads.b.weight"].dtype == np.int8
    both = np.concatenate([numbers["heads.a.weight"], numbers["heads.b.weight"]])
    np.testing.assert_array_equal(both, whole["weight"])
    np.testing.assert_array_equal(numbers["heads.b.weight_scales"], whole["scales"][3:])
    assert numbers["out.bias"].dtype == np.float32
    assert new_net().freeze("bfloat16").numbers()["out.weight"].dtype == np.uint16
    assert list(new_net().numbers()) == list(new_net().state_dict())


def test_bad_weights_are_refused():
    with pytest.raises(ValueError, match=r"^freeze: weights must be one of float32, bfloat16, int8, got 'int4'$"):
        new_net().freeze("int4")
    layer = nn.Linear(4, 4)
    layer.weight.data[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"weight must be finite, got nan at 1, 2"):
        layer.freeze("int8")


def test_values_of_fewer_bits_are_not_replaced():
    net = new_net()
    state = {name: array.copy() for name, array in net.state_dict().items()}
    net.freeze("int8")
    before = net(np.arange(7)).tobytes()
    with pytest.raises(ValueError, match="load_state_dict: weights of int8 stay what they are"):
        net.load_state_dict(state)
    assert net(np.arange(7)).tobytes() == before


@pytest.mark.parametrize("activation", [None, "gelu"])
def test_there_is_no_gradient_through_int8(activation):
    layer = nn.Linear(4, 3, activation=activation).freeze("int8")
    x = Tensor(normal(2, 4), requires_grad=True)
    with pytest.raises((TypeError, ValueError), match="int8"):
        layer(x).sum().backward()


def test_bfloat16_is_float32_over_rounded_weights():
    layer = nn.Linear(20, 6).freeze("bfloat16")
    rounded = nn.Linear(20, 6)
    rounded.weight.data[...], rounded.bias.data[...] = layer.weight.data, layer.bias.data
    x = normal(3, 20)
    assert layer(x).tobytes() == rounded.freeze()(x).tobytes()


def test_scales_follow_from_norm_and_weight():
    weight, sizes = normal(6, 10), np.abs(normal(10)) + 0.1
    scales = input_scales(weight, sizes)
    ratios = np.sqrt(sizes / np.abs(weight).max(axis=0))
    np.testing.assert_allclose(scales, np.sort(ratios)[5] / ratios, rtol=1e-6)
    np.testing.assert_allclose(
        usual_sizes(np.array([-2.0], np.float32), np.array([-0.5], np.float32)), [6.5], rtol=1e-6
    )
    np.testing.assert_array_equal(packed(weight, "int8", sizes).numbers()["input_scales"], scales)
    assert "input_scales" not in packed(weight, "bfloat16", sizes).numbers()


def test_norms_and_columns_of_zeros_give_finite_scales():
    weight, sizes = normal(6, 10), np.abs(normal(10))
    weight[:, 3] = 0
    sizes[4] = 0
    scales = packed(weight, "int8", sizes).numbers()["input_scales"]
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


def test_the_norm_of_a_post_norm_block_scales_what_follows_it():
    made = block()
    expected = packed(made.fc1.weight.data, "int8", usual_sizes(*_norm(made.self_attn_layer_norm)))
    made.freeze("int8")
    np.testing.assert_array_equal(scales_of(made.fc1), expected.numbers()["input_scales"])
    for layer in (made.self_attn.stacked, made.self_attn.out_proj, made.fc2):
        assert scales_of(layer) is None


def test_the_norms_of_a_pre_norm_block_scale_both_sublayers_and_values_decide():
    made = block(norm_first=True)
    sizes = usual_sizes(*_norm(made.self_attn_layer_norm))
    values = made.self_attn.stacked.weight.data[32:].copy()
    made.freeze("int8")
    np.testing.assert_array_equal(scales_of(made.self_attn.stacked), input_scales(values, sizes))
    assert scales_of(made.fc1) is not None
    assert scales_of(made.self_attn.out_proj) is scales_of(made.fc2) is None


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_norms_of_a_decoder_block(norm_first):
    made = block(nn.DecoderBlock, norm_first=norm_first).freeze("int8")
    assert scales_of(made.encoder_attn.q_proj) is not None
    assert scales_of(made.fc1) is not None
    assert (scales_of(made.self_attn.stacked) is not None) == norm_first
    assert scales_of(made.encoder_attn.stacked) is None


def test_a_stack_says_which_norm_the_next_block_reads():
    blocks = [block(), block()]
    before = nn.LayerNorm(16)
    found = [(known.norm, known.layer) for known in normed_layers(blocks, before)]
    assert found == [(before, blocks[0].self_attn.stacked), (blocks[0].final_layer_norm, blocks[1].self_attn.stacked)]
    assert not list(normed_layers([blocks[0]] * 3))  # the first time it reads something else
    first = [block(norm_first=True, attention_norm=False), block(norm_first=True)]
    assert [known.layer for known in normed_layers(first, before)] == [first[0].self_attn.stacked]


@pytest.mark.parametrize("weights", REDUCED)
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "gated": True}, {"norm_first": True, "fused": True}])
def test_blocks_compute_nearly_the_same(options, weights):
    x = normal(7, 16)
    expected = block(**options).freeze()(x.copy(), CU_SEQLENS)
    found = block(**options).freeze(weights)(x.copy(), CU_SEQLENS)
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    alone = block(**options).freeze(weights)(x[3:].copy(), np.array([0, 4], np.int32))
    assert alone.tobytes() == found[3:].tobytes()


def _norm(norm: Any) -> tuple[Any, Any]:
    return norm.weight.data.copy(), norm.bias.data.copy()


def test_rounded_rows_are_what_a_file_holds():
    rng = np.random.default_rng(9)
    rows = (rng.standard_normal((3000, 37)) * np.exp(5 * rng.standard_normal((3000, 1)))).astype(np.float32)
    before = rows.copy()
    round_rows(rows)
    assert (np.abs(rows - before) <= np.abs(before) / 256).all()
    np.testing.assert_array_equal((bfloat16_bits(rows).astype(np.uint32) << 16).view(np.float32), rows)
    np.testing.assert_array_equal(PackedMatrix(before, dtype="bfloat16").unpack(), rows)


@pytest.mark.parametrize("weights", REDUCED)
def test_weights_of_fewer_bits_take_no_other_values(weights):
    for module in (nn.Linear(8, 4), nn.Embedding(1100, 1024)):
        module.freeze(weights)
        before = module.weight.data.tobytes()
        state = {name: np.ones_like(array) for name, array in module.state_dict().items()}
        for load in (lambda: module.load_state_dict(state), lambda: module.load({"weight": state["weight"]})):  # noqa: B023
            with pytest.raises(ValueError, match=f"weights of {weights} stay what they are; load a model in float32"):
                load()
        assert module.weight.data.tobytes() == before
    heads = StackedLinear(8, {"a": 3, "b": 5}).freeze(weights)
    with pytest.raises(ValueError, match=f"weights of {weights} stay what they are"):
        heads.rows["a.weight"].load(np.ones((3, 8), np.float32))


def test_a_module_that_cannot_be_frozen_is_not_said_to_be():
    layer = nn.Linear(8, 4)
    layer.weight.data[0, 1] = np.nan
    with pytest.raises(ValueError, match="weight must be finite, got nan at 0, 1"):
        layer.freeze("int8")
    assert not layer.frozen
    assert layer.training
