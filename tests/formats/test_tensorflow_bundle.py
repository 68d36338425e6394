"""TensorFlow's checkpoints, written by hand and by TensorFlow: bit for bit, and every broken one refused."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_bundles import (
    MAGIC,
    block,
    bundle,
    closed,
    entry,
    field,
    header,
    shape_of,
    slices_of,
    table,
    varint,
    write_bundle,
    write_files,
)
from hypothesis import given
from hypothesis import strategies as st

from fastattn.formats import sstable, tensorflow_bundle
from fastattn.formats.crc32c import _byte_table, crc32c
from fastattn.formats.tensorflow_bundle import read_tensors

RNG = np.random.default_rng(3)
VARIABLES = {
    "bert/embeddings/word_embeddings": RNG.standard_normal((300, 3)).astype(np.float32),
    "bert/embeddings/position_embeddings": RNG.standard_normal((4, 90)).astype(np.float32),
    "bert/pooler/dense/kernel": RNG.standard_normal((5, 5)).astype(np.float32),
    "bert/pooler/dense/bias": RNG.standard_normal(5).astype(np.float32),
    **{f"layer_{i}/x": np.full(i, i, np.float32) for i in range(20)},
    "half": RNG.standard_normal(7).astype(np.float16),
    "double": RNG.standard_normal((2, 2)),
    "global_step": np.array(12345),
    "int32": np.arange(3, dtype=np.int32),
    "none": np.zeros((0, 4), np.float32),
}
SPLIT = {"bert/embeddings/word_embeddings": (0, 7), "bert/embeddings/position_embeddings": (1, 4)}
SAVED = ".ATTRIBUTES/VARIABLE_VALUE"  # how tf.train.Checkpoint's names end
WHOLE = bundle(VARIABLES)
IN_PARTS = bundle(VARIABLES, 3, SPLIT)


def assert_equal(found: Any, expected: Any) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        got = found[name]
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert (found.dtype(name), found.shape(name)) == (str(array.dtype), array.shape)
        assert got.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"split": SPLIT}, {"shards": 3, "split": SPLIT}])
def test_variables_have_their_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    with read_tensors(write_bundle(tmp_path / "model.ckpt", VARIABLES, **options)) as found:
        assert_equal(found, VARIABLES)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    wide = np.array([1.5, -2.0, 2.0**127, 0.0], np.float32)
    bits = (wide.view(np.uint32) >> 16).astype(np.uint16)
    with read_tensors(write_bundle(tmp_path / "model.ckpt", {"x": bits})) as found:
        assert found.dtype("x") == "bfloat16"
        np.testing.assert_array_equal(found["x"], wide)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_at = tensorflow_bundle.read_at
    monkeypatch.setattr(tensorflow_bundle, "read_at", lambda *all: (sizes.append(all[3].nbytes), read_at(*all)))
    with read_tensors(write_bundle(tmp_path / "model.ckpt", VARIABLES)) as found:
        assert sizes == []
        found["half"]
        assert sizes == [14]


def refused(tmp_path: Path, index: bytes, shards: list[bytes], message: str) -> None:
    write_files(tmp_path / "model.ckpt", index, shards)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"^{tmp_path}/model\.ckpt\..*{message}"):
        read_every(tmp_path / "model.ckpt")


def read_every(prefix: Path) -> int:
    with read_tensors(prefix) as found:
        return sum(found[name].nbytes for name in found)


class TestTable:
    DATA = table(WHOLE[0])

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "cut short, or no index of a TensorFlow checkpoint"),
            (b"hello" * 20, "cut short, or no index of a TensorFlow checkpoint"),
            (DATA[:-1], "cut short, or no index of a TensorFlow checkpoint"),
            (DATA[100:], "the block at .* has another checksum|does not fit the file|does not end"),
            (b"\xff" * 40 + struct.pack("<Q", MAGIC), "a number does not end"),
            ((varint(0) + varint(8) + varint(2**60) + varint(9)).ljust(40) + struct.pack("<Q", MAGIC), "does not fit"),
            ((varint(0) + varint(8) + varint(0) + varint(2**60)).ljust(40) + struct.pack("<Q", MAGIC), "does not fit"),
            (table({}), "its header is missing"),
        ],
    )
    def test_a_file_that_is_none(self, tmp_path: Path, data: bytes, message: str) -> None:
        refused(tmp_path, data, WHOLE[1], message)

    def listing(self, *handles: tuple[bytes, bytes], before: bytes = b"") -> bytes:
        """A table whose list of blocks says this."""
        listing = block(handles)
        footer = varint(0) + varint(0) + varint(len(before)) + varint(len(listing))
        return before + closed(listing) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)

    def test_blocks(self, tmp_path: Path) -> None:
        first = block([(b"", header())])
        handle = (b"z", varint(0) + varint(len(first)))
        for data, message in (
            (self.listing(handle, before=closed(first, 1)), "the block at 0 is compressed"),
            (self.listing(handle, before=closed(first)[:-1] + b"x"), "the block at 0 has another checksum"),
            (self.listing(handle, handle, before=closed(first)), "the block at 0 begins before"),
            (self.listing((b"z", b""), before=closed(first)), "a number does not end"),
            (self.listing((b"z", varint(0) + varint(10**9)), before=closed(first)), "does not fit the file"),
        ):
            refused(tmp_path, data, [], message)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (block([(b"b", b""), (b"a", b"")]), "key b'a' is not behind b'b'"),
            (block([(b"a", b""), (b"a", b"")]), "key b'a' is not behind b'a'"),
            (b"\x01\x01\x01ab" + struct.pack("<2I", 0, 1), "does not fit its block"),
            (b"\x00\x09\x01ab" + struct.pack("<2I", 0, 1), "does not fit its block"),
            (b"\x00\x01\x09ab" + struct.pack("<2I", 0, 1), "does not fit its block"),
            (block([(b"a" * 3000, b"")]), "does not fit its block"),
            (struct.pack("<I", 7), "a block has fewer bytes than it says"),
            (b"", "a block has fewer bytes than it says"),
            (b"\x80", "a block has fewer bytes than it says"),
        ],
    )
    def test_entries(self, tmp_path: Path, rows: bytes, message: str) -> None:
        data = self.listing((b"z", varint(0) + varint(len(rows))), before=closed(rows))
        refused(tmp_path, data, [], message)

    def test_limits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sstable, "MAX_ENTRIES", 7)
        refused(tmp_path, self.DATA, WHOLE[1], "more than 7 entries")
        monkeypatch.setattr(tensorflow_bundle, "MAX_INDEX", 100)
        refused(tmp_path, self.DATA, WHOLE[1], r"a file of \d+ bytes; at most 100 are read")

    def test_cut_short(self, tmp_path: Path) -> None:
        for size in range(0, len(self.DATA), 41):
            refused(tmp_path, self.DATA[:size], WHOLE[1], "cut short")


X = np.arange(6, dtype=np.float32).reshape(2, 3)


class TestIndex:
    @pytest.mark.parametrize(
        ("said", "message"),
        [
            (header(0), "has 0 shards"),
            (header(10**6), "has 1000000 shards"),
            (header(-1), "has 18446744073709551615 shards"),
            (header(1, 1), "not in little-endian order"),
            (header(1, 0, 2), "needs a reader of version 2"),
            (b"\xff", "a number does not end"),
            (b"\x0a\x7f", "no protocol buffer"),
            (b"\x0b", "no protocol buffer"),
            (field(1, b"x"), "text for a number"),
        ],
    )
    def test_header(self, tmp_path: Path, said: bytes, message: str) -> None:
        refused(tmp_path, table({b"": said, b"x": entry(X, 0, 0)}), [X.tobytes()], message)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shard": 1}, "variable 'x' is in shard 1 of 1"),
            ({"size": 23}, r"variable 'x' of float32 \(2, 3\) has 23 bytes instead of 24"),
            ({"shape": (2, 4)}, r"variable 'x' of float32 \(2, 4\) has 24 bytes instead of 32"),
            ({"shape": (2**40, 2**40)}, "variable 'x' has the shape"),
            ({"shape": (-1, 3)}, "variable 'x' has the shape"),
            ({"shape": (1,) * 17}, "variable 'x' has the shape"),
            ({"dtype": 7}, "variable 'x' has dtype string; float32"),
            ({"dtype": 99}, "variable 'x' has dtype number 99 of TensorFlow"),
            ({"start": 1}, r"data-00000-of-00001: cut short: variable 'x' needs 24 bytes at 1, the file has 24"),
            ({"start": -1}, "cut short"),
            ({"crc": 7}, r"data-00000-of-00001: damaged: variable 'x' has another checksum"),
        ],
    )
    def test_entry(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        refused(tmp_path, table({b"": header(), b"x": entry(X, 0, 0, **changes)}), [X.tobytes()], message)

    def test_names(self, tmp_path: Path) -> None:
        refused(tmp_path, table({b"": header(), b"\xff": entry(X, 0, 0)}), [X.tobytes()], "is not UTF-8")

    def test_variables_that_share_their_bytes(self, tmp_path: Path) -> None:
        entries = {b"": header(), **{f"x{i}".encode(): entry(X, 0, 0) for i in range(50)}}
        refused(tmp_path, table(entries), [X.tobytes()], "its variables have 24 bytes more than the file")

    def test_shards_that_are_missing(self, tmp_path: Path) -> None:
        entries, data = IN_PARTS
        refused(
            tmp_path, table(entries), [], r"data-0000\d-of-00003: no such file; model\.ckpt\.index names this shard"
        )
        refused(tmp_path, table(entries), [data[0], data[1], data[2][:-1]], "data-00002-of-00003: cut short")
        with pytest.raises(FileNotFoundError, match=r"nothing\.index"):
            read_tensors(tmp_path / "nothing")

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ([((0, 0), (1, 3))], r"slices of variable 'x' end at 1 of 2"),
            ([((1, 0), (1, 3))], "leave a gap at 0"),
            ([((0, 0), (2, 3)), ((1, 0), (1, 3))], "overlap, or leave a gap at 2"),
            ([((0, 0), (1, 3)), ((0, 0), (1, 3))], r"two slices at \(0, 0\)"),
            ([((0, 0), (1, 2)), ((1, 0), (1, 3))], r"split along the axes \[0, 1\]"),
            ([((0, 1), (1, 2)), ((1, 0), (1, 2))], r"split along the axes \[0, 1\]"),
            ([((0, 0), (0, 3))], "does not fit its shape"),
            ([((0, 0), (3, 3))], "does not fit its shape"),
            ([((0,), (2,))], "does not fit its shape"),
        ],
    )
    def test_slices(self, tmp_path: Path, parts: Any, message: str) -> None:
        said, keys = slices_of("x", parts)
        entries = {b"": header(), b"x": field(1, 1) + field(2, shape_of((2, 3))) + said}
        data = b""
        for key, (_, size) in zip(keys, parts, strict=True):
            part = np.zeros(size, np.float32)
            entries[key] = entry(part, 0, len(data))
            data += part.tobytes()
        refused(tmp_path, table(entries), [data], message)

    def test_slices_of_another_kind(self, tmp_path: Path) -> None:
        said, (key,) = slices_of("x", [((0, 0), (2, 3))])
        whole = field(1, 1) + field(2, shape_of((2, 3))) + said
        for entries, message in (
            ({b"x": whole}, r"the slice of variable 'x' at \(0, 0\) is missing"),
            ({b"x": whole, key: entry(X, 0, 0, dtype=3)}, "is of another kind"),
            ({b"x": whole, key: entry(X, 0, 0, shape=(3, 2))}, "is of another kind"),
            ({b"x": field(1, 1) + field(7, b""), key: entry(X, 0, 0)}, "does not fit its shape"),
            ({b"x": field(1, 1) + field(2, shape_of((2, 3))) + field(7, 5)}, "a number for text"),
        ):
            refused(tmp_path, table({b"": header(), **entries}), [X.tobytes()], message)

    def test_a_slice_without_lengths_is_the_whole_axis(self, tmp_path: Path) -> None:
        """The second axis is whole, and in the key its length is -1."""
        entries, data = {b"": header()}, b""
        said = b""
        for i, row in enumerate(np.split(X, 2)):
            said += field(7, field(1, field(1, i) + field(2, 1)) + field(1, b""))
            entries[b"\0x\0\1\1\2" + bytes([128 + i, 129, 128, 127])] = entry(row, 0, len(data))
            data += row.tobytes()
        entries[b"x"] = field(1, 1) + field(2, shape_of((2, 3))) + said
        write_files(tmp_path / "model.ckpt", table(entries), [data])
        with read_tensors(tmp_path / "model.ckpt") as found:
            np.testing.assert_array_equal(found["x"], X)


def read_all(prefix: Path, index: bytes, shards: list[bytes]) -> None:
    """Read a checkpoint that may be broken: an error that names a file of it, or no more bytes than it has."""
    for path in prefix.parent.iterdir():
        path.unlink()
    write_files(prefix, index, shards)
    try:
        size = read_every(prefix)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert message.startswith(f"{prefix}.")
    else:
        assert size <= 2 * sum(map(len, shards))  # bfloat16 grows


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)
BOTH = st.sampled_from([WHOLE, IN_PARTS])


def mutated(data: bytes, changes: list[tuple[int, bytes]], cut: int = 0) -> bytes:
    changed = bytearray(data)
    for place, new in changes:
        at = place % len(changed)
        changed[at : at + len(new)] = new
    return bytes(changed[: len(changed) - cut])


@given(BOTH, CHANGES, st.integers(0, 9))
def test_mutated_indexes(tmp_path: Path, which: Any, changes: list[tuple[int, bytes]], cut: int) -> None:
    read_all(tmp_path / "model.ckpt", mutated(table(which[0]), changes, cut), which[1])


@given(BOTH, CHANGES, st.integers(0, 9))
def test_mutated_shards(tmp_path: Path, which: Any, changes: list[tuple[int, bytes]], cut: int) -> None:
    shards = [mutated(data, changes, cut) for data in which[1]]
    read_all(tmp_path / "model.ckpt", table(which[0]), shards)


@given(BOTH, CHANGES, st.data())
def test_mutated_entries(tmp_path: Path, which: Any, changes: list[tuple[int, bytes]], draw: st.DataObject) -> None:
    """Behind checksums that are right."""
    entries = dict(which[0])
    for _ in range(draw.draw(st.integers(1, 3))):
        key = draw.draw(st.sampled_from(sorted(entries)))
        entries[key] = mutated(entries[key], changes)
    read_all(tmp_path / "model.ckpt", table(entries), which[1])


@given(CHANGES)
def test_mutated_blocks(tmp_path: Path, changes: list[tuple[int, bytes]]) -> None:
    rows = mutated(block(sorted(WHOLE[0].items())), changes)
    data = TestTable().listing((b"z", varint(0) + varint(len(rows))), before=closed(rows))
    read_all(tmp_path / "model.ckpt", data, WHOLE[1])


class TestChecksum:
    def by_bytes(self, data: bytes, before: int = 0) -> int:
        state, steps = before ^ 0xFFFFFFFF, _byte_table()
        for byte in data:
            state = steps[(state ^ byte) & 255] ^ state >> 8
        return state ^ 0xFFFFFFFF

    def test_known_values(self) -> None:
        """Of RFC 3720, appendix B.4."""
        assert crc32c(b"123456789") == 0xE3069283
        assert crc32c(bytes(32)) == 0x8A9136AA
        assert crc32c(b"\xff" * 32) == 0x62A8AB43
        assert crc32c(bytes(range(32))) == 0x46DD794E
        assert crc32c(b"") == 0

    @pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 1028, 4096, 65535, 65536, 65540, 131072, 200_001])
    def test_folding_changes_nothing(self, size: int) -> None:
        data = RNG.bytes(size)
        assert crc32c(data) == self.by_bytes(data)
        assert crc32c(data, 12345) == self.by_bytes(data, 12345)
        assert crc32c(np.frombuffer(data, np.uint8)) == crc32c(data[size // 3 :], crc32c(data[: size // 3]))


def test_a_checkpoint_that_somebody_published() -> None:
    """basic-pitch has one network as TensorFlow saved it and as ONNX, which has the same weights in another order."""
    spec = importlib.util.find_spec("basic_pitch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("basic-pitch is missing: pip install --no-deps basic-pitch==0.4.0")
    folder = Path(spec.submodule_search_locations[0]) / "saved_models" / "icassp_2022"
    network = (folder / "nmp.onnx").read_bytes()
    with read_tensors(folder / "nmp" / "variables" / "variables") as tensors:
        arrays = {name: tensors[name] for name in tensors if tensors.dtype(name) != "string"}
    assert len(arrays) == 73
    layers = {name.split("/")[0]: array for name, array in arrays.items() if name.endswith("kernel/" + SAVED)}
    shared = [name for name, array in layers.items() if array.transpose(3, 2, 0, 1).tobytes() in network]
    assert shared == [f"layer_with_weights-{i}" for i in (3, 4, 7, 8)]  # the two others are multiplied by a norm's gain
    for name in shared:
        assert arrays[f"{name}/bias/{SAVED}"].tobytes() in network


def test_a_checkpoint_of_tensorflow(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    tf = tensorflow.compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        for name, array in VARIABLES.items():
            axis, count = SPLIT.get(name, (0, 1))

            def begin(shape: Any, dtype: Any, partition_info: Any, array: np.ndarray = array) -> Any:
                places = partition_info.var_offset
                return array[tuple(slice(at, at + n) for at, n in zip(places, shape, strict=True))]

            if count > 1:
                partitioner = tf.fixed_size_partitioner(count, axis=axis)
                tf.get_variable(name, array.shape, array.dtype, begin, partitioner=partitioner)
            else:
                tf.get_variable(name, initializer=tf.constant(array))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with read_tensors(tmp_path / "model.ckpt") as found:
        assert_equal(found, VARIABLES)
