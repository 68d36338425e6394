"""CoNLL columns: a word and its tag on each line, a blank line between sentences. Named entities are kept so.

    sentences = read_conll("train.txt")                                     # CoNLL 2003: the tag is the last column
    sentences = read_conll("dev.iob2", word_column=1, tag_column=2)         # Universal NER: number, word, tag

Source: Tjong Kim Sang and De Meulder 2003.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastattn import checks
from fastattn.checks import listed, shown
from fastattn.errors import EmptyError, OptionError
from fastattn.files import byte_lines, utf8_lines
from fastattn.text.conllu import NO_TAG
from fastattn.text.tables import FORMATS, read_rows

_DOCUMENT = "-DOCSTART-"
_COMMENT = re.compile(r"#\s*[\w.:]+\s*=\s")


@dataclass(frozen=True)
class ConllSentence:
    """The words of a sentence and their tags.

    Attributes:
        words: the words.
        tags: the tag of each word, "_" in a file without tags.
        line: the number of the sentence's first line in its file, counted from 1; 0 in a row of a table.
        lines: all lines, comments included, without their ends.
        rows: which of `lines` are the words.
        tag_column: the place of the tag in a row; None if the file has none.
        word_column: the place of the word.
        place: file and line, or the row, for errors; "" for a sentence that was not read.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int
    lines: tuple[str, ...]
    rows: tuple[int, ...]
    tag_column: int | None = -1
    word_column: int = 0
    place: str = field(default="", compare=False)

    @classmethod
    def from_words(cls, words: Sequence[str], tags: Sequence[str] | None = None) -> ConllSentence:
        """A sentence that was not read; without `tags` its words have none.

        Raises ValueError if the numbers of tags and words differ, and for an empty word or tag.

        >>> ConllSentence.from_words(["New", "York"], ["B-LOC", "I-LOC"]).lines
        ('New\\tB-LOC', 'York\\tI-LOC')
        """
        words = checks.texts("ConllSentence: words", words, "words")
        tags = [NO_TAG] * len(words) if tags is None else checks.texts("ConllSentence: tags", tags, "tags")
        if len(tags) != len(words):
            raise ValueError(f"ConllSentence: {len(words)} words, but {len(tags)} tags")
        for name, values in (("word", words), ("tag", tags)):
            if "" in values:
                raise ValueError(f"ConllSentence: {name}s[{values.index('')}] is an empty {name}")
        lines = tuple(f"{word}\t{tag}" for word, tag in zip(words, tags, strict=True))
        return cls(tuple(words), tuple(tags), 1, lines, tuple(range(len(lines))))

    def with_tags(self, tags: Sequence[str]) -> str:
        """The sentence's lines and a blank line, with `tags` in the column of tags, or in a new one.

        Raises ValueError if the numbers of tags and words differ, and for a tag that does not fit into a column.

        >>> print(ConllSentence.from_words(["New", "York"]).with_tags(["B-LOC", "I-LOC"]), end="")
        New	B-LOC
        York	I-LOC
        <BLANKLINE>
        """
        if len(tags) != len(self.words):
            raise ValueError(f"with_tags: {len(tags)} tags for the {len(self.words)} words of line {self.line}")
        lines = list(self.lines)
        for row, tag in zip(self.rows, tags, strict=True):
            if not tag or re.search(r"[\s\x00-\x1f\x7f-\x9f]", tag):
                raise ValueError(f"with_tags: a tag must be a word without spaces and control codes, got {shown(tag)}")
            columns = lines[row].split("\t") if "\t" in lines[row] else lines[row].split()
            separator = "\t" if "\t" in lines[row] or len(columns) == 1 else " "
            if self.tag_column is None:
                columns.append(tag)
            else:
                columns[self.tag_column] = tag
            lines[row] = separator.join(columns)
        return "".join(f"{line}\n" for line in (*lines, ""))


def read_conll(
    source: Any, *, word_column: int | str | None = None, tag_column: int | str | None = None
) -> list[ConllSentence]:
    """The sentences of a file of columns, or of rows that hold lists.

    Args:
        source: a file, see `parse_conll`; or JSON lines, Parquet, dicts, a frame or a dataset, see `read_rows`, with a
            list of words and a list of tags in each row.
        word_column: the number of the column of words (default: 0), or its name in rows (default: "tokens").
        tag_column: the same of the tags (default: -1, and "tags").

    Raises OSError; ValueError as `parse_conll` and `read_rows`, and for a file without words.

    >>> read_conll([{"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]}])[0].tags
    ('B-LOC', 'I-LOC')
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "rows"
    if not isinstance(source, str | os.PathLike) or name.lower().endswith(FORMATS["jsonl"] + FORMATS["parquet"]):
        words, tags = word_column or "tokens", tag_column or "tags"
        found = []
        for row in read_rows(source, [str(words), str(tags)]):
            own, named = row.texts(str(words)), row.texts(str(tags))
            if len(own) != len(named):
                raise ValueError(f"{row.place}: {words} has {len(own)} words, but {tags} has {len(named)} tags")
            try:
                found.append(replace(ConllSentence.from_words(own, named), line=0, place=row.place))
            except ValueError as error:
                raise ValueError(f"{row.place}: {error}") from None
    else:
        columns = {"word_column": word_column or 0, "tag_column": -1 if tag_column is None else tag_column}
        wanted = "the number of a column in a file of columns"
        numbers = {key: checks.integer(f"read_conll: {key}", n, -(2**31), wanted=wanted) for key, n in columns.items()}
        with open(name, "rb") as file:
            found = list(parse_conll(byte_lines(file, name), name, **numbers))
    if not any(sentence.words for sentence in found):
        raise EmptyError(name, "words")
    return found


def parse_conll(
    lines: Iterable[bytes], source: str, *, word_column: int = 0, tag_column: int | None = -1
) -> Iterator[ConllSentence]:
    """Sentences from the lines of a UTF-8 file, which `source` names in errors.

    Columns have tabs between them, or spaces if the first row has no tab; then a word has no spaces. All rows have
    equally many. A comment says `# name = value`, or begins with `#` and a space and stands before the first row, or
    has another number of columns than the rows: `#` may be a word. Lines of `-DOCSTART-` are kept, but are no words.

    Args:
        lines: the lines.
        source: the name of the file.
        word_column: the column of the words, counted from 0, or from the end with -1.
        tag_column: the column of the tags; None if there is none.

    Raises ValueError, starting with `source:line:`, for a line that is not UTF-8, for a row with too few or too many
    columns, for an empty word or tag, and for a column of words that is that of the tags.
    """
    width, tabs, one = 0, False, False
    kept: list[str] = []
    words: list[tuple[str, str]] = []
    rows: list[int] = []
    first = 1

    def finish() -> ConllSentence:
        own, tags = (tuple(pair[i] for pair in words) for i in (0, 1))
        place = f"{source}:{first}"
        found = ConllSentence(own, tags, first, tuple(kept), tuple(rows), tag_column, word_column, place)
        kept.clear()
        words.clear()
        rows.clear()
        return found

    for number, line in enumerate(utf8_lines(lines, source), start=1):
        if not line or line.isspace():
            if kept:
                yield finish()
            continue
        if not kept:
            first = number
        row = line.split("\t") if tabs or (not width and "\t" in line) else line.split()
        if _COMMENT.match(line) or (line[:2] in ("#", "# ") and (not width or len(row) != width)):
            kept.append(line)
            continue
        if not width:
            tabs, width = "\t" in line, len(row)
            for name, column in (("word_column", word_column), ("tag_column", tag_column)):
                if column is not None and not -width <= column < width:
                    there = f"the row has {width} columns: {listed(row)}"
                    raise OptionError(f"{{}}:{{}}: there is no {{{name}}} {{}}, {{}}", source, number, column, there)
            one = tag_column is not None and word_column % width == tag_column % width
        if len(row) != width:
            raise ValueError(
                f"{source}:{number}: a row must have {width} columns, as the first has, got {len(row)}: {shown(line)}"
            )
        word, tag = row[word_column].strip(), NO_TAG if tag_column is None else row[tag_column].strip()
        if not word or not tag:
            raise ValueError(f"{source}:{number}: the {'tag' if word else 'word'} is empty: {shown(line)}")
        if word != _DOCUMENT:
            if one:
                there = f"the row has {width} columns: {listed(row)}"
                raise OptionError("{}:{}: {word_column} and {tag_column} are one column, {}", source, number, there)
            words.append((word, tag))
            rows.append(len(kept))
        kept.append(line)
    if kept:
        yield finish()
