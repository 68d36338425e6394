"""CTranslate2's model.bin."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits
from helpers_foreign import ctranslate2_binary, text, variable

from fastattn.formats.ctranslate2_model import read_model

X = np.arange(6, dtype=np.float32).reshape(2, 3)
WHOLE = ctranslate2_binary({"a/weight": X})


def one(data: bytes, count: int = 1, more: bytes = bytes(4)) -> bytes:
    """A file of one variable."""
    return struct.pack("<I", 6) + text("Spec") + struct.pack("<II", 1, count) + data + more


def aliases(*names: str, count: int = 1) -> bytes:
    return struct.pack("<I", count) + b"".join(map(text, names))


@pytest.mark.parametrize("version", [4, 5, 6])
def test_all_dtypes(tmp_path: Path, version: int) -> None:
    path = tmp_path / "model.bin"
    values: dict[str, Any] = {
        f"x_{dtype}": np.arange(-3, 3).reshape(2, 3).astype(dtype)
        for dtype in ("float32", "int8", "int16", "int32", "float16")
    }
    bits = (X.view(np.uint32) >> 16).astype(np.uint16)
    scale = np.float32(0.5)
    more = {"bits": bits, "x_int8_scale": scale, "scalar": np.int16(-7), "none": np.zeros((0, 3), np.float32)}
    path.write_bytes(ctranslate2_binary({**values, **more, "again": "x_int8"}, version, "Spec", 3))
    with read_model(path) as model:
        tensors = model.tensors
        assert (model.spec, model.revision) == ("Spec", 3)
        assert {*tensors} == {*values, *more, "again", "again_scale"}
        for name, value in values.items():
            assert tensors[name].dtype == value.dtype
            assert tensors[name].tobytes() == value.tobytes()
        assert tensors.dtype("bits") == "bfloat16"
        assert_same_bits(tensors["bits"], X)
        assert (tensors.shape("scalar"), int(tensors["scalar"])) == ((), -7)
        assert tensors.stored("again") is tensors.stored("x_int8")
        assert tensors.stored("again_scale") is tensors.stored("x_int8_scale")


@pytest.mark.parametrize("size", range(0, len(WHOLE), 3))
def test_a_file_that_is_cut_short(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(WHOLE[:size])
    with pytest.raises(ValueError, match=rf"^{path}: cut short: "):
        read_model(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ctranslate2_binary({}, version=3), "no model of CTranslate2 that is known: the version is 3; 4 to 6 are read"),
        (b"\x80\x02}q\0" + bytes(99), "no model of CTranslate2 that is known"),
        (WHOLE + b"more", "damaged: 4 bytes follow the last name"),
        (one(variable("a", X, kind=6)), "variable 'a' has the dtype 6; only 0 to 5, float32, int8"),
        (one(variable("a", X, size=20)), r"damaged: variable 'a' of shape \(2, 3\) and float32 has 20 bytes"),
        (one(variable("a", X, kind=1)), r"damaged: variable 'a' of shape \(2, 3\) and int8 has 24 bytes"),
        (one(text("a") + struct.pack("<BIBI", 1, 2**30, 1, 2**30)), "cut short: variable 'a' needs 1073741824 bytes"),
        (one(text("a") + b"\xff" + b"\xff" * 1020 + struct.pack("<BI", 0, 0)), "damaged: variable 'a' of shape"),
        (one(variable("a", X), count=2**32 - 1), "4294967295 variables; at most 50000 are read"),
        (one(variable("a", X) * 2, count=2), "damaged: the variable 'a' is there twice"),
        (one(variable("a", X), more=aliases("b", "c")), "damaged: 'b' is said to be a further name of 'c'"),
        (one(variable("a", X), more=aliases("a", "a")), "damaged: 'a' is said to be a further name of 'a'"),
        (one(variable("a", X), more=aliases(count=2**31)), "2147483648 further names; at most 50000 are read"),
        (one(b"\x02\0\xff\0"), r"damaged: the name of a variable is b'\\xff\\x00', at"),
        (one(b"\x02\0ab"), "damaged: the name of a variable is b'ab'"),
        (one(b"\x03\0a\0\0"), "damaged: the name of a variable is"),
        (one(b"\0\0"), "damaged: the name of a variable is b''"),
    ],
)  # fmt: skip
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: {message}"):
        read_model(path)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(WHOLE)
    with read_model(path) as model:
        path.write_bytes(WHOLE[:40])
        with pytest.raises(ValueError, match=rf"^{path}: truncated: tensor 'a/weight'"):
            model.tensors["a/weight"]
