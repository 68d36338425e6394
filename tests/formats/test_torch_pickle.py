"""Files of torch.save, written by hand and by torch: bit for bit, nothing executed, and every broken one refused."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import helpers_checkpoints as by_hand
import numpy as np
import pytest
from helpers_checkpoints import (
    as_zip64,
    dictionary,
    name,
    number,
    numbers,
    pickled,
    storage,
    storages_of,
    tensor,
    text,
    torch_legacy,
    torch_zip,
    write_torch,
    write_torch_legacy,
)
from hypothesis import given
from hypothesis import strategies as st

from fastattn.formats import pickle_opcodes, stored_zip, torch_pickle
from fastattn.formats.torch_pickle import read_folder, read_tensors

RNG = np.random.default_rng(5)
TENSORS = {
    "weight": RNG.standard_normal((3, 5)).astype(np.float32),
    "transposed": np.asfortranarray(RNG.standard_normal((4, 2)).astype(np.float32)),
    "half": RNG.standard_normal(7).astype(np.float16),
    "ids": np.arange(5),
    "one": np.array(2.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
    "double": RNG.standard_normal(2),
    "bool": np.array([True, False]),
}
KEYS = storages_of(TENSORS)
WRITERS = pytest.mark.parametrize("write", [write_torch, write_torch_legacy])


def assert_equal(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for title, array in expected.items():
        got = found[title]
        assert (got.dtype, got.shape) == (array.dtype, array.shape) == (np.dtype(found.dtype(title)), got.shape)
        assert got.tobytes() == array.tobytes(), title


@WRITERS
def test_tensors_have_their_bits(tmp_path: Path, write: Any) -> None:
    with read_tensors(write(tmp_path / "model.bin", TENSORS)) as found:
        assert_equal(found, TENSORS)
        assert found.shape("weight") == (3, 5)
        assert found.source == tmp_path / "model.bin"
        assert "weight" in found
        assert "bias" not in found
        assert len(found) == len(TENSORS)


@WRITERS
def test_bfloat16_becomes_float32(tmp_path: Path, write: Any) -> None:
    wide = np.array([1.5, -2.0, 2.0**127, 0.0], np.float32)
    bits = (wide.view(np.uint32) >> 16).astype(np.uint16)
    with read_tensors(write(tmp_path / "model.bin", {"x": bits})) as found:
        assert found.dtype("x") == "bfloat16"
        assert found["x"].dtype == np.float32
        np.testing.assert_array_equal(found["x"], wide)


def test_views_of_one_storage(tmp_path: Path) -> None:
    numbers = np.arange(24, dtype=np.float32)
    where = storage("Float", "0", 24)
    views = {
        "all": tensor(where, 0, (4, 6), (6, 1)),
        "tied": tensor(where, 0, (4, 6), (6, 1)),
        "row": tensor(where, 6, (6,), (1,)),
        "column": tensor(where, 2, (4,), (6,)),
        "last": tensor(where, 23, (), ()),
        "parameter": name("torch._utils", "_rebuild_parameter")
        + (b"(" + tensor(where, 1, (2, 2), (12, 2)) + b"\x88" + by_hand.EMPTY + b"tR"),
    }
    path = tmp_path / "model.bin"
    path.write_bytes(torch_zip(b"\x80\x02" + dictionary(views) + b".", {"0": numbers.tobytes()}))
    matrix = numbers.reshape(4, 6)
    expected = [matrix, matrix, matrix[1], matrix[:, 2], np.float32(23), np.array([[1, 3], [13, 15]], np.float32)]
    with read_tensors(path) as found:
        for got, wanted in zip(found.values(), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_at = torch_pickle.read_at
    monkeypatch.setattr(torch_pickle, "read_at", lambda *all: (sizes.append(all[3].nbytes), read_at(*all)))
    with read_tensors(write_torch(tmp_path / "model.bin", TENSORS)) as found:
        assert sizes == []
        found["half"]
        assert sizes == [14]


def refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"^{path}: .*{message}"), read_tensors(path) as found:  # noqa: PT012
        for title in found:
            found[title]


CALLED: list[str] = []


class Bad:
    def __reduce__(self) -> Any:
        return CALLED.append, ("executed",)


class System:
    def __reduce__(self) -> Any:
        return os.system, ("exit 7",)


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_named_and_not_executed(tmp_path: Path, protocol: int) -> None:
    refused(tmp_path, pickle.dumps(System(), protocol), rf"refused: the file calls {os.system.__module__}\.system$")
    value = pickle.dumps({"weight": System()}, max(protocol, 2))
    refused(tmp_path, torch_zip(value, {}), rf"refused: the file calls {os.system.__module__}\.system$")
    refused(tmp_path, pickle.dumps(Bad(), protocol), r"refused: the file calls (__builtin__|builtins)\.getattr$")
    assert CALLED == []


@pytest.mark.parametrize(
    "full", ["os.system", "builtins.eval", "torch.load", "torch.FloatTensor", "collections.defaultdict", "a.\x1b[31m"]
)
def test_every_other_name_is_refused(tmp_path: Path, full: str) -> None:
    call = name(*full.rsplit(".", 1))
    shown = full.replace("\x1b[", r"\\x1b\[")
    for code in (call + b".", b"\x80\x02" + dictionary({"weight": call + b")R"}) + b"."):
        refused(tmp_path, torch_zip(code, {}), f"refused: the file calls {shown}")


FLOAT = storage("Float", "0", 15)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(FLOAT, 1, (3, 5), (5, 1)), r"shape \(3, 5\), strides \(5, 1\) and offset 1 does not fit its storage"),
        (tensor(FLOAT, 0, (3, 5), (6, 1)), "does not fit its storage of 15 items"),
        (tensor(FLOAT, 0, (10**6, 10**6), (0, 0)), "does not fit its storage"),
        (tensor(FLOAT, 0, (2**70,), (1,)), "does not fit its storage"),
        (tensor(FLOAT, -1, (3,), (1,)), r"offset, shape and strides \(-1, \(3,\), \(1,\)\)"),
        (tensor(FLOAT, 0, (-3,), (1,)), "offset, shape and strides"),
        (tensor(FLOAT, 0, (3,), (1, 1)), "offset, shape and strides"),
        (tensor(FLOAT, 0, (1,) * 17, (1,) * 17), "shape or strides"),
        (tensor(storage("Float", "0", 16), 0, (3,), (1,)), "'archive/data/0' has 60 bytes instead of 64"),
        (tensor(storage("Double", "0", 15), 0, (3,), (1,)), "'archive/data/0' has 60 bytes instead of 120"),
        (tensor(storage("Float", "1", 15), 0, (3,), (1,)), "the storage '1' is missing"),
        (tensor(storage("Float", "../data.pkl", 15), 0, (3,), (1,)), "the storage '../data.pkl' is missing"),
        (tensor(storage("Float", "archive/data/0", 15), 0, (3,), (1,)), "the storage 'archive/data/0' is missing"),
        (tensor(storage("Float", "0", -1), 0, (3,), (1,)), "a storage is described by"),
        (tensor(storage("Float", "0", 15, text("view")), 0, (3,), (1,)), "view of another"),
        (tensor(text("storage"), 0, (3,), (1,)), "a tensor is described by"),
        (FLOAT, "'weight' is _Storage; only a dict of tensors"),
        (number(7), "'weight' is int; only a dict of tensors"),
        (b"}" + number(7) + number(8) + b"s", "has the key 7"),
        (b"(" * 5, "no mark|takes more|key without"),
        (b"s", "takes more than it made"),
        (b"h\x07", "names an object that it did not make"),
        (b"i", "opcode 0x69 of its pickle is none that torch.save writes"),
        (b"\x81", "opcode 0x81"),
        (b"X\xff\xff\xff\xff", "more than 16777216 bytes"),
        (b"X\x01\x00\x00\x00\xff", "not UTF-8"),
        (b"cos", "a name in its pickle does not end"),
        (text("f") + b")R", "its pickle calls 'f'"),
        (name("collections", "OrderedDict") + number(1) + b"R", "its pickle calls"),
        (name("collections", "OrderedDict") + numbers([1]) + b"R", "an OrderedDict is made of"),
        (name("torch._utils", "_rebuild_parameter") + numbers([1, 2, 3]) + b"R", "a parameter is described by"),
        (number(1) + number(2) + b"a", "takes 1 for a list"),
        (number(1) + number(2) + b"\x93", "a name that is no text"),
    ],
)
def test_a_pickle_that_does_not_fit(tmp_path: Path, value: bytes, message: str) -> None:
    data = b"\x80\x02" + dictionary({"weight": value}) + b"."
    refused(tmp_path, torch_zip(data, {"0": bytes(60)}), message)


def test_other_objects(tmp_path: Path) -> None:
    refused(tmp_path, torch_zip(b"\x80\x02].", {}), r"holds \[\] instead of a dict of tensors")
    refused(tmp_path, torch_zip(b"\x80\x06].", {}), "protocol 6; 2 to 5 are read")
    refused(tmp_path, torch_zip(b"\x80\x02]", {}), "cut short: its pickle does not end")
    refused(tmp_path, b"", "the file is empty")
    refused(tmp_path, b"\x80\x02].", "no file of torch.save")
    refused(tmp_path, b"hello", "opcode 0x65|cut short|takes more|damaged")
    refused(tmp_path, b"PK\3\4" + bytes(100), "does not end with its directory")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = torch_zip(pickled(TENSORS), KEYS)
    for module, limit, value, message in (
        (pickle_opcodes, "MAX_OPCODES", 100, "a pickle of more than 100 steps"),
        (pickle_opcodes, "MAX_PICKLE", 100, "a pickle of more than 100 bytes"),
        (torch_pickle, "MAX_PICKLE", 100, r"'archive/data\.pkl' has \d+ bytes; at most 100 are read"),
        (torch_pickle, "MAX_TENSORS", 7, "8 tensors; at most 7 are read"),
        (torch_pickle, "MAX_COPIES", 0, r"its tensors have \d+ bytes together, the file only \d+"),
        (stored_zip, "MAX_DIRECTORY", 100, "at most 100 bytes are read"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(module, limit, value)
            refused(tmp_path, full, message)


def test_many_tensors_with_the_whole_storage(tmp_path: Path) -> None:
    where = storage("Float", "0", 10_000)
    values = {f"x{i}": tensor(where, 0, (2,), (9_999,)) for i in range(30)}
    data = torch_zip(b"\x80\x02" + dictionary(values) + b".", {"0": bytes(40_000)})
    refused(tmp_path, data, "its tensors have 1200000 bytes together")


class TestZip:
    DATA = torch_zip(pickled(TENSORS), KEYS)
    DIRECTORY = DATA.index(b"PK\1\2")

    def changed(self, place: int, form: str, value: int) -> bytes:
        """The file with a number of the directory's first entry changed."""
        data = bytearray(self.DATA)
        struct.pack_into(form, data, self.DIRECTORY + place, value)
        return bytes(data)

    def test_both_kinds_of_directory(self, tmp_path: Path) -> None:
        for data in (self.DATA, as_zip64(self.DATA)):
            (tmp_path / "model.bin").write_bytes(data)
            with read_tensors(tmp_path / "model.bin") as found:
                assert_equal(found, TENSORS)

    @pytest.mark.parametrize(
        ("place", "form", "value", "message"),
        [
            (8, "<H", 1, "'archive/data.pkl' is encrypted"),
            (10, "<H", 8, "'archive/data.pkl' is compressed"),
            (20, "<I", 7, "'archive/data.pkl' is compressed"),
            (42, "<I", 10**6, "'archive/data.pkl' is not where"),
            (42, "<I", 1, "'archive/data.pkl' is not where"),
            (16, "<I", 0, "entry 'archive/data.pkl' has the checksum [0-9a-f]{8} instead of 00000000"),
            (24, "<I", 0xFFFFFFFF, "the size of entry 'archive/data.pkl' is missing"),
            (28, "<H", 60000, "refused: an entry has the name 'archive/data.pklPK"),
            (0, "<I", 0, "does not list its entries"),
        ],
    )
    def test_an_entry(self, tmp_path: Path, place: int, form: str, value: int, message: str) -> None:
        refused(tmp_path, self.changed(place, form, value), message)

    def test_entries_that_overlap(self, tmp_path: Path) -> None:
        data = bytearray(self.DATA)
        for place in (20, 24):
            struct.pack_into("<I", data, self.DIRECTORY + place, len(pickled(TENSORS)) + 60)
        refused(tmp_path, bytes(data), r"entries 'archive/data\.pkl' and 'archive/byteorder' overlap")

    def test_an_entry_twice(self, tmp_path: Path) -> None:
        data = self.DATA.replace(b"archive/data/1", b"archive/data/0")
        refused(tmp_path, data, "entry 'archive/data/0' is there twice")

    @pytest.mark.parametrize("other", [b"../../../../et", b"/rchive/data/0", b"archive\\data/0", b"archive/data\xff0"])
    def test_a_name_that_leads_elsewhere(self, tmp_path: Path, other: bytes) -> None:
        refused(tmp_path, self.DATA.replace(b"archive/data/0", other), "refused: an entry has the name")

    def test_a_zip_of_something_else(self, tmp_path: Path) -> None:
        data = self.DATA.replace(b"archive/data.pkl", b"archive/else.pkl")
        refused(tmp_path, data, r"none of torch\.save")

    def test_another_order_of_bytes(self, tmp_path: Path) -> None:
        data = torch_zip(pickled(TENSORS), KEYS, byteorder=b"big")
        refused(tmp_path, data, "in the order 'big', not 'little'")

    def test_a_changed_number(self, tmp_path: Path) -> None:
        weight = KEYS["0"]
        data = self.DATA.replace(weight, weight[:-1] + bytes([weight[-1] ^ 1]))
        refused(tmp_path, data, "damaged: entry 'archive/data/0' has the checksum")

    def test_cut_short(self, tmp_path: Path) -> None:
        for data in (self.DATA, as_zip64(self.DATA)):
            for size in range(4, len(data), 41):
                refused(tmp_path, data[:size], "")


class TestLegacy:
    COUNTS = {str(key): array.size for key, array in enumerate(TENSORS.values())}  # noqa: RUF012
    DATA = torch_legacy(pickled(TENSORS, b"N"), KEYS, COUNTS)
    LISTED = b"".join(map(text, KEYS))

    def test_cut_short(self, tmp_path: Path) -> None:
        for size in range(0, len(self.DATA), 23):
            refused(tmp_path, self.DATA[:size], "")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (DATA + b"more", "4 bytes follow the last storage"),
            (DATA[:-3], "the storage '7' needs 2 bytes"),
            (torch_legacy(pickled(TENSORS), KEYS, {**COUNTS, "0": 7}), "the storage '0' has 7 items instead of 15"),
            (torch_legacy(pickled(TENSORS), {"0": b""}, COUNTS), "its list of storages is not that of its tensors"),
            (DATA.replace(b"](" + LISTED + b"e.", b"N."), "its list of storages is not that of its tensors"),
            (DATA.replace(b"](" + LISTED + b"e.", b"(" + LISTED + b"t."), "its list of storages is not that of"),
            (DATA.replace(LISTED, number(1) + LISTED), "its list of storages is not that of its tensors"),
            (DATA.replace(b"\x88s.", b"\x89s."), "not in little-endian order"),
            (DATA.replace(b"\xe9\x03", b"\xe9\x04"), r"no file of torch\.save"),
        ],
    )
    def test_what_does_not_fit(self, tmp_path: Path, data: bytes, message: str) -> None:
        refused(tmp_path, data, message)

    def test_a_storage_with_two_sizes(self, tmp_path: Path) -> None:
        values = {key: tensor(storage("Float", "0", n), 0, (1,), (1,)) for key, n in (("a", 1), ("b", 2))}
        data = torch_legacy(b"\x80\x02" + dictionary(values) + b".", {"0": bytes(8)}, {"0": 2})
        refused(tmp_path, data, "the storage '0' has two sizes")


class TestFolders:
    def write(self, folder: Path, **weight_map: str) -> None:
        write_torch(folder / "a.bin", {"x": TENSORS["weight"], "extra": TENSORS["one"]})
        write_torch_legacy(folder / "b.bin", {"y": TENSORS["half"]})
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def test_shards(self, tmp_path: Path) -> None:
        self.write(tmp_path, x="a.bin", y="b.bin")
        with read_folder(tmp_path) as found:
            assert_equal(found, {"x": TENSORS["weight"], "y": TENSORS["half"]})

    def test_a_single_file_comes_first(self, tmp_path: Path) -> None:
        self.write(tmp_path, x="a.bin")
        write_torch(tmp_path / "pytorch_model.bin", TENSORS)
        with read_folder(tmp_path) as found:
            assert_equal(found, TENSORS)

    @pytest.mark.parametrize(
        ("weight_map", "message"),
        [
            ({"x": "c.bin"}, r"c\.bin: no such shard; pytorch_model\.bin\.index\.json names it for 'x'"),
            ({"z": "a.bin"}, r"a\.bin: no tensor 'z', which pytorch_model\.bin\.index\.json says is here"),
            ({"x": "../a.bin"}, "must be a file name, got '../a.bin'"),
            ({}, "weight_map must name the shard of each tensor"),
        ],
    )
    def test_shards_that_do_not_fit(self, tmp_path: Path, weight_map: dict[str, str], message: str) -> None:
        self.write(tmp_path, **weight_map)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_folder(tmp_path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin"):
            read_folder(tmp_path)


def read_all(path: Path, data: bytes) -> None:
    """Read a file that may be broken: a ValueError that names it, or tensors that are no larger than the file says."""
    path.write_bytes(data)
    try:
        with read_tensors(path) as found:
            total = sum(found[title].nbytes for title in found)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
    else:
        assert total <= 2 * torch_pickle.MAX_COPIES * len(data)  # bfloat16 grows


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)


def mutated(data: bytes, changes: list[tuple[int, bytes]], cut: int) -> bytes:
    changed = bytearray(data)
    for place, new in changes:
        at = place % len(changed)
        changed[at : at + len(new)] = new
    return bytes(changed[: len(changed) - cut])


@given(st.sampled_from([TestZip.DATA, as_zip64(TestZip.DATA), TestLegacy.DATA]), CHANGES, st.integers(0, 9))
def test_mutated_files(tmp_path: Path, data: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    read_all(tmp_path / "model.bin", mutated(data, changes, cut))


@given(CHANGES, st.booleans())
def test_mutated_pickles(tmp_path: Path, changes: list[tuple[int, bytes]], legacy: bool) -> None:
    data = mutated(pickled(TENSORS), changes, 0)
    read_all(tmp_path / "model.bin", torch_legacy(data, KEYS, TestLegacy.COUNTS) if legacy else torch_zip(data, KEYS))


PARTS = [tensor(FLOAT, 0, (3, 5), (5, 1)), FLOAT, by_hand.EMPTY, text("a"), number(3), numbers([3]), b"\x80\x02"]
CODES = PARTS + [code + b"\1" for code in pickle_opcodes._OPCODES] + [b"(", b"}", b"]", b"u", b"t", b"R", b"b", b"Q"]


@given(st.lists(st.sampled_from(CODES), max_size=30))
def test_random_programs(tmp_path: Path, codes: list[bytes]) -> None:
    read_all(tmp_path / "model.bin", torch_zip(b"".join(codes) + b".", {"0": bytes(60)}))


def test_deep_objects_are_made_and_thrown_away(tmp_path: Path) -> None:
    deep = b")" + b"\x85" * 100_000
    refused(tmp_path, torch_zip(deep + b".", {}), r"holds \(.* instead of a dict")
    refused(tmp_path, torch_zip(b"}" + deep + b"Ns.", {}), "has the key")
    refused(tmp_path, torch_zip(deep + b"Q.", {}), "a storage is described by")


class TestTorch:
    """Against torch.save itself."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"_use_new_zipfile_serialization": False},
            {"pickle_protocol": 4},
            {"pickle_protocol": 5, "_use_new_zipfile_serialization": False},
        ],
    )
    def test_the_same_bits(self, tmp_path: Path, options: dict[str, Any]) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        torch.manual_seed(0)
        state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).state_dict()
        state |= {title: torch.from_numpy(array) for title, array in TENSORS.items()}
        state["tied"] = state["transposed"]
        state["view"] = torch.randn(10, 10)[2:5, ::2]
        state["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
        state["bfloat16"] = torch.randn(9).bfloat16()
        torch.save(state, tmp_path / "model.bin", **options)
        with read_tensors(tmp_path / "model.bin") as found:
            assert found.dtype("bfloat16") == "bfloat16"
            numbers = {title: value.detach() for title, value in state.items()}
            numbers["bfloat16"] = numbers["bfloat16"].float()
            assert list(found) == list(numbers)
            for title, value in numbers.items():
                assert found[title].dtype == value.numpy().dtype
                assert found[title].shape == tuple(value.shape)
                np.testing.assert_array_equal(found[title], value.numpy())

    def test_a_whole_module_is_refused(self, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch", reason="needs torch")
        torch.save(torch.nn.Linear(2, 2), tmp_path / "model.bin")
        with pytest.raises(ValueError, match=r"refused: the file calls torch\.nn\.modules\.linear\.Linear$"):
            read_tensors(tmp_path / "model.bin")
