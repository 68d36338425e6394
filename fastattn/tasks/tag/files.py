"""Files of tagged sentences, and `tagger.json`, which says in which of their columns a tagger's labels stand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fastattn import checks
from fastattn.checks import shown
from fastattn.errors import EmptyError, OptionError
from fastattn.files import replacing
from fastattn.formats import hugging_face
from fastattn.hub import Files
from fastattn.models.base import HUGGING_FACE
from fastattn.models.sequence_tagger.config import SequenceTaggerConfig
from fastattn.tasks.embed.folder import FILES
from fastattn.tasks.tag.recipe import TagOptions
from fastattn.text import (
    ConllSentence,
    ConlluSentence,
    parse_conll,
    parse_conllu,
    read_conll,
    read_conllu,
    scheme_of,
)
from fastattn.text.conllu import NO_TAG
from fastattn.text.tables import FORMATS, format_by_name

UPOS = "UPOS"
LAYOUT = "tagger.json"
VOCABULARY = "vocab.txt"
FEATURES = "features"
"""The folder of the frozen model, in that of an LSTM."""


def is_network(folder: Path) -> bool:
    """Whether a folder has a `SequenceTagger`. Raises as `read_config` for a config.json that is damaged."""
    return _network_config(folder) is not None


def _network_config(folder: Path) -> dict[str, Any] | None:
    """The fields of a `SequenceTagger`; None for another folder."""
    found = hugging_face.read_config(folder) if (folder / hugging_face.CONFIG).is_file() else {}
    return found if found.get("model_type") in SequenceTaggerConfig.model_types else None


def _missing_files(folder: Path) -> list[str]:
    """Files that loading needs and `folder`, perhaps a part of a download, does not have."""
    config = _network_config(folder)
    if config is None:
        return [] if FILES.more is None else FILES.more(folder)
    missing = Files((), (hugging_face.WEIGHTS, VOCABULARY, LAYOUT)).missing(folder)
    if config.get("features"):
        missing += [f"{FEATURES}/{name}" for name in HUGGING_FACE.missing(folder / FEATURES)]
    return missing


TAGGER_FILES = FILES._replace(
    patterns=(*FILES.patterns, LAYOUT, *(f"{FEATURES}/{name}" for name in FILES.patterns)), more=_missing_files
)

Sentence = ConlluSentence | ConllSentence
FORMAT_ENDS = {"conllu": (".conllu", ".conllup"), "conll": (".conll", ".iob", ".iob2", ".bio", ".bioes")}
"""How the names of files of a format end."""
FORMAT_NAMES = {"conllu": "CoNLL-U", "conll": "CoNLL columns"}


class Input(NamedTuple):
    """What to tag: sentences or, for entities, texts. `guess` says as what a file is read that nobody has named."""

    data: list[Any]
    guess: str | None = None


@dataclass(frozen=True)
class Layout:
    """Where words and labels stand in a file, and what the labels are.

    Attributes:
        format: "conllu" or "conll".
        word_column: the number of the column of words; None in CoNLL-U.
        tag_column: the name of the column of labels in CoNLL-U, its number in CoNLL columns.
        scheme: how labels mark entities, "IOB1", "IOB2" or "BIOES"; None for labels of single words.
    """

    format: str = "conllu"
    word_column: str | None = None
    tag_column: str | None = None
    scheme: str | None = None

    @classmethod
    def of(cls, data: Sequence[Sentence], scheme: str | None) -> Layout:
        """The layout of sentences."""
        first = data[0]
        if isinstance(first, ConlluSentence):
            return cls("conllu", None, first.tag_name, scheme)
        return cls("conll", str(first.word_column), str(first.tag_column), scheme)

    @classmethod
    def read(cls, folder: Path, labels: Sequence[str]) -> Layout:
        """The layout in a folder, or what `labels` say in one of another program. Raises ValueError, by name."""
        if not (folder / LAYOUT).exists():
            scheme = scheme_of([labels])
            return cls("conllu" if scheme is None else "conll", scheme=scheme)
        return cls.from_file(folder / LAYOUT)

    @classmethod
    def from_file(cls, path: Path) -> Layout:
        """The layout in a file. Raises OSError, and ValueError by name."""
        values = hugging_face.read_json(path)
        try:
            known: dict[str, Any] = {name: values.get(name) for name in asdict(cls())}
            given = TagOptions(**known)
            checks.choice("format", given.format, ("conllu", "conll"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(given.format or "", given.word_column, given.tag_column, given.scheme)

    def write(self, folder: Path) -> None:
        with replacing(folder / LAYOUT) as (path,):
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def of_input(self, options: TagOptions, name: str) -> Layout:
        """The layout of a file to tag: options say it, or the end of its name, or else it is that of the training data.

        Raises OptionError for a file whose name says that it has other columns, of which none is named to write to.
        """
        format = options.format or tagged_format(name) or self.format
        kept = self if format == self.format else Layout(format)
        if options.format is None and kept is not self and not (options.tag_column or options.append):
            told = "{}: these are {}, but the tagger has learnt {}; {tag_column} names the column for the tags, "
            names = FORMAT_NAMES[format], FORMAT_NAMES[self.format]
            raise OptionError(told + "{append} adds one to CoNLL columns, {format} names the format", name, *names)
        scheme = options.scheme or self.scheme
        return Layout(format, options.word_column or kept.word_column, options.tag_column or kept.tag_column, scheme)

    def described(self, append: bool) -> str:
        """Where words and tags are, in words."""
        if self.format == "conllu":
            return f"CoNLL-U, tags in {self.tag_column or UPOS}"
        tags = "a new column" if append else f"column {self.tag_column or -1}"
        return f"CoNLL columns, words in column {self.word_column or 0}, tags in {tags}"


def tagged_format(name: str) -> str | None:
    """The format of a file of tagged sentences by the end of its name; None for another end."""
    return next((kind for kind, ends in FORMAT_ENDS.items() if name.lower().endswith(ends)), None)


def read_tagged(source: Any, format: str | None, word_column: str | None, tag_column: str | None) -> list[Sentence]:
    """The sentences of a file or of rows. Raises as the readers do, and ValueError for a file without tags."""
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if path is None or path.lower().endswith(FORMATS["jsonl"] + FORMATS["parquet"]):
        return [*read_conll(source, word_column=word_column, tag_column=tag_column)]
    if (format or tagged_format(path)) == "conll":
        words, tags = _number("word_column", word_column, 0), _number("tag_column", tag_column, -1)
        return [*read_conll(path, word_column=words, tag_column=tags)]
    name = tag_column or UPOS
    try:
        sentences = read_conllu(path, name)
    except ValueError as error:
        if not (format or tagged_format(path)):
            told = f"{path} is read as CoNLL-U: neither its name nor an option says that it has CoNLL columns"
            error.__notes__ = [told]  # type: ignore[attr-defined]  # add_note, which Python 3.10 does not have
        raise
    if not any(sentence.words for sentence in sentences):
        raise EmptyError(path, "words")
    if all(tag == NO_TAG for sentence in sentences for tag in sentence.tags):
        raise ValueError(f"{path}: no word has a tag in the {name} column")
    return [*sentences]


def parse_input(lines: Iterable[bytes], name: str, layout: Layout, append: bool) -> list[Sentence]:
    """Sentences to be tagged, from the lines of a file. Raises as the readers do, and ValueError for other tables."""
    data: list[Sentence] = []
    if format_by_name(name) in ("csv", "jsonl", "parquet"):
        raise ValueError(f"{name}: tags are written to CoNLL-U or CoNLL columns, not to CSV, JSON lines or Parquet")
    if layout.format == "conll":
        words = _number("word_column", layout.word_column, 0)
        tags = None if append else _number("tag_column", layout.tag_column, -1)
        return [*parse_conll(lines, name, word_column=words, tag_column=tags)]
    if append:
        raise OptionError("{append} needs CoNLL columns; CoNLL-U has a column for tags")
    column = layout.tag_column or UPOS
    for sentence in parse_conllu(lines, name, column):
        if sentence.words and sentence.tag_column is None:
            raise ValueError(f"{name}:{sentence.line}: global.columns has no {column}, so there is no place for tags")
        data.append(sentence)
    return data


def place_of(sentence: Sentence, word: int) -> str:
    """The file and the line of a word, or the row of a table; "" in a sentence that was not read."""
    source, colon, line = sentence.place.rpartition(":")
    return f"{source}:{int(line) + sentence.rows[word]}" if colon and line == str(sentence.line) else sentence.place


def _number(name: str, column: str | None, default: int) -> int:
    """The number of a column."""
    if column is None:
        return default
    if not column.removeprefix("-").isdecimal() or len(column) > 9:
        raise OptionError(f"{{{name}}} must be the number of a column in CoNLL columns, got {{}}", shown(column))
    return int(column)
