"""Sentence embeddings: the same as sentence-transformers', and the same bits in any company."""

from __future__ import annotations

import enum
import json
import logging
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import (
    CASES,
    HIDDEN,
    TEXTS,
    dense,
    layer_norm,
    normalize,
    pattern,
    write_bert,
    write_case,
    write_model,
)

import fastattn
from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import encoder as encoder_module

GOLDEN = Path(__file__).with_name("sentence_golden.npz")
TOLERANCE = 2e-5


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


# the same as sentence-transformers


@pytest.mark.parametrize("name", CASES)
def test_golden(tmp_path, golden, name):
    encoder = SentenceEncoder(write_case(name, tmp_path / name), truncation="silent")
    embeddings = encoder.encode(TEXTS, **CASES[name].options)
    np.testing.assert_allclose(embeddings, golden[name], rtol=0, atol=TOLERANCE)


def test_the_golden_cases_differ_where_they_should(golden):
    assert set(golden) == {*CASES, "minilm"}
    assert not np.allclose(golden["cased"][3], golden["lowercased"][3])
    assert not np.allclose(golden["truncated"][6], golden["pooling_mean"][6])
    assert not np.allclose(golden["without_prompt_mean"], golden["pooling_mean"], atol=1e-3)


def test_minilm_golden(minilm, golden):
    embeddings = SentenceEncoder(minilm).encode(TEXTS)
    np.testing.assert_allclose(embeddings, golden["minilm"], rtol=0, atol=TOLERANCE)


def test_live_parity(tmp_path):
    """The golden cases and some options of `encode`, with the sentence-transformers that is installed."""
    warnings.simplefilter("ignore")  # theirs are not ours to fix
    library = pytest.importorskip("sentence_transformers", reason="live parity needs sentence-transformers")
    options: list[dict[str, Any]] = [
        {},
        {"normalize_embeddings": True},
        {"truncate_dim": 3},
        {"prompt": "the "},
    ]
    for name, case in CASES.items():
        folder = write_case(name, tmp_path / name)
        theirs = library.SentenceTransformer(str(folder), device="cpu")
        ours = SentenceEncoder(folder, truncation="silent")
        assert ours.max_seq_length == theirs.max_seq_length
        for extra in options:
            expected = theirs.encode(TEXTS, **{**case.options, **extra})
            actual = ours.encode(TEXTS, **{**case.options, **extra})
            np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE, err_msg=f"{name} {extra}")
        a, b = ours.encode(TEXTS[:3]), ours.encode(TEXTS[3:])
        for similarity in ("cosine", "dot", "euclidean", "manhattan"):
            theirs.similarity_fn_name = ours.similarity_fn_name = similarity
            np.testing.assert_allclose(ours.similarity(a, b), theirs.similarity(a, b), rtol=1e-4, atol=1e-4)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_spearman_with_ties():
    assert ranks(np.array([10, 20, 10, 5])).tolist() == [2.5, 4, 2.5, 1]
    assert spearman(np.array([1, 2, 3]), np.array([2, 4, 9])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486832980505138)


def test_sts_benchmark(minilm, stsb):
    """All-MiniLM-L6-v2 reaches its published 0.82032 on the test split."""
    first, second, scores = stsb
    encoder = SentenceEncoder(minilm)
    similarity = encoder.similarity_pairwise(encoder.encode(first), encoder.encode(second))
    assert 100 * spearman(similarity, scores) == pytest.approx(82.03, abs=0.02)


# batch invariance


def test_bits_depend_on_the_sentence_alone(tmp_path, isa):
    folder = write_model(
        tmp_path / "m", "mean", "max", layers=[dense("2_Dense", 2 * HIDDEN, 24), normalize("3_Normalize")]
    )
    encoder = SentenceEncoder(folder, truncation="silent")
    texts = [*TEXTS, *(" ".join(["the cat sat"] * n) for n in range(12))]
    alone = np.stack([encoder.encode(text) for text in texts])
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_array_equal(encoder.encode(texts), alone)
    np.testing.assert_array_equal(encoder.encode([texts[i] for i in order]), alone[order])
    np.testing.assert_array_equal(encoder.encode(texts, batch_size=1), alone)
    np.testing.assert_array_equal(encoder.encode(texts, batch_size=3), alone)
    np.testing.assert_array_equal(encoder.encode(texts * 40), np.tile(alone, (40, 1)))


def test_bits_do_not_depend_on_threads_or_concurrent_callers(minilm, stsb, restore_runtime):
    encoder = SentenceEncoder(minilm)
    texts = stsb[0][:64]
    fastattn.set_num_threads(1)
    expected = encoder.encode(texts)
    np.testing.assert_array_equal(np.stack([encoder.encode(text) for text in texts]), expected)
    fastattn.set_num_threads(2)
    with ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(i).permutation(len(texts))[: 8 * (i + 1)] for i in range(8)]
        results = pool.map(lambda order: encoder.encode([texts[i] for i in order]), orders)
        for order, result in zip(orders, results, strict=True):
            np.testing.assert_array_equal(result, expected[order])


def test_the_token_budget_does_not_change_bits(encoder, monkeypatch):
    expected = encoder.encode(TEXTS)
    for budget in (1, 10, 64):
        monkeypatch.setattr(encoder_module, "tokens_per_batch", lambda threads, budget=budget: budget)
        np.testing.assert_array_equal(encoder.encode(TEXTS), expected)


# what goes in and out


def test_shapes_and_kinds_of_input(encoder):
    one = encoder.encode("the cat")
    assert one.dtype == np.float32
    assert one.shape == (HIDDEN,)
    many = encoder.encode(["the cat", "sat"])
    assert many.shape == (2, HIDDEN)
    np.testing.assert_array_equal(many[0], one)
    texts = ("the cat", "sat")
    for other in (
        texts,
        iter(texts),
        np.array(texts),
        np.array(texts, dtype=object),
        dict.fromkeys(texts).keys(),
    ):
        np.testing.assert_array_equal(encoder.encode(other), many)


def test_no_sentences(encoder):
    assert encoder.encode([]).shape == (0, HIDDEN)
    assert encoder.encode([], truncate_dim=4, normalize_embeddings=True).shape == (0, 4)
    assert encoder.encode([]).dtype == np.float32


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["a", None], r"sentences\[1\] must be str, got NoneType"),
        ([["a", "b"]], r"sentences\[0\] must be str, got list"),
        (b"bytes", "sentences must be a str or an iterable of str, got bytes"),
        ({"text": "a"}, "sentences must be a str or an iterable of str, got dict"),
        ({"a", "b"}, "sentences must be a str or an iterable of str, got set"),
        (3, "sentences must be a str or an iterable of str, got int"),
        (np.array("a"), "0-d array"),
        (np.array([["a", "b"]]), r"sentences\[0\] must be str, got ndarray"),
    ],
)
@pytest.mark.parametrize("prompt", [None, "the "])
def test_what_is_not_text_is_refused(encoder, sentences, message, prompt):
    with pytest.raises(TypeError, match=message):
        encoder.encode(sentences, prompt=prompt)


def test_properties(tmp_path):
    folder = write_case("model_truncate_dim", tmp_path / "m")
    encoder = SentenceEncoder(str(folder))
    assert encoder.folder == folder
    assert repr(encoder) == f"SentenceEncoder({str(folder)!r})"
    assert encoder.get_sentence_embedding_dimension() == encoder.get_embedding_dimension() == 7
    assert encoder.encode("cat", truncate_dim=10).shape == (10,)
    assert encoder.similarity_fn_name == "cosine"
    with pytest.raises(ValueError, match="similarity_fn_name must be one of cosine, dot"):
        encoder.similarity_fn_name = "cos"


def test_similarity_follows_the_config(tmp_path):
    folder = write_model(tmp_path / "m", config_sentence_transformers={"similarity_fn_name": "manhattan"})
    encoder = SentenceEncoder(folder)
    a, b = encoder.encode(TEXTS[:2]), encoder.encode(TEXTS[2:4])
    expected = -np.abs(a[:, None] - b).sum(-1)
    np.testing.assert_allclose(encoder.similarity(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(encoder.similarity_pairwise(a, b), np.diag(expected), rtol=1e-5)
    encoder.similarity_fn_name = "dot"
    np.testing.assert_allclose(encoder.similarity(a, b), (a[:, None] * b).sum(-1), rtol=1e-4)


def test_progress_bar(encoder, capsys, monkeypatch):
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    monkeypatch.setattr(logging.getLogger("fastattn"), "level", logging.INFO)
    encoder.encode(TEXTS)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
    encoder.encode(TEXTS, show_progress_bar=False)
    assert capsys.readouterr().err == ""


def test_a_progress_bar_without_tqdm_says_what_to_install(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r'pip install "fastattn\[text\]"'):
        encoder.encode(TEXTS, show_progress_bar=True)


# broken folders


def test_dense_layers_must_fit(tmp_path):
    folder = write_model(tmp_path / "a", layers=[dense("2_Dense", HIDDEN + 1, 6)])
    with pytest.raises(ValueError, match="in_features is 17, but the module before gives 16"):
        SentenceEncoder(folder)
    folder = write_model(tmp_path / "b", layers=[dense("2_Dense", HIDDEN, 6)])
    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config | {"out_features": 7}))
    with pytest.raises(ValueError, match=r"2_Dense.*'linear.weight' must have shape \(7, 16\), got \(6, 16\)"):
        SentenceEncoder(folder)

    save_file({"linear.weight": pattern(7, HIDDEN, salt=1)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(ValueError, match=r"2_Dense.*tensor 'linear.bias' is missing"):
        SentenceEncoder(folder)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="2_Dense"):
        SentenceEncoder(folder)


def test_layer_norms_must_fit(tmp_path):
    folder = write_model(tmp_path / "a", layers=[layer_norm("2_LayerNorm", HIDDEN + 1)])
    with pytest.raises(ValueError, match="dimension is 17, but the module before gives 16"):
        SentenceEncoder(folder)
    (folder / "2_LayerNorm" / "config.json").write_text('{"dimension": 16}')
    with pytest.raises(ValueError, match=r"2_LayerNorm.*'norm.weight' must have shape \(16,\), got \(17,\)"):
        SentenceEncoder(folder)
    (folder / "2_LayerNorm" / "config.json").write_text('{"dimension": 0}')
    with pytest.raises(ValueError, match=r"2_LayerNorm/config\.json: dimension must be"):
        SentenceEncoder(folder)


def test_another_architecture_is_named(tmp_path):
    folder = write_bert(tmp_path / "m", model_type="t5", architectures=["T5Model"])
    with pytest.raises(ValueError, match="t5"):
        SentenceEncoder(folder)


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    folder = write_bert(tmp_path / "m")
    (folder / "vocab.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json, nor vocab.txt"):
        SentenceEncoder(folder)


FORK = """
import os, sys
import numpy as np
from fastattn.tasks import SentenceEncoder
encoder = SentenceEncoder(sys.argv[1])
texts = ["the cat sat", "a", "cat"] * 20
expected = encoder.encode(texts)
pid = os.fork()
if pid == 0:
    os._exit(0 if np.array_equal(encoder.encode(texts), expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert np.array_equal(encoder.encode(texts), expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_encodes(tmp_path):
    folder = write_model(tmp_path / "m")
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


class PromptType(enum.Enum):
    """As that of mteb."""

    query = "query"
    document = "document"


def test_mteb_may_call_it(tmp_path):
    prompts = {"prompts": {"query": "query ", "document": "the "}}
    encoder = SentenceEncoder(write_model(tmp_path / "m", config_sentence_transformers=prompts))
    said = {"task_metadata": object(), "hf_split": "test", "hf_subset": "default"}
    batches = [{"text": TEXTS[:3], "id": [1, 2, 3]}, {"text": TEXTS[3:]}]
    np.testing.assert_array_equal(
        encoder.encode(batches, **said, prompt_type=None, batch_size=2), encoder.encode(TEXTS)
    )
    for kind, wanted in (("query", encoder.encode_query), ("document", encoder.encode_document)):
        found = encoder.encode(iter(batches), **said, prompt_type=PromptType(kind))
        np.testing.assert_array_equal(found, wanted(TEXTS))
        assert not np.array_equal(found, encoder.encode(TEXTS))
    np.testing.assert_array_equal(
        encoder.encode(TEXTS, task_name="STS", prompt_type="passage"), encoder.encode_document(TEXTS)
    )
    np.testing.assert_array_equal(
        encoder.encode(TEXTS, prompt="a ", prompt_type="query"), encoder.encode(TEXTS, prompt="a ")
    )
    assert encoder.mteb_model_meta is None
    with pytest.raises(ValueError, match="encode: prompt_type must be one of query, document, passage, got 'x'"):
        encoder.encode(TEXTS, prompt_type="x")
    with pytest.raises(TypeError, match=r"encode: sentences\[1\] must have 'text', as batches of mteb, got {'image'"):
        encoder.encode([{"text": ["a"]}, {"image": [3]}])
