"""Parallel text: sentences in one language and their translations into another.

    text = read_parallel("train.tsv")                  # two columns with a tab between them
    text = read_parallel("train.de", "train.en")       # line i of one file belongs to line i of the other

A pair with a blank side says nothing about translation: it is left out, and counted.

Two files are Moses's format, that of OPUS and Tatoeba. One file with two columns is what spreadsheets write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from fastattn.errors import EmptyError
from fastattn.files import lines_crc32, text_lines
from fastattn.text.tables import read_rows

COLUMNS = 2


@dataclass(frozen=True)
class ParallelText:
    """Pairs of a text and its translation.

    Attributes:
        sources: the texts.
        targets: their translations, one each.
        skipped: how many pairs were left out, for one of their sides was blank.
        lines: the number of each pair's line in its file, or of its row; nothing for pairs that were not read.
        files: the file, or the two; nothing for pairs of no file.

    >>> text = ParallelText(("Guten Tag", "Ja"), ("Good day", "Yes"))
    >>> len(text), text.skipped
    (2, 0)
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    skipped: int = 0
    lines: tuple[int, ...] = field(default=(), compare=False, repr=False)
    files: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"ParallelText: {len(self.sources)} sources, but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.sources)

    def place(self, index: int, target: bool = False) -> str:
        """The name of a text in errors: its file and line, or its index.

        >>> ParallelText(("Ja",), ("Yes",)).place(0, target=True)
        'targets[0]'
        """
        if self.files:
            return f"{self.files[-1 if target else 0]}:{self.lines[index]}"
        return f"{'targets' if target else 'sources'}[{index}]"

    def take(self, indices: Iterable[int]) -> ParallelText:
        """Some of the pairs.

        >>> ParallelText(("Guten Tag", "Ja"), ("Good day", "Yes")).take([1]).sources
        ('Ja',)
        """
        chosen = list(indices)
        sources, targets = (tuple(side[i] for i in chosen) for side in (self.sources, self.targets))
        lines = tuple(self.lines[i] for i in chosen) if self.lines else ()
        return ParallelText(sources, targets, self.skipped, lines, self.files)

    @property
    def crc32(self) -> int:
        """A checksum of the text."""
        return lines_crc32(f"{source}\t{target}" for source, target in zip(self.sources, self.targets, strict=True))


def read_parallel(*sources: Any) -> ParallelText:
    """Read UTF-8 text with one pair per line, or rows in memory.

    Lines end with LF or CR LF, or all of them with CR; any other character, U+2028 too, is part of a line. Whitespace
    around a text is removed. A pair with a blank side is skipped and counted in `skipped`.

    Args:
        sources: one file, with a text, a tab, its translation and perhaps blank columns on each line. Or a file of
            texts and a file of their translations, with the same number of lines. One of the two may have more blank
            lines at its end. In two files a tab is a character of the text. Or a list of dicts, a frame or a dataset
            with the columns source and target, see `read_rows`.

    Raises OSError, and ValueError for another number of files; with file and line, for a line that is not UTF-8 and a
    line of one file that does not have two columns; for one of two files with a tab in every line, which has columns;
    with both numbers, for files that do not have equally many lines; and for files without a pair.
    """
    if len(sources) == 1 and not isinstance(sources[0], str | os.PathLike):
        rows = read_rows(sources[0], ["source", "target"])
        return _text_of([(row.text("source").strip(), row.text("target").strip()) for row in rows], "rows", ())
    files = tuple(os.fspath(path) for path in sources)
    name = " and ".join(files)
    if len(files) not in (1, 2):
        raise ValueError(f"parallel text must be one file with two columns, or two files, got {len(files)}")
    pairs = list(split_columns(text_lines(name), name)) if len(files) == 1 else _read_files(*files)
    return _text_of(pairs, name, files)


def _text_of(pairs: list[tuple[str, str]], name: str, files: tuple[str, ...]) -> ParallelText:
    kept = [(*pair, number) for number, pair in enumerate(pairs, start=1) if all(pair)]
    if not any(map(any, pairs)):
        raise EmptyError(name, "pairs of texts")
    if not kept:
        raise ValueError(f"{name}: no pair of texts among the {len(pairs)} lines")
    texts, targets, lines = zip(*kept, strict=True)
    return ParallelText(texts, targets, len(pairs) - len(kept), lines, files)


def split_columns(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    """The two columns of each line, without the whitespace around them; of a blank line "" and "".

    Raises ValueError, with `name` and the line's number, for a line that does not have two.

    >>> list(split_columns(["eins\\tone", " "], "numbers.tsv"))
    [('eins', 'one'), ('', '')]
    """
    for number, line in enumerate(lines, start=1):
        columns = line.split("\t") if line.strip() else ["", ""]
        while len(columns) > COLUMNS and not columns[-1].strip():
            columns.pop()
        if len(columns) != COLUMNS:
            advice = "; keep two with cut -f" if len(columns) > COLUMNS else ""
            raise ValueError(
                f"{name}:{number}: a line must have 2 columns with a tab between them, got {len(columns)}{advice}"
            )
        yield columns[0].strip(), columns[1].strip()


def _read_files(*paths: str) -> list[tuple[str, str]]:
    sides = [[line.strip() for line in text_lines(path)] for path in paths]
    for path, side in zip(paths, sides, strict=True):
        if any(side) and all("\t" in line for line in side if line):
            raise ValueError(f"{path}: every line has a tab; give a file with two columns alone")
    shorter = min(map(len, sides))
    if any(any(side[shorter:]) for side in sides):
        raise ValueError(f"{paths[0]} has {len(sides[0])} lines, but {paths[1]} has {len(sides[1])}")
    return list(zip_longest(sides[0], sides[1], fillvalue=""))
