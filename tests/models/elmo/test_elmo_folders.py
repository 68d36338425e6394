"""Elmo.from_pretrained and save_pretrained: what is saved is what is loaded, and what cannot be is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_elmo import SENTENCES, options, random_datasets, write
from safetensors.numpy import load_file, save_file

from fastattn import no_grad
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.models import Elmo, ElmoConfig, ElmoOutput
from fastattn.text.characters import character_ids, index_words

OPTIONS = options()
CONFIG = ElmoConfig.from_dict(OPTIONS)


def read(elmo: Elmo) -> ElmoOutput:
    words, index, cu_seqlens = index_words(SENTENCES)
    return elmo(character_ids(words), cu_seqlens, index=index)


def equal(a: Elmo, b: Elmo) -> None:
    with no_grad():
        for x, y in zip(read(a).layers, read(b).layers, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Elmo(CONFIG.replace(num_output_representations=1), trainable=False).save_pretrained(tmp_path / "elmo")
    return tmp_path / "elmo"


@pytest.mark.parametrize("trainable", [False, True])
def test_what_is_saved_is_loaded(tmp_path, trainable):
    arguments: dict[str, Any] = {
        "num_output_representations": 2,
        "do_layer_norm": True,
        "dropout": 0.25,
        "keep_sentence_boundaries": True,
    }
    config = CONFIG.replace(**arguments)
    elmo = Elmo(config, trainable=trainable).eval()
    elmo.scalar_mixes[1].gamma.data[:] = 3
    elmo.save_pretrained(tmp_path)
    again = Elmo.from_pretrained(tmp_path)
    assert again.config == config
    assert again.network.frozen
    assert not again.training
    assert (len(again.scalar_mixes), again.scalar_mixes[0].do_layer_norm, again.dropout.p) == (2, True, 0.25)
    equal(again, elmo)
    for (name, array), (other, values) in zip(again.state_dict().items(), elmo.state_dict().items(), strict=True):
        assert name == other
        np.testing.assert_array_equal(array, values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_arguments_replace_what_the_folder_says(folder):
    assert len(Elmo.from_pretrained(folder).scalar_mixes) == 1
    assert len(Elmo.from_pretrained(folder, num_output_representations=3).scalar_mixes) == 3
    assert Elmo.from_pretrained(folder, dropout=0.0).dropout.p == 0
    fixed = Elmo.from_pretrained(folder, scalar_mix_parameters=[1.0, 2.0, 3.0, 4.0])
    assert fixed.scalar_mixes[0].scalars.data.tolist() == [1, 2, 3, 4]
    assert Elmo.from_pretrained(folder, trainable=True).network.records()


def test_fixed_mixes_stay_fixed(folder):
    Elmo.from_pretrained(folder, scalar_mix_parameters=[1.0, 2.0, 3.0, 4.0]).save_pretrained(folder)
    again = Elmo.from_pretrained(folder)
    assert again.config.scalar_mix_parameters == (1, 2, 3, 4)
    assert not any(parameter.requires_grad for parameter in again.scalar_mixes[0].parameters())


def test_fixed_mixes_may_be_an_array(folder):
    elmo = Elmo.from_pretrained(folder, scalar_mix_parameters=np.array([1, 2, 3, 4], np.float32))
    elmo.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["scalar_mix_parameters"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_output_representations", -1, "must be an integer of at least 0, got -1"),
        ("num_output_representations", "2", "must be an integer of at least 0, got '2'"),
        ("do_layer_norm", [1], r"must be a bool, got \[1\]"),
        ("keep_sentence_boundaries", "no", "must be a bool, got 'no'"),
        ("dropout", "0.5", r"must be a number in \[0, 1\), got '0.5'"),
        ("scalar_mix_parameters", 3, "must be finite numbers, got 3"),
        ("scalar_mix_parameters", [1.0], "must have one number for each of 4 layers, got 1"),
    ],
)
def test_options_of_a_folder_that_cannot_be(folder, name, value, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(ValueError, match=rf"^{folder}/config.json: {name} {message}"):
        Elmo.from_pretrained(folder)


def test_export(tmp_path, folder):
    pytest.importorskip("h5py", reason="needs h5py")
    datasets = random_datasets(OPTIONS)
    first = Elmo.from_pretrained(*write(tmp_path / "a", OPTIONS, datasets))
    first.export(tmp_path / "options.json", tmp_path / "weights.hdf5")
    second = Elmo.from_pretrained(tmp_path / "options.json", tmp_path / "weights.hdf5")
    for x, y in zip(read(first).layers, read(second).layers, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert json.loads((tmp_path / "options.json").read_text()) == OPTIONS


def test_a_head_is_passed_over(folder):
    elmo = Elmo.from_pretrained(folder)
    tensors = {name: array for name, array in elmo.state_dict().items() if name.startswith("network.")}
    tensors["softmax.weight"] = np.zeros((7, 6), np.float32)
    write_checkpoint(folder, {"model_type": "elmo", **OPTIONS, "vocab_size": 7}, tensors)
    equal(Elmo.from_pretrained(folder), elmo)
    assert not Elmo.from_pretrained(folder).scalar_mixes


def test_arrays_are_copied():
    elmo = Elmo(CONFIG)
    tensors = {name: array.copy() for name, array in elmo.state_dict().items()}
    again = Elmo(CONFIG, tensors, trainable=True)
    tensors["network.layers.0.forward.bias"][:] = 9
    equal(again, elmo.eval())
    assert Elmo(CONFIG, tensors).network.frozen


def test_errors_name_the_file_and_the_value(folder, tmp_path, monkeypatch):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("network.layers.2.backward.bias")
    tensors["network.layers.0.forward.bias"] = np.zeros(3, np.float32)
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"model.safetensors: ") as caught:
        Elmo.from_pretrained(folder)
    assert "tensor 'network.layers.2.backward.bias' is missing" in str(caught.value)
    assert "tensor 'network.layers.0.forward.bias' must have shape (40,), got (3,)" in str(caught.value)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"config.json: model_type is 'bert'; ElmoConfig reads 'elmo'"):
        Elmo.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nothing"):
        Elmo.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"config.json: weight_file must be given with a file of options"):
        Elmo.from_pretrained(folder / "config.json")


def test_options_that_disagree_with_the_weights(tmp_path):
    pytest.importorskip("h5py", reason="needs h5py")
    options_file, weight_file = write(tmp_path, OPTIONS, random_datasets(OPTIONS))
    options_file.write_text(json.dumps(options(n_layers=4)))
    cell = "RNN_0/RNN/MultiRNNCell/Cell3/LSTMCell"
    with pytest.raises(ValueError, match=rf"weights.hdf5: dataset '{cell}/W_0' is missing"):
        Elmo.from_pretrained(options_file, weight_file)
    options_file.write_text(json.dumps(options(n_layers=2)))
    with pytest.raises(ValueError, match=r"weights.hdf5: group 'RNN_0/RNN/MultiRNNCell/Cell2' is not known"):
        Elmo.from_pretrained(options_file, weight_file)
    options_file.write_text(json.dumps(options(dim=11)))
    with pytest.raises(ValueError, match=r"W_0' must have shape \(12, 44\), as .*options.json says, got \(12, 40\)"):
        Elmo.from_pretrained(options_file, weight_file)
    options_file.write_text(json.dumps({"lstm": OPTIONS["lstm"]}))
    with pytest.raises(ValueError, match=r"options.json: char_cnn is missing"):
        Elmo.from_pretrained(options_file, weight_file)
    with pytest.raises(FileNotFoundError, match=r"no.json: no such file"):
        Elmo.from_pretrained(tmp_path / "no.json", weight_file)


def test_without_h5py(tmp_path, monkeypatch):
    (tmp_path / "options.json").write_text(json.dumps(OPTIONS))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'need h5py: pip install "fastattn\[elmo\]"'):
        Elmo.from_pretrained(tmp_path / "options.json", tmp_path / "weights.hdf5")


def test_options_are_no_configuration():
    with pytest.raises(TypeError, match="Elmo: config must be an ElmoConfig, got dict"):
        Elmo(options())
