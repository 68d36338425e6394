"""Vocabularies: what goes in comes out, and what is unknown follows the rule."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from small_vocabularies import TEXTS, make

from fastattn.text import BytePairs, Characters
from fastattn.text.subwords import Subwords


def test_what_goes_in_comes_out(vocabulary: Subwords) -> None:
    encoded = vocabulary.encode([*TEXTS, ""])
    assert (encoded.ids.dtype, encoded.cu_seqlens.dtype) == (np.int64, np.int32)
    assert encoded.lengths.tolist() == encoded.full_lengths.tolist()
    assert encoded.lengths[-1] == 1
    assert (encoded.ids[encoded.cu_seqlens[1:] - 1] == 1).all()
    assert encoded.ids.max() < vocabulary.vocab_size
    rows = np.split(encoded.ids, encoded.cu_seqlens[1:-1])
    assert vocabulary.decode(rows) == [*TEXTS, ""]
    assert vocabulary.tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert "".join(vocabulary.tokens(rows[0])).replace("▁", " ").strip() == TEXTS[0] + "</s>"


def test_unknown_characters(vocabulary: Subwords) -> None:
    ids = vocabulary.encode(["the 猫 cat"]).ids
    assert np.count_nonzero(ids == 2) == 1
    assert vocabulary.decode([ids])[0].split() == ["the", "cat"]


def test_special_tokens_in_a_text_are_text(vocabulary: Subwords) -> None:
    ids = vocabulary.encode(["</s> the <pad>"]).ids
    assert np.count_nonzero(ids == 1) == 1
    assert 0 not in ids


def test_bad_texts(vocabulary: Subwords) -> None:
    with pytest.raises(TypeError, match=r"texts must be a sequence of str, got the str"):
        vocabulary.encode("the cat")
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got bytes"):
        vocabulary.encode(["a", b"b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"texts\[1\] is not valid Unicode: '\\ud800' at position 1"):
        vocabulary.encode(["a", "a\ud800"])
    for number in (-1, vocabulary.vocab_size):
        with pytest.raises(ValueError, match=rf"sequences\[1\] has {number}, which is not an id of the vocabulary"):
            vocabulary.decode([[3], [3, number]])


def test_characters_are_sorted_by_frequency() -> None:
    vocabulary = Characters.build(["cabb", "bA"], min_count=1)
    assert vocabulary.tokens(range(3, 7)) == ["b", "A", "a", "c"]
    assert Characters.build(["cabb", "bA"], min_count=2).vocab_size == 4
    with pytest.raises(ValueError, match="must hold single ones, got 'ab'"):
        Characters(["a", "ab"])
    with pytest.raises(ValueError, match="the character 'a' appears twice"):
        Characters("aba")


def test_byte_pairs_of_the_same_text_are_the_same() -> None:
    pytest.importorskip("tokenizers", reason="needs the tokenizers library")
    code = (
        "import sys; from fastattn.text import BytePairs;"
        "sys.stdout.buffer.write(BytePairs.train(sys.argv[1:], 60).to_bytes())"
    )
    found = {subprocess.run([sys.executable, "-c", code, *TEXTS], capture_output=True).stdout for _ in range(2)}
    assert found == {make("byte pairs").to_bytes()}


def test_byte_pairs_normalise() -> None:
    vocabulary = make("byte pairs")
    ids = vocabulary.encode(["  a  nai\u0308ve\u2003dog\n", "a naïve dog"])
    assert ids.ids[: ids.cu_seqlens[1]].tolist() == ids.ids[ids.cu_seqlens[1] :].tolist()
    assert vocabulary.vocab_size <= 60
    assert BytePairs.train(TEXTS, 4).vocab_size > 4  # every character is there
