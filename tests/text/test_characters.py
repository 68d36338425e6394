"""fastattn.text.characters: words as the bytes that ELMo reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastattn.text.characters import character_ids, index_words

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)


def by_hand(word: str, length: int) -> list[int]:
    code = {"<S>": [256], "</S>": [257]}.get(word, list(word.encode())[: length - 2])
    ids = [258, *code, 259]
    return ids + [260] * (length - len(ids))


@given(st.lists(words | st.sampled_from(["<S>", "</S>"])), st.integers(3, 60))
def test_ids(sentence, length):
    ids = character_ids(sentence, length)
    assert ids.dtype == np.int64
    assert ids.shape == (len(sentence), length)
    assert ids.tolist() == [by_hand(word, length) for word in sentence]


def test_a_long_word_loses_its_end_within_a_character_too():
    assert character_ids(["é" * 30], 8).tolist() == [[258, 0xC3, 0xA9, 0xC3, 0xA9, 0xC3, 0xA9, 259]]
    assert character_ids(["é" * 30], 7).tolist() == [[258, 0xC3, 0xA9, 0xC3, 0xA9, 0xC3, 259]]
    assert (character_ids(["x" * 48]) == character_ids(["x" * 49])).all()
    assert (character_ids(["x" * 47]) != character_ids(["x" * 48])).any()


def test_bad_words_are_named():
    with pytest.raises(TypeError, match=r"character_ids: words\[1\] must be str, got bytes"):
        character_ids(["a", b"b"])
    with pytest.raises(ValueError, match=r"words\[0\] is not valid Unicode: '\\ud800' at position 1"):
        character_ids(["a\ud800"])
    with pytest.raises(TypeError, match="character_ids: words must be a sequence of words, got the str 'the'"):
        character_ids("the")
    with pytest.raises(ValueError, match="max_characters must be an integer of at least 3, got 2"):
        character_ids(["a"], 2)


@given(st.lists(st.lists(words | st.sampled_from(["a", "b", "<S>", "</S>"]))))
def test_index_words(sentences):
    distinct, index, cu_seqlens = index_words(sentences)
    assert len(set(distinct)) == len(distinct)
    found = [distinct[i] for i in index]
    for start, stop, sentence in zip(cu_seqlens[:-1], cu_seqlens[1:], sentences, strict=True):
        assert found[start:stop] == ["<S>", *sentence, "</S>"]


def test_bad_sentences_are_named():
    with pytest.raises(TypeError, match=r"sentences\[1\] must be a sequence of words, got the str 'The cat'"):
        index_words([["a"], "The cat"])
    with pytest.raises(TypeError, match=r"sentences\[0\]\[2\] must be str, got list"):
        index_words([["a", "b", ["c"]]])
    for sentences in (None, 5, "the cat"):
        with pytest.raises(
            TypeError, match="sentences must be a sequence of sentences, each a sequence of words, got "
        ):
            index_words(sentences)
    with pytest.raises(TypeError, match=r"sentences\[7\] must be a sequence of words, got NoneType"):
        index_words([["a"], None], first=6)
    with pytest.raises(ValueError, match=r"sentences\[1\]\[0\] is not valid Unicode: '\\udcff' at position 0"):
        index_words([["a"], ["\udcff"]])
