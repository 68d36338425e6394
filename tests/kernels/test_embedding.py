"""embedding against the reference, and what must not change its bits."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers import LAYOUTS, SIZES, assert_close, assert_same_bits, double, nan_out, normal, place
from helpers_rows import check_bad_out

import fastattn
from fastattn import kernels, reference

TABLES = ("weight", "position_weight", "token_type_weight", "norm_weight", "norm_bias")


def arguments(
    tokens: int,
    dim: int,
    *,
    position: bool = True,
    kind: bool = True,
    norm: bool = True,
    scale: bool = True,
    seed: int = 1,
) -> dict[str, Any]:
    """Everything `embedding` takes, from small tables."""
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {
        "input_ids": rng.integers(0, 29, tokens),
        "weight": normal(rng, 29, dim),
    }
    if scale:
        given["scale"] = 5.6568542
    if position:
        given |= {"position_ids": rng.integers(0, 11, tokens), "position_weight": normal(rng, 11, dim)}
    if kind:
        given |= {"token_type_ids": rng.integers(0, 2, tokens), "token_type_weight": normal(rng, 2, dim)}
    if norm:
        given |= {"norm_weight": normal(rng, dim), "norm_bias": normal(rng, dim), "eps": 1e-3}
    return given


def in_double(given: dict[str, Any]) -> dict[str, Any]:
    return {name: double(value) if name in TABLES else value for name, value in given.items()}


def placed(given: dict[str, Any], layout: str) -> dict[str, Any]:
    return {name: value if name in ("eps", "scale") else place(value, layout) for name, value in given.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values(isa: str, threads: int, layout: str) -> None:
    for dim, tokens in product(SIZES, (1, 7)):
        given = placed(arguments(tokens, dim), layout)
        y = kernels.embedding(**given, out=nan_out(tokens, dim))
        assert_close(y, reference.embedding(**in_double(given)), dim, c=32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("position", "kind", "scale"), list(product((False, True), repeat=3)))
def test_the_sum_is_exact(isa: str, layout: str, position: bool, kind: bool, scale: bool) -> None:
    """Without LayerNorm the bits are NumPy's: (scale * word + token type) + position in float32."""
    for dim in SIZES:
        given = placed(arguments(9, dim, position=position, kind=kind, scale=scale, norm=False), layout)
        assert_same_bits(kernels.embedding(**given, out=nan_out(9, dim)), reference.embedding(**given))


def test_every_scale_counts(isa: str) -> None:
    for scale in (0.5, 1.0, 2.0):
        given = {**arguments(3, 17, norm=False), "scale": scale}
        assert_same_bits(kernels.embedding(**given), reference.embedding(**given))


def test_norm_is_layer_norm(isa: str, threads: int) -> None:
    """Fused or one after the other, the same bits."""
    for dim in SIZES:
        given = arguments(9, dim)
        bare = kernels.embedding(**arguments(9, dim, norm=False))
        apart = kernels.layer_norm(bare, given["norm_weight"], given["norm_bias"], given["eps"])
        assert_same_bits(kernels.embedding(**given), apart)
        del given["norm_bias"]
        apart = kernels.layer_norm(bare, given["norm_weight"], None, given["eps"])
        assert_same_bits(kernels.embedding(**given), apart)


def test_tokens_are_independent(isa: str, threads: int) -> None:
    given = arguments(2000, 65)
    y = kernels.embedding(**given)
    assert_close(y, reference.embedding(**in_double(given)), 65, c=32)
    for i in (0, 1, 1000, 1999):
        alone = {name: value[i : i + 1] if name.endswith("_ids") else value for name, value in given.items()}
        assert_same_bits(kernels.embedding(**alone), y[i : i + 1])
    fastattn.set_num_threads(1)
    assert_same_bits(kernels.embedding(**given), y)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan])
def test_bad_scale(scale: float) -> None:
    with pytest.raises(ValueError, match=f"^embedding: scale must be positive and finite, got {scale}$"):
        kernels.embedding(**arguments(3, 4) | {"scale": scale})


def test_nan_stays_with_its_token(isa: str) -> None:
    given = arguments(12, 33)
    clean = kernels.embedding(**given)
    word = given["input_ids"][4]
    given["weight"][word, 32] = np.nan
    y = kernels.embedding(**given)
    touched = given["input_ids"] == word
    assert np.isnan(y[touched]).all()
    assert_same_bits(y[~touched], clean[~touched])


def test_empty(isa: str, threads: int) -> None:
    assert kernels.embedding(**arguments(0, 8)).shape == (0, 8)
    assert kernels.embedding(**arguments(3, 0, norm=False)).shape == (3, 0)
    nothing = np.zeros((0, 8), np.float32)
    assert kernels.embedding(np.zeros(0, np.int64), nothing).shape == (0, 8)


def test_out(isa: str) -> None:
    given = arguments(5, 6)
    out = np.full((5, 6), np.nan, np.float32)
    assert kernels.embedding(**given, out=out) is out
    assert_same_bits(out, kernels.embedding(**given))


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "token_type_ids"])
@pytest.mark.parametrize("position", [0, 3, 8])
def test_ids_outside_their_table(name: str, position: int) -> None:
    given = arguments(9, 4)
    rows = len(given[{"input_ids": "weight"}.get(name, name.replace("ids", "weight"))])
    for value in (rows, -1, 2**40, -(2**63)):
        given[name][position] = value
        message = rf"^embedding: {name} must be in \[0, {rows}\), .*got {value} at index {position}$"
        with pytest.raises(ValueError, match=message):
            kernels.embedding(**given)


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "token_type_ids"])
def test_bad_ids(name: str) -> None:
    given = arguments(9, 4)
    with pytest.raises(TypeError, match=f"^embedding: {name} must be int64, got int32$"):
        kernels.embedding(**given | {name: given[name].astype(np.int32)})
    with pytest.raises(TypeError, match=f"^embedding: {name} must be .*, got list$"):
        kernels.embedding(**given | {name: given[name].tolist()})
    with pytest.raises(ValueError, match=f"^embedding: {name} .*contiguous"):
        kernels.embedding(**given | {name: np.zeros(18, np.int64)[::2]})
    with pytest.raises(ValueError, match=rf"^embedding: {name} must have 1 axis, got shape \(3, 3\)$"):
        kernels.embedding(**given | {name: given[name].reshape(3, 3)})
    if name != "input_ids":
        with pytest.raises(ValueError, match=rf"^embedding: {name} must have shape \(9,\), got \(8,\)$"):
            kernels.embedding(**given | {name: given[name][:8]})


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables(name: str) -> None:
    given = arguments(9, 4)
    with pytest.raises(TypeError, match=f"^embedding: {name} must be float32, got float64$"):
        kernels.embedding(**given | {name: double(given[name])})
    with pytest.raises(ValueError, match=f"^embedding: {name} .*contiguous"):
        kernels.embedding(**given | {name: np.repeat(given[name], 2, axis=-1)[..., ::2]})
    if name != "weight":
        with pytest.raises(ValueError, match=rf"^embedding: {name} must have shape .*4.*, got .*3"):
            kernels.embedding(**given | {name: np.ascontiguousarray(given[name][..., :3])})


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ("position_ids", "position_weight"),
        ("position_weight", "position_ids"),
        ("token_type_ids", "token_type_weight"),
        ("token_type_weight", "token_type_ids"),
        ("norm_bias", "norm_weight"),
    ],
)
def test_what_must_come_together(present: str, missing: str) -> None:
    for module in (kernels, reference):
        given = arguments(9, 4)
        del given[missing]
        with pytest.raises(ValueError, match=f"^embedding: (.*{present}.*{missing}|.*{missing}.*{present})"):
            module.embedding(**given)


def test_bad_out() -> None:
    given = arguments(9, 4)
    ids = given.pop("input_ids")
    check_bad_out("embedding", lambda x, out: kernels.embedding(x, **given, out=out), ids, (9, 4))
    with pytest.raises(ValueError, match=r"^embedding: out .*overlap"):
        kernels.embedding(ids, given["weight"], out=given["weight"][:9])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding_idx", [None, 0, 4])
def test_backward_values(isa: str, threads: int, layout: str, padding_idx: int | None) -> None:
    rng = np.random.default_rng(7)
    for dim, tokens in product(SIZES, (1, 70)):
        dy, ids = place(normal(rng, tokens, dim), layout), place(rng.integers(0, 7, tokens), layout)
        dweight = kernels.embedding_backward(dy, ids, 7, padding_idx=padding_idx)
        assert_close(dweight, reference.embedding_backward(double(dy), ids, 7, padding_idx=padding_idx), tokens)
        # the order of the sums is NumPy's
        assert_same_bits(dweight, reference.embedding_backward(dy, ids, 7, padding_idx=padding_idx))


def test_backward_accumulates(isa: str, threads: int) -> None:
    rng = np.random.default_rng(8)
    for tokens, dim in ((9, 33), (2000, 257)):
        dy, ids = normal(rng, tokens, dim), rng.integers(0, 29, tokens)
        dweight = place(normal(rng, 29, dim), "end")
        expected = dweight.copy()
        assert kernels.embedding_backward(dy, ids, 29, dweight=dweight) is dweight
        assert_same_bits(dweight, reference.embedding_backward(dy, ids, 29, dweight=expected))
        fastattn.set_num_threads(3)
        assert_same_bits(kernels.embedding_backward(dy, ids, 29), reference.embedding_backward(dy, ids, 29))
        fastattn.set_num_threads(threads)


def test_backward_of_padding_is_not_read(isa: str) -> None:
    dy, ids = normal(np.random.default_rng(9), 6, 33), np.array([0, 1, 2, 1, 0, 1])
    dy[ids == 1] = np.nan
    dweight = kernels.embedding_backward(dy, ids, 4, padding_idx=1)
    assert (dweight[[1, 3]] == 0).all()
    assert_same_bits(dweight[2], dy[2])


def test_backward_empty(isa: str, threads: int) -> None:
    nothing = np.zeros(0, np.int64)
    assert_same_bits(kernels.embedding_backward(np.zeros((0, 5), np.float32), nothing, 3), np.zeros((3, 5), np.float32))
    assert kernels.embedding_backward(np.zeros((3, 0), np.float32), np.zeros(3, np.int64), 3).shape == (3, 0)
    assert kernels.embedding_backward(np.zeros((0, 5), np.float32), nothing, 0).shape == (0, 5)


def test_backward_bad_input() -> None:
    dy, ids, dweight = np.zeros((9, 4), np.float32), np.arange(9) % 5, np.zeros((5, 4), np.float32)

    def refused(error: type[Exception], message: str, *given: Any, **options: Any) -> None:
        with pytest.raises(error, match=f"^embedding_backward: {message}"):
            kernels.embedding_backward(*given, **options)

    refused(TypeError, "dy must be float32, got float64$", double(dy), ids, 5)
    refused(TypeError, "dy must be .*, got list$", [[0.0]], ids, 5)
    refused(ValueError, r"dy must have 2 axes, got shape \(4,\)$", dy[0], ids, 5)
    refused(ValueError, "dy .*contiguous", np.zeros((9, 8), np.float32)[:, ::2], ids, 5)
    refused(TypeError, "input_ids must be int64, got int32$", dy, ids.astype(np.int32), 5)
    refused(ValueError, r"input_ids must have shape \(9,\), got \(8,\)$", dy, ids[:8], 5)
    refused(ValueError, "input_ids .*contiguous", dy, np.zeros(18, np.int64)[::2], 5)
    refused(ValueError, r"input_ids must be in \[0, 4\), the rows of dweight, got 4 at index 4$", dy, ids, 4)
    refused(ValueError, r"input_ids must be in \[0, 5\), .*got -1 at index 0$", dy, ids - 1, 5)
    refused(ValueError, "num_embeddings must not be negative, got -1$", dy, ids, -1)
    refused(TypeError, "num_embeddings must be an integer, got float$", dy, ids, 5.0)
    for index in (-1, 5):
        refused(ValueError, rf"padding_idx must be in \[0, 5\), .*, got {index}$", dy, ids, 5, padding_idx=index)
    refused(TypeError, "dweight must be float32, got float64$", dy, ids, 5, dweight=double(dweight))
    refused(ValueError, r"dweight must have shape \(6, 4\), got \(5, 4\)$", dy, ids, 6, dweight=dweight)
    refused(ValueError, "dweight .*contiguous", dy, ids, 5, dweight=np.zeros((5, 8), np.float32)[:, :4])
    refused(ValueError, "dweight .*read-only", dy, ids, 5, dweight=place(dweight, "read-only"))
    refused(ValueError, "dweight must not overlap dy$", dy, ids, 5, dweight=dy[:5])
