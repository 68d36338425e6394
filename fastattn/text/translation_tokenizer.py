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

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike

from fastattn.checks import shown
from fastattn.files import read_regular, replacing
from fastattn.formats.hugging_face import read_json
from fastattn.hub import Files, folder_of
from fastattn.text import marian_tokenizer
from fastattn.text.marian_tokenizer import MarianTokenizer, sentencepiece_processor
from fastattn.text.subwords import END, PADDING, UNKNOWN, BytePairs, Characters, Subwords
from fastattn.text.tokenized import TokenizedTexts
from fastattn.text.tokenizer_kinds import CONFIG

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

    @property
    def unk_token_id(self) -> int:
        """What stands for text that the vocabulary does not know."""

    def decode(self, sequences: Iterable[ArrayLike], unknowns: Sequence[Sequence[str]] | None = None) -> list[str]:
        """Texts from their ids, with a word of `unknowns` for each `<unk>`, or without them."""

    def words(self, text: str) -> list[str]:
        """For each token of a text, but its end, the word in the text that the token belongs to."""

    def missing(self, size: int) -> list[int]:
        """The numbers below `size` that are not ids of the vocabulary."""

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
_NAMES = tuple(f"{name}.{kind.suffix}" for name in (SHARED, SOURCE, TARGET) for kind in KINDS)


def _made(folder: Path) -> bool:
    """Whether the tokenizer in `folder` is a SubwordTokenizer."""
    path = folder / CONFIG
    return os.path.lexists(path) and read_json(path).get("tokenizer_class") == SubwordTokenizer.__name__


def _vocabularies(folder: Path) -> list[str]:
    """The files that tokenizer_config.json names: one for both sides, or one for each."""
    path = folder / CONFIG
    names = read_json(path).get("vocabularies")
    if not isinstance(names, list) or len(names) not in (1, 2) or any(name not in _NAMES for name in names):
        raise ValueError(f"{path}: vocabularies must be one or two of {', '.join(_NAMES)}, got {shown(names)}")
    return names


def _missing(folder: Path) -> list[str]:
    return [name for name in _vocabularies(folder) if not (folder / name).is_file()]


def _either_missing(folder: Path) -> list[str]:
    return (FILES if _made(folder) else marian_tokenizer.FILES).missing(folder)


FILES = Files((CONFIG, *_NAMES), (CONFIG,), (CONFIG,), _missing)
"""The files of a tokenizer that fastattn made."""
EITHER = Files(
    (*FILES.patterns, *marian_tokenizer.FILES.patterns),
    marks=(*FILES.marks, *marian_tokenizer.FILES.marks),
    more=_either_missing,
)


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
        """Read the files of `save_pretrained`. `fastattn.hub.find_model` finds a name, with the options `place`.

        Raises FileNotFoundError for a missing file, ValueError for a damaged one; the message names the file. Raises
        ImportError for byte pairs without the `tokenizers` library.
        """
        folder = folder_of(name_or_folder, FILES, **place)
        sides = [_read(folder / name) for name in _vocabularies(folder)]
        return cls(sides[0], sides[-1])

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the vocabularies into `folder`, which is made when missing, together or not at all.

        Their files are `source.` and `target.`, or `vocabulary.` where both are one object, and `characters.json` or
        `bpe.json`. tokenizer_config.json names them, so that other files in the folder do not matter.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sides = {SHARED: self.source} if self.source is self.target else {SOURCE: self.source, TARGET: self.target}
        contents = {f"{name}.{vocabulary.suffix}": vocabulary.to_bytes() for name, vocabulary in sides.items()}
        config = {"tokenizer_class": type(self).__name__, "vocabularies": [*contents]}
        contents[CONFIG] = (json.dumps(config, indent=2) + "\n").encode()
        with replacing(*(folder / name for name in contents)) as files:
            for file, content in zip(files, contents.values(), strict=True):
                file.write_bytes(content)


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
    models = [read_regular(path) for path in paths]
    pieces = [_pieces(path, model) for path, model in zip(paths, models, strict=True)]
    if target is None or shared:
        return MarianTokenizer(models[0], models[1], _marian_vocabulary([*pieces[0], *pieces[1]]))
    return MarianTokenizer(models[0], models[1], *(_marian_vocabulary(some) for some in pieces))


def read_translation_tokenizer(name_or_folder: str | os.PathLike[str], **place: Any) -> TranslationTokenizer:
    """The tokenizer in a folder: one that fastattn made, if its tokenizer_config.json says so, or else Marian's.

    `fastattn.hub.find_model` finds a name, with the options `place`. Raises the errors of
    `MarianTokenizer.from_pretrained` and `SubwordTokenizer.from_pretrained`.
    """
    folder = folder_of(name_or_folder, EITHER, **place)
    made, marian = _made(folder), marian_tokenizer.FILES
    if not made and not marian.marked(folder):
        raise FileNotFoundError(
            f"{folder}: no tokenizer: no {CONFIG} of a SubwordTokenizer, and none of {', '.join(marian.marks)}, "
            "the files of a MarianTokenizer"
        )
    return (SubwordTokenizer if made else MarianTokenizer).from_pretrained(folder)


def _read(path: Path) -> Subwords:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {CONFIG} names it")
    kind = next(kind for kind in KINDS if path.name.endswith(kind.suffix))
    return kind.from_file(path)


def _pieces(path: Path, model: bytes) -> list[str]:
    """The pieces of a SentencePiece model, read from `path`, that are text."""
    processor = sentencepiece_processor(str(path), model)
    every = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in every if not (processor.is_control(i) or processor.is_unknown(i))]


def _marian_vocabulary(pieces: Iterable[str]) -> dict[str, int]:
    numbers = {END: 0, UNKNOWN: 1}
    for piece in pieces:
        numbers.setdefault(piece, len(numbers))
    numbers.setdefault(PADDING, len(numbers))
    return numbers
