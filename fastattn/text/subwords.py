"""Vocabularies: characters and byte pairs, text to numbers and back.

    vocabulary = Characters.build(texts)
    vocabulary = BytePairs.train(texts, 8000)       # extra [text]
    vocabulary.encode(["Guten Tag"]).ids

Every text ends with `</s>`, an empty one too. What a vocabulary does not know is `<unk>`. Special tokens that are
written in a text are text.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastattn import checks
from fastattn.files import read_regular
from fastattn.formats.hugging_face import MAX_VOCABULARY, read_json
from fastattn.text.library import import_tokenizers, library_errors
from fastattn.text.tokenized import TokenizedTexts
from fastattn.text.tokenizer import Tokenizer

__all__ = ["BytePairs", "Characters", "Subwords"]

PADDING, END, UNKNOWN = SPECIAL = ("<pad>", "</s>", "<unk>")  # numbers 0, 1 and 2 of the vocabularies made here


class Subwords(ABC):
    """The vocabulary of one side: `<pad>`, `</s>` and `<unk>`, then its tokens. Safe to use from many threads.

    Attributes:
        eos_token_id: the number of `</s>`, which ends every text.
        pad_token_id: the number of `<pad>`, with which decoding begins.
        unk_token_id: the number of `<unk>`.
        suffix: how the names of its files end.
    """

    eos_token_id: ClassVar[int] = SPECIAL.index(END)
    pad_token_id: ClassVar[int] = SPECIAL.index(PADDING)
    unk_token_id: ClassVar[int] = SPECIAL.index(UNKNOWN)
    suffix: ClassVar[str]
    _begin: ClassVar[str]
    """How the first token of a word begins."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of ids."""

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> TokenizedTexts: ...

    @abstractmethod
    def _text(self, tokens: list[str]) -> str:
        """The text of tokens, none of them special."""

    @abstractmethod
    def _token(self, number: int) -> str: ...

    @abstractmethod
    def words(self, text: str) -> list[str]:
        """For each token of a text, but its `</s>`, the word in the text that the token belongs to."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The contents of its file."""

    @classmethod
    @abstractmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Subwords:
        """Read a file. Raises OSError, or ValueError, naming the file, if it is damaged."""

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts, each ending with `</s>`.

        Args:
            texts: the texts.
            max_length: cut every text to this many tokens, including the final `</s>`; None cuts nothing.

        Raises TypeError if `texts` is a str or an entry is not a str. Raises ValueError, naming the index, for an entry
        that UTF-8 cannot encode, and for a max_length below 1.
        """
        encoded = self._encode(texts)
        return encoded if max_length is None else _cut(encoded, check_max_length(max_length))

    def decode(self, sequences: Iterable[ArrayLike], unknowns: Sequence[Sequence[str]] | None = None) -> list[str]:
        """The texts of sequences of ids, without special tokens. The results of `generate` are such sequences.

        Args:
            sequences: an array `[texts, seq]`, or a sequence of numbers for each text.
            unknowns: for each sequence, a word for each `<unk>`. None leaves them out.

        Raises ValueError for a number that the vocabulary does not have.
        """
        texts = []
        for i, sequence in enumerate(sequences):
            ids = np.asarray(sequence, np.int64)
            wrong = ids[(ids < 0) | (ids >= self.vocab_size)]
            if len(wrong):
                raise ValueError(f"decode: sequences[{i}] has {wrong[0]}, which is not an id of the vocabulary")
            words = iter(() if unknowns is None else unknowns[i])
            found = (self._or_word(number, words) for number in ids.tolist())
            texts.append(self._text([token for token in found if token]))
        return texts

    def _or_word(self, number: int, words: Iterator[str]) -> str:
        """The token of an id, the next word for `<unk>`, and nothing for another special token."""
        if number >= len(SPECIAL):
            return self._token(number)
        word = next(words, "") if number == self.unk_token_id else ""
        return self._begin + word if word else ""

    def missing(self, size: int) -> list[int]:
        """The numbers below `size` that are not ids of the vocabulary."""
        return list(range(self.vocab_size, size))

    def tokens(self, ids: ArrayLike) -> list[str]:
        """The tokens of ids."""
        return [self._token(number) for number in np.asarray(ids, np.int64).tolist()]


def check_max_length(max_length: int) -> int:
    """`max_length` as an int, at least 1. Raises ValueError."""
    wanted = "1, for the end of the text, or more"
    return checks.integer("max_length", max_length, 1, wanted=wanted, error=ValueError)


def _checked(name: str, texts: Iterable[str]) -> Iterator[str]:
    """The texts, one by one. Raises, by index, for what is not a text."""
    return (checks.text(f"{name}[{i}]", text) for i, text in enumerate(checks.sequence(name, texts)))


def _cut(texts: TokenizedTexts, max_length: int) -> TokenizedTexts:
    """Texts of at most `max_length` tokens. A cut text ends with `</s>`, too."""
    starts, ends = texts.cu_seqlens[:-1], texts.cu_seqlens[1:]
    places = np.arange(len(texts.ids)) - np.repeat(starts, texts.lengths)
    kept = places < max_length - 1
    kept[ends - 1] = True
    return TokenizedTexts.of(texts.ids[kept], np.minimum(texts.lengths, max_length), texts.full_lengths)


class Characters(Subwords):
    """Every character, a code point of Unicode, is a token.

    Args:
        characters: distinct characters; they are numbered from 3 on.
        source: what errors name.

    Raises ValueError for an entry that is not one character or appears twice.

    >>> vocabulary = Characters("abc")
    >>> vocabulary.encode(["ab", "", "cd"]).ids.tolist()
    [3, 4, 1, 1, 5, 2, 1]
    >>> vocabulary.decode([[5, 3, 1]])
    ['ca']
    """

    suffix = "characters.json"
    _begin = ""

    def __init__(self, characters: Iterable[str], source: str = "Characters") -> None:
        self._tokens = list(SPECIAL)
        self._numbers: dict[str, int] = {}
        for character in characters:
            if not isinstance(character, str) or len(character) != 1:
                raise ValueError(
                    f"{source}: a vocabulary of characters must hold single ones, got {checks.shown(character)}"
                )
            if character in self._numbers:
                raise ValueError(f"{source}: the character {checks.shown(character)} appears twice")
            self._numbers[character] = len(self._tokens)
            self._tokens.append(character)

    @classmethod
    def build(cls, texts: Iterable[str], min_count: int = 1) -> Characters:
        """The characters that appear at least `min_count` times in texts, the most frequent first.

        >>> vocabulary = Characters.build(["noon", "no"])
        >>> vocabulary.tokens(range(vocabulary.vocab_size))
        ['<pad>', '</s>', '<unk>', 'n', 'o']
        """
        min_count = checks.integer("build: min_count", min_count)
        counts = Counter(itertools.chain.from_iterable(_checked("build: texts", texts)))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(character for character, count in ordered if count >= min_count)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Characters:
        characters = read_json(path).get("characters")
        if not isinstance(characters, list):
            raise ValueError(f"{path}: characters must be a list, got {checks.shown(characters)}")
        return cls(characters, str(path))

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    def _encode(self, texts: Sequence[str]) -> TokenizedTexts:
        ids: list[int] = []
        lengths = []
        for text in checks.texts("encode: texts", texts):
            ids += [self._numbers.get(character, SPECIAL.index(UNKNOWN)) for character in text]
            ids.append(SPECIAL.index(END))
            lengths.append(len(text) + 1)
        return TokenizedTexts.of(ids, lengths)

    def _text(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def _token(self, number: int) -> str:
        return self._tokens[number]

    def words(self, text: str) -> list[str]:
        return list(text)

    def to_bytes(self) -> bytes:
        return json.dumps({"characters": self._tokens[len(SPECIAL) :]}, ensure_ascii=False).encode() + b"\n"


class BytePairs(Subwords):
    """Byte-pair encoding by the `tokenizers` library (extra `[text]`): a token is a character or some, ▁ is a space.

    Text is brought into the normal form NFC, and a run of whitespace is one space.

    Args:
        backend: a `tokenizers.Tokenizer` whose first tokens are the special ones.
        source: what errors name.

    Raises ValueError for a tokenizer with other special tokens.

    Source: Sennrich et al. 2016, section 3.2.
    """

    suffix = "bpe.json"
    _begin = "▁"

    def __init__(self, backend: Any, source: str = "BytePairs") -> None:
        if [backend.id_to_token(number) for number in range(len(SPECIAL))] != list(SPECIAL):
            raise ValueError(f"{source}: the first tokens must be {', '.join(SPECIAL)}")
        backend.encode_special_tokens = True  # a text that says "</s>" does not end there
        self._backend = backend
        self._tokenizer = Tokenizer(backend, source=source)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> BytePairs:
        """Learn a vocabulary of `size` tokens, the special ones and all characters included, from texts.

        The same texts give the same vocabulary. It is smaller where there is nothing left to merge, and larger where
        there are more characters. Raises ImportError without the `tokenizers` library.
        """
        size = checks.integer("train: size", size, high=2**31)
        library = import_tokenizers()
        normalizers = library.normalizers
        backend = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
        one_space = normalizers.Replace(library.Regex(r"\s+"), " ")
        backend.normalizer = normalizers.Sequence([normalizers.NFC(), one_space, normalizers.Strip()])
        backend.pre_tokenizer = library.pre_tokenizers.Metaspace()
        backend.decoder = library.decoders.Metaspace()
        trainer = library.trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        backend.train_from_iterator(_checked("train: texts", texts), trainer)
        backend.post_processor = library.processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, SPECIAL.index(END))]
        )
        return cls(backend)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> BytePairs:
        library = import_tokenizers()
        data = read_regular(path, MAX_VOCABULARY)
        with library_errors(f"{path}: not a tokenizer that the tokenizers library reads"):
            backend = library.Tokenizer.from_buffer(data)
        return cls(backend, str(path))

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    def _encode(self, texts: Sequence[str]) -> TokenizedTexts:
        return self._tokenizer.encode(texts)

    def _text(self, tokens: list[str]) -> str:
        with library_errors("decode: the tokenizers library cannot decode these ids"):
            text: str = self._backend.decoder.decode(tokens)
        return text.strip()

    def _token(self, number: int) -> str:
        text: str = self._backend.id_to_token(number)
        return text

    def words(self, text: str) -> list[str]:
        with library_errors("words: the tokenizers library cannot read the text"):
            found = self._backend.encode(text, add_special_tokens=False)
        words, ends = text.split(), np.array([match.end() for match in re.finditer(r"\S+", text)])
        return [words[np.searchsorted(ends, end)] if end else "" for _, end in found.offsets]

    def to_bytes(self) -> bytes:
        text: str = self._backend.to_str()
        return text.encode() + b"\n"
