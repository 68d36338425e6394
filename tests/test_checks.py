"""Numbers, switches, text and arrays from users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastattn import Tensor, checks


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.int64(3)])
def test_integers_become_pythons(value: Any) -> None:
    assert type(checks.integer("n", value)) is int
    assert checks.integer("n", value) == 3


@pytest.mark.parametrize("value", [1.0, "1", None, True, np.True_, np.float32(1)])
def test_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n must be a positive integer, got "):
        checks.integer("n", value)
    with pytest.raises(ValueError, match=r"^n must be an integer of at least 0, got "):
        checks.config_integer("n", value, 0)


def test_an_array_without_axes_is_no_sequence() -> None:
    with pytest.raises(TypeError, match=r"^words must be a sequence of str, got ndarray$"):
        checks.sequence("words", np.array("a"))


def test_integers_out_of_range() -> None:
    assert checks.integer("n", 2**63) == 2**63
    for value, limits in ((0, ()), (-1, (0,)), (5, (1, 5))):
        with pytest.raises(ValueError, match=f"^n must be .*, got {value}$"):
            checks.integer("n", value, *limits)
    with pytest.raises(ValueError, match=r"^n must be an even one, got 7$"):
        checks.integer("n", 7, 0, 7, "an even one")
    with pytest.raises(ValueError, match=f"^n must be below {2**31}, got {2**31}$"):
        checks.config_integer("n", 2**31)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.float64(0.5), np.int32(0)])
def test_numbers_become_pythons(value: Any) -> None:
    assert type(checks.number("p", value, **checks.PROBABILITY)) is float


@pytest.mark.parametrize(
    ("limits", "good", "bad", "wanted"),
    [
        ({}, [0, 1e300], [-1e-9, np.inf], "of at least 0"),
        (checks.POSITIVE, [1e-300], [0.0, np.inf], "above 0"),
        (checks.PROBABILITY, [0.0, 0.999], [1.0, -0.1], r"in \[0, 1\)"),
        (checks.FRACTION, [0, 1], [1.001, -0.1], r"in \[0, 1\]"),
        ({"high": 1.0, "above": True}, [0.5], [0.0, 1.0], r"in \(0, 1\)"),
    ],
)
def test_limits_of_numbers(limits: dict[str, Any], good: list[float], bad: list[float], wanted: str) -> None:
    for value in good:
        assert checks.number("p", value, **limits) == value
    for value in (*bad, np.nan):
        with pytest.raises(ValueError, match=f"^p must be a number {wanted}, got "):
            checks.number("p", value, **limits)
    for value in ("0.5", None, True):
        with pytest.raises(TypeError, match=f"^p must be a number {wanted}, got "):
            checks.number("p", value, **limits)
        with pytest.raises(ValueError, match=r"^p must be a number"):
            checks.config_number("p", value, **limits)


def test_switches_and_names() -> None:
    assert checks.boolean("b", np.True_) is True
    with pytest.raises(ValueError, match=r"^b must be a bool, got 1$"):
        checks.boolean("b", 1)
    assert checks.choice("c", "x", ("x", "y")) == "x"
    for value in ("z", ["x"], None):
        with pytest.raises(ValueError, match=r"^c must be one of x, y, got "):
            checks.choice("c", value, ("x", "y"))


def test_text() -> None:
    assert checks.texts("t", iter(["a", "é", "\U0001f600"])) == ["a", "é", "\U0001f600"]
    with pytest.raises(TypeError, match=r"^t\[6\] must be str, got bytes$"):
        checks.texts("t", ["a", b"b"], first=5)
    with pytest.raises(ValueError, match=r"^t\[1\] is not valid Unicode: '\\udcff' at position 1$"):
        checks.texts("t", ["a", "é\udcff"])
    for value, got in (("abc", "the str 'abc'"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"^t must be a sequence of words, got {got}$"):
            checks.texts("t", value, "words")


HOSTILE = [
    "\x1b[31m" * 10**6,
    ["\x1b]0;title\x07"] * 10**5,
    {"\x1b[2J" * 1000: ["x" * 1000] * 1000},
    10**10000,
    [[[[[[[[["deep"] * 100] * 100] * 100]]]]]],
]


@pytest.mark.parametrize("value", HOSTILE, ids=["str", "list", "dict", "int", "nested"])
def test_messages_show_a_part_of_a_value_and_no_commands(value: Any) -> None:
    text = checks.shown(value)
    assert len(text) <= checks.SHOWN
    assert text.isprintable()
    for check in (checks.config_integer, checks.config_number, checks.boolean, checks.choice):
        with pytest.raises(ValueError, match=r"^n must be .*") as error:
            check("n", value, **({"known": ("a", "b")} if check is checks.choice else {}))
        assert len(str(error.value)) < 300
        assert str(error.value).isprintable()


def test_short_values_are_shown_as_they_are() -> None:
    for value in ("a\n", 1, -0.5, None, True, ["a", 1], {"a": [1, 2]}, (1,), {1}, b"x", np.float32(1)):
        assert checks.shown(value) == repr(value)


def test_lists_in_messages() -> None:
    assert checks.listed([]) == ""
    assert checks.listed(["a", "b"]) == "a, b"
    assert checks.listed({"a\x1b": 1, "b": 2}, "; ", most=1) == r"a\x1b and 1 more"
    assert checks.listed(range(800_000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 799990 more"


def test_printable_text() -> None:
    assert checks.printable("naïve 猫 'a'\n") == "naïve 猫 'a'\n"
    assert checks.printable("a\x1b[31m\t\u202e\x9b") == r"a\x1b[31m\t\u202e\x9b"
    assert checks.printable("a" * 20, 5) == "aaaaa..."


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["above", "below"])
def test_an_int_beyond_all_floats(value: int) -> None:
    with pytest.raises(ValueError, match=r"^n must be a number in \[0, 1\), got an int of 1329 bits$"):
        checks.number("n", value, **checks.PROBABILITY)
    with pytest.raises(ValueError, match=r"^n must be a number .*, got an int of 1329 bits$"):
        checks.number("n", value)


def test_integers() -> None:
    for values in ([[3, 4]], np.array([[3, 4]], np.uint8), np.array([[3], [4]]).T):
        found = checks.integers("ids", values, (1, 2))
        assert (found.dtype, found.flags.c_contiguous, found.tolist()) == (np.int64, True, [[3, 4]])
    assert checks.integers("ids", 7).shape == ()
    ids = np.arange(3)
    assert checks.integers("ids", ids) is ids
    for wrong, got in (([0.5], "float64"), ([True], "bool"), (None, "NoneType"), ([None], "list"), ("ab", "<U2")):
        with pytest.raises(TypeError, match=f"^ids must be an integer array, got {got}$"):
            checks.integers("ids", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^ids must be an integer array, got rows of different lengths$"):
        checks.integers("ids", [[1, 2], [3]])
    with pytest.raises(ValueError, match=r"^ids must have shape \(3,\), got \(2,\)$"):
        checks.integers("ids", [1, 2], (3,))
    with pytest.raises(ValueError, match=rf"^ids must be below 2\*\*63, got {2**64 - 100}$"):
        checks.integers("ids", np.array([2**64 - 100], np.uint64))


def test_operands() -> None:
    array, tensor = np.ones(2, np.float32), Tensor([1.0])
    assert checks.operand("x", array) is array
    assert checks.operand("x", tensor) is tensor
    for wrong, got in (([1.0], "list"), (1.0, "float"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"^x must be an array or a Tensor, got {got}$"):
            checks.operand("x", wrong)


@pytest.mark.parametrize("values", [{"a", "b"}, frozenset("a"), {"a": 1}])
def test_what_has_no_order_is_no_sequence(values: Any) -> None:
    with pytest.raises(TypeError, match=f"^words must be a sequence of str, got {type(values).__name__}$"):
        checks.sequence("words", values)
    assert list(checks.sequence("words", {"a": 1}.keys())) == ["a"]
