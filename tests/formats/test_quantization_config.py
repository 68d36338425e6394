"""What a config.json says of weights of fewer bits, and matrices of int8 and bfloat16 in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fastattn.formats import quantization
from fastattn.formats.hugging_face import read_state_dict, write_checkpoint
from fastattn.kernels import PackedMatrix

INT8 = {"quant_method": "fastattn", "weights": "int8", "version": 1}


def numbers(rows: int, seed: int, **options: Any) -> dict[str, Any]:
    weight = np.random.default_rng(seed).standard_normal((rows, 6)).astype(np.float32)
    return PackedMatrix(weight, **options).numbers()


def named(name: str, found: dict[str, Any]) -> dict[str, Any]:
    return {name if part == "weight" else f"{name}_{part}": array for part, array in found.items()}


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_the_field_is_read_as_it_is_written(weights):
    assert quantization.read(quantization.written(weights), "config.json") == weights


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({**INT8, "version": 2}, "version is 2; this fastattn reads version 1"),
        ({**INT8, "version": True}, "version is True; this fastattn reads version 1"),
        ({"quant_method": "fastattn", "weights": "int8"}, "version is None; this fastattn reads version 1"),
        ({**INT8, "quant_method": "gptq"}, "quant_method is 'gptq'; only 'fastattn' is read"),
        ({**INT8, "weights": "int4"}, "weights must be one of bfloat16, int8, got 'int4'"),
        ({**INT8, "weights": ["int8"]}, r"weights must be one of bfloat16, int8, got \['int8'\]"),
        ("int8", "must be an object, got 'int8'"),
    ],
)
def test_other_fields_are_refused(field, message):
    with pytest.raises(ValueError, match=f"^config.json: quantization_config:? {message}$"):
        quantization.read({"quantization_config": field}, "config.json")


def test_what_the_weights_become():
    for stored in ("float32", "bfloat16", "int8"):
        assert quantization.chosen(stored, None, False, "c") == stored
    assert quantization.chosen("bfloat16", None, True, "c") == "float32"
    assert quantization.chosen("bfloat16", "int8", None, "c") == "int8"
    for weights, trainable, message in (
        ("float32", None, "c: the weights are int8, and cannot become float32"),
        (None, True, "c: the weights are int8, which cannot be trained; load the model in float32"),
    ):
        with pytest.raises(ValueError, match=message):
            quantization.chosen("int8", weights, trainable, "c")
    with pytest.raises(ValueError, match="c: weights 'int8' cannot be trained; trainable must not be True with them"):
        quantization.chosen("float32", "int8", True, "c")


def test_matrices_keep_their_bits(tmp_path):
    scales = np.array([1, 2, 0.5, 1, 1, 3], np.float32)
    parts = [numbers(rows, rows, dtype="int8", input_scales=scales) for rows in (4, 7)]
    halves = numbers(5, 0, dtype="bfloat16")
    tensors = {**named("a", parts[0]), **named("b", parts[1]), "c": halves["weight"], "d": np.ones(3, np.float32)}
    write_checkpoint(tmp_path, {}, tensors)
    with read_state_dict(tmp_path).renamed({"a": "x", "b": "b", "c": "c", "d": "d"}.get) as found:
        assert sorted(found) == ["b", "c", "d", "x"]
        assert (found.dtype("x"), found.dtype("c"), found.dtype("d")) == ("I8", "BF16", "F32")
        both: Any = found.matrix(["x", "b"], "int8")
        for part, array in both.numbers().items():
            expected = scales if part == "input_scales" else np.concatenate([each[part] for each in parts])
            np.testing.assert_array_equal(array, expected)
        rounded: Any = found.matrix(["c"], "bfloat16")
        np.testing.assert_array_equal(rounded.numbers()["weight"], halves["weight"])
        np.testing.assert_array_equal(found["c"], rounded.unpack())
        assert found.matrix(["c"], "int8") is found.matrix(["x"], "bfloat16") is None
        with pytest.raises(ValueError, match="'a' has dtype I8; F32, F16, BF16 are read as float32"):
            found["x"]


def _without(name: str) -> Any:
    return lambda tensors: tensors.pop(name)


def _with(name: str, place: Any, value: Any) -> Any:
    return lambda tensors: tensors[name].__setitem__(place, value)


def _as(name: str, shape: Any, **others: Any) -> Any:
    return lambda tensors: tensors.update({n: np.ones(s, np.float32) for n, s in {name: shape, **others}.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("b_scales"), "tensor 'b_scales' is missing"),
        (_without("b_input_scales"), "tensor 'a_input_scales' differs from those of the tensors beside it"),
        (_with("b_input_scales", 0, 9), "tensor 'a_input_scales' differs from those of the tensors beside it"),
        (_with("b_scales", 1, np.nan), "tensor 'b_scales' has nan at (1,); weights must be finite"),
        (_with("a_scales", 1, -1), "tensor 'a': scales must be finite and not negative, got -1.000000 at 1"),
        (_with("a", 2, 127), "tensor 'a': the absolute integers of columns"),
        (_as("a_scales", 3), "tensor 'a_scales' must have shape (4,), got (3,)"),
        (_as("a_scales", 5, b_scales=6), "tensor 'a_scales' must have shape (4,), got (5,)"),  # 11 in all
        (_as("b_scales", ()), "tensor 'b_scales' must have shape (7,), got ()"),
        (_as("b_input_scales", (6, 1)), "tensor 'b_input_scales' must have shape (6,), got (6, 1)"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    scales = np.ones(6, np.float32)
    tensors = {}
    for name, rows in (("a", 4), ("b", 7)):
        tensors |= named(name, numbers(rows, rows, dtype="int8", input_scales=scales.copy()))
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as found, pytest.raises(ValueError, match=r"model\.safetensors") as error:
        found.matrix(["a", "b"], "int8")
    assert message in str(error.value)


def test_a_written_file_is_one_of_safetensors(tmp_path):
    from safetensors import safe_open

    tensors = {
        "n": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "odd": np.arange(-2, 1, dtype=np.int8),
        "half": np.array([0x3F80], np.uint16),
        "strided": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    write_checkpoint(tmp_path, {}, tensors)
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert {name: file.get_slice(name).get_dtype() for name in file.keys()} == {  # noqa: SIM118  # no mapping
            "n": "F32", "empty": "F32", "odd": "I8", "half": "BF16", "strided": "F32",
        }  # fmt: skip
        for name in ("n", "empty", "odd", "strided"):
            np.testing.assert_array_equal(file.get_tensor(name), tensors[name])
