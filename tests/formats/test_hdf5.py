"""fastattn.formats.hdf5: only what a file holds itself is read, and no more memory is taken than that needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_elmo import options, random_datasets, write

pytest.importorskip("h5py", reason="needs h5py")

import h5py

from fastattn.models import Elmo

OPTIONS = options()
DATASETS = random_datasets(OPTIONS)
NAME = "CNN_proj/W_proj"
SHAPE = DATASETS[NAME].shape
"""(12, 6), of float32."""


def load(folder: Path, change: Callable[[Any], object] = lambda file: None, options: Any = OPTIONS) -> Elmo:
    """The model of a folder of good weights, after the change of an open file without `NAME`."""
    rest = {name: array for name, array in DATASETS.items() if name != NAME}
    options_file, weight_file = write(folder, options, rest)
    with h5py.File(weight_file, "a") as file:
        change(file)
    return Elmo.from_pretrained(options_file, weight_file)


def make(**settings: Any) -> Callable[[Any], object]:
    return lambda file: file.create_dataset(NAME, data=DATASETS[NAME], **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunks": (5, 4)},
        {"chunks": (12, 6), "maxshape": (None, 6)},
        {"chunks": (5, 4), "compression": "gzip"},
        {"chunks": (5, 4), "shuffle": True, "fletcher32": True, "compression": 9},
    ],
    ids=str,
)
def test_storage_that_is_read(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = load(tmp_path, make(**settings))
    projection: Any = model.network.token_encoder.projection
    np.testing.assert_array_equal(projection.weight.data, DATASETS[NAME].T)


def test_a_compact_dataset(tmp_path: Path) -> None:
    def compact(file: Any) -> None:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file["CNN_proj"].id, b"W_proj", h5py.h5t.NATIVE_FLOAT, space, made).write(
            h5py.h5s.ALL, h5py.h5s.ALL, DATASETS[NAME]
        )

    projection: Any = load(tmp_path, compact).network.token_encoder.projection
    np.testing.assert_array_equal(projection.weight.data, DATASETS[NAME].T)


def external_file(folder: Path) -> Path:
    path = folder / "secret"
    path.write_bytes(DATASETS[NAME].tobytes())
    return path


def other_file(folder: Path) -> str:
    with h5py.File(folder / "other.hdf5", "w") as file:
        file[NAME] = DATASETS[NAME]
    return str(folder / "other.hdf5")


def virtual(folder: Path, shape: tuple[int | None, ...] = SHAPE) -> Callable[[Any], object]:
    def change(file: Any) -> None:
        layout = h5py.VirtualLayout(SHAPE, np.float32, maxshape=shape)
        source = h5py.VirtualSource(other_file(folder), NAME, SHAPE, maxshape=shape)
        if None in shape:
            layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
        else:
            layout[...] = source
        file.create_virtual_dataset(NAME, layout)

    return change


def set_link(link: Any, name: str = NAME) -> Callable[[Any], object]:
    def change(file: Any) -> None:
        if name in file:
            file.move(name, "moved")
        file[name] = link

    return change


ELSEWHERE: dict[str, tuple[Callable[[Path], Callable[[Any], object]], str]] = {
    "external storage": (
        lambda folder: (
            lambda file: file.create_dataset(
                NAME, SHAPE, np.float32, external=[(str(external_file(folder)), 0, h5py.h5f.UNLIMITED)]
            )
        ),
        f"dataset '{NAME}' is external: its values are in other files",
    ),
    "virtual": (virtual, f"dataset '{NAME}' is virtual: its values are those of other datasets"),
    "virtual without an end": (
        lambda folder: virtual(folder, (None, 6)),
        f"dataset '{NAME}' is virtual: its values are those of other datasets",
    ),
    "soft link": (
        lambda folder: set_link(h5py.SoftLink("/char_embed")),
        f"'{NAME}' is a soft link; only what the file holds itself is read",
    ),
    "external link": (
        lambda folder: set_link(h5py.ExternalLink(other_file(folder), NAME)),
        f"'{NAME}' is an external link; only what the file holds itself is read",
    ),
    "group behind an external link": (
        lambda folder: set_link(h5py.ExternalLink(other_file(folder), "CNN_proj"), "CNN_proj"),
        "'CNN_proj' is an external link; only what the file holds itself is read",
    ),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_values_that_are_elsewhere(tmp_path: Path, case: str) -> None:
    """Weights of such a file would be those of any other file, and `save_pretrained` would publish them."""
    change, message = ELSEWHERE[case]
    with pytest.raises(ValueError, match=r"weights\.hdf5: ") as caught:
        load(tmp_path, change(tmp_path))
    assert str(caught.value) == f"{tmp_path}/weights.hdf5: {message}"


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    """Nobody writes into the pipe, so opening it would never end."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is an external link"):
        load(tmp_path, set_link(h5py.ExternalLink(str(tmp_path / "pipe"), NAME)))


def never_written(file: Any) -> None:
    file.create_dataset(NAME, SHAPE, np.float32)


def one_chunk_written(file: Any) -> None:
    file.create_dataset(NAME, SHAPE, np.float32, chunks=(5, 4))[:5, :4] = 1


def chunk(data: bytes, **settings: Any) -> Callable[[Any], object]:
    """A dataset of one chunk whose bytes are `data`."""

    def change(file: Any) -> None:
        dataset = file.create_dataset(NAME, SHAPE, np.float32, **{"chunks": SHAPE, "compression": "gzip", **settings})
        dataset.id.write_direct_chunk((0, 0), data)

    return change


def shared(file: Any) -> None:
    """The same bytes under two names."""
    file.create_dataset(NAME, data=DATASETS[NAME])
    del file["CNN_high_0/W_carry"]
    file["CNN_high_0/W_carry"] = file["CNN_high_0/W_transform"]


WHOLE = zlib.compress(DATASETS[NAME].tobytes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (never_written, "was never written"),
        (one_chunk_written, "was not written as a whole"),
        (make(chunks=(5, 4), compression="lzf"), r"has the filters \[32000\] of HDF5; only gzip, shuffle, fletcher32"),
        (make(chunks=(5, 4), scaleoffset=3), r"has the filters \[6\] of HDF5; only gzip, shuffle, fletcher32 are read"),
        (make(maxshape=(None, None), chunks=(13, 6)), r"has shape \(12, 6\) and larger chunks, \(13, 6\)"),
        (chunk(WHOLE[:-9]), r"has a damaged chunk at \(0, 0\)"),
        (chunk(b"nothing"), r"has a damaged chunk at \(0, 0\)"),
        (chunk(zlib.compress(bytes(280))), r"has a damaged chunk at \(0, 0\)"),
        (chunk(zlib.compress(bytes(289))), r"has a damaged chunk at \(0, 0\)"),
        (chunk(bytes(280), compression=None), r"has a damaged chunk at \(0, 0\)"),
    ],
)
def test_values_that_are_not_in_the_file(tmp_path: Path, change: Callable[[Any], object], message: str) -> None:
    """HDF5 gives a fill value, or what the memory holds behind a chunk that is too short."""
    with pytest.raises(ValueError, match=rf"weights\.hdf5: dataset '{NAME}' {message}"):
        load(tmp_path, change)


def refused(options_file: Path, weight_file: Path) -> str:
    """Why the files are refused by a process that gets no more than 256 MB beside its libraries."""
    code = f"""
import resource, h5py
from fastattn.models import Elmo
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
try:
    Elmo.from_pretrained({str(options_file)!r}, {str(weight_file)!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.stdout


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")


@LINUX
def test_a_chunk_that_inflates_to_gigabytes(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(bytes(2**24)) for _ in range(64)), packer.flush()])
    rest = {name: array for name, array in DATASETS.items() if name != NAME}
    options_file, weight_file = write(tmp_path, OPTIONS, rest)
    with h5py.File(weight_file, "a") as file:
        chunk(data)(file)
    assert f"dataset '{NAME}' has a damaged chunk at (0, 0)" in refused(options_file, weight_file)


@LINUX
def test_datasets_that_nobody_wrote_allocate_nothing(tmp_path: Path) -> None:
    """A file of some kB whose options ask for 1 GB."""
    options_file, weight_file = write(tmp_path, options(dim=4096, projection_dim=1024, n_highway=0, n_layers=4), {})
    sizes = {"W_0": (2048, 16384), "B": (16384,), "W_P_0": (4096, 1024), "W_proj": (12, 1024), "b_proj": (1024,)}
    with h5py.File(weight_file, "w") as file:
        for name, array in random_datasets(options(n_highway=0, n_layers=4)).items():
            file.create_dataset(name, sizes.get(name.rpartition("/")[2], array.shape), np.float32)
    assert weight_file.stat().st_size < 2**17
    assert "dataset 'char_embed' was never written" in refused(options_file, weight_file)


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    """Datasets of one place need more memory than the file has bytes, once there are enough of them."""
    load(tmp_path, shared)
    many = options(n_layers=200)
    options_file, weight_file = write(tmp_path, many, {})
    with h5py.File(weight_file, "w", libver="latest") as file:
        first: dict[tuple[int, ...], Any] = {}
        for name, array in random_datasets(many).items():
            if array.shape not in first:
                first[array.shape] = file.create_dataset(name, data=array)
            else:
                file[name] = first[array.shape]
    with pytest.raises(ValueError, match=r"has \d+ bytes, but the other datasets leave only \d+ of the file"):
        Elmo.from_pretrained(options_file, weight_file)


def test_nested_groups_are_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    get = h5py.Group.__getitem__
    monkeypatch.setattr(h5py.Group, "__getitem__", lambda group, name: opened.append(name) or get(group, name))

    def nested(file: Any) -> None:
        file[NAME] = DATASETS[NAME]
        group = file
        for _ in range(2000):
            group = group.create_group("a")
        opened.clear()

    with pytest.raises(ValueError, match=r"weights\.hdf5: group 'a' is not known$"):
        load(tmp_path, nested)
    assert len(opened) < 100


def test_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    get = h5py.Group.get

    def counted(group: Any, name: str, *arguments: Any, **options: Any) -> Any:
        asked.append(name)
        return get(group, name, *arguments, **options)

    monkeypatch.setattr(h5py.Group, "get", counted)

    def many(file: Any) -> None:
        for i in range(5000):
            file[f"a{i}"] = file["char_embed"]
        asked.clear()

    with pytest.raises(ValueError, match=r"hdf5: dataset 'a0' is not known; .*'a1005' is not known and 11 more$"):
        load(tmp_path, many)
    assert len(asked) < 600


@pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, text: str) -> None:
    def change(file: Any) -> None:
        file[NAME] = DATASETS[NAME]
        file["CNN_high_1/W_carry"][3, 5] = value

    name = "network.token_encoder.highway.layers.1.weight"
    with pytest.raises(ValueError, match=rf"weights\.hdf5: tensor '{name}' has {text} at \(17, 3\); weights must be"):
        load(tmp_path, change)


@pytest.mark.parametrize("field", ["n_layers", "n_highway"])
def test_layers_that_no_file_can_have(tmp_path: Path, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastattn.models.elmo.model.ElmoNetwork", None)  # would have that many
    with pytest.raises(ValueError, match=r"weights\.hdf5: a file of \d+ bytes cannot have the 10000\d layers that"):
        load(tmp_path, make(), options(**{field: 100_000}))
