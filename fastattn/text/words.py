"""Words in, wordpieces out: sentences already split into words, for models with a result for each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn.checks import texts
from fastattn.text.tokenizer import CHUNK, Tokenizer


@dataclass(frozen=True)
class TokenizedWords:
    """Wordpieces of many sentences, in windows that fit a model.

    Attributes:
        ids: int64 `[tokens]`, the windows one after the other, each with its special tokens.
        cu_seqlens: int32 `[windows + 1]`: window i is `ids[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        first: int64 `[words]`, where in `ids` each word's first wordpiece is; words of all sentences in order.
        cu_words: int64 `[sentences + 1]`: sentence i has the words `first[cu_words[i]:cu_words[i + 1]]`.
    """

    ids: NDArray[np.int64]
    cu_seqlens: NDArray[np.int32]
    first: NDArray[np.int64]
    cu_words: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each window, int32 `[windows]`."""
        return ragged.lengths(self.cu_seqlens)


def encode_words(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], max_length: int) -> TokenizedWords:
    """Tokenise sentences given as lists of words, so that every word has a first wordpiece.

    A sentence of more than `max_length` tokens is cut into windows, each as long as whole words allow; a word
    that does not fit into a window alone loses its end. A word that has no wordpiece (only control
    characters, say) becomes one unknown token. A sentence without words has no window.

    Args:
        tokenizer: splits each word further, as it does text.
        sentences: sequences of str.
        max_length: the longest window in tokens, special tokens included.

    Raises:
        TypeError: a sentence is one str, or a word is not a str; the message names its index.
        ValueError: max_length is not more than the special tokens, or a word cannot be written as UTF-8.

    >>> words = encode_words(tokenizer, [["the", "cat"], ["sat"]], 512)    # doctest: +SKIP
    >>> words.ids, words.first                                             # doctest: +SKIP
    (array([ 101, 1996, 4937,  102,  101, 2938,  102]), array([1, 2, 5]))
    """
    room = max_length - tokenizer.special_tokens
    if room < 1:
        raise ValueError(
            f"max_length must be more than the {tokenizer.special_tokens} special tokens, got {max_length}"
        )
    special: list[int] = tokenizer._backend.encode("").ids
    before, after = special[: tokenizer._leading], special[tokenizer._leading :]
    ids: list[int] = []
    first: list[int] = []
    cu_seqlens, cu_words = [0], [0]
    for words in _pieces(tokenizer._backend, sentences):
        for window in _windows(words, room):
            ids += before
            for pieces in window:
                first.append(len(ids))
                ids += pieces
            ids += after
            cu_seqlens.append(len(ids))
        cu_words.append(len(first))
    offsets = ragged.check_cu_seqlens(cu_seqlens, len(ids))
    return TokenizedWords(np.array(ids, np.int64), offsets, np.array(first, np.int64), np.array(cu_words, np.int64))


def _windows(words: list[list[int]], room: int) -> Iterator[list[list[int]]]:
    """Runs of words of at most `room` wordpieces."""
    window: list[list[int]] = []
    used = 0
    for word in words:
        pieces = word[:room]
        if used + len(pieces) > room:
            yield window
            window, used = [], 0
        window.append(pieces)
        used += len(pieces)
    if window:
        yield window


def _pieces(backend: Any, sentences: Sequence[Sequence[str]]) -> Iterator[list[list[int]]]:
    """The wordpieces of every word, sentence by sentence."""
    unknown = getattr(backend.model, "unk_token", None)
    nothing = [] if unknown is None else [backend.token_to_id(unknown)]
    for start in range(0, len(sentences), CHUNK):
        some = enumerate(sentences[start : start + CHUNK], start)
        chunk = [texts(f"sentences[{i}]", words, "words") for i, words in some]
        encodings = backend.encode_batch(chunk, is_pretokenized=True, add_special_tokens=False)
        for words, encoding in zip(chunk, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for word, token in zip(encoding.word_ids, encoding.ids, strict=True):
                pieces[word].append(token)
            yield [word or nothing for word in pieces]
