"""A sentence's vectors depend on the sentence, the weights and the instruction set, and on nothing else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_elmo import options, random_datasets, write

import fastattn
from fastattn.tasks import WordEncoder
from fastattn.tasks.words import encoder as module

RNG = np.random.default_rng(5)
WORDS = ["a", "the", "naïve", "日本", "x" * 70, "", "cat", "sleeps", ".", "?!"]
SENTENCES = [list(RNG.choice(WORDS, n)) for n in RNG.integers(0, 20, 40)]


@pytest.fixture(scope="module")
def elmo(tmp_path_factory: pytest.TempPathFactory) -> WordEncoder:
    pytest.importorskip("h5py", reason="needs h5py")
    some = options(projection_dim=24, dim=67, filters=[[1, 9], [3, 30], [6, 17]])
    folder: Path = tmp_path_factory.mktemp("elmo")
    return WordEncoder.from_pretrained(*write(folder, some, random_datasets(some)))


def equal(results: Any, expected: Any) -> None:
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_company_order_and_threads(elmo, isa, threads, monkeypatch):
    alone = [elmo.embed_sentence(sentence) for sentence in SENTENCES]
    equal(elmo(SENTENCES), alone)
    equal(elmo(SENTENCES[::-1])[::-1], alone)
    monkeypatch.setattr(module, "BATCH_TOKENS", 30)
    monkeypatch.setattr(module, "WORDS", 3)
    equal(elmo(SENTENCES), alone)
    fastattn.set_num_threads(3 - threads)
    equal(elmo(SENTENCES), alone)


def test_a_trainable_network_gives_the_same(elmo, tmp_path):
    elmo.save_pretrained(tmp_path)
    trainable = WordEncoder.from_pretrained(tmp_path, trainable=True)
    equal([x.numpy() for x in trainable(SENTENCES)], elmo(SENTENCES))


def test_slots_do_not_meet(elmo, isa):
    state = elmo.new_state()
    first, second = elmo(SENTENCES[:20], state=state), elmo(SENTENCES[20:], state=state)
    for i in range(20):
        own = elmo.new_state()
        equal(elmo(SENTENCES[i : i + 1], state=own), first[i : i + 1])
        equal(elmo(SENTENCES[20 + i : 21 + i], state=own), second[i : i + 1])


def test_the_word_cache_changes_no_bit(elmo, isa, monkeypatch):
    expected = elmo(SENTENCES)
    computed: list[int] = []
    kind = type(elmo.model.network)
    tokens = kind.tokens
    monkeypatch.setattr(kind, "tokens", lambda self, ids: computed.append(len(ids)) or tokens(self, ids))
    for words in (["cat"], WORDS[3:], WORDS):
        elmo.cache_vocabulary(iter(words))
        computed.clear()
        equal(elmo(SENTENCES), expected)
        assert sum(computed) == len(WORDS) - len(words)
    elmo.cache_vocabulary([])
    computed.clear()
    equal(elmo(SENTENCES), expected)
    assert sum(computed) == len(WORDS) + 2


def test_a_cache_is_of_one_instruction_set(elmo):
    for isa in fastattn.available_isas():
        with fastattn.use_isa(isa):
            expected = elmo(SENTENCES)
        elmo.cache_vocabulary(WORDS)
        with fastattn.use_isa(isa):
            equal(elmo(SENTENCES), expected)
        elmo.cache_vocabulary([])


def test_new_weights_empty_the_cache(elmo, tmp_path):
    elmo.save_pretrained(tmp_path)
    other = WordEncoder.from_pretrained(tmp_path)
    other.cache_vocabulary(WORDS)
    state = dict(other.state_dict())
    name = "network.token_encoder.char_cnn.embedding"
    state[name] = state[name] * np.float32(2)
    other.load_state_dict(state)
    assert (other(SENTENCES)[0] != elmo(SENTENCES)[0]).any()
    other.cache_vocabulary(WORDS)
    other.model.load_state_dict(elmo.state_dict())
    equal(other(SENTENCES), elmo(SENTENCES))


def test_a_trainable_network_is_not_cached(elmo, tmp_path):
    elmo.save_pretrained(tmp_path)
    trainable = WordEncoder.from_pretrained(tmp_path, trainable=True)
    with pytest.raises(ValueError, match="cache_vocabulary: the network is trainable and its vectors change"):
        trainable.cache_vocabulary(WORDS)


def test_many_threads_at_once(elmo):
    expected = elmo(SENTENCES)
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            state = elmo.new_state()
            for i in range(4):
                equal(elmo(SENTENCES[k:]), expected[k:])
                elmo(SENTENCES[k:], state=state)
                elmo.cache_vocabulary(WORDS[: 1 + (i + k) % 5])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elmo.cache_vocabulary([])
    assert not errors
