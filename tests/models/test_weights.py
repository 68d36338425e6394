"""Models with weights of fewer bits: loaded, saved, pickled and refused, in every family."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_families import HEADS, ROWS, make_call, new_model
from helpers_transformer import CASES, make_model
from safetensors.numpy import load_file, save_file

from fastattn.formats.hugging_face import read_state_dict
from fastattn.generation import generate
from fastattn.models import BertConfig, BertForSequenceClassification, BertModel, Transformer, convert_checkpoint

REDUCED = ("bfloat16", "int8")
IDS = np.array([[2, 5, 9, 3], [2, 6, 3, 3]])


def bert(folder: Path, **options: Any) -> Path:
    config = BertConfig(vocab_size=30, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    BertModel(config, **options).save_pretrained(folder)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bert(tmp_path / "model")


def states(model: Any) -> Any:
    return model(IDS).last_hidden_state


def change(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def configure(folder: Path, **fields: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {**values["quantization_config"], **fields}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("weights", REDUCED)
@pytest.mark.parametrize(("name", "kind"), [*((name, "") for name in ROWS), *HEADS])
def test_every_model_is_saved_as_it_is_and_loads_with_the_same_bits(name, kind, weights, tmp_path):
    model = new_model(name, kind, seed=5)
    model.save_pretrained(tmp_path / "plain")
    arguments = make_call(kind, model.config, ROWS[name].pair_label, np.random.default_rng(5))
    loaded = type(model).from_pretrained(tmp_path / "plain", weights=weights)
    assert loaded.frozen
    assert not loaded.training
    loaded.save_pretrained(tmp_path / "reduced")
    again = type(model).from_pretrained(tmp_path / "reduced", new_head="refuse")
    assert again.frozen
    first, second, plain = (_arrays(each(**arguments)) for each in (loaded, again, model.freeze()))
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name
        np.testing.assert_allclose(first[name], plain[name], atol=0.2 * np.abs(plain[name]).max() + 0.1, err_msg=name)
    for name, array in loaded.numbers().items():
        assert array.tobytes() == again.numbers()[name].tobytes(), name


def _arrays(output: Any) -> dict[str, Any]:
    names = [name for name in dir(output) if name.endswith(("logits", "hidden_state", "pooler_output"))]
    return {name: np.asarray(value) for name in names if isinstance(value := getattr(output, name), np.ndarray)}


@pytest.mark.parametrize("weights", REDUCED)
@pytest.mark.parametrize("name", CASES)
def test_a_transformer_translates_as_it_scores(name, weights, tmp_path):
    make_model(name).save_pretrained(tmp_path / "plain")
    model = Transformer.from_pretrained(tmp_path / "plain", weights=weights)
    model.save_pretrained(tmp_path / "reduced")
    again = Transformer.from_pretrained(tmp_path / "reduced")
    ids = np.array([[5, 6, 7, 2], [7, 8, 9, 2]])
    found = [generate(each, ids, max_length=8) for each in (model, again)]
    np.testing.assert_array_equal(*found)
    output = model(ids, decoder_input_ids=ids)
    assert output.logits.tobytes() == again(ids, decoder_input_ids=ids).logits.tobytes()
    words = np.array([9, 3, 4])
    decoder = model.begin(ids, max_length=4, vocabulary=words)
    every = model.begin(ids, max_length=4)
    tokens = ids[:, 0]
    np.testing.assert_array_equal(decoder.step(tokens)[:, words], every.step(tokens)[:, words])
    assert model.output_layer()[0].dtype == weights


@pytest.mark.parametrize("weights", REDUCED)
def test_a_folder_takes_less_room(saved, tmp_path, weights):
    model = BertModel.from_pretrained(saved, weights=weights)
    model.save_pretrained(tmp_path / "reduced")
    sizes = {}
    for folder in (saved, tmp_path / "reduced"):
        with read_state_dict(folder) as tensors:
            sizes[folder.name] = {tensors.dtype(name) for name in tensors}
    assert sizes == {"model": {"F32"}, "reduced": {"F32", {"bfloat16": "BF16", "int8": "I8"}[weights]}}
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (saved, tmp_path / "reduced"))
    matrices = sum(array.nbytes for name, array in BertModel.from_pretrained(saved).state_dict().items()
                   if name.endswith("weight") and array.ndim == 2 and "embeddings" not in name)  # fmt: skip
    assert after < before - matrices * {"bfloat16": 0.49, "int8": 0.65}[weights]
    field = json.loads((tmp_path / "reduced" / "config.json").read_text())["quantization_config"]
    assert field == {"quant_method": "fastattn", "weights": weights, "version": 1}


def test_shards_and_halves_of_a_checkpoint_become_int8(saved, tmp_path):
    expected = states(BertModel.from_pretrained(saved, weights="bfloat16"))
    BertModel.from_pretrained(saved, weights="bfloat16").save_pretrained(tmp_path / "halves")
    assert states(BertModel.from_pretrained(tmp_path / "halves")).tobytes() == expected.tobytes()
    plain = BertModel.from_pretrained(tmp_path / "halves", weights="float32")
    assert states(plain).tobytes() == expected.tobytes()  # bfloat16 is float32 over rounded weights
    plain.freeze("int8")
    from_halves = BertModel.from_pretrained(tmp_path / "halves", weights="int8")
    assert states(from_halves).tobytes() == states(plain).tobytes()
    assert BertModel.from_pretrained(tmp_path / "halves", trainable=True).records()


def test_pickles_name_the_folder_and_the_weights(saved):
    for weights in REDUCED:
        model = BertModel.from_pretrained(saved, weights=weights)
        data = pickle.dumps(model)
        assert len(data) < 2000
        assert states(pickle.loads(data)).tobytes() == states(model).tobytes()
    made = BertModel(BertModel.from_pretrained(saved).config, weights="int8")
    assert states(pickle.loads(pickle.dumps(made))).tobytes() == states(made).tobytes()


def test_a_pickle_tells_that_only_scales_have_changed(saved, tmp_path):
    folder, name = tmp_path / "int8", "encoder.layer.1.intermediate.dense.weight_scales"
    BertModel.from_pretrained(saved, weights="int8").save_pretrained(folder)
    data = pickle.dumps(BertModel.from_pretrained(folder))
    pickle.loads(data)
    change(folder, lambda tensors: tensors[name].__imul__(2))
    with pytest.raises(ValueError, match="the files of this model have changed since it was pickled"):
        pickle.loads(data)


def test_a_shard_of_scales_alone_is_a_file_of_the_model(saved, tmp_path):
    model = BertModel.from_pretrained(saved, weights="int8")
    model.save_pretrained(tmp_path)
    tensors, shards = load_file(tmp_path / "model.safetensors"), ("model-00001-of-00002", "model-00002-of-00002")
    place = {name: f"{shards[name.endswith('_scales')]}.safetensors" for name in tensors}
    for shard in place.values():
        save_file({name: tensors[name] for name in tensors if place[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert states(BertModel.from_pretrained(tmp_path)).tobytes() == states(model).tobytes()
    with read_state_dict(tmp_path) as found:
        assert sorted(path.stem for path in found.paths()) == sorted(shards)


def test_what_cannot_be_is_refused(saved):
    with pytest.raises(ValueError, match=r"^from_pretrained: weights must be one of .*, got 'fp8'$"):
        BertModel.from_pretrained(saved, weights="fp8")
    with pytest.raises(ValueError, match=r"^from_pretrained: weights 'int8' cannot be trained; trainable must not be"):
        BertModel.from_pretrained(saved, weights="int8", trainable=True)
    config = BertModel.from_pretrained(saved).config
    with pytest.raises(ValueError, match=r"^BertModel: weights 'bfloat16' cannot be trained"):
        BertModel(config, weights="bfloat16", trainable=True)
    with pytest.warns(UserWarning, match="drawn at random"):
        head = BertForSequenceClassification.from_pretrained(saved, weights="int8")
    assert head.frozen


def test_a_folder_of_int8_is_what_it_is(saved, tmp_path):
    folder = tmp_path / "int8"
    BertModel.from_pretrained(saved, weights="int8").save_pretrained(folder)
    for weights in ("float32", "bfloat16"):
        with pytest.raises(ValueError, match=f"config.json: the weights are int8, and cannot become {weights}"):
            BertModel.from_pretrained(folder, weights=weights)
    with pytest.raises(ValueError, match=r"config\.json: the weights are int8, which cannot be trained"):
        BertModel.from_pretrained(folder, trainable=True)
    BertModel.check_weights(folder)


@pytest.mark.parametrize("weights", REDUCED)
def test_weights_that_are_not_those_of_the_config_are_refused(saved, tmp_path, weights):
    folder = tmp_path / weights
    BertModel.from_pretrained(saved, weights=weights).save_pretrained(folder)
    other = {"bfloat16": "int8", "int8": "bfloat16"}[weights]
    configure(folder, weights=other)
    with pytest.raises(ValueError, match=r"model.safetensors: tensor 'encoder.layer.0.* has dtype (I8|BF16)"):
        BertModel.from_pretrained(folder)
    configure(folder, version=2)
    with pytest.raises(ValueError, match=r"config.json: quantization_config: version is 2"):
        BertModel.from_pretrained(folder)
    values = json.loads((folder / "config.json").read_text())
    del values["quantization_config"]
    (folder / "config.json").write_text(json.dumps(values))
    if weights == "int8":
        with pytest.raises(ValueError, match=r"tensor 'encoder.*' has dtype I8"):
            BertModel.from_pretrained(folder)
        with pytest.raises(ValueError, match=r"tensor 'encoder.*' has dtype I8; quantization_config says nothing"):
            BertModel.from_pretrained(folder, weights="int8")


def test_damaged_scales_are_named(saved, tmp_path):
    name = "encoder.layer.1.intermediate.dense.weight"
    BertModel.from_pretrained(saved, weights="int8").save_pretrained(tmp_path)
    change(tmp_path, lambda tensors: tensors.pop(f"{name}_scales"))
    with pytest.raises(ValueError, match=f"model.safetensors: tensor '{name}_scales' is missing"):
        BertModel.from_pretrained(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({f"{name}_scales": np.full(96, np.inf, np.float32)}))
    with pytest.raises(ValueError, match=f"tensor '{name}_scales' has inf at"):
        BertModel.from_pretrained(tmp_path)


def test_matrices_of_several_kinds_are_not_saved(saved, tmp_path):
    model = BertModel.from_pretrained(saved)
    model.layers[0].freeze("int8")
    with pytest.raises(
        ValueError, match=r"^save_pretrained: matrices are float32, int8; freeze the whole model alike$"
    ):
        model.save_pretrained(tmp_path / "mixed")


@pytest.mark.parametrize("weights", REDUCED)
def test_a_folder_is_converted(saved, tmp_path, weights):
    (saved / "vocab.txt").write_text("a\n")
    done = convert_checkpoint(saved, tmp_path / "new", weights=weights)
    assert done.model is BertModel
    assert done.tokenizer
    expected = BertModel.from_pretrained(saved, weights=weights)
    assert states(BertModel.from_pretrained(tmp_path / "new")).tobytes() == states(expected).tobytes()
    with pytest.raises(ValueError, match="there is nothing to convert"):
        convert_checkpoint(saved, tmp_path / "again")
    with pytest.raises(ValueError, match=r"^convert_checkpoint: weights must be one of"):
        convert_checkpoint(saved, tmp_path / "again", weights="int4")


def test_a_table_that_is_a_matrix_too_is_pickled_with_its_weights():
    model = new_model("bert", "MaskedLM", seed=3, tie_word_embeddings=True).freeze("int8")
    other = pickle.loads(pickle.dumps(model))
    ids = np.array([[4, 5, 6]])
    assert other(ids).logits.tobytes() == model(ids).logits.tobytes()
    matrix = other.predictions.decoder.matrix
    assert matrix.dtype == "int8"
    assert "input_scales" in matrix.numbers()
