"""nn.EncoderBlock and nn.DecoderBlock: against their definition, in buffers and without, with each switch."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
from helpers import array, assert_same_bits, cumulative, normal
from helpers_gradients import check_tensor_gradients, leaf

import fastattn
from fastattn import Tensor, nn, no_grad

DIM, HEADS, HIDDEN = 12, 3, 20
OFFSETS, OTHERS = cumulative([4, 0, 5]), cumulative([3, 2, 2])
KINDS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"norm_first": True},
    "no bias": {"bias": False, "activation": "gelu"},
    "pre-norm, no bias": {"bias": False, "norm_first": True, "activation": "silu"},
    "narrow": {"hidden_dim": 5, "activation": None},
    "wide": {"hidden_dim": 100, "norm_first": True},
    "window": {"window": (1, 2)},
    "gated": {"gated": True, "activation": "silu", "attention_bias": False},
    "gated, fused, pre-norm": {"gated": True, "fused": True, "activation": "gelu", "norm_first": True, "hidden_dim": 7},
    "some biases, some norms": {
        "bias": False, "norm_bias": True, "hidden_bias": True, "norm_first": True, "attention_norm": False,
    },
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    **KINDS,
    "rotary": {"rotary_theta": 3.0},
    "rotary, gated, fused": {**KINDS["gated, fused, pre-norm"], "rotary_theta": 50.0, "attention_norm": False},
}


def make(cls: Any, kind: str, seed: int = 0, **options: Any) -> Any:
    """A block in evaluation mode, whose norms and biases are not 1 and 0."""
    block = cls(
        **{"dim": DIM, "num_heads": HEADS, "hidden_dim": HIDDEN, "eps": 1e-3, **ENCODERS[kind], **options}
    ).eval()
    rng = np.random.default_rng(seed)
    block.load_state_dict({k: (normal(rng, *x.shape) * 0.5).astype("f4") for k, x in block.state_dict().items()})
    return block


def x_and_memory() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return normal(rng, 9, DIM), normal(rng, 7, DIM)


def by_hand(block: Any, x: Any, attentions: list[Any]) -> Any:
    """In float64, of layers that are tested on their own: the order of norms, residuals and the rest."""
    state = {name: value.astype(np.float64) for name, value in block.state_dict().items()}

    def linear(name: str, h: Any) -> Any:
        return h @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)

    def norm(name: str, h: Any) -> Any:
        if f"{name}.weight" not in state:
            return h
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-3)
        return h * state[f"{name}.weight"] + state.get(f"{name}.bias", 0.0)

    def feed_forward(h: Any) -> Any:
        act, factor = block.fc1.activation, 1.0
        if block.gate is None:
            h = linear("fc1", h)
        else:
            act = block.gate
            parts = np.split(linear("fc1", h), 2, axis=1) if block.self_attn.fused else []
            h, factor = parts or [linear(f"fc1.{name}", h) for name in ("gate_proj", "up_proj")]
        if act is not None:
            h = getattr(fastattn.functional, act)(h.astype("f4")).astype(np.float64)
        return linear("fc2", h * factor)

    for name, function in (*attentions, ("final_layer_norm", feed_forward)):
        x = x + function(norm(name, x)) if block.norm_first else norm(name, x + function(x))
    return x


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_block(kind: str, isa: str, threads: int) -> None:
    x, _ = x_and_memory()
    block = make(nn.EncoderBlock, kind)

    def attend(h: Any) -> Any:
        return array(block.self_attn(h.astype("f4"), cu_seqlens_q=OFFSETS))

    wanted = by_hand(block, x, [("self_attn_layer_norm", attend)])
    y = block(x, OFFSETS)
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert_same_bits(copy.deepcopy(block).freeze()(x, OFFSETS), y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cross_attention", [True, False])
def test_decoder_block(kind: str, cross_attention: bool) -> None:
    x, memory = x_and_memory()
    block = make(nn.DecoderBlock, kind, cross_attention=cross_attention)

    def attend(h: Any) -> Any:
        return array(block.self_attn(h.astype("f4"), cu_seqlens_q=OFFSETS, is_causal=True))

    def attend_memory(h: Any) -> Any:
        offsets = {"cu_seqlens_q": OFFSETS, "cu_seqlens_k": OTHERS}
        return array(block.encoder_attn(h.astype("f4"), memory, **offsets))

    attentions = [("self_attn_layer_norm", attend)]
    arguments: tuple[Any, ...] = (x, OFFSETS)
    if cross_attention:
        attentions.append(("encoder_attn_layer_norm", attend_memory))
        arguments += (memory, OTHERS)
    wanted = by_hand(block, x, attentions)
    own: list[Any] = []
    y = block(*arguments, attn_weights=own)
    np.testing.assert_allclose(y.data, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert own[0].shape == (3, HEADS, 5, 5)
    assert_same_bits(block.freeze()(*arguments), y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capacity", [1, 32])
def test_steps_have_the_bits_of_the_whole(kind: str, capacity: int, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks; without cross-attention, and with it. Sequences end, split and change places."""
    monkeypatch.setattr(nn.cache, "FIRST_CAPACITY", capacity)
    rng = np.random.default_rng(1)
    x, memory = normal(rng, 2, 7, DIM), normal(rng, 7, DIM)
    for cross_attention in (False, True):
        blocks = [make(nn.DecoderBlock, kind, seed, cross_attention=cross_attention).freeze() for seed in range(2)]
        given = (memory, cumulative([3, 4])) if cross_attention else ()
        whole = nn.decode(blocks, x.reshape(-1, DIM).copy(), cumulative([7, 7]), *given).reshape(2, 7, DIM)
        cache = nn.Cache([(HEADS, DIM // HEADS)] * 2, 2, 7)
        parts = [block.encoder_attn.keys_values(memory) for block in blocks] if cross_attention else []
        memories = [(part[:, 0], part[:, 1]) for part in parts]
        rows = np.array([0, 1])
        for t in range(7):
            kept = {2: [0, 0, 1], 4: [2, 1], 5: [0]}.get(t)
            if kept is not None:
                rows = rows[kept]
                cache.keep(np.array(kept))
            order = np.argsort(rows, kind="stable")  # those of a source are together
            cache.keep(order)
            rows = rows[order]
            cross = {"cu_seqlens_q": cumulative([(rows == 0).sum(), (rows == 1).sum()])}
            cross |= {"cu_seqlens_k": cumulative([3, 4])}
            last = np.ascontiguousarray(x[rows, t])
            assert nn.decode_step(blocks, last, cache, memories, cross) is last
            assert_same_bits(last, whole[rows, t])


@pytest.mark.parametrize("kind", ENCODERS)
def test_in_buffers(kind: str, isa: str) -> None:
    """Blocks one above the other have the same bits, whether recorded, in buffers, frozen, or a part of each."""
    blocks = [make(nn.EncoderBlock, kind, seed) for seed in range(3)]
    x, _ = x_and_memory()
    states, weights, expected = [], [], Tensor(x)
    for block in blocks:
        expected = block(expected, OFFSETS, attn_weights=weights)
        states.append(expected)
    frozen = [copy.deepcopy(block).freeze() for block in blocks]
    for stack, arrays in ((blocks, 0), (frozen, 3), ([*frozen[:2], blocks[2]], 2), ([frozen[0], *blocks[1:]], 1)):
        for recording in (True, False):
            mine: list[Any] = []
            own: list[Any] = []
            with no_grad() if not recording else fastattn.autograd.setting():
                result = nn.encode(stack, x.copy(), OFFSETS)
                again = nn.encode(stack, x.copy(), OFFSETS, states=mine, attn_weights=own)
            assert [isinstance(state, np.ndarray) for state in mine] == [True] * arrays + [False] * (3 - arrays)
            assert [isinstance(state, np.ndarray) for state in own] == [True] * arrays + [False] * (3 - arrays)
            assert isinstance(result, Tensor) == (arrays < 3)
            assert arrays == 3 or result.requires_grad == recording
            for a, b in zip([result, again, *mine, *own], [expected, expected, *states, *weights], strict=True):
                assert_same_bits(a, b)


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("kind", ["post-norm", "pre-norm", "window"])
def test_a_bias_that_blocks_share(kind: str, trainable: bool, isa: str) -> None:
    """The same bits block by block, in buffers, and frozen under a bias that is trained; the gradient of all blocks."""
    blocks = [make(nn.EncoderBlock, kind, seed) for seed in range(2)]
    x, _ = x_and_memory()
    table = normal(np.random.default_rng(8), 7, HEADS)
    expected: Any = x
    for block in blocks:
        expected = block(expected, OFFSETS, table)
    assert not np.array_equal(expected.data, nn.encode(blocks, x.copy(), OFFSETS).data)
    frozen = [copy.deepcopy(block).freeze() for block in blocks]
    assert_same_bits(nn.encode(frozen, x.copy(), OFFSETS, table), expected)
    with no_grad():
        assert_same_bits(nn.encode(blocks, x.copy(), OFFSETS, Tensor(table)), expected)
    gradients = []
    for checkpointing in (False, True):
        bias = Tensor(table, requires_grad=True)
        y = nn.encode(blocks if trainable else frozen, x.copy(), OFFSETS, bias, checkpointing=checkpointing)
        assert_same_bits(y, expected)
        y.backward(np.ones_like(y.data))
        gradients.append(bias.grad)
    assert np.abs(gradients[0][2:6]).min() > 0  # what the window holds
    assert_same_bits(*gradients)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cross_attention", [True, False])
def test_a_decoder_in_buffers(kind: str, cross_attention: bool, isa: str) -> None:
    """Longer memories than targets and shorter ones; recorded, in buffers, frozen, or a part of each."""
    blocks = [make(nn.DecoderBlock, kind, seed, cross_attention=cross_attention) for seed in range(3)]
    x, short = x_and_memory()
    frozen = [copy.deepcopy(block).freeze() for block in blocks]
    for memory, others in ((short, OTHERS), (normal(np.random.default_rng(2), 70, DIM), cumulative([40, 9, 21]))):
        given = (memory, others) if cross_attention else ()
        weights: tuple[list[Any], list[Any]] = ([], [])
        expected: Any = Tensor(x)
        for block in blocks:
            expected = block(expected, OFFSETS, *given, attn_weights=weights[0], cross_weights=weights[1])
        for stack, arrays in ((blocks, 0), (frozen, 3), ([*frozen[:2], blocks[2]], 2), ([frozen[0], *blocks[1:]], 1)):
            for recording in (True, False):
                own: tuple[list[Any], list[Any]] = ([], [])
                with no_grad() if not recording else fastattn.autograd.setting():
                    result = nn.decode(stack, x.copy(), OFFSETS, *given)
                    again = nn.decode(stack, x.copy(), OFFSETS, *given, attn_weights=own[0], cross_weights=own[1])
                assert isinstance(result, Tensor) == (arrays < 3)
                assert arrays == 3 or result.requires_grad == recording
                for mine, theirs in zip(own, weights, strict=True):
                    assert len(mine) == len(theirs)
                    assert [isinstance(w, np.ndarray) for w in mine] == [i < arrays for i in range(len(mine))]
                found, wanted = [result, again, *own[0], *own[1]], [expected, expected, *weights[0], *weights[1]]
                for a, b in zip(found, wanted, strict=True):
                    assert_same_bits(a, b)


def test_offsets_of_any_integers() -> None:
    encoder, decoder = make(nn.EncoderBlock, "post-norm").freeze(), make(nn.DecoderBlock, "post-norm").freeze()
    x, memory = x_and_memory()
    offsets, others = OFFSETS.tolist(), OTHERS.astype(np.int64)
    assert_same_bits(nn.encode([encoder], x.copy(), offsets), encoder(x, OFFSETS))
    assert_same_bits(nn.decode([decoder], x.copy(), offsets, memory, others), decoder(x, OFFSETS, memory, OTHERS))


def test_rotary_positions() -> None:
    """Only differences of positions count, whether they are given or not; each layer has its own theta."""
    blocks = [
        make(nn.EncoderBlock, "rotary", seed, rotary_theta=theta).freeze() for seed, theta in enumerate((3, 9, 3))
    ]
    x, _ = x_and_memory()
    places = np.array([0, 1, 2, 3, 0, 1, 2, 3, 4])
    expected = nn.encode(blocks, x.copy(), OFFSETS)
    assert_same_bits(nn.encode(blocks, x.copy(), OFFSETS, None, places), expected)
    moved = nn.encode(blocks, x.copy(), OFFSETS, None, places + 5000)
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    other = nn.encode(blocks, x.copy(), OFFSETS, None, places[::-1].copy())
    assert np.abs(other - expected).max() > 1e-2
    x = Tensor(x)
    for block in blocks:
        x = block(x, OFFSETS, None, places + 5000)
    assert_same_bits(x, moved)


def test_buffers_of_a_gated_block() -> None:
    """The product is in place: no memory but the projection's."""
    block = make(nn.EncoderBlock, "gated", hidden_dim=64).freeze()
    workspace = nn.stacks.Workspace(block, 10, 0, np.float32)
    assert workspace.hidden.shape == (10, 128)
    assert np.shares_memory(workspace.gated, workspace.hidden)
    assert workspace.gated.shape == (10, 64)
    assert workspace.output.base.nbytes == 4 * 10 * (DIM + 128)


def test_blocks_of_other_sizes() -> None:
    x, memory = x_and_memory()
    for cls, run, given in ((nn.EncoderBlock, nn.encode, ()), (nn.DecoderBlock, nn.decode, (memory, OTHERS))):
        blocks = [make(cls, kind).freeze() for kind in ("post-norm", "wide", "narrow", "narrow")]
        expected = x
        for block in blocks:
            expected = block(expected, OFFSETS, *given)
        assert_same_bits(run(blocks, x.copy(), OFFSETS, *given), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["no bias", "rotary"])
def test_gradients(kind: str, norm_first: bool, checkpointing: bool) -> None:
    """In float64 against differences; every dropout, through both blocks."""
    options: dict[str, Any] = {"norm_first": norm_first, "dropout": 0.2, "attention_dropout": 0.1}
    options |= {"activation_dropout": 0.3, "gated": kind == "rotary", "activation": "gelu"}
    encoder = make(nn.EncoderBlock, kind, **options, hidden_dropout=0.1).train()
    decoder = make(nn.DecoderBlock, "no bias", **options).train()
    for block in (encoder, decoder):
        block.astype(np.float64)
    x, y, bias = leaf(9, DIM), leaf(7, DIM, seed=1), leaf(5, HEADS, seed=2)

    def f(*_: Any) -> Any:
        fastattn.manual_seed(5)
        memory = nn.encode([encoder], x, OFFSETS, bias, checkpointing=checkpointing)
        return decoder(y, OTHERS, memory, OFFSETS)

    check_tensor_gradients(f, x, y, bias, encoder.fc1.weight, decoder.encoder_attn.out_proj.weight)


def test_refused() -> None:
    x, memory = x_and_memory()
    with pytest.raises(ValueError, match="DecoderBlock: memory must be given"):
        make(nn.DecoderBlock, "post-norm")(x, OFFSETS)
    with pytest.raises(ValueError, match="DecoderBlock: memory must be None without cross_attention"):
        make(nn.DecoderBlock, "post-norm", cross_attention=False)(x, OFFSETS, memory, OTHERS)
    with pytest.raises(ValueError, match="DecoderBlock: memory must be given"):
        nn.decode([make(nn.DecoderBlock, "post-norm").freeze()], x, OFFSETS)
    with pytest.raises(ValueError, match="DecoderBlock: memory must be given"):
        nn.decode_step([make(nn.DecoderBlock, "post-norm").freeze()], x, nn.Cache([(HEADS, DIM // HEADS)], 9, 5))
    with pytest.raises(ValueError, match="num_heads must divide embed_dim"):
        nn.EncoderBlock(10, 3, 20)
    for options, message in (
        ({"gated": True, "activation": None}, "EncoderBlock: activation must not be None if gated"),
        ({"gated": True, "activation": "sine"}, "EncoderBlock: activation must be one of .*, got 'sine'"),
        ({"attention_norm": False}, "EncoderBlock: attention_norm must be True without norm_first"),
        ({"rotary_theta": -1.0}, "SinusoidalPositions: max_timescale must be a number above 0, got -1.0"),
        ({"rotary_theta": 3.0, "num_heads": 4}, "MultiHeadAttention: rotary_theta needs heads of an even size, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            make(nn.EncoderBlock, "post-norm", **options)
    for name, value in (("rotary_theta", 3.0), ("fused", True)):
        with pytest.raises(ValueError, match=f"MultiHeadAttention: {name} cannot be given without self_attention"):
            nn.MultiHeadAttention(8, 2, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DecoderBlock: rotary_theta must be None"):
        nn.DecoderBlock(8, 2, 16, rotary_theta=3.0)


@pytest.mark.parametrize("kind", [nn.EncoderBlock, nn.DecoderBlock])
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("dropout", 1.5, ValueError), ("activation_dropout", -0.1, ValueError), ("attention_dropout", 1, ValueError),
     ("hidden_dropout", 2, ValueError), ("dropout", "0.1", TypeError), ("norm_first", "post", TypeError),
     ("gated", "x", TypeError), ("eps", -1, ValueError)],
)  # fmt: skip
def test_numbers_are_checked_at_construction(kind: Any, name: str, value: Any, error: type[Exception]) -> None:
    part = name.removeprefix("attention_")
    with pytest.raises(error, match=f": {name if 'activation' in name else part} must be"):
        kind(8, 2, 16, **{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LayerNorm(3, eps=-1e-5), "LayerNorm: eps must be a number of at least 0, got -1e-05"),
        (lambda: nn.LayerNorm(3, eps="x"), "LayerNorm: eps must be a number of at least 0, got 'x'"),  # type: ignore[arg-type]
        (lambda: nn.LayerNorm(3, bias=None), "LayerNorm: bias must be a bool, got None"),  # type: ignore[arg-type]
        (lambda: nn.Embedding(3, 4, 3), "Embedding: padding_idx must be a row of the table, from -3 to 2, got 3"),
        (lambda: nn.Embedding(0, 4), "Embedding: num_embeddings must be a positive integer, got 0"),
        (lambda: nn.LSTM(3, 4, bidirectional="x"), "LSTM: bidirectional must be a bool, got 'x'"),  # type: ignore[arg-type]
        (lambda: nn.GRUCell(3, 4, bias="x"), "GRUCell: bias must be a bool, got 'x'"),  # type: ignore[arg-type]
    ],
)
def test_other_layers_are_checked_at_construction(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        make()


def test_a_padding_row_counted_from_the_end() -> None:
    """As in `torch.nn.Embedding`: the row is 0, and gets no gradient."""
    table = nn.Embedding(3, 2, padding_idx=-1)
    assert table.padding_idx == 2
    assert not table.weight.numpy()[2].any()
    table([0, 1, 2, 2]).sum().backward()
    assert np.asarray(table.weight.grad).tolist() == [[1, 1], [1, 1], [0, 0]]
