"""fastattn.formats.allennlp: TensorFlow's matrices become PyTorch's, and every lie of a file is named."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import no_hang
from helpers_elmo import options, random_datasets, write

pytest.importorskip("h5py", reason="needs h5py")

import h5py

from fastattn import nn
from fastattn.formats.allennlp import read_options, read_weights, write_files
from fastattn.models import ElmoConfig
from fastattn.models.elmo.network import ElmoNetwork
from fastattn.tasks import WordEncoder

OPTIONS = options()
DATASETS = random_datasets(OPTIONS)
CELL = "RNN_1/RNN/MultiRNNCell/Cell2/LSTMCell"


def shapes_of(options: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with nn.init.uninitialized():
        network = ElmoNetwork(ElmoConfig.from_dict(options))
    return {name: parameter.shape for name, parameter in network.named_parameters("network.")}


SHAPES = shapes_of(OPTIONS)


def read(folder: Path, datasets: dict[str, Any], options: dict[str, Any] = OPTIONS) -> dict[str, Any]:
    options_file, weight_file = write(folder, options, datasets)
    with read_weights(weight_file, shapes_of(options), options_file) as tensors:
        assert len(tensors) == len(list(tensors))
        assert all(tensors.shape(name) == tensors[name].shape for name in tensors)
        return dict(tensors)


def test_tensors_are_those_of_pytorch(tmp_path):
    tensors = read(tmp_path, DATASETS)
    assert set(tensors) == set(SHAPES)
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in tensors.values())
    encoder, layer = "network.token_encoder", "network.layers.2.backward"
    np.testing.assert_array_equal(tensors[f"{encoder}.char_cnn.embedding"], DATASETS["char_embed"])
    kernel = DATASETS["CNN/W_cnn_1"]
    np.testing.assert_array_equal(tensors[f"{encoder}.char_cnn.weight_1"][4, 1, 2], kernel[0, 1, 2, 4])
    np.testing.assert_array_equal(tensors[f"{encoder}.char_cnn.bias_2"], DATASETS["CNN/b_cnn_2"])
    highway = tensors[f"{encoder}.highway.layers.1.weight"]
    np.testing.assert_array_equal(highway[:12], DATASETS["CNN_high_1/W_transform"].T)
    np.testing.assert_array_equal(highway[12:], DATASETS["CNN_high_1/W_carry"].T)
    bias = tensors[f"{encoder}.highway.layers.0.bias"]
    np.testing.assert_array_equal(bias[:12], DATASETS["CNN_high_0/b_transform"])
    np.testing.assert_array_equal(bias[12:], DATASETS["CNN_high_0/b_carry"])
    np.testing.assert_array_equal(tensors[f"{encoder}.projection.weight"], DATASETS["CNN_proj/W_proj"].T)
    i, j, f, o = np.split(DATASETS[f"{CELL}/W_0"].T, 4)
    both = np.concatenate([i, f, j, o])
    np.testing.assert_array_equal(tensors[f"{layer}.weight_ih"], both[:, :6])
    np.testing.assert_array_equal(tensors[f"{layer}.weight_hh"], both[:, 6:])
    i, j, f, o = np.split(DATASETS[f"{CELL}/B"], 4)
    np.testing.assert_array_equal(tensors[f"{layer}.bias"], np.concatenate([i, f + 1, j, o]))
    np.testing.assert_array_equal(tensors[f"{layer}.weight_hr"], DATASETS[f"{CELL}/W_P_0"].T)


@pytest.mark.parametrize("changes", [{}, {"projection_dim": 12, "dim": 12, "n_highway": 0}])
def test_what_is_written_is_what_was_read(tmp_path, changes):
    some = options(**changes)
    datasets = random_datasets(some)
    tensors = read(tmp_path, datasets, some)
    write_files(tmp_path / "o.json", tmp_path / "w.hdf5", some, tensors)
    assert read_options(tmp_path / "o.json") == some
    found = {}
    with h5py.File(tmp_path / "w.hdf5") as file:
        file.visititems(lambda name, item: found.update({name: item[...]} if hasattr(item, "shape") else {}))
    assert set(found) == set(datasets)
    for name, array in datasets.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=0, atol=2.5e-7 if name.endswith("/B") else 0)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_failure_leaves_no_piece(tmp_path):
    with pytest.raises(TypeError):
        write_files(tmp_path / "o.json", tmp_path / "w.hdf5", {"a": object()}, {})
    with pytest.raises(KeyError, match="softmax"):
        write_files(tmp_path / "o.json", tmp_path / "w.hdf5", {}, {"softmax": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=r"o.json: cannot be both options_file and weight_file"):
        write_files(tmp_path / "o.json", tmp_path / "o.json", {}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_any_float_becomes_float32(tmp_path, dtype):
    expected = read(tmp_path, {name: array.astype(np.float16) for name, array in DATASETS.items()})
    other = read(tmp_path, {name: array.astype(np.float16).astype(dtype) for name, array in DATASETS.items()})
    for name, array in expected.items():
        assert array.dtype == other[name].dtype == np.float32
        np.testing.assert_array_equal(array, other[name])


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    _, weight_file = write(tmp_path, OPTIONS, DATASETS)
    with read_weights(weight_file, SHAPES) as tensors:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
        assert all(name in tensors and tensors.shape(name) == SHAPES[name] for name in SHAPES)
        assert "network.nothing" not in tensors


def test_the_file_is_not_written_to(tmp_path):
    _, weight_file = write(tmp_path, OPTIONS, DATASETS)
    before = weight_file.read_bytes(), weight_file.stat().st_mtime_ns
    weight_file.chmod(0o444)
    with read_weights(weight_file, SHAPES) as tensors, pytest.raises(KeyError):
        tensors["network.nothing"]
    assert (weight_file.read_bytes(), weight_file.stat().st_mtime_ns) == before


def changed(**changes: Any) -> dict[str, Any]:
    new = {**DATASETS, **{name.replace("__", "/"): array for name, array in changes.items()}}
    return {name: array for name, array in new.items() if array is not None}


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        (changed(char_embed=None), "dataset 'char_embed' is missing"),
        (changed(**{f"{CELL}/W_P_0": None}), f"dataset '{CELL}/W_P_0' is missing"),
        (changed(**{f"{CELL}/W_0": None}), f"dataset '{CELL}/W_0' is missing"),
        (changed(CNN_high_1__b_carry=None), "dataset 'CNN_high_1/b_carry' is missing"),
        (changed(CNN__W_cnn_3=np.zeros(2)), "dataset 'CNN/W_cnn_3' is not known"),
        (changed(more__optimizer=np.zeros(2)), "group 'more' is not known"),
        (
            changed(char_embed=np.zeros((262, 3), np.float32)),
            "dataset 'char_embed' must have shape (261, 3), as {} says, got (262, 3)",
        ),
        (
            changed(CNN__W_cnn_1=np.zeros((2, 3, 5), np.float32)),
            "dataset 'CNN/W_cnn_1' must have shape (1, 2, 3, 5), as {} says, got (2, 3, 5)",
        ),
        (
            changed(**{f"{CELL}/W_0": np.zeros((12, 44), np.float32)}),
            f"dataset '{CELL}/W_0' must have shape (12, 40), as {{}} says, got (12, 44)",
        ),
        (changed(char_embed=np.zeros((261, 3), int)), "dataset 'char_embed' must be of floating point, got int64"),
        (
            changed(char_embed=None, extra=np.zeros(1)),
            "dataset 'char_embed' is missing; dataset 'extra' is not known",
        ),
    ],
)
def test_datasets_that_do_not_fit_the_options(tmp_path, datasets, message):
    options_file, weight_file = write(tmp_path, OPTIONS, datasets)
    with pytest.raises(ValueError, match=r"weights\.hdf5") as caught, read_weights(weight_file, SHAPES, options_file):
        pass
    assert str(caught.value) == f"{weight_file}: {message.format(options_file)}"


def test_a_truncated_file(tmp_path):
    _, weight_file = write(tmp_path, OPTIONS, DATASETS)
    whole = weight_file.read_bytes()
    for size in (0, 10, 2000, len(whole) // 2, len(whole) - 1):
        weight_file.write_bytes(whole[:size])
        with (
            pytest.raises(ValueError, match=r"weights.hdf5: not a whole HDF5 file: "),
            read_weights(weight_file, SHAPES),
        ):
            pass


def test_a_damaged_dataset_is_named(tmp_path):
    _, weight_file = write(tmp_path, OPTIONS, changed(char_embed=None))
    with h5py.File(weight_file, "a") as file:
        dataset = file.create_dataset("char_embed", data=DATASETS["char_embed"], chunks=(261, 3), fletcher32=True)
        place = dataset.id.get_chunk_info(0).byte_offset
    with weight_file.open("r+b") as file:
        file.seek(place + 100)
        file.write(b"?" * 50)
    with (
        read_weights(weight_file, SHAPES) as tensors,
        pytest.raises(ValueError, match=r"weights.hdf5: dataset 'char_embed' cannot be read: "),
    ):
        tensors["network.token_encoder.char_cnn.embedding"]


@pytest.mark.parametrize("signature", [b"HEAP", b"TREE", b"SNOD"])
def test_damage_between_the_datasets_names_the_file(tmp_path, signature):
    """What holds the names together."""
    _, weight_file = write(tmp_path, OPTIONS, DATASETS)
    weight_file.write_bytes(weight_file.read_bytes().replace(signature, b"????"))
    with (
        pytest.raises(ValueError, match=r"weights.hdf5: the list of its datasets cannot be read: "),
        read_weights(weight_file, SHAPES),
    ):
        pass


def test_missing_files(tmp_path, monkeypatch):
    for read, kind in ((read_options, "options.json"), (lambda path: read_weights(path, SHAPES), "HDF5 weights")):
        for path, problem in ((tmp_path, "is a folder"), (tmp_path / "no", "no such file")):
            with (
                pytest.raises(FileNotFoundError, match=rf"{path.name}: {problem}; ELMo needs its {kind} here"),
                contextlib.ExitStack() as files,
            ):
                files.enter_context(read(path))
    (tmp_path / "options.json").write_text("{")
    with pytest.raises(ValueError, match=r"options.json: not valid JSON"):
        read_options(tmp_path / "options.json")
    (tmp_path / "options.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"options.json: must hold a JSON object, got list"):
        read_options(tmp_path / "options.json")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "fastattn\[elmo\]"'), read_weights(tmp_path, SHAPES):
        pass


def test_what_is_no_file_is_named(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    options_file, weight_file = write(tmp_path, OPTIONS, DATASETS)
    for path in (weight_file, options_file):
        path.unlink()
        path.write_text(pointer)
        with pytest.raises(ValueError, match=f"{path}: a Git LFS pointer, not the file itself"):
            WordEncoder.from_pretrained(options_file, weight_file)
        path.unlink()
        os.mkfifo(path)
        with no_hang(), pytest.raises(ValueError, match=f"{path}: not a regular file"):
            WordEncoder.from_pretrained(options_file, weight_file)
