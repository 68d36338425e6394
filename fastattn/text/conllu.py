"""CoNLL-U files: words and their part-of-speech tags, read with line numbers and written back line by line.

    sentences = read_conllu("dev.conllu")
    print(sentences[0].words, sentences[0].upos)
    text = sentences[0].with_upos(["DET", "NOUN"])

A sentence keeps its lines as they are in the file, so a written file differs from the one read only in the UPOS column.

Source: https://universaldependencies.org/format.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fastattn.files import utf8_lines

COLUMNS = 10
FORM, UPOS = 1, 3
NO_TAG = "_"  # an unspecified column

_WORD_ID = re.compile(r"[1-9][0-9]*")
_RANGE_ID = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)")
_EMPTY_NODE_ID = re.compile(r"(0|[1-9][0-9]*)\.([1-9][0-9]*)")
_SENT_ID = re.compile(r"#\s*sent_id\s*=\s*(.*?)\s*")


@dataclass(frozen=True)
class ConlluSentence:
    """The syntactic words of a sentence; multiword ranges (1-2) and empty nodes (1.1) are not among them.

    Attributes:
        words: the FORM of each word.
        upos: the UPOS of each word, "_" where the file names none.
        sent_id: from the comment of that name, or None.
        line: the number of the sentence's first line in its file, counted from 1.
        lines: all lines, comments included, without their ends.
        rows: which of `lines` are the words.
    """

    words: tuple[str, ...]
    upos: tuple[str, ...]
    sent_id: str | None
    line: int
    lines: tuple[str, ...]
    rows: tuple[int, ...]

    @classmethod
    def from_words(cls, words: Sequence[str], upos: Sequence[str] | None = None) -> ConlluSentence:
        """A sentence that was not read; without `upos` its words have no tags.

        Raises ValueError if the numbers of tags and words differ, or for a word that does not fit into a column.

        >>> ConlluSentence.from_words(["Go", "!"], ["VERB", "PUNCT"]).lines[0]
        '1\\tGo\\t_\\tVERB\\t_\\t_\\t_\\t_\\t_\\t_'
        """
        tags = [NO_TAG] * len(words) if upos is None else upos
        if len(tags) != len(words):
            raise ValueError(f"ConlluSentence: {len(words)} words, but {len(tags)} tags")
        lines = _Lines("ConlluSentence", 1)
        for i, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
            lines.add(f"{i}\t{word}\t_\t{tag}" + "\t_" * 6)
        return lines.finish()

    def with_upos(self, tags: Sequence[str]) -> str:
        """The sentence's lines and a blank line, with `tags` in the words' UPOS column.

        Raises ValueError if the numbers of tags and words differ, or for a tag that does not fit into a column.

        >>> row = "1\\tGo\\tgo\\t_\\t_\\t_\\t0\\troot\\t_\\t_"
        >>> next(parse_conllu([row.encode()], "example")).with_upos(["VERB"])
        '1\\tGo\\tgo\\tVERB\\t_\\t_\\t0\\troot\\t_\\t_\\n\\n'
        """
        if len(tags) != len(self.words):
            raise ValueError(f"with_upos: {len(tags)} tags for the {len(self.words)} words of line {self.line}")
        lines = list(self.lines)
        for row, tag in zip(self.rows, tags, strict=True):
            if not tag or re.search(r"[\s\x00-\x1f\x7f-\x9f]", tag):
                raise ValueError(f"with_upos: a tag must be a word without spaces and control codes, got {tag!r}")
            columns = lines[row].split("\t")
            columns[UPOS] = tag
            lines[row] = "\t".join(columns)
        return "".join(f"{line}\n" for line in (*lines, ""))


def read_conllu(path: str | os.PathLike[str]) -> list[ConlluSentence]:
    """The sentences of a file. Raises OSError, or ValueError as `parse_conllu` does."""
    with open(path, "rb") as file:
        return list(parse_conllu(file, os.fspath(path)))


def parse_conllu(lines: Iterable[bytes], source: str) -> Iterator[ConlluSentence]:
    """Sentences from the lines of a UTF-8 file, which `source` names in errors.

    A byte-order mark at the start, several blank lines between sentences and a missing blank line at the end are
    accepted. The column may hold any tag set, not only the universal tags.

    Raises ValueError, starting with `source:line:`, for a line that is not UTF-8, a row without ten columns or with an
    empty one, ids out of order, a comment inside a sentence, and a sentence without words.
    """
    sentence: _Lines | None = None
    for number, line in enumerate(utf8_lines(lines, source), start=1):
        text = line.removesuffix("\n").removesuffix("\r")
        if text:
            if sentence is None:
                sentence = _Lines(source, number)
            sentence.add(text)
        elif sentence is not None:
            yield sentence.finish()
            sentence = None
    if sentence is not None:
        yield sentence.finish()


class _Lines:
    """The lines of one sentence while it is read."""

    def __init__(self, source: str, first: int) -> None:
        self.source, self.first = source, first
        self.lines: list[str] = []
        self.words: list[str] = []
        self.upos: list[str] = []
        self.rows: list[int] = []
        self.sent_id: str | None = None
        self.range_end = 0  # the last word of the latest multiword range
        self.empty_nodes = 0  # how many since the latest word
        self.in_rows = False

    def add(self, line: str) -> None:
        if line.startswith("#"):
            if self.in_rows:
                raise self._error("a comment must come before the sentence's first row")
            if match := _SENT_ID.fullmatch(line):
                self.sent_id = match[1]
        else:
            self._add_row(line.split("\t"))
        self.lines.append(line)

    def finish(self) -> ConlluSentence:
        if not self.words:
            raise self._error("a sentence without words", self.first)
        if self.range_end > len(self.words):
            raise self._error(f"the sentence has {len(self.words)} words, but a range goes to {self.range_end}")
        words, upos, lines = tuple(self.words), tuple(self.upos), tuple(self.lines)
        return ConlluSentence(words, upos, self.sent_id, self.first, lines, tuple(self.rows))

    def _add_row(self, columns: list[str]) -> None:
        if len(columns) != COLUMNS:
            raise self._error(f"a row must have {COLUMNS} columns with tabs between them, got {len(columns)}")
        for number, column in enumerate(columns, start=1):
            if not column.strip():
                raise self._error(f"column {number} is empty")
        self.in_rows = True
        identifier, expected = columns[0], len(self.words) + 1
        if _WORD_ID.fullmatch(identifier):
            if int(identifier) != expected:
                raise self._error(f"the word's id must be {expected}, got {identifier}")
            self.words.append(columns[FORM])
            self.upos.append(columns[UPOS])
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
            raise self._error(f"an id must be a number, a range such as 1-2 or an empty node's 1.1, got {identifier!r}")

    def _error(self, message: str, line: int | None = None) -> ValueError:
        return ValueError(f"{self.source}:{line or self.first + len(self.lines)}: {message}")
