"""A sentence encoder as modules: made, saved, trained and sent to other processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_gradients import differences
from helpers_sentences import CASES, HIDDEN, TEXTS, dense, normalize, write_bert, write_case, write_model

import fastattn
from fastattn import functional as F
from fastattn import nn, ragged
from fastattn.tasks import SentenceEncoder
from fastattn.tasks.embed import Dense, Normalize, Pooling, Transformer
from fastattn.training import AdamW


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(
        tmp_path / "model", "cls", "mean", layers=[dense("2_Dense", 2 * HIDDEN, 6), normalize("3_Normalize")]
    )


def encoder_of(folder: Path, **options: Any) -> SentenceEncoder:
    return SentenceEncoder(folder, truncation="silent", **options)


# modules


def test_an_encoder_is_its_modules(folder):
    encoder = encoder_of(folder)
    assert [type(module) for module in encoder] == [Transformer, Pooling, Dense, Normalize]
    assert len(encoder) == 4
    assert encoder[1].pooling_mode == ["cls", "mean"]
    names = [name for name, _ in encoder.named_parameters()]
    assert names[0] == "0.model.embeddings.word_embeddings.weight"
    assert names[-2:] == ["2.linear.weight", "2.linear.bias"]
    features = encoder(encoder.tokenize(TEXTS))
    np.testing.assert_array_equal(features["sentence_embedding"], encoder.encode(TEXTS))
    assert features["token_embeddings"].shape == (features["cu_seqlens"][-1], HIDDEN)
    assert (encoder[:2](encoder.tokenize(TEXTS))["sentence_embedding"]).shape == (len(TEXTS), 2 * HIDDEN)


def test_modules_of_ones_own_make_an_encoder(folder, tmp_path):
    loaded = encoder_of(folder)
    encoder = SentenceEncoder(modules=list(loaded), truncation="silent", prompts={"cat": "the cat "}, truncate_dim=4)
    np.testing.assert_array_equal(encoder.encode(TEXTS), loaded.encode(TEXTS, truncate_dim=4))
    np.testing.assert_array_equal(encoder.encode("sat", prompt_name="cat"), encoder.encode("the cat sat"))
    assert encoder.folder is None
    assert repr(encoder) == "SentenceEncoder(['Transformer', 'Pooling', 'Dense', 'Normalize'])"
    transformer = Transformer.from_pretrained(write_bert(tmp_path / "bert"), max_seq_length=8)
    encoder = SentenceEncoder(modules=[transformer, Pooling(HIDDEN, "max")])
    assert (encoder.max_seq_length, encoder.get_embedding_dimension()) == (8, HIDDEN)

    class Twice(nn.Module):
        def forward(self, features: Any) -> Any:
            return {**features, "sentence_embedding": features["sentence_embedding"] * 2}

    doubled = SentenceEncoder(modules=[*encoder, Twice()])
    np.testing.assert_array_equal(doubled.encode("the cat"), 2 * encoder.encode("the cat"))
    with pytest.raises(TypeError, match="module 2 must be one of fastattn's, got Twice"):
        doubled.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_modules_must_fit(folder):
    transformer, pooling, *_ = encoder_of(folder)
    for modules, message in [
        ([pooling, transformer], r"must be Transformer and Pooling, got \['Pooling', 'Transformer'\]"),
        ([], r"must be Transformer and Pooling, got \[\]"),
        ([transformer, Pooling(3)], "module 1: embedding_dimension is 3, but the module before gives 16"),
        ([transformer, pooling, Dense(5, 2)], "module 2: in_features is 5, but the module before gives 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            SentenceEncoder(modules=modules)
    with pytest.raises(TypeError, match="name_or_folder or modules must be given"):
        SentenceEncoder()
    with pytest.raises(TypeError, match="name_or_folder and modules must not both be given"):
        SentenceEncoder(folder, modules=[transformer, pooling])
    with pytest.raises(ValueError, match="default_prompt_name 'x' is none of its prompts"):
        SentenceEncoder(folder, default_prompt_name="x")
    with pytest.raises(ValueError, match=r"pooling_mode must be one of cls, max, mean, .* got 'median'"):
        Pooling(3, "median")
    with pytest.raises(ValueError, match=r"activation_function must be one of Identity, .* got 'Softplus'"):
        Dense(3, 3, activation_function="Softplus")


# saving


@pytest.mark.parametrize("name", CASES)
def test_a_saved_encoder_is_the_same(tmp_path, name):
    encoder = encoder_of(write_case(name, tmp_path / "a"))
    encoder.save_pretrained(tmp_path / "b" / "c")
    again = encoder_of(tmp_path / "b" / "c")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    options = CASES[name].options
    np.testing.assert_array_equal(again.encode(TEXTS, **options), encoder.encode(TEXTS, **options))
    for attribute in ("prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "max_seq_length"):
        assert getattr(again, attribute) == getattr(encoder, attribute)


@pytest.mark.parametrize("name", CASES)
def test_sentence_transformers_reads_a_saved_encoder(tmp_path, name):
    library = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    warnings.simplefilter("ignore")  # theirs are not ours to fix
    encoder = encoder_of(write_case(name, tmp_path / "a"))
    encoder.save(tmp_path / "b")
    theirs = library.SentenceTransformer(str(tmp_path / "b"), device="cpu")
    options = CASES[name].options
    np.testing.assert_allclose(encoder.encode(TEXTS, **options), theirs.encode(TEXTS, **options), atol=1e-6)
    for method in ("encode_query", "encode_document"):
        ours = getattr(encoder, method)(TEXTS)
        np.testing.assert_allclose(ours, getattr(theirs, method)(TEXTS), atol=1e-6)
    assert theirs.max_seq_length == encoder.max_seq_length


def test_an_encoder_can_be_saved_where_it_came_from(folder):
    encoder = encoder_of(folder, trainable=True)
    before = encoder.encode(TEXTS)
    step(encoder, AdamW(encoder.parameters(), lr=1e-2))
    encoder.save_pretrained(folder)
    np.testing.assert_array_equal(encoder_of(folder).encode(TEXTS), encoder.encode(TEXTS))
    assert not np.array_equal(encoder.encode(TEXTS), before)


def test_options_that_are_set_are_saved(folder, tmp_path):
    encoder = SentenceEncoder(
        folder,
        prompts={"query": "the ", "own": "a "},
        default_prompt_name="own",
        similarity_fn_name="dot",
        truncate_dim=5,
    )
    encoder.max_seq_length = 7
    encoder.save_pretrained(tmp_path / "b")
    again = SentenceEncoder.from_pretrained(tmp_path / "b", truncation="error")
    assert again.prompts == {"query": "the ", "document": "", "own": "a "}
    assert (again.default_prompt_name, again.similarity_fn_name) == ("own", "dot")
    assert (again.get_embedding_dimension(), again.max_seq_length) == (5, 7)
    np.testing.assert_array_equal(again.encode("cat"), encoder.encode("cat"))


# training


def step(encoder: SentenceEncoder, optimizer: AdamW) -> float:
    """A step that brings the first two texts together and the third away; gives the loss."""
    vectors = F.normalize(encoder.embed(["the cat sat", "a cat", "zz"]))
    near, far = (vectors[0] * vectors[1]).sum(), (vectors[0] * vectors[2]).sum()
    loss = far - near
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


@pytest.mark.parametrize("name", ["plain_bert", "dense_residual", "pooling_all", "without_prompt_weightedmean"])
def test_a_loss_of_ones_own_falls(tmp_path, name):
    encoder = encoder_of(write_case(name, tmp_path / "m"), trainable=True)
    assert not encoder.training
    before = {name: parameter.data.copy() for name, parameter in encoder.named_parameters()}
    optimizer = AdamW(encoder.parameters(), lr=1e-3)
    losses = [step(encoder, optimizer) for _ in range(6)]
    assert losses[-1] < losses[0]
    moved = {name for name, parameter in encoder.named_parameters() if not np.array_equal(parameter.data, before[name])}
    assert "0.model.embeddings.word_embeddings.weight" in moved
    assert {name for name in before if name.startswith(("2.", "3."))} <= moved
    encoder.train()
    assert not np.array_equal(encoder.embed(TEXTS).numpy(), encoder.embed(TEXTS).numpy())  # for dropout
    embeddings = encoder.encode(TEXTS)  # in evaluation mode
    assert not encoder.training
    assert isinstance(embeddings, np.ndarray)
    np.testing.assert_array_equal(encoder.embed(TEXTS).numpy(), embeddings)
    np.testing.assert_array_equal(encoder.freeze().embed(TEXTS), embeddings)
    np.testing.assert_array_equal(encoder.encode(TEXTS), embeddings)


@pytest.mark.parametrize(
    ("modes", "prompt"), [(("mean", "max"), ""), (("weightedmean", "mean_sqrt_len_tokens", "lasttoken"), "the cat ")]
)
def test_gradients_in_float64(tmp_path, modes, prompt):
    folder = write_model(
        tmp_path / "m",
        *modes,
        pooling={"include_prompt": False},
        layers=[dense("2_Dense", len(modes) * HIDDEN, 4, use_residual=True), normalize("3_Normalize")],
    )
    encoder = encoder_of(folder, trainable=True)
    encoder.astype(np.float64)
    weights = np.random.default_rng(0).normal(size=(3, 4))
    with fastattn.use_reference():
        texts = ["the cat sat", "a", "zz"]
        encoder.embed(texts, prompt=prompt).backward(weights)
        for name in ("0.model.encoder.layer.1.output.LayerNorm.bias", "2.linear.weight", "2.residual.weight"):
            parameter = dict(encoder.named_parameters())[name]
            with fastattn.no_grad():
                wanted = differences(lambda: encoder.embed(texts, prompt=prompt).numpy(), parameter.data, weights)
            np.testing.assert_allclose(parameter.grad, wanted, atol=1e-7, err_msg=name)


def test_ragged_features_are_what_padded_ones_are(folder):
    encoder = encoder_of(folder)
    padded = encoder.tokenize(TEXTS)
    input_ids, cu_seqlens, _ = ragged.pack(padded["input_ids"], padded["attention_mask"])
    features = encoder({"input_ids": input_ids, "cu_seqlens": cu_seqlens})
    np.testing.assert_array_equal(features["sentence_embedding"], encoder(padded)["sentence_embedding"])
    assert encoder.embed(TEXTS, prompt="a ").shape == (len(TEXTS), 6)
    encoder.truncate_dim = 2
    np.testing.assert_array_equal(encoder.embed(TEXTS), encoder.encode(TEXTS))


# other processes


def encode(encoder: SentenceEncoder) -> Any:
    return encoder.encode(TEXTS)


def test_a_pickle_holds_the_folder_and_what_was_set(folder, tmp_path):
    encoder = encoder_of(folder, prompts={"query": "the "})
    encoder.max_seq_length = 9
    encoder.truncate_dim = 5
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_array_equal(again.encode_query(TEXTS), encoder.encode_query(TEXTS))
    assert (again.max_seq_length, again.folder, again.frozen) == (9, folder, True)
    plain = encoder_of(write_model(tmp_path / "plain"))
    size = sum(path.stat().st_size for path in (tmp_path / "plain").rglob("*") if path.is_file())
    assert len(pickle.dumps(plain)) < 5000 < size / 4


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"])
def test_a_folder_that_has_changed_is_refused(folder, file):
    pickled = pickle.dumps(encoder_of(folder))
    copied = copy.deepcopy(encoder_of(folder))
    if file == "model.safetensors":
        trained = encoder_of(folder, trainable=True)
        step(trained, AdamW(trained.parameters(), lr=1e-2))
        trained[0].model.save_pretrained(folder)
    elif file.endswith(".json"):
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, "more": 1}))
    else:
        (folder / file).write_text((folder / file).read_text() + "more\n")
    with pytest.raises(ValueError, match=f"{folder}: the files of this (model|tokenizer) have changed since"):
        pickle.loads(pickled)
    copied.encode(TEXTS)


def test_what_was_trained_is_pickled_with_its_weights(folder):
    encoder = encoder_of(folder, trainable=True)
    step(encoder, AdamW(encoder.parameters(), lr=1e-2))
    expected = encoder.encode(TEXTS)
    for original in (encoder, copy.deepcopy(encoder).freeze(), SentenceEncoder(modules=list(encoder))):
        again = pickle.loads(pickle.dumps(original))
        assert again.frozen == original.frozen
        np.testing.assert_array_equal(again.encode(TEXTS), expected)
    again = pickle.loads(pickle.dumps(encoder))
    before = step(encoder, AdamW(encoder.parameters(), lr=1e-2))
    assert step(again, AdamW(again.parameters(), lr=1e-2)) == before


def test_spawned_processes_encode(folder):
    encoder = encoder_of(folder)
    expected = encoder.encode(TEXTS)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for embeddings in pool.map(encode, [encoder] * 3):
            np.testing.assert_array_equal(embeddings, expected)


def test_joblib_encodes(folder):
    joblib = pytest.importorskip("joblib", reason="needs joblib")
    encoder = encoder_of(folder)
    results = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(encode)(encoder) for _ in range(3))
    for embeddings in results:
        np.testing.assert_array_equal(embeddings, encoder.encode(TEXTS))
