"""What a sentence-transformers folder says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers_sentences import HIDDEN, dense, module, normalize, write_bert, write_json, write_model

from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed.folder import FILES, read_sentence_folder


def change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_plain_bert_folder_gets_mean_pooling(tmp_path):
    folder = write_bert(tmp_path / "bert")
    description = read_sentence_folder(folder)
    assert description.modules == [("Transformer", folder, {}), ("Pooling", folder, {})]
    assert description.options == {}


def test_everything_is_read(tmp_path):
    folder = write_model(
        tmp_path / "m",
        "max",
        "cls",
        layers=[dense("2_Dense", 2 * HIDDEN, 4), normalize("3_Normalize")],
        pooling={"include_prompt": False},
        sentence_bert_config={"max_seq_length": 9, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "q: ", "empty": None},
            "default_prompt_name": "query",
            "similarity_fn_name": "dot",
            "truncate_dim": 3,
        },
    )
    description = read_sentence_folder(folder)
    assert description.transformer == folder
    sizes = {"in_features": 2 * HIDDEN, "out_features": 4}
    assert description.modules == [
        ("Transformer", folder, {"max_seq_length": 9, "do_lower_case": True}),
        ("Pooling", folder / "1_Pooling", {"pooling_mode": ["cls", "max"], "include_prompt": False}),
        ("Dense", folder / "2_Dense", {**sizes, "bias": True, "activation_function": "Tanh", "use_residual": False}),
        ("Normalize", folder / "3_Normalize", {}),
    ]
    assert description.options == {
        "prompts": {"query": "q: ", "document": "", "empty": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 3,
    }


def test_no_pooling_flag_means_mean(tmp_path):
    folder = write_model(tmp_path / "m", pooling={"pooling_mode_mean_tokens": False})
    assert read_sentence_folder(folder).modules[1][2]["pooling_mode"] == ["mean"]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [module("Transformer", ""), module("CNN", "1_CNN")],
            r"modules.json: the module 'sentence_transformers.models.CNN' is not supported",
        ),
        ([module("Transformer", ""), module("Pooling", "1_Pooling", "my_package")], "'my_package.Pooling'"),
        ([module("Transformer", ""), module("Normalize", "1_Normalize")], r"must be Transformer and Pooling"),
        ([module("Pooling", "1_Pooling")], r"must be Transformer and Pooling, got \['Pooling'\]"),
        ([], r"must be Transformer and Pooling, got \[\]"),
        (
            [module("Transformer", ""), module("Pooling", "1_Pooling"), module("Pooling", "1_Pooling")],
            "a second Pooling module is not supported",
        ),
        ([module("Transformer", "../outside")], "must lie inside the model's folder, got '../outside'"),
        ([module("Transformer", "/etc")], "must lie inside the model's folder, got '/etc'"),
        ([{"path": ""}], "a module must be an object with a type"),
        ({"type": "x"}, r"modules.json: must hold a JSON array, got dict"),
    ],
)
def test_unsupported_modules_are_refused_by_name(tmp_path, modules, message):
    folder = write_model(tmp_path / "m")
    write_json(folder / "modules.json", modules)
    with pytest.raises(ValueError, match=message):
        read_sentence_folder(folder)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "attention"},
            "pooling_mode must be one of cls, max, .*, got 'attention'",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode": 3},
            "pooling_mode must be a name or a list of names, got 3",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_median": True},
            "the pooling mode must be one of .*, got 'pooling_mode_median'",
        ),
        ("1_Pooling/config.json", {"include_prompt": "no"}, "include_prompt must be bool, got 'no'"),
        ("2_Dense/config.json", {"activation_function": "os.system"}, "the activation_function 'os.system'"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Softplus"},
            "only Identity, Tanh, ReLU, GELU, SiLU|only torch.nn's Identity",
        ),
        ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "the activation_function 'mine.Tanh'"),
        ("2_Dense/config.json", {"in_features": 0}, "in_features must be a positive integer, got 0"),
        ("2_Dense/config.json", {"out_features": "6"}, "out_features must be a positive integer, got '6'"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name must be 'sentence_em"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length must be a positive integer, got -1"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "max_seq_length must be a positive integer, got True"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task must be .*'fill-mask'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {}}}, "processing_kwargs"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type must be .*'SparseEncoder'"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"q": 1}},
            "the prompt 'q' must be a string, got 1",
        ),
        ("config_sentence_transformers.json", {"prompts": {"q": "\ud800"}}, "not valid Unicode: half of a character"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "x"},
            "default_prompt_name 'x' is none",
        ),
        ("config_sentence_transformers.json", {"similarity_fn_name": "max"}, "similarity_fn_name must be .*'max'"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim must be a positive integer, got 0"),
    ],
)
def test_unsupported_values_are_refused_by_name(tmp_path, file, fields, message):
    folder = write_model(
        tmp_path / "m", layers=[dense("2_Dense", HIDDEN, 6)], config_sentence_transformers={"prompts": {}}
    )
    change_json(folder / file, **fields)
    with pytest.raises(ValueError, match=message) as error:
        read_sentence_folder(folder)
    assert str(folder / file) in str(error.value)


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_damaged_json_is_named(tmp_path, file):
    folder = write_model(tmp_path / "m")
    (folder / file).write_text("{")
    with pytest.raises(ValueError, match=f"{file}: not valid JSON"):
        read_sentence_folder(folder)


def test_a_missing_module_config_is_named(tmp_path):
    folder = write_model(tmp_path / "m")
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="1_Pooling"):
        read_sentence_folder(folder)


def test_missing_files(tmp_path):
    folder = write_model(tmp_path / "m", layers=[dense("2_Dense", HIDDEN, 6), normalize("3_Normalize")])
    assert FILES.missing(folder) == []
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    (folder / "2_Dense" / "model.safetensors").unlink()
    assert FILES.missing(folder) == [
        "model.safetensors or model.safetensors.index.json",
        "tokenizer.json or vocab.txt or vocab.json or sentencepiece.bpe.model or spiece.model",
        "2_Dense/model.safetensors",
    ]
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    assert "model-00001-of-00001.safetensors" in FILES.missing(folder)


@pytest.mark.parametrize("weight_map", [3, [1], {}, {"a": 3}, {"a": "../x"}, {"a": "/etc/passwd"}, {"a": "\0"}])
def test_an_index_of_something_else(tmp_path, weight_map):
    folder = write_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    with pytest.raises(ValueError, match=f"{folder}/model.safetensors.index.json: weight_map"):
        FILES.missing(folder)


def test_the_shard_of_a_module_is_named_with_its_folder(tmp_path):
    folder = tmp_path / "m"
    write_bert(folder / "0_Transformer")
    write_json(folder / "modules.json", [module("Transformer", "0_Transformer")])
    (folder / "0_Transformer" / "model.safetensors").unlink()
    write_json(folder / "0_Transformer" / "model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}})
    assert FILES.missing(folder) == ["0_Transformer/model-1.safetensors"]


@pytest.mark.parametrize("path", ["a\0b", "x" * 10**5, "../m", "/etc"])
def test_a_path_that_no_module_can_have(tmp_path, path):
    folder = write_model(tmp_path / "m")
    entries = json.loads((folder / "modules.json").read_text())
    entries[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"modules\.json: the path of Pooling must lie inside") as error:
        read_sentence_folder(folder)
    assert len(str(error.value)) < 600


def test_many_modules_do_not_fill_the_message(tmp_path):
    folder = write_model(tmp_path / "m")
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(entries[:1] * 10_000))
    with pytest.raises(ValueError, match="the first two modules must be Transformer and Pooling") as error:
        read_sentence_folder(folder)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"])
def test_a_link_to_nowhere_is_not_passed_over(tmp_path, name):
    """A cache that lost a file would give other embeddings without a word."""
    folder = write_model(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=name):
        read_sentence_folder(folder)


def test_a_limit_without_room_for_a_token(tmp_path):
    folder = write_model(tmp_path / "m", sentence_bert_config={"max_seq_length": 2})
    with pytest.raises(ValueError, match=f"{folder}: max_seq_length must be more than the 2 special tokens, got 2"):
        SentenceEncoder(folder)
