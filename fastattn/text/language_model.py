"""Text for a language model: its vocabulary, its sentences as numbers, and the streams to train on.

    text = read_sentences(["train.txt"])
    vocabulary = Vocabulary.build(text, min_count=2)
    batches = StreamBatches(text, vocabulary, characters, batch_size=32, unroll_steps=20)

The batches are in `fastattn.text.streams`.

Forwards, a sentence w1 .. wn has the inputs `<S>` w1 .. wn and the targets w1 .. wn `</S>`. Backwards, it has `</S>` wn
.. w1 and wn .. w1 `<S>`. Both directions are read from their start. The model reads the characters of the input words,
or their ids. Targets are ids of the vocabulary, with `<UNK>` for words outside it.

Source: Peters et al. 2018, section 3.1; bilm-tf's vocabulary file and its order of sentences.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastattn._types import IntArray
from fastattn.checks import integer, sequence, shown
from fastattn.errors import EmptyError
from fastattn.files import byte_lines, lines_crc32, open_regular, replacing, text_lines, utf8_lines
from fastattn.text.characters import BEGIN, END

__all__ = [
    "UNKNOWN",
    "Sentences",
    "Vocabulary",
    "read_sentences",
    "unigram_perplexity",
]

UNKNOWN = "<UNK>"


@dataclass(frozen=True)
class Sentences:
    """Sentences that are split into words.

    Attributes:
        forms: the distinct words, after `<S>` and `</S>`, in the order in which they are met.
        words: int32 `[words]`, the words of all sentences as places in `forms`.
        cu_words: int64 `[sentences + 1]`: sentence i is `words[cu_words[i]:cu_words[i + 1]]`.
    """

    forms: tuple[str, ...]
    words: NDArray[np.int32]
    cu_words: IntArray

    @classmethod
    def from_words(cls, sentences: Iterable[Sequence[str]], source: str = "Sentences") -> Sentences:
        """The sentences, each a sequence of words. Sentences without words are skipped.

        Raises TypeError for a sentence that is a str and for a word that is not, and ValueError, naming `source`, if
        there are no words.

        >>> Sentences.from_words([["a", "b", "a"], [], ["b"]])
        Sentences(forms=('<S>', '</S>', 'a', 'b'), words=array([2, 3, 2, 3], dtype=int32), cu_words=array([0, 3, 4]))
        """
        places = {BEGIN: 0, END: 1}
        words, ends = array("i"), array("q", [0])
        for i, sentence in enumerate(sentences):
            sequence(f"{source}: sentences[{i}]", sentence, "words")
            words.extend(places.setdefault(word, len(places)) for word in sentence)
            if len(words) > ends[-1]:
                ends.append(len(words))
        for word in places:
            if not isinstance(word, str):
                raise TypeError(f"{source}: a word must be str, got {type(word).__name__}: {shown(word)}")
        if not words:
            raise EmptyError(source, "words")
        return cls(tuple(places), np.array(words, np.int32), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.cu_words) - 1

    @property
    def tokens(self) -> int:
        """The words and one end per sentence: the targets in each direction."""
        return len(self.words) + len(self)

    @property
    def crc32(self) -> int:
        """A checksum of the text."""
        return zlib.crc32(self.cu_words.tobytes(), zlib.crc32(self.words.tobytes(), lines_crc32(self.forms)))

    def sequences(self, order: IntArray, backward: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Inputs and targets of the sentences `order`, one after the other, as places in `forms`, int32 `[tokens]`.

        >>> text = Sentences.from_words([["a"], ["b", "c"]])
        >>> for places in text.sequences(np.array([1, 0]), backward=True):
        ...     print(" ".join(text.forms[place] for place in places))
        </S> c b </S> a
        c b <S> a <S>
        """
        first, last = (1, 0) if backward else (0, 1)
        starts, lengths = self.cu_words[order], np.diff(self.cu_words)[order]
        ends = np.cumsum(lengths + 1)
        steps = np.arange(ends[-1])
        steps -= np.repeat(ends - lengths - 1, lengths + 1)  # of each sentence
        left = np.repeat(lengths, lengths + 1) - steps
        places = np.repeat(starts, lengths + 1) + (left - 1 if backward else steps)
        places[ends - 1] = 0
        targets = self.words[places]
        targets[ends - 1] = last
        inputs = np.roll(targets, 1)
        inputs[steps == 0] = first
        return inputs, targets


def read_sentences(paths: Iterable[str | os.PathLike[str]]) -> Sentences:
    """The sentences of UTF-8 files, one per line, with words separated by whitespace, including Unicode whitespace.

    Lines end with LF or CR LF, or all of them with CR. Blank ones are passed over. A word may hold any other character;
    one that is spelled `<S>`, `</S>` or `<UNK>` is that.

    Raises OSError, ValueError, with file and line, for a line that is not UTF-8, and for files without words, and
    TypeError for one path that is not in a list.
    """
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f"read_sentences: paths must be a sequence of files, got the one {shown(paths)}")
    files = [os.fspath(path) for path in paths]
    source = ", ".join(files) or "read_sentences"
    return Sentences.from_words((line.split() for path in files for line in text_lines(path)), source)


class Vocabulary:
    """The words that can be predicted, by number; all others are `<UNK>`.

    A sampled softmax takes them to be sorted, the most frequent first.

    Args:
        words: distinct words, `<S>`, `</S>` and `<UNK>` among them.
        source: what errors name.

    Attributes:
        words, source: the arguments.

    Raises ValueError for a word twice, one that is empty or has whitespace in it, and when one of the three is missing.

    >>> vocabulary = Vocabulary(["<S>", "</S>", "<UNK>", "the", "cat"])
    >>> vocabulary.ids(["the", "dog"]).tolist()
    [3, 2]
    """

    def __init__(self, words: Iterable[str], source: str = "Vocabulary") -> None:
        self.words, self.source = tuple(words), source
        self._ids: dict[str, int] = {}
        for number, word in enumerate(self.words):
            if not isinstance(word, str) or word.split() != [word]:
                raise ValueError(f"{source}:{number + 1}: must be one word, got {shown(word)}")
            if self._ids.setdefault(word, number) != number:
                raise ValueError(f"{source}:{number + 1}: {shown(word)} is a duplicate of line {self._ids[word] + 1}")
        missing = [word for word in (BEGIN, END, UNKNOWN) if word not in self._ids]
        if missing:
            raise ValueError(f"{source}: {', '.join(missing)} must be among the words of a vocabulary")

    def check_size(self, size: int) -> None:
        """Raise ValueError unless there are as many words as a model has."""
        if len(self) != size:
            raise ValueError(f"{self.source}: must have {size} words, as many as the model, got {len(self)}")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read a file of one word a line. Blank lines at its end do not count.

        Raises OSError, or ValueError with the line, also for one not UTF-8.
        """
        name = os.fspath(path)
        with io.BufferedReader(open_regular(name)) as file:
            words = [line.strip() for line in utf8_lines(byte_lines(file, name), name)]
        while words and not words[-1]:
            words.pop()
        return cls(words, name)

    @classmethod
    def build(cls, text: Sentences, size: int | None = None, min_count: int = 1) -> Vocabulary:
        """`<S>`, `</S>`, `<UNK>` and the words of `text`, the most frequent first, of equals the earlier one.

        `size` is the largest number of all of them, and a word that is rarer than `min_count` is left out. Raises
        ValueError for a `size` below 3.

        >>> Vocabulary.build(Sentences.from_words([["a", "b", "b", "c", "c"]]), size=5).words
        ('<S>', '</S>', '<UNK>', 'b', 'c')
        """
        counts = np.bincount(text.words, minlength=len(text.forms))
        order = np.argsort(-counts, kind="stable")
        special = (BEGIN, END, UNKNOWN)
        if size is not None:
            size = integer("Vocabulary: size", size, 3, wanted=f"at least 3, for {', '.join(special)}")
        words = (text.forms[place] for place in order if counts[place] >= max(min_count, 1))
        return cls([*special, *(word for word in words if word not in special)][:size])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `from_file` reads, whole or not at all."""
        with replacing(Path(path)) as (file,):
            file.write_bytes("".join(f"{word}\n" for word in self.words).encode())

    def __len__(self) -> int:
        return len(self.words)

    def ids(self, words: Iterable[str]) -> IntArray:
        """The numbers of words, int64 `[words]`."""
        unknown = self._ids[UNKNOWN]
        return np.array([self._ids.get(word, unknown) for word in words], np.int64)


def unigram_perplexity(train: Sentences, text: Sentences, vocabulary: Vocabulary) -> float:
    """The perplexity of `text`, words and ends of sentences, by their counts in `train`, each with 1 added.

    It is the best that a model can do without context, so a language model is worth what it gains over this.

    >>> text = Sentences.from_words([["a", "b", "a"]])
    >>> round(unigram_perplexity(text, text, Vocabulary.build(text)), 3)  # 3, 2 and 2 of 9
    3.674
    """
    counts, wanted = (_counts(sentences, vocabulary) for sentences in (train, text))
    probabilities = (counts + 1) / (counts.sum() + len(vocabulary))
    chances = [math.log(probability) for probability in probabilities.tolist()]
    return math.exp(-float(wanted @ np.array(chances)) / text.tokens)


def _counts(text: Sentences, vocabulary: Vocabulary) -> NDArray[np.float64]:
    """How often each word of the vocabulary is a target forwards."""
    counts = np.bincount(text.words, minlength=len(text.forms))
    counts[1] += len(text)
    return np.asarray(np.bincount(vocabulary.ids(text.forms), counts, len(vocabulary)), np.float64)
