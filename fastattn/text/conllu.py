"""CoNLL-U files: words and their part-of-speech tags, read with line numbers and written back line by line.

    sentences = read_conllu("dev.conllu")
    print(sentences[0].words, sentences[0].tags)
    text = sentences[0].with_tags(["DET", "NOUN"])

The tags are the UPOS column, or another one: `read_conllu("dev.conllu", "XPOS")`. A sentence keeps its lines as they
are in the file, so a written file differs from the one read only in that column.
CoNLL-U Plus files are read, too: their first line, `# global.columns = ID FORM ...`, names their columns.

Source: https://universaldependencies.org/format.html and https://universaldependencies.org/ext-format.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fastattn.checks import shown
from fastattn.files import byte_lines, utf8_lines

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
NO_TAG = "_"  # an unspecified column

# No sentence has a word with more digits, and Python reads no more than 4,300.
_WORD_ID = re.compile(r"[1-9][0-9]{0,17}")
_RANGE_ID = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,17})")
_EMPTY_NODE_ID = re.compile(r"(0|[1-9][0-9]{0,17})\.([1-9][0-9]{0,17})")
_SENT_ID = re.compile(r"#\s*sent_id\s*=\s*(.*?)\s*")
_GLOBAL_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.*?)\s*")


@dataclass(frozen=True)
class ConlluSentence:
    """The syntactic words of a sentence; multiword ranges (1-2) and empty nodes (1.1) are not among them.

    Comments that a blank line follows are a sentence without words.

    Attributes:
        words: the FORM of each word.
        tags: the tag of each word, its UPOS unless another column was asked for, "_" where the file names none.
        sent_id: from the comment of that name, or None.
        line: the number of the sentence's first line in its file, counted from 1.
        lines: all lines, comments included, without their ends.
        rows: which of `lines` are the words.
        tag_column: the place of the tag in a row; None if the file has no such column.
        tag_name: the name of that column.
        place: file and line, for errors; "" for a sentence that was not read.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    sent_id: str | None
    line: int
    lines: tuple[str, ...]
    rows: tuple[int, ...]
    tag_column: int | None = COLUMNS.index("UPOS")
    tag_name: str = "UPOS"
    place: str = field(default="", compare=False)

    @classmethod
    def from_words(cls, words: Sequence[str], tags: Sequence[str] | None = None) -> ConlluSentence:
        """A sentence that was not read, with its UPOS; without `tags` its words have none.

        Raises ValueError if the numbers of tags and words differ, or for a word that does not fit into a column.

        >>> ConlluSentence.from_words(["Go", "!"], ["VERB", "PUNCT"]).lines[0]
        '1\\tGo\\t_\\tVERB\\t_\\t_\\t_\\t_\\t_\\t_'
        """
        tags = [NO_TAG] * len(words) if tags is None else tags
        if len(tags) != len(words):
            raise ValueError(f"ConlluSentence: {len(words)} words, but {len(tags)} tags")
        lines = _Lines("ConlluSentence", 1)
        for i, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
            lines.add(f"{i}\t{word}\t_\t{tag}" + "\t_" * 6)
        return replace(lines.finish(), place="")

    def with_tags(self, tags: Sequence[str]) -> str:
        """The sentence's lines and a blank line, with `tags` in the words' column of tags.

        Raises ValueError if the numbers of tags and words differ, for a tag that does not fit into a column, and for a
        file without that column.

        >>> row = "1\\tGo\\tgo\\t_\\t_\\t_\\t0\\troot\\t_\\t_"
        >>> next(parse_conllu([row.encode()], "example")).with_tags(["VERB"])
        '1\\tGo\\tgo\\tVERB\\t_\\t_\\t0\\troot\\t_\\t_\\n\\n'
        """
        if len(tags) != len(self.words):
            raise ValueError(f"with_tags: {len(tags)} tags for the {len(self.words)} words of line {self.line}")
        if self.tag_column is None and tags:
            raise ValueError(f"with_tags: the file has no {self.tag_name} column")
        lines = list(self.lines)
        for row, tag in zip(self.rows, tags, strict=True):
            if not tag or re.search(r"[\s\x00-\x1f\x7f-\x9f]", tag):
                raise ValueError(f"with_tags: a tag must be a word without spaces and control codes, got {shown(tag)}")
            columns = lines[row].split("\t")
            columns[self.tag_column or 0] = tag
            lines[row] = "\t".join(columns)
        return "".join(f"{line}\n" for line in (*lines, ""))


def read_conllu(path: str | os.PathLike[str], tag_column: str = "UPOS") -> list[ConlluSentence]:
    """The sentences of a file. Raises OSError, or ValueError as `parse_conllu` does."""
    with open(path, "rb") as file:
        return list(parse_conllu(byte_lines(file, os.fspath(path)), os.fspath(path), tag_column))


def parse_conllu(lines: Iterable[bytes], source: str, tag_column: str = "UPOS") -> Iterator[ConlluSentence]:
    """Sentences from the lines of a UTF-8 file, which `source` names in errors.

    `tag_column` is the column of the tags: UPOS, XPOS, FEATS or any other but ID and FORM.

    Accepted are a byte order mark at the start; lines that end with LF or CR LF, or all of them with CR; several blank
    lines between sentences, and none at the end; comments anywhere; and empty columns, other than ID and FORM. A blank
    line may hold spaces and tabs, and there may be spaces around an ID and a tag. An empty tag is "_". The column may
    hold any tag set, not only the universal tags.

    Raises ValueError, starting with `source:line:`, for a line that is not UTF-8, a row with too few or too many
    columns, an empty ID or FORM, a tag of several words, ids out of order, a multiword range without all its words,
    and columns of CoNLL-U Plus without ID or FORM.
    """
    if tag_column in ("ID", "FORM"):
        raise ValueError(f"parse_conllu: tag_column must be a column of tags, got {shown(tag_column)}")
    sentence: _Lines | None = None
    columns: tuple[str, ...] = COLUMNS
    for number, line in enumerate(utf8_lines(lines, source), start=1):
        if line and not line.isspace():
            if sentence is None:
                sentence = _Lines(source, number, columns, tag_column)
            sentence.add(line)
        elif sentence is not None:
            yield sentence.finish()
            columns = sentence.columns
            sentence = None
    if sentence is not None:
        yield sentence.finish()


class _Lines:
    """The lines of one sentence while it is read."""

    def __init__(self, source: str, first: int, columns: tuple[str, ...] = COLUMNS, tag_column: str = "UPOS") -> None:
        self.source, self.first, self.tag_column = source, first, tag_column
        self._set_columns(columns)
        self.lines: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.rows: list[int] = []
        self.sent_id: str | None = None
        self.range_end = 0  # the last word of the latest multiword range
        self.empty_nodes = 0  # how many since the latest word

    def add(self, line: str) -> None:
        if line.startswith("#"):
            if match := _SENT_ID.fullmatch(line):
                self.sent_id = match[1]
            elif match := _GLOBAL_COLUMNS.fullmatch(line):
                if self.rows:
                    raise self._error("global.columns must stand before the words of a sentence")
                self._read_columns(match[1].split())
        else:
            self._add_row(line.split("\t"))
        self.lines.append(line)

    def finish(self) -> ConlluSentence:
        if self.range_end > len(self.words):
            raise self._error(f"the sentence has {len(self.words)} words, but a range goes to {self.range_end}")
        words, tags, lines = tuple(self.words), tuple(self.tags), tuple(self.lines)
        rows = tuple(self.rows)
        place = f"{self.source}:{self.first}"
        return ConlluSentence(words, tags, self.sent_id, self.first, lines, rows, self._tag, self.tag_column, place)

    def _read_columns(self, names: list[str]) -> None:
        missing = [name for name in ("ID", "FORM") if name not in names]
        if missing:
            raise self._error(f"global.columns must name ID and FORM, {' and '.join(missing)} is missing")
        self._set_columns(tuple(names))

    def _set_columns(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._id, self._form = columns.index("ID"), columns.index("FORM")
        self._tag = columns.index(self.tag_column) if self.tag_column in columns else None

    def _add_row(self, row: list[str]) -> None:
        if len(row) != len(self.columns):
            found = f"got {len(row)}" + (", and spaces" if len(row) == 1 and " " in row[0].strip() else "")
            raise self._error(f"a row must have {len(self.columns)} columns with tabs between them, {found}")
        identifier, expected = row[self._id].strip(), len(self.words) + 1
        for name, value in (("ID", identifier), ("FORM", row[self._form])):
            if not value:
                raise self._error(f"the column {name} is empty")
        if _WORD_ID.fullmatch(identifier):
            if int(identifier) != expected:
                raise self._error(f"the word's id must be {expected}, got {identifier}")
            tag = NO_TAG if self._tag is None else row[self._tag].strip() or NO_TAG
            if len(tag.split()) > 1:
                raise self._error(f"{self.tag_column} must be one word, got {shown(tag)}")
            self.words.append(row[self._form])
            self.tags.append(tag)
            self.rows.append(len(self.lines))
            self.empty_nodes = 0
        elif match := _RANGE_ID.fullmatch(identifier):
            start, end = int(match[1]), int(match[2])
            if start != expected or end <= start or start <= self.range_end:
                raise self._error(f"a range must begin at {expected} and hold two words or more, got {identifier}")
            self.range_end = end
        elif match := _EMPTY_NODE_ID.fullmatch(identifier):
            self.empty_nodes += 1
            if (int(match[1]), int(match[2])) != (len(self.words), self.empty_nodes):
                raise self._error(f"the empty node's id must be {len(self.words)}.{self.empty_nodes}, got {identifier}")
        else:
            wanted = "a number, a range such as 1-2 or an empty node's 1.1"
            raise self._error(f"an id must be {wanted}, got {shown(identifier)}")

    def _error(self, message: str, line: int | None = None) -> ValueError:
        return ValueError(f"{self.source}:{line or self.first + len(self.lines)}: {message}")
