"""Tokenizers of translation models, a vocabulary for each side: characters, byte pairs or SentencePiece.

    tokenizer = SubwordTokenizer(Characters.build(sources), Characters.build(targets))
    both = BytePairs.train([*sources, *targets], 8000)                 # extra [text]
    tokenizer = SubwordTokenizer(both, both)
    tokenizer = sentencepiece_tokenizer("source.spm", "target.spm")    # extra [translate]; a MarianTokenizer
    tokenizer.source.encode(["Guten Tag"]).ids, tokenizer.target.encode(["Good day"]).ids
    tokenizer.target.decode([[12, 7, 9, 1]])

Every text ends with `</s>`, an empty one too. What a vocabulary does not know is `<unk>`, which `decode` leaves out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike

from fastattn.files import replacing
from fastattn.hub import Files, folder_of
from fastattn.text import marian_tokenizer
from fastattn.text.marian_tokenizer import MarianTokenizer
from fastattn.text.subwords import END, PADDING, UNKNOWN, BytePairs, Characters, Subwords
from fastattn.text.tokenizer import TokenizedTexts

__all__ = ["SubwordTokenizer", "TranslationTokenizer", "read_translation_tokenizer", "sentencepiece_tokenizer"]


class Side(Protocol):
    """The vocabulary of one side."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    @property
    def eos_token_id(self) -> int:
        """What ends a text."""

    @property
    def pad_token_id(self) -> int:
        """With which decoding begins."""

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> TokenizedTexts:
        """The ids of texts."""

    def decode(self, sequences: Iterable[ArrayLike]) -> list[str]:
        """Texts from their ids."""

    def tokens(self, ids: ArrayLike) -> list[str]:
        """The tokens of ids."""


class TranslationTokenizer(Protocol):
    """What a translation model needs of its tokenizer; `SubwordTokenizer` and `MarianTokenizer` are some."""

    @property
    def source(self) -> Side:
        """The vocabulary of the texts."""

    @property
    def target(self) -> Side:
        """That of their translations."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files."""


SHARED, SOURCE, TARGET = "vocabulary", "source", "target"
KINDS: tuple[type[Subwords], ...] = (Characters, BytePairs)
_SHARED, _SOURCE, _TARGET = (tuple(f"{name}.{kind.suffix}" for kind in KINDS) for name in (SHARED, SOURCE, TARGET))
_NAMES = (*_SHARED, *_SOURCE, *_TARGET)
FILES = Files(_NAMES, ((*_SHARED, *_SOURCE), (*_SHARED, *_TARGET)), _NAMES)
"""The files of a tokenizer that fastattn made."""


class SubwordTokenizer:
    """A vocabulary for each side, or one for both. Safe to use from many threads.

    Args:
        source: of the texts.
        target: of their translations; may be the same object.

    Attributes:
        source, target: the same.

    >>> tokenizer = SubwordTokenizer(Characters("αβ"), Characters("ab"))
    >>> tokenizer.source.encode(["αβγ"]).ids.tolist(), tokenizer.target.decode([[0, 3, 4, 2, 1]])
    ([3, 4, 2, 1], ['ab'])
    """

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source, self.target = source, target

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], **place: Any) -> SubwordTokenizer:
        """Read what `save_pretrained` wrote. A name is looked for by `fastattn.hub.find_model`, whose options `place`
        has.

        Raises FileNotFoundError, which names the folder, for a vocabulary that is not there, ValueError for a damaged
        file, and ImportError for byte pairs without the `tokenizers` library.
        """
        folder = folder_of(name_or_folder, FILES, **place)
        shared, source, target = (_read(folder, names) for names in (_SHARED, _SOURCE, _TARGET))
        source, target = shared or source, shared or target
        if source is None or target is None:
            names = " or ".join(_SOURCE if source is None else _TARGET)
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
        for path in (folder / name for name in (*_NAMES, marian_tokenizer.SOURCE)):
            if path not in paths:
                path.unlink(missing_ok=True)


def sentencepiece_tokenizer(
    source: str | os.PathLike[str], target: str | os.PathLike[str] | None = None, *, shared: bool = False
) -> MarianTokenizer:
    """The tokenizer of SentencePiece models (extra `[translate]`).

    The numbers are Marian's: `</s>`, `<unk>`, the pieces as in the model, and `<pad>`.

    Args:
        source: the model file of the source side.
        target: that of the target side; None is the same file, and one vocabulary.
        shared: one vocabulary for both sides also of two models, which has the pieces of both.

    Raises OSError, ValueError if the file is not a SentencePiece model, and ImportError without the library.
    """
    paths = [Path(source), Path(source if target is None else target)]
    models = [path.read_bytes() for path in paths]
    pieces = [_pieces(path, model) for path, model in zip(paths, models, strict=True)]
    if target is None or shared:
        return MarianTokenizer(models[0], models[1], _marian_vocabulary([*pieces[0], *pieces[1]]))
    return MarianTokenizer(models[0], models[1], *(_marian_vocabulary(some) for some in pieces))


def read_translation_tokenizer(name_or_folder: str | os.PathLike[str], **place: Any) -> TranslationTokenizer:
    """The tokenizer in a folder: Marian's, where there is a source.spm, or else one that fastattn made.

    A name is looked for by `fastattn.hub.find_model`, whose options `place` has. Raises as
    `MarianTokenizer.from_pretrained` and `SubwordTokenizer.from_pretrained` do.
    """
    files = Files((*marian_tokenizer.FILES.patterns, *_NAMES), marks=(marian_tokenizer.SOURCE, *_NAMES))
    folder = folder_of(name_or_folder, files, **place)
    if (folder / marian_tokenizer.SOURCE).is_file():
        return MarianTokenizer.from_pretrained(folder)
    return SubwordTokenizer.from_pretrained(folder)


def _read(folder: Path, names: Sequence[str]) -> Subwords | None:
    for kind, name in zip(KINDS, names, strict=True):
        if (folder / name).is_file():
            return kind.from_file(folder / name)
    return None


def _pieces(path: Path, model: bytes) -> list[str]:
    """The pieces of a SentencePiece model, read from `path`, that are text."""
    processor = marian_tokenizer.sentencepiece_processor(str(path), model)
    every = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in every if not (processor.is_control(i) or processor.is_unknown(i))]


def _marian_vocabulary(pieces: Iterable[str]) -> dict[str, int]:
    numbers = {END: 0, UNKNOWN: 1}
    for piece in pieces:
        numbers.setdefault(piece, len(numbers))
    numbers.setdefault(PADDING, len(numbers))
    return numbers
