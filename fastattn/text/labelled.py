"""Texts, or pairs of texts, and their labels, from the rows of a table."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastattn import checks
from fastattn.checks import shown
from fastattn.errors import OptionError
from fastattn.files import utf8_lines
from fastattn.text.tables import Row, format_by_name

TEXT_COLUMNS = (("sentence1", "sentence2"), ("query", "document"), ("sentence",), ("text",))
"""Where the texts are unless somebody says: the first of these that a table has."""
LABEL_COLUMNS = ("label", "score")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts or pairs of texts.

    Attributes:
        texts: the texts, or the first text of each pair.
        pairs: the second text of each pair; None if there are no pairs.
        labels: what each is labelled with, None where there is no label.
        places: the name of each in errors: file and line, or its index.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[Any]
    places: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def crc32(self) -> int:
        """A checksum of the texts and labels."""
        crc = 0
        for row in zip(self.texts, self.pairs or self.texts, self.labels, strict=True):
            crc = zlib.crc32(repr(row).encode(), crc)
        return crc

    @classmethod
    def joined(cls, parts: Sequence[LabelledTexts]) -> LabelledTexts:
        """Several of them as one. Raises ValueError, with the place, where pairs follow single texts."""
        first, *others = parts
        texts, pairs, labels, places = (*first.texts,), first.pairs, [*first.labels], [*first.places]
        found = cls([*texts], None if pairs is None else [*pairs], labels, places)
        for part in others:
            if (part.pairs is None) != (found.pairs is None):
                kinds = ("pairs", "single texts") if found.pairs is None else ("single texts", "pairs")
                raise ValueError(f"{part.places[0]}: there are {kinds[0]}, but {kinds[1]} in {found.places[0]}")
            found.texts.extend(part.texts)
            if found.pairs is not None and part.pairs is not None:
                found.pairs.extend(part.pairs)
            found.labels.extend(part.labels)
            found.places.extend(part.places)
        return found


def labelled_texts(
    rows: Callable[..., Iterator[Row]],
    label_of: Callable[[Row, str], Any],
    *,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    labelled: bool = True,
) -> LabelledTexts:
    """Texts and labels of a table.

    Args:
        rows: `read_rows` or `parse_rows` without the columns, such as `partial(read_rows, "train.tsv")`.
        label_of: the label in the column of a row. Raises ValueError, with the row's place.
        columns: the columns of the texts, one or two; None takes the first of these that the first row has: sentence1
            and sentence2, query and document, sentence, text.
        label: the column of the labels, which every row must have; None takes label, or else score.
        labelled: whether every row must have a label; the column may be missing then, unless `label` names it.

    Raises as `read_rows` does; ValueError for a missing column, for what is no text, and for no or more than two
    `columns`; and TypeError for `columns` that are one str.

    >>> from functools import partial
    >>> from fastattn.text import read_rows
    >>> rows = [{"sentence": "a fine film", "label": 1}]
    >>> data = labelled_texts(partial(read_rows, rows), Row.number)
    >>> data.texts, data.pairs, data.labels
    (['a fine film'], None, [1.0])
    """
    if columns is not None:
        check_text_columns(columns := checks.texts("columns", columns))
    needed = [*(columns or ()), *([label] if label else ())]
    one_of: dict[str, Sequence[Sequence[str]]] = {} if columns else {"{columns}": TEXT_COLUMNS}
    if label is None and labelled:
        one_of["{label}"] = [(name,) for name in LABEL_COLUMNS]
    found = LabelledTexts([], None, [], [])
    for row in rows(needed, optional=() if label else LABEL_COLUMNS, one_of=one_of):
        if not found.texts:
            columns = columns or _columns_of(row)
            label = label or next((name for name in LABEL_COLUMNS if row[name] is not None), None)
            if len(columns) == 2:
                found = LabelledTexts([], [], [], [])
        if label is None and labelled:
            raise ValueError(f"{row.place}: there is no label")
        found.texts.append(row.text(columns[0]))  # type: ignore[index]  # set with the first row
        if found.pairs is not None:
            found.pairs.append(row.text(columns[1]))  # type: ignore[index]
        missing = label is None or (row[label] is None and not labelled)
        found.labels.append(None if missing else label_of(row, str(label)))
        found.places.append(row.place)
    return found


def check_text_columns(columns: Sequence[str]) -> None:
    """Raise OptionError unless one or two columns are named. A file after them on the command line is taken as one."""
    if not 1 <= len(columns) <= 2:
        names = ", ".join(map(shown, columns)) or "none"
        hint = "; the file stands before it" if columns and format_by_name(columns[-1]) else ""
        raise OptionError("{columns} takes one or two names, got {}{}", names, hint)


def _columns_of(row: Row) -> tuple[str, ...]:
    for some in TEXT_COLUMNS:
        if all(row[column] is not None for column in some):
            return some
    raise OptionError("{}: there is no text; {columns} names other columns", row.place)


def plain_texts(lines: Iterable[bytes], name: str) -> LabelledTexts:
    """The lines of a UTF-8 file that is no table: a text in each, or a pair with a tab between. Errors call it `name`.

    Raises ValueError, with file and line, for pairs among single texts, and for more than one tab.

    >>> plain_texts([b"a cat\\ta dog\\n"], "input").pairs
    ['a dog']
    """
    found = LabelledTexts([], None, [], [])
    for number, line in enumerate(utf8_lines(lines, name), start=1):
        place, parts = f"{name}:{number}", line.split("\t")
        if not found.texts and len(parts) > 1:
            found = LabelledTexts([], [], [], [])
        if len(parts) != (1 if found.pairs is None else 2):
            wanted = "no tab, as the first one" if found.pairs is None else "one tab, between two texts"
            raise ValueError(f"{place}: a line must have {wanted}, got {len(parts) - 1}")
        found.texts.append(parts[0])
        if found.pairs is not None:
            found.pairs.append(parts[1])
        found.labels.append(None)
        found.places.append(place)
    return found
