"""Sentences of words: first wordpieces, windows, and words that a tokenizer leaves nothing of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the tokenizers library")

from helpers_sentences import VOCABULARY, write_bert

from fastattn.text import TokenizedWords, Tokenizer, encode_words

CLS, SEP, UNK = (VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = write_bert(tmp_path_factory.mktemp("bert"))
    return Tokenizer.from_pretrained(folder)


def tokens(words: TokenizedWords) -> list[list[str]]:
    """The windows as tokens."""
    names = [VOCABULARY[i] for i in words.ids]
    return [names[a:b] for a, b in zip(words.cu_seqlens, words.cu_seqlens[1:], strict=False)]


def test_first_wordpieces(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [["the", "cab", "."], [], ["cat's"]], 32)
    assert tokens(words) == [
        ["[CLS]", "the", "c", "##a", "##b", ".", "[SEP]"],
        ["[CLS]", "cat", "[UNK]", "s", "[SEP]"],
    ]
    assert words.first.tolist() == [1, 2, 5, 8]
    assert words.cu_words.tolist() == [0, 3, 3, 4]
    assert words.lengths.tolist() == [7, 5]
    dtypes = {name: str(array.dtype) for name, array in vars(words).items()}
    assert dtypes == {"ids": "int64", "cu_seqlens": "int32", "first": "int64", "cu_words": "int64"}
    assert words.lengths.dtype == np.int32


def test_a_sentence_is_tokenised_as_text_is(tokenizer: Tokenizer) -> None:
    sentence = ["the", "Cat", "sat", "abc", "."]
    np.testing.assert_array_equal(
        encode_words(tokenizer, [sentence], 32).ids, tokenizer.encode([" ".join(sentence)]).ids
    )


def test_windows_hold_whole_words(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [["the", "cab", "cat", "sat"], ["the"]], 6)
    assert tokens(words) == [
        ["[CLS]", "the", "c", "##a", "##b", "[SEP]"],
        ["[CLS]", "cat", "sat", "[SEP]"],
        ["[CLS]", "the", "[SEP]"],
    ]
    assert words.first.tolist() == [1, 2, 7, 8, 11]
    assert words.cu_words.tolist() == [0, 4, 5]


def test_a_word_longer_than_a_window_loses_its_end(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [["a", "abcdef", "b"]], 5)
    assert tokens(words) == [["[CLS]", "a", "[SEP]"], ["[CLS]", "a", "##b", "##c", "[SEP]"], ["[CLS]", "b", "[SEP]"]]
    assert words.first.tolist() == [1, 4, 9]


def test_every_word_has_a_wordpiece(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [["\u200b", "cat", " ", "\x01"]], 32)
    assert words.ids.tolist() == [CLS, UNK, VOCABULARY.index("cat"), UNK, UNK, SEP]
    assert words.first.tolist() == [1, 2, 3, 4]


def test_an_empty_word_is_refused(tokenizer: Tokenizer) -> None:
    sentences = [["cat"]] * 1500 + [["cat", ""]]
    with pytest.raises(ValueError, match=r"^encode_words: sentences\[1500\]\[1\] is an empty word$"):
        encode_words(tokenizer, sentences, 32)


def test_nothing(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [], 32)
    assert (words.ids.size, words.cu_seqlens.tolist(), words.cu_words.tolist()) == (0, [0], [0])


def test_more_sentences_than_are_tokenised_at_once(tokenizer: Tokenizer) -> None:
    words = encode_words(tokenizer, [["cat"]] * 2500, 32)
    assert words.lengths.tolist() == [3] * 2500


def test_errors(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="max_length must be more than the 2 special tokens, got 2"):
        encode_words(tokenizer, [["a"]], 2)
    with pytest.raises(TypeError, match=r"sentences\[1\] must be a sequence of words, got the str 'the cat'"):
        encode_words(tokenizer, [["a"], "the cat"], 32)
    with pytest.raises(TypeError, match=r"sentences\[0\]\[1\] must be str, got int"):
        encode_words(tokenizer, [["a", 1]], 32)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"sentences\[0\]\[1\] is not valid Unicode: '\\ud800' at position 1"):
        encode_words(tokenizer, [["a", "b\ud800"]], 32)
