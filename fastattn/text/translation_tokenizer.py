"""Tokenizers of translation models, both sides in one object: characters, byte pairs or SentencePiece.

    tokenizer = SubwordTokenizer(Characters.build(sources), Characters.build(targets))
    both = BytePairs.train([*sources, *targets], 8000)                 # extra [text]
    tokenizer = SubwordTokenizer(both, both)
    tokenizer = sentencepiece_tokenizer("source.spm", "target.spm")    # extra [translate]; a MarianTokenizer
    tokenizer.encode(["Guten Tag"]).ids, tokenizer.encode_target(["Good day"]).ids
    tokenizer.decode([[12, 7, 9, 1]])

Every text ends with `</s>`, an empty one too. What a vocabulary does not know is `<unk>`, which `decode` leaves out.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastattn.files import replacing
from fastattn.text import marian_tokenizer
from fastattn.text.marian_tokenizer import MarianTokenizer
from fastattn.text.subwords import END, PADDING, SPECIAL, UNKNOWN, BytePairs, Characters, Subwords
from fastattn.text.tokenizer import TokenizedTexts

__all__ = ["SubwordTokenizer", "TranslationTokenizer", "read_translation_tokenizer", "sentencepiece_tokenizer"]


class TranslationTokenizer(Protocol):
    """What a translation model needs of its tokenizer; `SubwordTokenizer` and `MarianTokenizer` are some."""

    @property
    def vocab_size(self) -> int:
        """Number of ids of the source side."""

    @property
    def target_vocab_size(self) -> int:
        """Number of ids of the target side."""

    @property
    def eos_token_id(self) -> int:
        """What ends a text of the target side."""

    @property
    def pad_token_id(self) -> int:
        """With which decoding begins."""

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts of the source side."""

    def encode_target(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts of the target side."""

    def decode(self, sequences: Iterable[ArrayLike]) -> list[str]:
        """Texts of the target side from their ids."""

    def tokens(self, ids: ArrayLike) -> list[str]:
        """What ids of the source side stand for."""

    def target_tokens(self, ids: ArrayLike) -> list[str]:
        """What ids of the target side stand for."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files."""


SHARED, SOURCE, TARGET = "vocabulary", "source", "target"
KINDS: tuple[type[Subwords], ...] = (Characters, BytePairs)


class SubwordTokenizer:
    """A vocabulary for each side, or one for both. Safe to use from many threads.

    Args:
        source: of the texts.
        target: of their translations; may be the same object.

    Attributes:
        source, target: the same.
        eos_token_id: the number of `</s>`.
        pad_token_id: the number of `<pad>`.

    >>> tokenizer = SubwordTokenizer(Characters("αβ"), Characters("ab"))
    >>> tokenizer.encode(["αβγ"]).ids.tolist(), tokenizer.decode([[0, 3, 4, 2, 1]])
    ([3, 4, 2, 1], ['ab'])
    """

    eos_token_id = SPECIAL.index(END)
    pad_token_id = SPECIAL.index(PADDING)

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source, self.target = source, target

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> SubwordTokenizer:
        """Read what `save_pretrained` wrote.

        Raises FileNotFoundError, which names the folder, for a vocabulary that is not there, ValueError for a damaged
        file, and ImportError for byte pairs without the `tokenizers` library.
        """
        shared, source, target = (_read(Path(folder), name) for name in (SHARED, SOURCE, TARGET))
        source, target = shared or source, shared or target
        if source is None or target is None:
            if not Path(folder).is_dir():
                raise FileNotFoundError(f"{folder}: no such folder")
            names = " or ".join(f"{SOURCE if source is None else TARGET}.{kind.suffix}" for kind in KINDS)
            raise FileNotFoundError(f"{folder}: no {names}; a translation model needs its vocabularies")
        return cls(source, target)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the vocabularies into `folder`, which is made when missing, together or not at all.

        Their files are `source.` and `target.`, or `vocabulary.` where both are one object, and `characters.json` or
        `bpe.json`. Others of these names are removed, and source.spm, by which a folder of SentencePiece is known.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sides = {SHARED: self.source} if self.source is self.target else {SOURCE: self.source, TARGET: self.target}
        paths = [folder / f"{name}.{vocabulary.suffix}" for name, vocabulary in sides.items()]
        with replacing(*paths) as temporary:
            for path, vocabulary in zip(temporary, sides.values(), strict=True):
                path.write_bytes(vocabulary.to_bytes())
        names = [f"{name}.{kind.suffix}" for name, kind in itertools.product((SHARED, SOURCE, TARGET), KINDS)]
        for path in (folder / name for name in (*names, marian_tokenizer.SOURCE)):
            if path not in paths:
                path.unlink(missing_ok=True)

    @property
    def vocab_size(self) -> int:
        """Number of ids of the source side."""
        return len(self.source)

    @property
    def target_vocab_size(self) -> int:
        """Number of ids of the target side."""
        return len(self.target)

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts of the source side.

        Args:
            texts: the texts.
            max_length: cut every text to so many tokens, the last of which is `</s>`; None cuts nothing.

        Raises as `Subwords.encode` does, and ValueError for a max_length below 1.
        """
        return _cut(self.source.encode(texts), max_length)

    def encode_target(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts of the target side; arguments and errors are those of `encode`."""
        return _cut(self.target.encode(texts), max_length)

    def decode(self, sequences: Iterable[ArrayLike]) -> list[str]:
        """The texts of sequences of target ids, without their special tokens: what `generate` gives will do.

        Args:
            sequences: an array `[texts, seq]`, or a sequence of ids for each text.

        Raises ValueError for a number that the vocabulary does not have.
        """
        texts = []
        for i, sequence in enumerate(sequences):
            ids = np.asarray(sequence, np.int64)
            wrong = ids[(ids < 0) | (ids >= len(self.target))]
            if len(wrong):
                raise ValueError(f"decode: sequences[{i}] has {wrong[0]}, which is not an id of the target vocabulary")
            texts.append(self.target.decode(ids[ids >= len(SPECIAL)].tolist()))
        return texts

    def tokens(self, ids: ArrayLike) -> list[str]:
        """What ids of the source side stand for."""
        return [self.source.token(number) for number in np.asarray(ids, np.int64).tolist()]

    def target_tokens(self, ids: ArrayLike) -> list[str]:
        """What ids of the target side stand for."""
        return [self.target.token(number) for number in np.asarray(ids, np.int64).tolist()]


def sentencepiece_tokenizer(
    source: str | os.PathLike[str], target: str | os.PathLike[str] | None = None, *, shared: bool = False
) -> MarianTokenizer:
    """The tokenizer of SentencePiece models (extra `[translate]`).

    The numbers are Marian's: `</s>`, `<unk>`, the pieces as in the model, and `<pad>`.

    Args:
        source: the model file of the source side.
        target: that of the target side; None is the same file, and one vocabulary.
        shared: one vocabulary for both sides also of two models, which has the pieces of both.

    Raises OSError, ValueError for a file that is no SentencePiece model, and ImportError without the library.
    """
    paths = [Path(source), Path(source if target is None else target)]
    models = [path.read_bytes() for path in paths]
    pieces = [_pieces(path, model) for path, model in zip(paths, models, strict=True)]
    if target is None or shared:
        return MarianTokenizer(models[0], models[1], _marian_vocabulary([*pieces[0], *pieces[1]]))
    return MarianTokenizer(models[0], models[1], *(_marian_vocabulary(some) for some in pieces))


def read_translation_tokenizer(folder: str | os.PathLike[str]) -> TranslationTokenizer:
    """The tokenizer in a folder: Marian's, where there is a source.spm, or else one that fastattn made.

    Raises as `MarianTokenizer.from_pretrained` and `SubwordTokenizer.from_pretrained` do.
    """
    if Path(folder, marian_tokenizer.SOURCE).is_file():
        return MarianTokenizer.from_pretrained(folder)
    return SubwordTokenizer.from_pretrained(folder)


def _read(folder: Path, name: str) -> Subwords | None:
    for kind in KINDS:
        path = folder / f"{name}.{kind.suffix}"
        if path.is_file():
            return kind.from_file(path)
    return None


def _cut(texts: TokenizedTexts, max_length: int | None) -> TokenizedTexts:
    """Texts of at most `max_length` tokens; those that are cut end with `</s>`, too."""
    if max_length is None:
        return texts
    marian_tokenizer.check_max_length(max_length)
    starts, ends = texts.cu_seqlens[:-1], texts.cu_seqlens[1:]
    places = np.arange(len(texts.ids)) - np.repeat(starts, texts.lengths)
    kept = places < max_length - 1
    kept[ends - 1] = True
    lengths = np.minimum(texts.lengths, max_length)
    cu_seqlens: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
    return TokenizedTexts(texts.ids[kept], cu_seqlens, texts.full_lengths)


def _pieces(path: Path, model: bytes) -> list[str]:
    """The pieces of a SentencePiece model, read from `path`, that stand for text."""
    processor = marian_tokenizer.sentencepiece_processor(str(path), model)
    every = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in every if not (processor.is_control(i) or processor.is_unknown(i))]


def _marian_vocabulary(pieces: Iterable[str]) -> dict[str, int]:
    numbers = {END: 0, UNKNOWN: 1}
    for piece in pieces:
        numbers.setdefault(piece, len(numbers))
    numbers.setdefault(PADDING, len(numbers))
    return numbers
