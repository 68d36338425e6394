"""A named pipe in the place of any file of a model folder is refused by name, and nothing waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import no_hang
from helpers_bundles import write_bundle
from helpers_marian import MARIAN, marian_tensors
from helpers_sentences import HIDDEN, dense, normalize, write_model

from fastattn.files import open_regular
from fastattn.formats import tensorflow_bundle, torch_pickle
from fastattn.formats.hugging_face import read_json, read_state_dict, write_checkpoint
from fastattn.models import Transformer
from fastattn.tasks import SentenceEncoder
from fastattn.text import BytePairs, Characters, Tokenizer, Vocabulary, sentencepiece_tokenizer


def sentences(folder: Path) -> Path:
    layers = [dense("2_Dense", HIDDEN, 6), normalize("3_Normalize")]
    return write_model(folder, layers=layers, config_sentence_transformers={"prompts": {}})


def marian(folder: Path) -> Path:
    write_checkpoint(folder, MARIAN, marian_tensors(MARIAN))
    return folder


SENTENCE_FILES = ("modules.json", "config.json", "model.safetensors", "vocab.txt", "sentence_bert_config.json")
FOLDERS = [
    *((sentences, SentenceEncoder, name) for name in SENTENCE_FILES),
    (sentences, SentenceEncoder, "config_sentence_transformers.json"),
    (sentences, SentenceEncoder, "1_Pooling/config.json"),
    (sentences, SentenceEncoder, "2_Dense/config.json"),
    (sentences, SentenceEncoder, "2_Dense/model.safetensors"),
    (sentences, SentenceEncoder, "3_Normalize/config.json"),
    (marian, Transformer.from_pretrained, "generation_config.json"),
]


@pytest.mark.parametrize(("write", "load", "name"), FOLDERS)
def test_a_pipe_in_a_folder(tmp_path: Path, write: Callable[..., Path], load: Callable[..., Any], name: str) -> None:
    folder = write(tmp_path / "model")
    load(folder)
    path = folder / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    with no_hang(), pytest.raises((ValueError, FileNotFoundError), match=str(folder)):
        load(folder)


READERS = [
    read_json,
    Characters.from_file,
    BytePairs.from_file,
    Vocabulary.from_file,
    sentencepiece_tokenizer,
    torch_pickle.read_tensors,
]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe(tmp_path: Path, read: Callable[..., Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with no_hang(), pytest.raises(ValueError, match=f"{tmp_path / 'pipe'}: not a regular file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_a_pipe_of_tensorflow(tmp_path: Path, name: str) -> None:
    prefix = write_bundle(tmp_path / "model.ckpt", {"x": np.zeros(3, np.float32)})
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with no_hang(), pytest.raises(ValueError, match=f"{tmp_path / name}: not a regular file"):
        tensorflow_bundle.read_tensors(prefix)


def test_a_pipe_after_it_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be replaced between `is_file` and the opening."""
    names = ("model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json")
    monkeypatch.setattr(Path, "is_file", lambda path: path.name in names and path.exists())
    readers = {"model.safetensors": read_state_dict, **dict.fromkeys(names[1:], Tokenizer.from_pretrained)}
    for name, read in readers.items():
        folder = tmp_path / f"with_{name}"
        folder.mkdir()
        os.mkfifo(folder / name)
        with no_hang(), pytest.raises(ValueError, match=f"{folder / name}: not a regular file"):
            read(folder)


def test_an_error_while_reading_names_the_file(tmp_path: Path) -> None:
    """The first bytes of this file of Linux, which is a regular one, cannot be read."""
    path = tmp_path / "config.json"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=str(path)):
        open_regular(path)
