"""What the border of C++ refuses, whatever another object says, and what it bears: for all kernels alike."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, normal
from helpers_attention import ragged
from numpy.lib.stride_tricks import as_strided

import fastattn
from fastattn import _core, kernels
from fastattn.kernels import PackedMatrix

ONE = np.float32(1)


def run(script: str, timeout: float = 60, **environment: str) -> None:
    """In a process of its own: what goes wrong would kill this one, or never end."""
    prelude = """
    import threading
    import numpy as np
    from fastattn import _core, kernels
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(script)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment)
    assert done.returncode == 0, f"returned {done.returncode}: {done.stderr}"


# Switches and texts


def calls() -> dict[str, dict[str, Any]]:
    """Valid arguments of every function that has a switch."""
    rng = np.random.default_rng(1)
    x, square, wide, rows = normal(rng, 4, 6), normal(rng, 6, 6), normal(rng, 12, 6), normal(rng, 4)
    q = {name: normal(rng, 1, 2, 3, 4) for name in "qkv"}
    out, lse = kernels.scaled_dot_product_attention(**q, return_softmax_lse=True)
    word: dict[str, Any] = {
        "char_ids": np.zeros((4, 5), np.int64),
        "embedding": normal(rng, 3, 2),
        "weights": [normal(rng, 6, 3, 2)],
        "biases": [normal(rng, 6)],
    }
    y, argmax = kernels.char_cnn(**word, return_argmax=True)
    given: dict[str, dict[str, Any]] = {
        "adamw": {name: normal(rng, 3) ** 2 for name in ("param", "grad", "exp_avg", "exp_avg_sq")}
        | {"step": 1, "lr": 0.1},
        "sgd": {name: normal(rng, 3) for name in ("param", "grad", "momentum_buffer")} | {"lr": 0.1},
        "scaled_dot_product_attention": q,
        "scaled_dot_product_attention_backward": {"dout": out, **q, "out": out, "softmax_lse": lse},
        "layer_norm": {"x": x},
        "layer_norm_backward": {"dy": x, "x": x, "weight": x[0], "mean": rows, "rstd": rows},
        "linear": {"x": x, "weight": square},
        "linear_backward": {"dy": x, "x": x, "weight": square},
        "highway": {"x": x, "weight": wide, "bias": wide[:, 0].copy()},
        "highway_backward": {"dy": x, "x": x, "weight": wide, "projection": normal(rng, 4, 12)},
        "char_cnn": word,
        "char_cnn_backward": {"dy": y, **word, "y": y, "argmax": argmax},
    }
    for kind, gates in (("lstm", 4), ("gru", 3)):
        layer: dict[str, Any] = {
            "x": x,
            "cu_seqlens": np.array([0, 4], np.int32),
            "weights": [(normal(rng, gates * 6, 6), normal(rng, gates * 6, 6), None, None)],
        }
        *states, reserve = getattr(kernels, kind)(**layer, return_reserve=True)
        none = dict.fromkeys(("dout", "dh_n", "dc_n")[: len(states)])
        given |= {kind: layer, f"{kind}_backward": none | layer | {"reserve": reserve}}
    return given


CALLS = calls()
SWITCHES = [
    (name, parameter)
    for name in CALLS
    for parameter, about in inspect.signature(getattr(kernels, name)).parameters.items()
    if isinstance(about.default, bool)
]


def test_the_switches_are_found() -> None:
    assert {name for name, _ in SWITCHES} == set(CALLS)
    assert len(SWITCHES) >= 28


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_a_switch_is_true_or_false(name: str, switch: str) -> None:
    function = getattr(kernels, name)
    for wrong, called in (("yes", "str"), (2, "int"), (None, "NoneType"), (np.array([True]), "ndarray")):
        with pytest.raises(TypeError, match=f"^{name}: {switch} must be True or False, got {called}$"):
            function(**CALLS[name], **{switch: wrong})
    for value in (np.False_, np.True_, False, True):
        function(**CALLS[name], **{switch: value})


TEXTS = [
    ("gelu", "approximate", {"x": np.ones((2, 3), np.float32)}),
    ("activation", "function", {"x": np.ones((2, 3), np.float32)}),
    ("linear", "activation", CALLS["linear"]),
    ("gated_activation", "activation", {"x": np.ones((2, 4), np.float32)}),
    ("pooling", "mode", {"x": np.ones((2, 3), np.float32), "cu_seqlens": np.array([0, 2], np.int32)}),
    ("char_cnn", "activation", CALLS["char_cnn"]),
    ("scaled_dot_product_attention", "causal_alignment", CALLS["scaled_dot_product_attention"]),
]


@pytest.mark.parametrize(("name", "argument", "given"), TEXTS, ids=[name for name, *_ in TEXTS])
def test_a_text_that_utf8_cannot_write(name: str, argument: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: {argument} must be one of .*, got 'a\\udcff'$"):
        getattr(kernels, name)(**given, **{argument: "a\udcff"})
    with pytest.raises(TypeError, match=f"^{name}: {argument} must be a string, got int$"):
        getattr(kernels, name)(**given, **{argument: 5})


def test_an_instruction_set_that_utf8_cannot_write() -> None:
    with pytest.raises(ValueError, match=r"^use_isa: name must be one of .*, got '\\udcff'$"):
        fastattn.use_isa("\udcff")


def test_numbers_of_any_size() -> None:
    """Python refuses to write an integer of more than 4300 digits, and a float has no room for 400."""
    x, target = np.ones((2, 3), np.float32), np.zeros(2, np.int64)
    for digits in (400, 5000):
        huge = 10**digits
        with pytest.raises(ValueError, match=r"^cross_entropy: ignore_index must fit into 64 bits, got .{1,220}$"):
            kernels.cross_entropy(x, target, ignore_index=huge)
        with pytest.raises(ValueError, match=r"^l2_normalize: eps must be finite and not negative, got .{1,220}$"):
            kernels.l2_normalize(x, eps=huge)
        with pytest.raises(ValueError, match=r"^dropout: seed must be in \[0, 2\^64\), got .{1,220}$"):
            kernels.dropout(x, 0.5, huge)
        with pytest.raises(ValueError, match=r"^dropout: p must be in \[0, 1\), got .{1,220}$"):
            kernels.dropout(x, huge, 1)


# Subclasses


def test_masked_arrays_are_refused() -> None:
    plain = np.ones((4, 6), np.float32)
    masked = np.ma.masked_array(plain.copy(), plain > 0)
    ids = np.ma.masked_array(np.zeros(4, np.int64), True)
    q = np.ones((1, 1, 4, 6), np.float32)
    for call in (
        lambda: kernels.gelu(masked),
        lambda: kernels.gelu(plain, out=masked),
        lambda: kernels.linear(plain, masked),
        lambda: PackedMatrix(masked),
        lambda: kernels.embedding(ids, plain),
        lambda: kernels.cross_entropy(plain, ids),
        lambda: kernels.gradient_norm([plain, masked]),
        lambda: kernels.scaled_dot_product_attention(
            q, q, q, attn_mask=np.ma.masked_array(np.ones((4, 4), bool), True)
        ),
    ):
        with pytest.raises(TypeError, match=r"^\w+: [\w\[\]]+ must be a plain array, got a MaskedArray$"):
            call()


def test_a_file_in_memory_is_an_array(tmp_path: Path) -> None:
    x = normal(np.random.default_rng(1), 4, 6)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
    mapped[...] = x
    assert_same_bits(kernels.gelu(mapped), kernels.gelu(x))


# Objects without their contents


def test_a_packed_matrix_that_nobody_has_made() -> None:
    empty = PackedMatrix.__new__(PackedMatrix)
    x = np.ones((2, 3), np.float32)
    for call in (
        lambda: empty.shape,
        lambda: empty.groups,
        lambda: empty.nbytes,
        lambda: empty.unpack(),
        lambda: repr(empty),
        lambda: kernels.linear(x, empty),
        lambda: kernels.lstm(x, np.array([0, 2], np.int32), [(empty, empty, None, None)]),
    ):
        with pytest.raises(TypeError, match=r"PackedMatrix was made without its __init__$"):
            call()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_reserve_that_nobody_has_made(kind: str) -> None:
    given = CALLS[f"{kind}_backward"] | {"reserve": _core.RecurrentReserve.__new__(_core.RecurrentReserve)}
    with pytest.raises(TypeError, match=r"RecurrentReserve was made without its __init__$"):
        getattr(kernels, f"{kind}_backward")(**given)


# Bool masks


def test_any_byte_but_0_is_true(isa: str) -> None:
    rng = np.random.default_rng(1)
    q = normal(rng, 1, 2, 300, 8)
    mask = rng.integers(0, 2, (300, 300)).astype(bool)
    for byte in (2, 3, 128, 254, 255):
        noisy = np.where(mask, byte, 0).astype(np.uint8).view(np.bool_)
        results = []
        for given in (mask, noisy, noisy.T.copy().T):
            out, lse, weights = kernels.scaled_dot_product_attention(
                q, q, q, attn_mask=given, return_softmax_lse=True, return_attn_weights=True
            )
            gradients = kernels.scaled_dot_product_attention_backward(out, q, q, q, out, lse, attn_mask=given)
            results.append((out, lse, weights, *gradients))
        for expected, *others in zip(*results, strict=True):
            for actual in others:
                assert_same_bits(actual, expected)


# Gradients in one another's memory


def backward_of_attention(**gradients: Any) -> Any:
    given = ragged((5, 4), None, 2, 8)
    out, lse = kernels.scaled_dot_product_attention(**given, return_softmax_lse=True)
    return kernels.scaled_dot_product_attention_backward(out, out=out, softmax_lse=lse, **given, **gradients)


@pytest.mark.parametrize(("a", "b"), [("dq", "dk"), ("dq", "dv"), ("dk", "dv")])
def test_gradients_that_overlap_partly(a: str, b: str) -> None:
    memory = np.zeros((20, 2, 8), np.float32)
    for shift in (0, 1, 8):
        with pytest.raises(ValueError, match=f"^scaled_dot_product_attention_backward: {b} must not overlap {a}$"):
            backward_of_attention(**{a: memory[:9], b: memory[shift : 9 + shift]})
    wide = np.zeros((9, 2, 20), np.float32)
    with pytest.raises(ValueError, match=f"{b} must not overlap {a}$"):
        backward_of_attention(**{a: wide[..., :8], b: wide[..., 7:15]})
    backward_of_attention(**{a: wide[..., :8], b: wide[..., 8:16]})


def test_gradients_that_overlap_themselves() -> None:
    memory = np.zeros(1000, np.float32)
    for strides in ((0, 32, 4), (32, 32, 4), (60, 32, 4)):
        with pytest.raises(ValueError, match=r"dk must not overlap itself$"):
            backward_of_attention(dk=as_strided(memory, (9, 2, 8), strides))


def test_gradients_that_interleave() -> None:
    fused = np.full((9, 3, 2, 8), np.nan, np.float32)
    views = dict(zip(("dq", "dk", "dv"), fused.swapaxes(0, 1), strict=True))
    for view, expected in zip(backward_of_attention(**views), backward_of_attention(), strict=True):
        assert_same_bits(view, expected)
    assert np.isfinite(fused).all()


# Sizes


@pytest.mark.parametrize("keep", ["", "_core.keep_memory()"])
def test_results_too_large_for_any_memory(keep: str) -> None:
    """From 2^63 bytes on their size has no room in 64 bits."""
    run(
        f"""
        {keep}
        one = np.float32(1)
        for rows, columns in ((2**31, 2**30), (2**31, 2**31), (2**40, 2**40), (2**30, 2**25)):
            try:
                kernels.linear(np.broadcast_to(one, (rows, 1)), np.broadcast_to(one, (columns, 1)))
            except MemoryError:
                continue
            raise AssertionError((rows, columns))
        """
    )


def test_more_elements_than_there_can_be() -> None:
    """Views that repeat one element: sizes made of theirs must not overflow."""
    run(
        """
        one = np.float32(1)
        for call in (
            lambda: kernels.PackedMatrix(np.broadcast_to(one, (2**60, 1)), groups=2**60),
            lambda: kernels.PackedMatrix(np.broadcast_to(one, (2**57, 1)), groups=2**57),
            lambda: kernels.layer_norm(np.broadcast_to(one, (2**45, 1))),
            lambda: kernels.gradient_norm([np.broadcast_to(one, (2**45, 1))]),
        ):
            try:
                call()
            except ValueError as error:
                assert " must have at most 17592186044416 elements, got shape (" in str(error), error
                continue
            raise AssertionError
        """
    )


EMPTY = {
    "softmax": "kernels.softmax(x)",
    "layer_norm": "kernels.layer_norm(x)",
    "dropout": "kernels.dropout(x, 0.5, 1)",
    "l2_normalize": "kernels.l2_normalize(x)",
    "linear": "kernels.linear(x, np.empty((0, 0), np.float32))",
    "columns of linear": "kernels.linear(np.broadcast_to(np.float32(1), (2**36, 1)), np.empty((0, 1), np.float32))",
    "PackedMatrix": "kernels.PackedMatrix(x)",
    "unpack": "kernels.PackedMatrix(x[: 2**31 - 1], groups=2**31 - 1).unpack()",
    "char_cnn": "kernels.char_cnn(np.empty((2**36, 0), np.int64), np.ones((1, 1), np.float32), [], [])",
    "attention": "kernels.scaled_dot_product_attention(*[np.empty((2**36, 0, 1, 8), np.float32)] * 3)",
}


@pytest.mark.parametrize("call", EMPTY.values(), ids=EMPTY.keys())
def test_rows_without_elements_are_not_counted_for_ever(call: str) -> None:
    run(
        f"""
        x = np.empty((2**36, 0), np.float32)
        try:
            {call}
        except ValueError as error:
            assert " must have at most 2147483647 rows without elements, got shape (68719476736, 0" in str(error), error
        else:
            assert "unpack" in {call!r}
        """,
        timeout=10,
    )


# Memory that is not there

SHORT_OF_MEMORY = """
import resource
import fastattn
fastattn.set_num_threads(1)
rng = np.random.default_rng(1)
normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)

def linear():
    x, weight = normal(300, 700), normal(200, 700)
    dy, sums = normal(300, 200), [normal(200, 700), normal(200)]
    return sums, lambda: kernels.linear_backward(dy, x, weight, dweight=sums[0], dbias=sums[1])

def char_cnn():
    chars, embedding, weights, biases = rng.integers(0, 9, (64, 50)), normal(9, 64), [normal(64, 3, 64)], [normal(64)]
    y, argmax = kernels.char_cnn(chars, embedding, weights, biases, return_argmax=True)
    sums = [normal(9, 64), normal(64, 3, 64), normal(64)]
    return sums, lambda: kernels.char_cnn_backward(
        y, chars, embedding, weights, biases, y, argmax, dembedding=sums[0], dweights=sums[1:2], dbiases=sums[2:]
    )

def layer_norm():
    x, weight = normal(4, 90000), normal(90000)
    _, mean, rstd = kernels.layer_norm(x, weight, weight, return_stats=True)
    sums = [normal(90000), normal(90000)]
    return sums, lambda: kernels.layer_norm_backward(
        x, x, weight, mean, rstd, need_dx=False, dweight=sums[0], dbias=sums[1]
    )

def recurrent(kind, gates):
    x, cu_seqlens = normal(300, 600), np.array([0, 100, 300], np.int32)
    weights = [(normal(gates * 32, 600), normal(gates * 32, 32), normal(gates * 32), None) for _ in range(2)]
    call, backward = getattr(kernels, kind), getattr(kernels, kind + "_backward")
    out, *states, reserve = call(x, cu_seqlens, weights, reverse=(False, True), return_reserve=True)
    given = [tuple(normal(*w.shape) if w is not None else None for w in each) for each in weights]
    none = (None,) * len(states)
    return [w for each in given for w in each if w is not None], lambda: backward(
        out, *none, x, cu_seqlens, weights, reserve, reverse=(False, True), dweights=given
    )

sums, call = CASE
before = [array.copy() for array in sums]
refused = 0

def attempt(more):
    global refused
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, -1))
    try:
        call()
        return True
    except MemoryError:
        refused += 1
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

one = np.ones((1, 1), np.float32)

def grow():  # in a thread of its own, whose scratch is new, but for a first float
    kernels.layer_norm_backward(one, one, None, one[0], one[0])
    done.append(attempt(more))

for more in range(0, 40 << 20, 100 << 10):
    done = []
    thread = threading.Thread(target=grow)
    thread.start()
    thread.join()
    if done[0]:
        break
    for array, old in zip(sums, before):
        assert np.array_equal(array, old), f"added to, with {more} bytes, {array.shape}"
assert done[0] and refused > 0, refused
assert not any(np.array_equal(array, old) for array, old in zip(sums, before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory that counts")
@pytest.mark.parametrize(
    "case", ["linear()", "char_cnn()", "layer_norm()", "recurrent('lstm', 4)", "recurrent('gru', 3)"]
)
def test_a_call_without_memory_has_added_to_nothing(case: str) -> None:
    # No heap in reserve: what is larger than a page or so is asked of the system.
    run(SHORT_OF_MEMORY.replace("CASE", case), MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="8192")
