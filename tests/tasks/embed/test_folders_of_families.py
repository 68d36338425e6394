"""Sentence-transformers and CrossEncoder folders of every family, beside sentence-transformers, both ways.

A family needs its row in `helpers_families` and its tokenizer in `helpers_tokenizers`.
"""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_families import ROWS, draw_fields, new_model
from helpers_sentences import module, pattern, write_json
from helpers_tokenizers import KINDS, NEEDS_SENTENCEPIECE, SENTENCES, mixed_texts
from safetensors.numpy import save_file

from fastattn import SentenceEncoder
from fastattn.models.registry import family
from fastattn.tasks import CrossEncoder
from fastattn.tasks.description import describe
from fastattn.text import Tokenizer

LIMIT = 24
TEXTS = [*SENTENCES, "", "a", *mixed_texts(40)]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
PAIRS = [*pairwise(TEXTS)]

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not our errors


def write_family(name: str, folder: Path, kind: str = "", **changes: Any) -> int:
    """A small model of a family with its tokenizer. Returns the size of a token's vector."""
    if name in NEEDS_SENTENCEPIECE:
        pytest.importorskip("sentencepiece", reason="trains a SentencePiece model")
    KINDS[name](folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, {**config, "model_max_length": LIMIT})
    tokenizer = Tokenizer.from_pretrained(folder)
    types = {"type_vocab_size": 2} if "type_vocab_size" in draw_fields(name, 0) else {}
    fields = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_token_id, **types}
    model = new_model(name, kind, seed=5, **fields, max_position_embeddings=LIMIT + 8, **changes)
    model.save_pretrained(folder)
    return int(model.config.hidden_size)


def write_encoder(name: str, folder: Path) -> None:
    """All modules: a pooling of all modes without the prompt, Dense, LayerNorm and Normalize."""
    size = write_family(name, folder)
    wide = size * len(MODES)
    pooling = {"embedding_dimension": size, "pooling_mode": MODES, "include_prompt": False}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    activation = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": wide, "out_features": 7, "bias": True, "activation_function": activation}
    write_json(folder / "2_Dense" / "config.json", dense)
    linear = {"linear.weight": pattern(7, wide, salt=3, scale=0.2), "linear.bias": pattern(7, salt=4)}
    save_file(linear, folder / "2_Dense" / "model.safetensors")
    write_json(folder / "3_LayerNorm" / "config.json", {"dimension": 7})
    norm = {"norm.weight": 1 + pattern(7, salt=5, scale=0.3), "norm.bias": pattern(7, salt=6)}
    save_file(norm, folder / "3_LayerNorm" / "model.safetensors")
    places = ["Pooling", "Dense", "LayerNorm", "Normalize"]
    modules = [module("Transformer", ""), *(module(kind, f"{i}_{kind}") for i, kind in enumerate(places, 1))]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": LIMIT - 4, "do_lower_case": False})
    options = {"prompts": {"query": "query: ", "document": "doc: "}, "similarity_fn_name": "dot"}
    write_json(folder / "config_sentence_transformers.json", options)


@pytest.mark.parametrize("name", ROWS)
def test_embeddings_are_those_of_sentence_transformers(tmp_path: Path, name: str) -> None:
    """Of a folder with all modules, of what is saved from it, and of a plain one."""
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    warnings.simplefilter("ignore")
    write_encoder(name, tmp_path / "all")
    ours = SentenceEncoder(tmp_path / "all", truncation="silent")
    ours.save_pretrained(tmp_path / "saved")
    write_family(name, tmp_path / "plain")
    for folder in ("all", "saved", "plain"):
        theirs = library.SentenceTransformer(str(tmp_path / folder), device="cpu")
        ours = SentenceEncoder(tmp_path / folder, truncation="silent")
        assert ours.max_seq_length == theirs.max_seq_length
        for method in ("encode", "encode_query", "encode_document"):
            expected = getattr(theirs, method)(TEXTS)
            np.testing.assert_allclose(getattr(ours, method)(TEXTS), expected, atol=1e-5, err_msg=f"{folder} {method}")
        scores = theirs.similarity(expected, expected).numpy()
        np.testing.assert_allclose(ours.similarity(expected, expected), scores, atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_a_saved_encoder_of_each_family_is_the_same(tmp_path: Path, name: str) -> None:
    write_encoder(name, tmp_path / "a")
    ours = SentenceEncoder(tmp_path / "a", truncation="silent")
    ours.save_pretrained(tmp_path / "b")
    again = SentenceEncoder(tmp_path / "b", truncation="silent")
    expected = ours.encode(TEXTS, prompt_name="query")
    np.testing.assert_array_equal(again.encode(TEXTS, prompt_name="query"), expected)
    one = np.stack([ours.encode(text, prompt_name="query") for text in TEXTS[:9]])
    np.testing.assert_array_equal(one, expected[:9])
    assert ours.encode(["a " * 99]).shape == (1, 7)
    with pytest.raises(ValueError, match="max_seq_length"):
        ours.max_seq_length = LIMIT + 9


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", ROWS)
def test_cross_encoders_of_each_family(tmp_path: Path, name: str, labels: int) -> None:
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    warnings.simplefilter("ignore")
    write_family(name, tmp_path / "ours", "SequenceClassification", num_labels=labels)
    ours = CrossEncoder(tmp_path / "ours")
    theirs = library.CrossEncoder(str(tmp_path / "ours"), device="cpu")
    expected = ours.predict(PAIRS)
    np.testing.assert_allclose(theirs.predict(PAIRS), expected, atol=1e-5)
    ours.save_pretrained(tmp_path / "saved")
    again = library.CrossEncoder(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(again.predict(PAIRS), expected, atol=1e-5)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    np.testing.assert_array_equal(CrossEncoder(tmp_path / "theirs").predict(PAIRS), expected)


@pytest.mark.parametrize("name", ROWS)
def test_info_knows_each_family(tmp_path: Path, name: str) -> None:
    size = write_family(name, tmp_path)
    facts = describe(tmp_path)
    assert facts["problems"] == []
    assert facts["model_type"] == name
    assert facts["sizes"]["hidden"] == size
    assert {"layers", "heads", "vocabulary", "positions"} < facts["sizes"].keys()
    assert facts["sizes"]["vocabulary"] == facts["tokenizer"]["tokens"]
    assert facts["can"] == ["embed", "predict embed"]
    assert {"classify", "rerank", "tag", "embed"} <= set(facts["can_train"])
    assert ("answer" in facts["can_train"]) == ("QuestionAnswering" in family(name).heads)
