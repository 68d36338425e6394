"""Parallel text: sentences in one language and their translations into another.

    text = read_parallel("train.tsv")                  # two columns with a tab between them
    text = read_parallel("train.de", "train.en")       # line i of one file belongs to line i of the other

A pair with a blank side says nothing about translation: it is left out, and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from fastattn.files import lines_crc32, text_lines

COLUMNS = 2


@dataclass(frozen=True)
class ParallelText:
    """Pairs of a text and its translation.

    Attributes:
        sources: the texts.
        targets: their translations, one each.
        skipped: how many pairs were left out, for one of their sides was blank.
        lines: the number of each pair's line in its file; nothing for pairs that were not read.
        files: the file, or the two; nothing for pairs that were not read.

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

    @property
    def crc32(self) -> int:
        """A checksum of the text."""
        return lines_crc32(f"{source}\t{target}" for source, target in zip(self.sources, self.targets, strict=True))


def read_parallel(*paths: str | os.PathLike[str]) -> ParallelText:
    """Read UTF-8 text with one pair per line.

    Lines end with a newline (LF or CR LF); any other character, U+2028 too, is part of a line. Whitespace around a
    text is taken off. A pair of which one side is blank, or both are, is left out and counted in `skipped`.

    Args:
        paths: one file, each line of which is a text, a tab and its translation; or the file of the texts and that of
            their translations, with as many lines.

    Raises OSError, and ValueError for another number of files; with file and line, for a line that is not UTF-8, a line
    of one file that does not have two columns and one of two files that has a tab; with both numbers, for files that do
    not have equally many lines; and for files without a pair.
    """
    files = tuple(os.fspath(path) for path in paths)
    name = " and ".join(files)
    if len(files) not in (1, 2):
        raise ValueError(f"parallel text must be one file with two columns, or two files, got {len(files)}")
    pairs = split_columns(text_lines(name), name) if len(files) == 1 else _read_files(*files)
    kept = [(*pair, number) for number, pair in enumerate(pairs, start=1) if all(pair)]
    if not kept:
        raise ValueError(f"{name}: no pair of texts among the {len(pairs)} lines")
    sources, targets, lines = zip(*kept, strict=True)
    return ParallelText(sources, targets, len(pairs) - len(kept), lines, files)


def split_columns(lines: Iterable[str], name: str) -> list[tuple[str, str]]:
    """The two columns of each line, without the whitespace around them; of a blank line "" and "".

    Raises ValueError, with `name` and the line's number, for a line that does not have two.

    >>> split_columns(["eins\\tone", " "], "numbers.tsv")
    [('eins', 'one'), ('', '')]
    """
    pairs = []
    for number, line in enumerate(lines, start=1):
        columns = line.split("\t") if line.strip() else ["", ""]
        if len(columns) != COLUMNS:
            raise ValueError(f"{name}:{number}: a line must have 2 columns with a tab between them, got {len(columns)}")
        pairs.append((columns[0].strip(), columns[1].strip()))
    return pairs


def _read_files(source: str, target: str) -> list[tuple[str, str]]:
    lines = list(zip_longest(_without_tabs(source), _without_tabs(target)))
    counts = [sum(pair[side] is not None for pair in lines) for side in (0, 1)]
    if counts[0] != counts[1]:
        raise ValueError(f"{source} has {counts[0]} lines, but {target} has {counts[1]}")
    return [(first.strip(), second.strip()) for first, second in lines]


def _without_tabs(path: str) -> Iterator[str]:
    for number, line in enumerate(text_lines(path), start=1):
        if "\t" in line.strip():
            raise ValueError(f"{path}:{number}: a tab; a file with two columns is given alone")
        yield line
