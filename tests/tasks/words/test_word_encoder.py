"""fastattn.tasks.WordEncoder: the files it reads, its numbers, its state."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_elmo import SENTENCES, Oracle, options, random_datasets, write

pytest.importorskip("h5py", reason="needs h5py")

import h5py

from fastattn import Tensor
from fastattn.tasks import WordEncoder

CASES = [
    {},
    {"n_highway": 0, "activation": "tanh"},
    {"use_skip_connections": False, "n_layers": 1},
    {"cell_clip": None, "proj_clip": None},
    {"projection_dim": 12, "dim": 12},  # neither tokens nor outputs are projected
    {"max_characters_per_token": 9},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
@pytest.mark.parametrize("trainable", [False, True])
def test_values(tmp_path, changes, trainable):
    some = options(**changes)
    datasets = random_datasets(some)
    elmo, oracle = (
        WordEncoder.from_pretrained(*write(tmp_path, some, datasets), trainable=trainable),
        Oracle(some, datasets),
    )
    assert elmo.model.network.frozen is not trainable
    for result, sentence in zip(elmo(SENTENCES), SENTENCES, strict=True):
        assert isinstance(result, Tensor) is trainable
        result, size = (result.numpy() if trainable else result), some["lstm"]["projection_dim"]
        assert result.dtype == np.float32
        assert result.shape == (some["lstm"]["n_layers"] + 1, len(sentence), 2 * size)
        np.testing.assert_allclose(result, oracle(sentence), atol=1e-5)


def test_every_instruction_set(tmp_path, isa, threads):
    elmo, oracle = small(tmp_path)
    for result, sentence in zip(elmo(SENTENCES), SENTENCES, strict=True):
        np.testing.assert_allclose(result, oracle(sentence), atol=1e-5)


def small(folder: Path, **arguments: Any) -> tuple[WordEncoder, Oracle]:
    datasets = random_datasets(options())
    return WordEncoder.from_pretrained(*write(folder, options(), datasets), **arguments), Oracle(options(), datasets)


def test_state(tmp_path):
    elmo, oracle = small(tmp_path)
    state = elmo.new_state()
    states: list[dict[Any, Any]] = [{} for _ in SENTENCES]
    for batch in (SENTENCES[:2], SENTENCES, SENTENCES[2:], [], SENTENCES[:1], SENTENCES):
        results = elmo(batch, state=state)
        for result, sentence, slot in zip(results, batch, states, strict=False):
            np.testing.assert_allclose(result, oracle(sentence, slot), atol=1e-5)
    assert len(state) == len(SENTENCES)
    before = state.copy()
    once, again = elmo(SENTENCES, state=state), elmo(SENTENCES, state=before)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changes", [{"use_skip_connections": False}, {"cell_clip": None}, {"proj_clip": None}], ids=str
)
def test_every_rule_counts(tmp_path, changes):
    datasets = random_datasets(options())
    elmo = WordEncoder.from_pretrained(*write(tmp_path, options(**changes), datasets))
    assert np.abs(elmo(SENTENCES)[0] - Oracle(options(), datasets)(SENTENCES[0])).max() > 0.01


def test_a_state_survives_an_error(tmp_path):
    elmo, _ = small(tmp_path)
    state = elmo.new_state()
    elmo(SENTENCES, state=state)
    expected = elmo(SENTENCES, state=state.copy())
    with pytest.raises(TypeError):
        elmo([["a"], "b"], state=state)
    for a, b in zip(elmo(SENTENCES, state=state), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_of_another_model_is_refused(tmp_path):
    elmo, _ = small(tmp_path)
    other = options(dim=11)
    state = WordEncoder.from_pretrained(*write(tmp_path / "other", other, random_datasets(other))).new_state()
    with pytest.raises(ValueError, match="state was made by a model of another shape"):
        elmo(SENTENCES, state=state)
    for wrong in ({}, 5, elmo):
        with pytest.raises(
            TypeError, match=f"WordEncoder: state must be an ElmoState or None, got {type(wrong).__name__}"
        ):
            elmo(SENTENCES, state=wrong)


def test_other_faces_of_the_call(tmp_path):
    elmo, _ = small(tmp_path)
    expected = elmo(SENTENCES)
    for results in (
        elmo.embed_batch(SENTENCES),
        [elmo.embed_sentence(sentence) for sentence in SENTENCES],
        elmo.embed_sentences(iter(SENTENCES), batch_size=2),
        elmo.embed_sentences(SENTENCES),
        elmo(tuple(map(tuple, SENTENCES))),
    ):
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert elmo([]) == []
    assert list(elmo.embed_sentences([])) == []
    for size in (0, 2.5, "3"):
        with pytest.raises(
            (TypeError, ValueError), match=f"embed_sentences: batch_size must be a positive integer, got {size!r}"
        ):
            next(elmo.embed_sentences(SENTENCES, batch_size=size))


def test_sentence_boundaries(tmp_path):
    elmo, _ = small(tmp_path)
    kept, _ = small(tmp_path, keep_sentence_boundaries=True)
    for whole, inner in zip(kept(SENTENCES), elmo(SENTENCES), strict=True):
        assert whole.shape[1] == inner.shape[1] + 2
        np.testing.assert_array_equal(whole[:, 1:-1], inner)


def test_copies_and_pickles(tmp_path):
    small(tmp_path)[0].save_pretrained(tmp_path / "folder")
    for elmo in (small(tmp_path)[0], WordEncoder.from_pretrained(tmp_path / "folder")):
        elmo.cache_vocabulary(["the", "cat"])
        for again in (copy.deepcopy(elmo), pickle.loads(pickle.dumps(elmo))):
            for a, b in zip(again(SENTENCES), elmo(SENTENCES), strict=True):
                np.testing.assert_array_equal(a, b)


def test_parameters_have_the_names_of_the_model(tmp_path):
    elmo, _ = small(tmp_path, num_output_representations=1)
    assert list(elmo.state_dict()) == list(elmo.model.state_dict())
    with pytest.raises(TypeError, match="WordEncoder: model must be an Elmo, got str"):
        WordEncoder("elmo")


def test_bad_sentences(tmp_path):
    elmo, _ = small(tmp_path)
    for sentences, error, message in (
        (["The cat"], TypeError, r"sentences\[0\] must be a sequence of words, got the str 'The cat'"),
        ("The cat", TypeError, r"sentences must be a sequence of sentences, .*, got the str 'The cat'"),
        (None, TypeError, r"sentences must be a sequence of sentences, each a sequence of words, got NoneType"),
        ([["a"], None], TypeError, r"sentences\[1\] must be a sequence of words, got NoneType"),
        ([["a"], ["b", 1]], TypeError, r"sentences\[1\]\[1\] must be str, got int"),
        ([["a\ud800"]], ValueError, r"sentences\[0\]\[0\] is not valid Unicode"),
    ):
        for call in (elmo, elmo.represent):
            with pytest.raises(error, match=message):
                call(sentences)
    results = elmo.embed_sentences([["a"], ["b"], ["c", 4]], batch_size=2)
    assert [next(results).shape[1] for _ in range(2)] == [1, 1]
    with pytest.raises(TypeError, match=r"sentences\[2\]\[1\] must be str, got int"):
        next(results)


def test_a_vocabulary_is_words(tmp_path):
    elmo, _ = small(tmp_path)
    for words, message in (
        ("the", r"words must be a sequence of words, got the str 'the'"),
        (["the", 5], r"words\[1\] must be str, got int"),
        (None, "words must be a sequence of words, got NoneType"),
    ):
        with pytest.raises(TypeError, match=f"cache_vocabulary: {message}"):
            elmo.cache_vocabulary(words)


def test_a_long_word_is_cut_after_48_bytes(tmp_path):
    elmo, _ = small(tmp_path)
    a, b, c = elmo([["x" * 48 + "y"], ["x" * 48], ["x" * 47 + "y"]])
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


class TestBilmTf:
    """The model of bilm-tf's tests, and what TensorFlow computed with it."""

    @pytest.fixture
    def folder(self) -> Path:
        data = Path(os.environ.get("FASTATTN_DATA") or Path(__file__).parents[4] / "shared" / "data")
        path = data / "bilm-tf" / "model"
        if not path.is_dir():
            pytest.skip(f"bilm-tf's model is missing: {path} (set FASTATTN_DATA)")
        return path

    @staticmethod
    def largest_error(folder: Path, elmo: WordEncoder, stateful: bool = True) -> float:
        """Of the top layer of 3 x 10 sentences; sentence i of slot k follows sentence i - 1."""
        slots = json.loads((folder / "lm_embeddings_sentences.json").read_text())
        state, errors = elmo.new_state(), []
        for i in range(10):
            batch = [sentences[i].split() for sentences in slots]
            for k, result in enumerate(elmo(batch, state=state if stateful else None)):
                with h5py.File(folder / f"lm_embeddings_{k}.hdf5", "r") as file:
                    forward, backward = file[str(i)][...]
                errors.append(np.abs(result[-1] - np.concatenate([forward, backward], axis=1)).max())
        assert len(errors) == 30
        return float(max(errors))

    def test_embeddings_are_those_of_tensorflow(self, folder, isa):
        elmo = WordEncoder.from_pretrained(folder / "options.json", folder / "lm_weights.hdf5")
        assert self.largest_error(folder, elmo) < 5e-6
        assert self.largest_error(folder, elmo, stateful=False) > 1e-2

    @pytest.mark.parametrize("changes", [{"use_skip_connections": True}, {"cell_clip": None}, {"activation": "tanh"}])
    def test_every_rule_counts(self, folder, tmp_path, changes):
        some = json.loads((folder / "options.json").read_text())
        for name, value in changes.items():
            some["char_cnn" if name == "activation" else "lstm"][name] = value
        (tmp_path / "options.json").write_text(json.dumps(some))
        elmo = WordEncoder.from_pretrained(tmp_path / "options.json", folder / "lm_weights.hdf5")
        assert self.largest_error(folder, elmo) > 1e-4
