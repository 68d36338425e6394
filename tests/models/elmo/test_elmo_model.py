"""Elmo: character ids in, layers and mixes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_elmo import SENTENCES, options

from fastattn import Tensor, manual_seed, no_grad
from fastattn.models import BidirectionalLanguageModel, Elmo, ElmoConfig
from fastattn.models.registry import family, load_encoder
from fastattn.tasks import WordEncoder
from fastattn.text.characters import character_ids, index_words

CONFIG = ElmoConfig.from_dict(options())


def make(trainable: bool = False, **changes: Any) -> Elmo:
    manual_seed(3)
    return Elmo(CONFIG.replace(**changes), trainable=trainable).eval()


def test_every_word_or_only_distinct_ones() -> None:
    elmo = make()
    words, index, cu_seqlens = index_words(SENTENCES)
    distinct = elmo(character_ids(words), cu_seqlens, index=index)
    every = elmo(character_ids([words[i] for i in index]), cu_seqlens.tolist())
    assert [array.shape for array in every.layers] == [(17, 12)] * 4
    for a, b in zip(every.layers, distinct.layers, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.diff(every.cu_seqlens).tolist() == [len(sentence) for sentence in SENTENCES]


def test_the_state_goes_on() -> None:
    elmo = make()
    encoder = WordEncoder(elmo)
    words, index, cu_seqlens = index_words(SENTENCES)
    state, ids = encoder.new_state(), character_ids(words)
    first = elmo(ids, cu_seqlens, index=index)
    second = elmo(ids, cu_seqlens, first.state, index)
    for output in (first, second):
        np.testing.assert_array_equal(np.concatenate(encoder(SENTENCES, state), axis=1), np.array(output.layers))
    assert (first.layers[-1] != second.layers[-1]).any()


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("mixes", [0, 1])
def test_what_it_gives_depends_on_what_it_is(trainable: bool, mixes: int, recorded: bool) -> None:
    elmo = make(trainable, num_output_representations=mixes)
    assert elmo.network.frozen is not trainable
    assert elmo.frozen is not (trainable or mixes)
    ids = character_ids(["<S>", "a", "</S>"])
    output = elmo(ids, [0, 3])
    if not recorded:
        with no_grad():
            output = elmo(ids, [0, 3])
    assert [isinstance(layer, Tensor) for layer in output.layers] == [trainable] * 4
    assert [isinstance(mix, Tensor) for mix in output.elmo_representations] == [True] * mixes
    assert all(isinstance(array, np.ndarray) for pair in output.state for array in pair)


def test_sequences_have_marks() -> None:
    ids = character_ids(["<S>", "a", "</S>"])
    with pytest.raises(ValueError, match="Elmo: cu_seqlens: sequence 1 has no marks around it"):
        make()(ids, [0, 2, 3])
    assert make(keep_sentence_boundaries=True)(ids, [0, 2, 3]).cu_seqlens.tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match=r"^Elmo: cu_seqlens must"):
        make()(ids, [0, 2])


def test_the_first_layers(tmp_path: Path) -> None:
    elmo = make()
    elmo.save_pretrained(tmp_path)
    ids = character_ids(["<S>", "a", "</S>"])
    for a, b in zip(
        Elmo.from_pretrained(tmp_path, n_layers=2)(ids, [0, 3]).layers, elmo(ids, [0, 3]).layers[:3], strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_family(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    assert type(load_encoder(tmp_path)) is Elmo
    assert family("elmo").head("LanguageModel") is BidirectionalLanguageModel


def test_convolutions_may_be_frozen_alone() -> None:
    """The highway layers above them still train, so they must not write over their input."""
    encoder, ids = make(trainable=True).network.token_encoder, character_ids(["a", "word"])

    def gradients() -> list[Any]:
        encoder.zero_grad()
        y = encoder(ids)
        (y * y).sum().backward()
        return [np.array(parameter.grad) for parameter in encoder.highway.parameters()]

    expected = gradients()
    encoder.char_cnn.freeze()
    for found, wanted in zip(gradients(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
