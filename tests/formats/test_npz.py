"""NumPy's .npz files, read without unpacking or unpickling anything."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_foreign import npy, npz

from fastattn.formats import npz as module
from fastattn.formats.npz import read_tensors


def assert_same(found: np.ndarray, array: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


HEAD = b"\x93NUMPY\x01\0"


def written(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, *arrays, **named)  # type: ignore[arg-type]  # its stubs want an option here
    return file.getvalue()


def with_header(text: str, data: bytes = bytes(24)) -> bytes:
    return npz({"x": HEAD + len(text).to_bytes(2, "little") + text.encode() + data})


def header(descr: str = "<f4", shape: str = "(2, 3)", order: str = "False") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "|i1", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (3, 0), (2, 1, 2)], ids=str)
def test_what_numpy_writes(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    path, array = tmp_path / "a.npz", np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    path.write_bytes(written(array, **{"a:b.c": array}))
    with read_tensors(path) as tensors:
        assert [*tensors] == ["a:b.c", "arr_0"] or [*tensors] == ["arr_0", "a:b.c"]
        assert tensors.shape("arr_0") == shape
        assert tensors.dtype("arr_0") == array.dtype.name
        for found in tensors.values():
            assert_same(found, array)


def test_columns_first_and_what_marian_writes(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "a.npz").write_bytes(written(np.asfortranarray(array)))
    (tmp_path / "b.npz").write_bytes(npz({"arr_0": npy(array), "yml": npy(np.zeros(3, np.int8), "<i1")}))
    for name in ("a", "b"):
        with read_tensors(tmp_path / f"{name}.npz") as tensors:
            assert_same(tensors["arr_0"], array)
    assert np.load(tmp_path / "b.npz")["arr_0"].tolist() == array.tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short, or damaged"),
        (b"no zip file", "cut short, or damaged"),
        (npz({"x": b"abc"}), r"entry 'x\.npy' is no array that NumPy wrote: b'abc'"),
        (npz({"x": npy(np.zeros(6))}, zipfile.ZIP_DEFLATED), "is compressed; only entries that are stored as they are"),
        (with_header(header("|O")), r"has the dtype '\|O'"),
        (with_header(header("<U5")), r"has the dtype '<U5'"),
        (with_header(header("<c8")), r"has the dtype '<c8'"),
        (with_header(header(">f4")), r"has the dtype '>f4'"),
        (with_header(header(shape="(2, 4)")), r"damaged: entry 'x\.npy' has 24 bytes instead of 32, for shape \(2"),
        (with_header(header(shape="(999999999999999999, 999999999999999999)")), "has 24 bytes instead of 3999"),
        (with_header(header(shape="(-1, 3)")), "is no array that NumPy wrote"),
        (with_header(header(shape="(2, 3).__class__")), "is no array that NumPy wrote"),
        (with_header("__import__('os')"), "is no array that NumPy wrote"),
        (with_header(header() * 20), "is no array that NumPy wrote"),
        (npz({"x": HEAD + b"\xff\xff" + header().encode() + bytes(24)}), "is no array that NumPy wrote"),
    ],
)  # fmt: skip
def test_other_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_tensors(path)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", npy(np.zeros(6)))
        archive.writestr("x.npy", npy(np.zeros(6)))
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz: has an array twice"):
        read_tensors(tmp_path / "a.npz")


def test_a_changed_number_has_another_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    data = npz({"x": npy(np.full(4, 7, np.uint8))})
    path.write_bytes(data.replace(bytes([7] * 4), bytes([7, 7, 8, 7])))
    with (
        read_tensors(path) as tensors,
        pytest.raises(ValueError, match=r"damaged: entry 'x\.npy' has the checksum"),
    ):
        tensors["x"]


def test_too_many(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_TENSORS", 2)
    path = tmp_path / "a.npz"
    path.write_bytes(written(*(np.zeros(1) for _ in range(3))))
    with pytest.raises(ValueError, match=r"a\.npz: 3 arrays; at most 2 are read"):
        read_tensors(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(written(np.array([print], object)))
    with pytest.raises(ValueError, match=r"has the dtype '\|O'"):
        read_tensors(path)
