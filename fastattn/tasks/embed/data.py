"""What a sentence encoder learns from: columns of texts, with or without scores."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastattn.errors import OptionError
from fastattn.text import Row, read_rows

SCORED = ("sentence1", "sentence2")
RANKED = ("anchor", "positive", "negative", *(f"negative_{i}" for i in range(1, 11)))
SCORE = "score"


@dataclass(frozen=True)
class TextPairs:
    """Rows of texts. Made by `read_pairs`.

    Attributes:
        columns: the texts by column: two sentences, or anchor, positive and any negatives.
        scores: how alike the two sentences of a row are, float64 `[rows]`; None for anchors and positives.
        places: file and line of each row, for errors.
    """

    columns: tuple[list[str], ...]
    scores: NDArray[np.float64] | None
    places: list[str]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def crc32(self) -> int:
        """A checksum of texts and scores."""
        found = 0 if self.scores is None else zlib.crc32(self.scores.tobytes())
        for column in self.columns:
            found = zlib.crc32("".join(f"{len(text)} {text}" for text in column).encode(), found)
        return found


def read_pairs(
    *sources: Any,
    texts: Sequence[str] | None = None,
    score: str | None = None,
    names: Sequence[str] | None = None,
    format: str | None = None,
) -> TextPairs:
    """Read tables with the columns anchor, positive and perhaps negative, or sentence1, sentence2 and score.

    Args:
        sources: whatever `fastattn.text.read_rows` reads: TSV, CSV, JSON lines and Parquet files, lists of dicts,
            frames, datasets. Negatives may also be in the columns negative_1 to negative_10.
        texts: other names of the columns of texts, in the same order.
        score: another name of the column of scores. Columns named by `texts` have scores only if it is given.
        names: the columns of TSV and CSV files whose first line is a row.
        format: "tsv", "csv", "jsonl" or "parquet"; None decides by the end of a file's name.

    Raises as `read_rows` does, and ValueError, with file and line, for a row without these columns, a text or a score
    of another type, an empty text without a score, and files of both kinds.

    >>> data = read_pairs([{"anchor": "Who?", "positive": "Me."}])
    >>> data.columns, data.scores
    ((['Who?'], ['Me.']), None)
    """
    rows: list[Row] = []
    wanted: list[str] = []
    scored = False
    for source in sources:
        first = len(rows)
        if texts is not None:
            found = [*texts, *([score] if score else [])]
            rows += read_rows(source, found, names=names, format=format)
            kind = list(texts), score is not None
        else:
            label = score or SCORE
            groups = {"{texts} and {score}": [RANKED[:2], (*SCORED, label)]}
            rows += read_rows(source, [], optional=[*RANKED, *SCORED, label], one_of=groups, names=names, format=format)
            kind = _kind(rows[first], label)
        if first and kind != (wanted, scored):
            before, now = ", ".join(wanted), ", ".join(kind[0])
            raise ValueError(f"{rows[first].place}: the columns must be those of {rows[0].place}, {before}, got {now}")
        wanted, scored = kind
    if len(wanted) < 2 or (scored and len(wanted) > 2):
        raise OptionError("{texts} must name two columns, or more without scores, got {}", ", ".join(wanted))
    read = Row.text if scored else _filled
    columns = tuple([read(row, name) for row in rows] for name in wanted)
    scores = np.array([row.number(score or SCORE) for row in rows], np.float64) if scored else None
    return TextPairs(columns, scores, [row.place for row in rows])


def _kind(row: Row, score: str) -> tuple[list[str], bool]:
    """The columns of texts in a row, and whether it has a score."""
    there = [name for name in (*SCORED, *RANKED) if row[name] is not None]
    if there == [*SCORED] and row[score] is not None:
        return there, True
    if there[:2] == [*RANKED[:2]]:
        return there, False
    found = ", ".join([*there, *([score] if row[score] is not None else [])]) or "none of these"
    told = "{}: the columns must be anchor and positive (and negatives), or sentence1, sentence2 and {}, got {}; "
    raise OptionError(told + "{texts} names others", row.place, score, found)


def _filled(row: Row, column: str) -> str:
    """A text of a row. An empty one would be learnt as if it were a negative, or the answer."""
    text = row.text(column)
    if not text.strip():
        raise ValueError(f"{row.place}: {column} is empty")
    return text


def unique(texts: Iterable[str]) -> dict[str, int]:
    """The different texts in order, and their numbers."""
    return {text: i for i, text in enumerate(dict.fromkeys(texts))}
