"""Words in, characters out: the UTF-8 bytes that ELMo reads.

An id from 0 to 255 is a byte. Five more mark the beginning and end of a sentence, the beginning and end of a word,
and the padding behind it. The rules are those of bilm-tf's `UnicodeCharsVocabulary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn.checks import integer, sequence, text, texts

__all__ = ["BEGIN", "END", "PADDING", "character_ids", "index_words"]

BEGIN, END = "<S>", "</S>"
"""The words around every sentence. A word with the same spelling is one of these."""

_SENTENCE_IDS = {BEGIN: 256, END: 257}
_WORD_BEGIN, _WORD_END, PADDING = 258, 259, 260


def character_ids(words: Sequence[str], max_characters: int = 50) -> NDArray[np.int64]:
    """The characters of words: int64 `[words, max_characters]`.

    A word is its mark 258, its UTF-8 bytes, 259, and 260 up to the end. Bytes from number `max_characters - 2` on are
    cut off, also within a character. `<S>` and `</S>` have the one byte 256 and 257.

    Args:
        words: any strings, the empty one too.
        max_characters: the length of all rows, at least 3.

    Raises:
        TypeError: `words` is one str, or a word is not a str.
        ValueError: a word cannot be written as UTF-8, or `max_characters` is too small.

    >>> character_ids(["Hi", "</S>"], max_characters=6).tolist()
    [[258, 72, 105, 259, 260, 260], [258, 257, 259, 260, 260, 260]]
    """
    max_characters = integer("character_ids: max_characters", max_characters, 3)
    room = max_characters - 2
    words = texts("character_ids: words", words, "words")
    spelled = [b"?" if word in _SENTENCE_IDS else word[:room].encode()[:room] for word in words]
    lengths = np.fromiter(map(len, spelled), np.int64, len(spelled))
    ids = np.full((len(spelled), max_characters), PADDING, np.int64)
    ids[:, 0] = _WORD_BEGIN
    ids[:, 1:-1][np.arange(room) < lengths[:, None]] = np.frombuffer(b"".join(spelled), np.uint8)
    ids[np.arange(len(spelled)), lengths + 1] = _WORD_END
    for i, word in enumerate(words):
        if word in _SENTENCE_IDS:
            ids[i, 1] = _SENTENCE_IDS[word]
    return ids


def index_words(
    sentences: Iterable[Sequence[str]], first: int = 0, name: str = "index_words: sentences"
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int32]]:
    """The distinct words of sentences, and their places.

    `<S>` and `</S>` are put around every sentence, an empty one too. Returns the distinct words in the order in which
    they are met; the place of every word among them, int64 `[tokens]`; and `cu_seqlens`, int32 `[sentences + 1]`.

    Args:
        sentences: sequences of words.
        first: the index of the first sentence, for errors.
        name: what errors call `sentences`.

    Raises:
        TypeError: `sentences` or one of them is a str or no sequence, or a word is not a str; the message names its
            index.
        ValueError: a word cannot be written as UTF-8.

    >>> words, index, cu_seqlens = index_words([["to", "be"], [], ["be"]])
    >>> words, index.tolist(), cu_seqlens.tolist()
    (['<S>', '</S>', 'to', 'be'], [0, 2, 3, 1, 0, 1, 0, 3, 1], [0, 4, 6, 9])
    """
    places: dict[str, int] = {BEGIN: 0, END: 1}
    index: list[int] = []
    lengths = []
    sequence(name, sentences, "sentences, each a sequence of words")
    for i, sentence in enumerate(sentences, start=first):
        sequence(f"{name}[{i}]", sentence, "words")
        before = len(index)
        index.append(0)
        for j, word in enumerate(sentence):
            place = places.get(word) if isinstance(word, str) else None
            if place is None:
                if not (isinstance(word, str) and word.isascii()):
                    text(f"{name}[{i}][{j}]", word)
                place = places[word] = len(places)
            index.append(place)
        index.append(1)
        lengths.append(len(index) - before)
    return list(places), np.array(index, np.int64), ragged.cu_seqlens(lengths)
