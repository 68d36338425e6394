"""Documents as wordpieces on disk."""

from __future__ import annotations

import itertools
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn import ragged
from fastattn._types import IntArray
from fastattn.errors import EmptyError
from fastattn.text.library import import_tokenizers
from fastattn.text.tokenizer import Tokenizer

__all__ = ["TokenizedDocuments", "continuing_ids"]

_SENTENCES, _CHARACTERS = 4096, 1 << 20  # tokenised at once, at most
_WORDS = 1 << 20  # that are remembered, at most
_JOINED = 64  # words tokenised as one text


@dataclass(frozen=True)
class TokenizedDocuments:
    """Sentences of documents as wordpieces, without special tokens.

    The wordpieces and the offsets of the sentences are in unnamed temporary files, 4 bytes a wordpiece and 8 a sentence
    (TMPDIR says where). The system reads what is used, and takes the memory back as it needs it. In memory are 8 bytes
    a document.

    Attributes:
        ids: int32 `[wordpieces]`.
        offsets: int64 `[sentences + 1]`: sentence i is `ids[offsets[i]:offsets[i + 1]]`.
        bounds: int64 `[documents + 1]`: document i has the sentences from `bounds[i]` to `bounds[i + 1]`.
        counts: int64 `[vocabulary]`, how often each wordpiece occurs.
        crc32: a checksum.
        name: what errors call the text.
    """

    ids: NDArray[np.int32]
    offsets: IntArray
    bounds: IntArray
    counts: IntArray
    crc32: int
    name: str = "documents"

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @classmethod
    def read(cls, sentences: Iterable[str], tokenizer: Tokenizer, name: str = "sentences") -> TokenizedDocuments:
        """The documents of `sentences`, in which "" ends a document. Errors call them `name`.

        Raises ValueError for a text without wordpieces, and OSError for a full disk.
        """
        try:
            with tempfile.TemporaryFile() as ids, tempfile.TemporaryFile() as ends:
                return cls._written(sentences, tokenizer, name, ids, ends)
        except OSError as error:
            error.filename = error.filename or tempfile.gettempdir()
            raise

    @classmethod
    def _written(
        cls, sentences: Iterable[str], tokenizer: Tokenizer, name: str, ids: Any, ends: Any
    ) -> TokenizedDocuments:
        encoder = _Encoder(tokenizer)
        bounds, count, total, crc = array("q", [0]), 0, 0, 0
        pieces = np.zeros(tokenizer.vocab_size, np.int64)
        ends.write(np.zeros(1, np.int64).tobytes())
        for chunk, first in _chunks(sentences):
            found, lengths = encoder([text for text in chunk if text], name, first)
            kept = np.zeros(len(chunk), np.int64)
            kept[[i for i, text in enumerate(chunk) if text]] = lengths
            offsets = total + np.cumsum(lengths[lengths > 0])
            before = count + np.cumsum(kept > 0)  # sentences up to each line
            bounds.extend(int(before[i]) for i, text in enumerate(chunk) if not text)
            total, count = total + int(lengths.sum()), count + len(offsets)
            crc = zlib.crc32(offsets.tobytes(), zlib.crc32(found.tobytes(), crc))
            pieces += np.bincount(found, minlength=len(pieces))
            ids.write(found.tobytes())
            ends.write(offsets.astype(np.int64).tobytes())
        if not count:
            raise EmptyError(name, "words")
        ids.flush()
        ends.flush()
        bounds.append(count)
        documents = np.unique(np.array(bounds, np.int64))  # without empty ones
        tokens = np.memmap(ids, np.int32, "r", shape=(total,))
        starts = np.memmap(ends, np.int64, "r", shape=(count + 1,))
        crc = zlib.crc32(documents.tobytes(), crc)
        return cls(np.asarray(tokens), np.asarray(starts), documents, pieces, crc, name)


def _chunks(sentences: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Lists of some lines, and how many lines that are not "" came before."""
    some: list[str] = []
    size = first = 0
    for text in sentences:
        some.append(text)
        size += len(text)
        if len(some) == _SENTENCES or size >= _CHARACTERS:
            yield some, first
            first += sum(map(bool, some))
            some, size = [], 0
    yield some, first


class _Encoder:
    """Wordpieces of texts without special tokens. Words that were seen before are looked up, if words are independent.

    With BERT's own normalizer and pre-tokenizer, what stands between two spaces gives the same pieces anywhere. New
    words are tokenised many at once, with [SEP] behind each: a text costs the library more than the words in it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        library, backend = import_tokenizers(), tokenizer._backend
        self._tokenizer = tokenizer
        self._around = [len(ids) for ids in tokenizer.around]
        added = backend.get_added_tokens_decoder()
        mark = added.get(tokenizer.sep_token_id)
        by_word = (
            isinstance(backend.normalizer, library.normalizers.BertNormalizer)
            and isinstance(backend.pre_tokenizer, library.pre_tokenizers.BertPreTokenizer)
            and not any(" " in token.content for token in added.values())
            and mark is not None
            and not mark.normalized
        )
        self._mark: str | None = mark.content if by_word else None
        self._forget()

    def _forget(self) -> None:
        self._known: dict[str, int] = {}
        self._ids, self._lengths = np.empty(0, np.int32), np.empty(0, np.int64)  # of the words known, in their order

    def __call__(self, texts: list[str], name: str, first: int) -> tuple[NDArray[np.int32], IntArray]:
        """The pieces of all texts, and how many each has."""
        if not texts or self._mark is None:
            return self._encode(texts, name, first)
        words = [text.split(" ") for text in texts]
        new = list(set(itertools.chain.from_iterable(words)) - self._known.keys())
        if len(self._known) + len(new) > _WORDS:
            self._forget()
            new = list(set(itertools.chain.from_iterable(words)))
        try:
            self._learn(new, self._mark, name, first)
        except ValueError:
            return self._encode(texts, name, first)  # the error names the text, not the word
        places = np.fromiter(map(self._known.__getitem__, itertools.chain.from_iterable(words)), np.int64)
        starts, lengths = (np.cumsum(self._lengths) - self._lengths)[places], self._lengths[places]
        firsts = np.cumsum([0, *map(len, words[:-1])])
        return self._ids[ragged.ranges(starts, lengths)], np.add.reduceat(lengths, firsts)

    def _learn(self, words: list[str], mark: str, name: str, first: int) -> None:
        alone = [word for word in words if mark in word]
        words = [word for word in words if mark not in word]
        joined = [f" {mark} ".join([*words[i : i + _JOINED], ""]) for i in range(0, len(words), _JOINED)]
        ids, _ = self._encode(joined, name, first)
        marks = ids == self._tokenizer.sep_token_id
        others, counts = self._encode(alone, name, first)
        start = len(self._known)
        self._known.update(zip([*words, *alone], range(start, start + len(words) + len(alone)), strict=True))
        self._ids = np.concatenate([self._ids, ids[~marks], others])
        self._lengths = np.concatenate([self._lengths, np.diff(np.flatnonzero(marks), prepend=-1) - 1, counts])

    def _encode(self, texts: list[str], name: str, first: int) -> tuple[NDArray[np.int32], IntArray]:
        found, (before, after) = self._tokenizer.encode(texts, name=name, first=first), self._around
        starts = found.cu_seqlens[:-1].astype(np.int64) + before
        lengths = np.maximum(found.lengths.astype(np.int64) - before - after, 0)
        ids: NDArray[np.int32] = found.ids[ragged.ranges(starts, lengths)].astype(np.int32)
        return ids, lengths


def continuing_ids(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which wordpieces go on with a word, bool `[vocabulary]`. Raises ValueError for a tokenizer that marks none."""
    vocabulary: dict[str, Any] = tokenizer._backend.get_vocab()
    prefix = getattr(tokenizer._backend.model, "continuing_subword_prefix", None)
    if not prefix or not any(token.startswith(prefix) for token in vocabulary):
        raise ValueError("do_whole_word_mask needs a WordPiece tokenizer: this one does not mark the pieces of a word")
    found = np.zeros(max(vocabulary.values()) + 1, np.bool_)
    found[[i for token, i in vocabulary.items() if token.startswith(prefix) and token != prefix]] = True
    return found
