"""fastattn.formats.hugging_face: tensors are read as they were written, and every lie of a file is named."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastattn.formats.hugging_face import (
    MAX_JSON,
    MAX_TENSORS,
    MAX_VOCABULARY,
    read_config,
    read_json,
    read_json_array,
    read_state_dict,
    write_checkpoint,
)

TENSORS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.array([1e30, -np.inf, -0.0], np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(2.5, np.float32),
}


def raw_safetensors(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_raw(folder: Path, dtype: str, values: np.ndarray, shape: list[int]) -> None:
    data = values.tobytes()
    header = {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    (folder / "model.safetensors").write_bytes(raw_safetensors(header, data))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    write_checkpoint(folder, {"model_type": "bert", "hidden_size": 4}, TENSORS)
    assert read_config(folder) == {"model_type": "bert", "hidden_size": 4}
    with read_state_dict(folder) as tensors:
        assert sorted(tensors) == sorted(TENSORS)
        assert "a.bias" in tensors
        assert "b" not in tensors
        for name, expected in TENSORS.items():
            assert tensors.shape(name) == expected.shape
            assert tensors[name].dtype == np.float32
            np.testing.assert_array_equal(tensors[name], expected)
            assert tensors[name].flags.writeable
        with pytest.raises(KeyError):
            tensors["b"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_checkpoint(tmp_path, {}, {"t": transposed})
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["t"], transposed)


def test_every_float16_and_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    finite = halves[(halves >> 7) & 255 != 255]
    write_raw(tmp_path, "BF16", finite, [2, len(finite) // 2])
    with read_state_dict(tmp_path) as tensors:
        bits = tensors["x"].view(np.uint32).ravel()
    np.testing.assert_array_equal(bits, finite.astype(np.uint32) << 16)

    finite = halves[(halves >> 10) & 31 != 31]
    write_raw(tmp_path, "F16", finite, [len(finite)])
    with read_state_dict(tmp_path) as tensors:
        np.testing.assert_array_equal(tensors["x"], finite.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_weights_that_are_not_finite(tmp_path: Path, dtype: str, value: float) -> None:
    values = np.ones((3, 2**17), np.float32)  # of its own pages
    values[2, 5] = value
    bits = {"F32": values, "F16": values.astype(np.float16), "BF16": (values.view(np.uint32) >> 16).astype(np.uint16)}
    write_raw(tmp_path, dtype, bits[dtype], [3, 2**17])
    with (
        read_state_dict(tmp_path) as tensors,
        pytest.raises(
            ValueError, match=rf"model\.safetensors: tensor 'x' has {value} at \(2, 5\); weights must be fin"
        ),
    ):
        tensors["x"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bias_may_forbid_a_word(tmp_path: Path, bad: float) -> None:
    """Also behind numbers whose squares are infinite."""
    bias = np.array([[1e38, -np.inf, -1e38]], np.float32)
    save_file({"bias.weight": np.abs(bias[:, ::2]).copy(), "final_logits_bias": bias}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        np.testing.assert_array_equal(tensors["final_logits_bias"], bias)
        assert tensors["bias.weight"].tolist() == np.abs(bias[:, ::2]).tolist()
    bias[0, 0] = bad
    save_file({"a.bias": bias, "bias.weight": -np.abs(bias)}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        for name in tensors:
            with pytest.raises(ValueError, match=rf"'{name}' has -?{bad} at \(0, 0\)"):
                tensors[name]


def test_a_dtype_that_is_not_float_is_refused_only_when_it_is_read(tmp_path: Path) -> None:
    save_file({"ids": np.arange(3), "x": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        assert tensors["x"].tolist() == [1, 1]
        with pytest.raises(ValueError, match=r"model.safetensors: tensor 'ids' has dtype I64; F32, F16, BF16"):
            tensors["ids"]


def test_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    save_file({f"t{i}": np.full(2**18, i, np.float32) for i in range(16)}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        tracemalloc.start()
        for i in range(16):
            assert tensors[f"t{i}"][-1] == i
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 3 * 2**20, "16 tensors of 1 MB"


def test_a_replaced_checkpoint_is_read_as_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {}, {"x": np.zeros(3, np.float32)})
    with read_state_dict(tmp_path) as tensors:
        write_checkpoint(tmp_path, {}, {"x": np.ones(3, np.float32)})
        assert tensors["x"].tolist() == [0, 0, 0]
    with read_state_dict(tmp_path) as tensors:
        assert tensors["x"].tolist() == [1, 1, 1]


def test_renamed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {}, TENSORS)
    with read_state_dict(tmp_path) as tensors:
        assert tensors.renamed(lambda name: f"bert.{name}")["bert.scalar"] == 2.5
        with pytest.raises(ValueError, match=r"model.safetensors: tensors 'a.bias' and 'a.weight' mean the same"):
            tensors.renamed(lambda name: name.removesuffix("bias").removesuffix("weight"))


def test_tensors_that_are_stacked_in_one(tmp_path: Path) -> None:
    """Several names share its rows; each part is read alone, in every dtype of a file."""
    rows = np.arange(24, dtype=np.float16).reshape(6, 4)
    save_file({"all": rows, "one": rows[0]}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        parts = tensors.renamed(lambda name: ["a", "b", "c"] if name == "all" else name)
        assert sorted(parts) == ["a", "b", "c", "one"]
        for i, name in enumerate("abc"):
            assert parts.shape(name) == (2, 4)
            np.testing.assert_array_equal(parts[name], rows[2 * i : 2 * i + 2])
        assert parts.sample("a") != parts.sample("b")
        with pytest.raises(ValueError, match=r"tensors 'one' and 'all' mean the same|tensors 'all' and 'one' mean"):
            tensors.renamed(lambda name: ["a", "one"] if name == "all" else name)
    message = r"tensor 'all' must have rows for 5 tensors, got shape \(6, 4\)"
    with read_state_dict(tmp_path) as tensors, pytest.raises(ValueError, match=message):
        tensors.renamed(lambda name: list("abcde") if name == "all" else name)


class TestSharded:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
        save_file({"b": np.ones(3, np.float32)}, tmp_path / "two.safetensors")
        self.index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
        return tmp_path

    @staticmethod
    def index(folder: Path, weight_map: Any) -> None:
        text = json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(text)

    def test_all_shards_are_read(self, folder: Path) -> None:
        with read_state_dict(folder) as tensors:
            assert {name: tensors[name].tolist() for name in tensors} == {"a": [0, 0], "b": [1, 1, 1]}

    def test_a_single_file_comes_first(self, folder: Path) -> None:
        save_file({"c": np.zeros(1, np.float32)}, folder / "model.safetensors")
        with read_state_dict(folder) as tensors:
            assert list(tensors) == ["c"]

    def test_a_missing_shard(self, folder: Path) -> None:
        (folder / "two.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match=r"two\.safetensors: no such shard; .*index.json names it for 'b'"):
            read_state_dict(folder)

    def test_a_damaged_shard(self, folder: Path) -> None:
        os.truncate(folder / "two.safetensors", 20)
        with pytest.raises(ValueError, match=r"two\.safetensors: not a valid safetensors file"):
            read_state_dict(folder)

    def test_a_tensor_that_is_not_in_its_shard(self, folder: Path) -> None:
        self.index(folder, {"a": "one.safetensors", "b": "one.safetensors"})
        with pytest.raises(ValueError, match=r"one\.safetensors: no tensor 'b', which model\.safetensors\.index"):
            read_state_dict(folder)

    @pytest.mark.parametrize("shard", ["../one.safetensors", "/etc/passwd", "", "..", "a\0b", 3, [], None])
    def test_a_shard_elsewhere(self, folder: Path, shard: Any) -> None:
        self.index(folder, {"a": shard})
        with pytest.raises(ValueError, match=r"index\.json: weight_map\['a'\] must be a file name, got"):
            read_state_dict(folder)

    @pytest.mark.parametrize("weight_map", [None, {}, [1], "one.safetensors"])
    def test_an_index_without_a_map(self, folder: Path, weight_map: Any) -> None:
        self.index(folder, weight_map)
        with pytest.raises(ValueError, match=r"index\.json: weight_map must name the shard of each tensor, got"):
            read_state_dict(folder)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
            read_state_dict(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    save_file({"x": np.zeros(100, np.float32)}, tmp_path / "model.safetensors")
    with read_state_dict(tmp_path) as tensors:
        os.truncate(tmp_path / "model.safetensors", 200)
        with pytest.raises(ValueError, match=r"model\.safetensors: truncated: tensor 'x' needs 400 bytes at"):
            tensors["x"]


def _lies() -> dict[str, Callable[[dict[str, Any]], object]]:
    return {
        "huge shape": lambda t: t.update(shape=[10**9, 10**9]),
        "shape that overflows": lambda t: t.update(shape=[2**33, 2**33]),
        "negative shape": lambda t: t.update(shape=[-3, -1]),
        "fractional shape": lambda t: t.update(shape=[1.5, 2]),
        "no shape": lambda t: t.pop("shape"),
        "offsets beyond the file": lambda t: t.update(data_offsets=[0, 10**12]),
        "offsets backwards": lambda t: t.update(data_offsets=[12, 0]),
        "negative offsets": lambda t: t.update(data_offsets=[-12, 0]),
        "gap": lambda t: t.update(data_offsets=[4, 16]),
        "unknown dtype": lambda t: t.update(dtype="F33"),
        "dtype of another size": lambda t: t.update(dtype="F64"),
    }


@pytest.mark.parametrize("lie", _lies())
def test_a_header_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    tensor = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    _lies()[lie](tensor)
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors({"x": tensor}, bytes(12)))
    with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}q\x00.",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}" + b"left over",
        raw_safetensors({"x": None}, b""),
        raw_safetensors({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234") + b"left over",
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a valid safetensors file"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("value", [b"[" * 100_000 + b"]" * 100_000, b"9" * 5000], ids=["deep", "digits"])
def test_an_unknown_field_that_python_cannot_read(tmp_path: Path, value: bytes) -> None:
    header = b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "unknown": ' + value + b"}}"
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match=r"model\.safetensors: (header: not valid JSON|not a valid safetensors file)"):
        read_state_dict(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        read_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        read_state_dict(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        read_config(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors and no model\.safetensors\.index\.json$"):
        read_state_dict(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is not read: run `fastattn convert` first"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": "\xed\xa0\x80"}', "not valid JSON"),
        (b'{"a": "\\uD83D"}', r"not valid Unicode: half of a character, '\\ud83d'"),
        (b'{"\\udE00": 1}', r"not valid Unicode: half of a character, '\\ude00'"),
    ],
    ids=["empty", "cut", "not UTF-8", "deep", "list", "null", "digits", "half", "escaped half", "half of a key"],
)
def test_a_config_that_is_no_object(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"config\.json: {message}"):
        read_config(tmp_path)


def test_a_whole_character_may_be_escaped(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"\\ud83d\\ude00": "\\uD83D\\uDE00"}')
    assert read_config(tmp_path) == {"\N{GRINNING FACE}": "\N{GRINNING FACE}"}


class TestAtomicWriting:
    def test_a_failure_leaves_everything_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_checkpoint(tmp_path, {"old": 1}, {"x": np.zeros(2, np.float32)})
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fastattn.formats.hugging_face._write_tensors", full)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(tmp_path, {"new": 1}, {"x": np.ones(2, np.float32)})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_config_that_is_not_json_writes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_checkpoint(tmp_path, {"x": float("nan")}, {})
        assert not list(tmp_path.iterdir())

    def test_a_linked_file_is_replaced_not_written_through(self, tmp_path: Path) -> None:
        blob = tmp_path / "blob"
        save_file({"x": np.zeros(2, np.float32)}, blob)
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(blob)
        write_checkpoint(folder, {}, {"x": np.ones(2, np.float32)})
        assert load_file(blob)["x"].tolist() == [0, 0]
        assert load_file(folder / "model.safetensors")["x"].tolist() == [1, 1]

    def test_files_have_the_usual_permissions(self, tmp_path: Path) -> None:
        (tmp_path / "usual").write_text("")
        write_checkpoint(tmp_path, {}, {"x": np.zeros(2, np.float32)})
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == {(tmp_path / "usual").stat().st_mode & 0o777}


def sparse(path: Path, size: int, begin: bytes = b"") -> None:
    """A file of `size` bytes that are 0 behind the beginning and take no place on the disk."""
    path.write_bytes(begin)
    os.truncate(path, size)


class TestLimits:
    """What is too large for what it claims to be is refused before it is read."""

    def test_a_large_json(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        sparse(path, 2**30, b"[0,")
        tracemalloc.start()
        for read in (read_json, read_json_array):
            with pytest.raises(ValueError, match=rf"config\.json: a file of {2**30} bytes; at most {MAX_JSON} are"):
                read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20
        path.write_bytes(b"{" + b" " * (MAX_JSON - 2) + b"}")
        assert read_json(path) == {}

    def test_a_vocabulary_may_be_larger(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_bytes(b"{" + b" " * MAX_JSON + b"}")
        assert read_json(tmp_path / "vocab.json", MAX_VOCABULARY) == {}

    def test_a_large_header(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("safetensors.safe_open", None)
        sparse(tmp_path / "model.safetensors", 2**27, struct.pack("<Q", MAX_JSON + 1) + b'{"x":')
        tracemalloc.start()
        with pytest.raises(ValueError, match=rf"model\.safetensors: a header of {MAX_JSON + 1} bytes; at most"):
            read_state_dict(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20

    def test_many_tensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        header = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(MAX_TENSORS)}
        path = tmp_path / "model.safetensors"
        path.write_bytes(raw_safetensors(header, b""))
        with read_state_dict(tmp_path) as tensors:
            assert len(tensors) == MAX_TENSORS
        path.write_bytes(raw_safetensors({**header, "more": header["t0"]}, b""))
        monkeypatch.setattr("safetensors.safe_open", None)
        with pytest.raises(ValueError, match=rf"{path}: {MAX_TENSORS + 1} tensors; at most {MAX_TENSORS} are read"):
            read_state_dict(tmp_path)

    def test_many_tensors_of_an_index(self, tmp_path: Path) -> None:
        weight_map = {f"t{i}": "one.safetensors" for i in range(MAX_TENSORS + 1)}
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ValueError, match=rf"{path}: {MAX_TENSORS + 1} tensors; at most {MAX_TENSORS} are read"):
            read_state_dict(tmp_path)


@pytest.mark.parametrize("shard", ["x" * 5000, "a\0b"])
def test_a_shard_that_no_file_can_be(tmp_path: Path, shard: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    message = r"index\.json: weight_map\['a'\] must be a file name, got"
    with pytest.raises(ValueError, match=message) as error:
        read_state_dict(tmp_path)
    assert len(str(error.value)) < 600
