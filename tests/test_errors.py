"""Errors name the function that was called, its argument and the value."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from function_calls import functional_calls, kernel_calls

import fastattn
import fastattn.functional as F
from fastattn import kernels, reference
from fastattn.errors import named

WRONG: dict[str, Any] = {
    "None": None, "str": "text", "5": 5, "-1": -1, "1.5": 1.5, "nan": np.nan, "list": [1, "a"], "dict": {},
    "object": object(), "float64": np.zeros(7), "6 axes": np.zeros((2, 2, 2, 2, 2, 2), np.float32),
    "empty": np.zeros((0,), np.float32), "int64": np.zeros(9, np.int64), "5 x 5": np.zeros((5, 5), np.float32),
    "text": np.array(["a"]), "complex": np.zeros((4, 3), complex), "tuple": (), "bytes": b"a",
}  # fmt: skip
"""Values that are right for few arguments."""

KIND = ("None", "str", "object", "dict")
"""Those that are of another kind than almost every argument; an error about one of them names it."""

PARTS = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "bias", "weight_hr"}
"""Names of what is in `weights`."""

RELATED = {"query", "query_key_value", "q", "input"}
"""An attention without `cu_seqlens` takes this for padded, and a normalized_shape is compared with this."""

MAY_BE_EMPTY = {"tensors", "weights", "normalized_shape"}
"""A dict is an iterable without entries."""

IN_NUMPYS_WORDS = {"cat", "stack", "scatter_rows", "binary_cross_entropy_with_logits"}
"""Functions that leave shapes and axes to NumPy, which does not know their arguments."""

FUNCTIONAL, KERNELS = functional_calls(), kernel_calls()
PACKAGE = Path(fastattn.__file__).parent
CALLS = [
    *((F, name, argument, given) for name, given in FUNCTIONAL.items() for argument in given),
    *((kernels, name, argument, given) for name, given in KERNELS.items() for argument in given),
]


def test_every_public_function_is_called() -> None:
    assert set(FUNCTIONAL) == set(F.__all__)
    assert set(KERNELS) == set(kernels.__all__) - {"PackedMatrix"} == set(reference.__all__)
    for module, calls in ((F, FUNCTIONAL), (kernels, KERNELS), (reference, KERNELS)):
        for name, given in calls.items():
            if not (module is reference and "reserve" in given):  # it has a reserve of its own
                getattr(module, name)(**given)


def error_of(function: Any, given: dict[str, Any]) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**given)
        except Exception as error:
            return error
    return None


@pytest.mark.parametrize(
    ("module", "name", "argument", "given"), CALLS, ids=[f"{m.__name__[9:]}-{n}-{a}" for m, n, a, _ in CALLS]
)
def test_an_error_names_the_function_and_the_argument(module: Any, name: str, argument: str, given: Any) -> None:
    for kind, wrong in WRONG.items():
        error = error_of(getattr(module, name), {**given, argument: wrong})
        if error is None:
            continue
        assert isinstance(error, TypeError | ValueError | IndexError), (kind, error)
        begin, _, rest = str(error).partition(": ")
        assert begin == name, (kind, error)
        words = set(re.findall(r"[a-z]\w+|[a-z]\b", rest))
        known = {*given, *(PARTS if argument == "weights" else ())}
        if name in IN_NUMPYS_WORDS or (name, argument) == ("layer_norm", "normalized_shape"):
            continue
        assert words & known, (kind, error)
        if kind in KIND and not (isinstance(wrong, dict) and argument in MAY_BE_EMPTY):
            assert argument in words or words & known & (RELATED | PARTS), (kind, error)


@pytest.mark.parametrize("name", KERNELS)
def test_a_reference_names_no_other_function(name: str) -> None:
    given = KERNELS[name]
    for argument in given:
        for wrong in WRONG.values():
            error = error_of(getattr(reference, name), {**given, argument: wrong})
            begin, colon, _ = str(error).partition(": ")
            assert not colon or begin == name or begin not in KERNELS, error


def test_a_cell_names_itself() -> None:
    x, w = np.zeros((2, 3), np.float32), np.zeros((12, 3), np.float32)
    for call, message in (
        (lambda: F.lstm_cell(x, None, w[:5], w), r"^lstm_cell: weight_ih must have shape"),
        (lambda: F.lstm_cell(x, (x[:1], None), w, w), r"^lstm_cell: h_0 of hx must have shape \(1, 2, 3\)"),
        (lambda: F.lstm_cell(x.astype(float), None, w, w), "^lstm_cell: input must be float32, got float64"),
        (lambda: F.gru_cell(x, x[:1], w[:9], w[:9]), r"^gru_cell: hx must have shape \(1, 2, 3\), got \(1, 1, 3\)"),
        (lambda: kernels.lstm_cell(x, None, x, w, w), "^lstm_cell: h must be an array, got NoneType"),
        (lambda: kernels.lstm_cell(x, x[:1], x, w, w), r"^lstm_cell: h\[None\] must have shape \(1, 2, 3\)"),
        (lambda: F.relu(np.zeros(3)), "^relu: input must be float32"),
        (lambda: F.gather_rows(x, np.zeros(2)), "^gather_rows: rows must be int64"),
        (
            lambda: F.qkv_attention(np.zeros((2, 3, 1, 4)), np.array([0, 2], np.int32)),
            "^qkv_attention: query_key_value",
        ),
        (lambda: F.linear(x, None), "^linear: weight must be "),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_what_is_no_argument_stays_pythons() -> None:
    with pytest.raises(TypeError, match=r"^linear\(\) missing 1 required positional argument: 'weight'"):
        F.linear(np.zeros((2, 3), np.float32))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^linear\(\) got an unexpected keyword argument 'bia'"):
        F.linear(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32), bia=None)  # type: ignore[call-arg]


def test_values_in_quotes_are_not_renamed() -> None:
    @named("other", x="input")
    def function(input: Any) -> None:
        raise ValueError(f"other: x and box must not be {input!r}")

    with pytest.raises(ValueError, match=r"^function: input and box must not be 'x'$"):
        function("x")


def test_errors_of_the_system_pass() -> None:
    error = OSError(2, "No such file")

    @named()
    def function() -> None:
        raise error

    with pytest.raises(OSError, match="No such file") as caught:
        function()
    assert caught.value is error


WITHOUT_A_VALUE = (  # what a message says instead of what it got
    "{} must have a position in [0, {}), the sequence: all {} lie beyond it",
    "{} must have something other than {}, the label that is ignored",
    "{vocabulary} must be bpe, characters, or one SentencePiece model or two",
    "must be among the words of a vocabulary",
    "the first tokens must be {}",
    "tensor {} has {} at {}; weights must be finite",
    "a row must have {} columns with tabs between them, {}",
)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_messages_say_what_they_got(path: Path) -> None:
    """`x must be a number` does not help whoever believes that it is one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = message(node.exc) if isinstance(node, ast.Raise) and node.exc is not None else ""
        if re.search(r"must (be|have|hold)\b(?! (given|None))", text):
            assert "got" in text or any(known in text for known in WITHOUT_A_VALUE), f"{path}:{node.lineno}: {text}"


def message(error: ast.expr) -> str:
    """The text of an exception, with {} for values."""
    parts = []
    for node in ast.walk(error):
        if isinstance(node, ast.JoinedStr):
            parts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts.append(node.value)
    return " ".join(parts)
