"""Folders that hold something else than a model to read: the message says what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_marian import MARIAN, marian_tensors
from helpers_sentences import HIDDEN, dense, write_model

from fastattn.files import read_regular
from fastattn.formats.hugging_face import write_checkpoint
from fastattn.hub import ModelNotFoundError, find_model
from fastattn.models import BertForTokenClassification, BertModel, Elmo, ElmoConfig, Transformer
from fastattn.models.base import HUGGING_FACE
from fastattn.tasks import SentenceEncoder, Tagger
from fastattn.tasks.embed.folder import FILES

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 133508397\n"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("inner", ["", "bert."])
@pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification])
def test_a_prefix_is_named(folder: Any, prefix: str, inner: str, kind: Any) -> None:
    folder.tensors = {f"{prefix}{inner}{name}": tensor for name, tensor in folder.tensors.items()}
    message = f"model.safetensors: the names of tensors begin with '{prefix}{inner}', .* save the model itself"
    with pytest.raises(ValueError, match=message):
        kind.from_pretrained(folder.write())


def test_a_layer_of_thousands_of_digits(folder: Any) -> None:
    name = f"encoder.layer.{'9' * 5000}.output.dense.bias"
    folder.tensors[name] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"model\.safetensors: tensor 'encoder\.layer\.999.* is not known") as error:
        folder.load()
    assert len(str(error.value)) < 600


def test_the_prefix_of_a_transformer_is_named(tmp_path: Path) -> None:
    tensors = {f"module.{name}": tensor for name, tensor in marian_tensors(MARIAN).items()}
    write_checkpoint(tmp_path, MARIAN, tensors)
    with pytest.raises(ValueError, match=r"begin with 'module\.model\.', "):
        Transformer.from_pretrained(tmp_path)


def test_tensors_of_something_else_have_no_prefix(folder: Any) -> None:
    folder.tensors = {"weight": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"but there are tensors of 0 layers$"):
        folder.load()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json", "2_Dense/model.safetensors"]
)
def test_a_git_lfs_pointer(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "m", layers=[dense("2_Dense", HIDDEN, 6)])
    (folder / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{name}: a Git LFS pointer, not the file itself; run `git lfs pull`"):
        SentenceEncoder(folder)
    with pytest.raises(ValueError, match="Git LFS pointer"):
        read_regular(folder / name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["openvino/openvino_model.bin"], "; openvino/openvino_model.bin is not read: save the model as safetensors"),
        (["model.onnx"], "; model.onnx is not read: save the model as safetensors first"),
        (["a.gguf", "pytorch_model.bin"], "; a.gguf, pytorch_model.bin are not read: run `fastattn convert` first$"),
        (["bert_model.ckpt.index"], "; bert_model.ckpt.index is not read: run `fastattn convert` first$"),
        (["onnx/model.onnx", "tf_model.h5"], "; tf_model.h5, onnx/model.onnx are not read: save"),
        (["flax_model.msgpack"], "; flax_model.msgpack is not read"),
        ([f"pytorch_model-{i}.bin" for i in range(9)], r"; .*-0.bin, .*-1.bin, .*-2.bin and 6 more are not read"),
        (["README.md"], "$"),
    ],
)
def test_other_weights_are_named(folder: Any, names: list[str], message: str) -> None:
    folder.write()
    (folder.path / "model.safetensors").unlink()
    for name in names:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).touch()
    with pytest.raises(FileNotFoundError, match=f"no model.safetensors and no model.safetensors.index.json{message}"):
        BertModel.from_pretrained(folder.path)
    (folder.path / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=f"no config.json in this folder{message}"):
        find_model(folder.path, HUGGING_FACE)


class TestOtherFamilies:
    """Without a tokenizer of BERT's, which is not what is wrong."""

    @pytest.fixture(params=["marian", "elmo", "gpt2"])
    def other(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        if request.param == "elmo":
            Elmo(ElmoConfig(filters=((1, 4),), dim=8, projection_dim=4)).save_pretrained(tmp_path)
        else:
            write_checkpoint(tmp_path, {**MARIAN, "model_type": request.param}, marian_tensors(MARIAN))
        return tmp_path

    def test_sentences(self, other: Path) -> None:
        message = "TransformerConfig has no encoder|a model of ElmoConfig reads words|model_type is 'gpt2'; known are"
        with pytest.raises(ValueError, match=f"{other}.*: ({message})"):
            SentenceEncoder(other)
        with pytest.raises(ValueError, match=f"{other}.*: ({message})"):
            FILES.missing(other)

    def test_tags(self, other: Path) -> None:
        message = "no model for TokenClassification|not a tagger, its architecture is Elmo|model_type is 'gpt2'"
        with pytest.raises(ValueError, match=f"{other}.*: .*({message})"):
            Tagger.from_pretrained(other)
        config = json.loads((other / "config.json").read_text())
        assert config.pop("architectures", None) in (None, ["Elmo"])
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"{other}.*: .*({message})"):
            Tagger.from_pretrained(other)
