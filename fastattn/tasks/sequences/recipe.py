"""The options of tasks that take texts or pairs of texts from tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastattn.tasks.base import START, TokenRecipe
from fastattn.tasks.options import Count, Options

TABLE = "TSV, CSV, JSON lines or Parquet"


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """Where the texts and labels of a table are.

    Args:
        columns: the columns of the texts, one or two (default: the first of these that the file has: sentence1 and
            sentence2, query and document, sentence, text)
        label: the column of the labels (default: label, or else score)
        names: the columns of a TSV or CSV file whose first line is a row already (default: the first line names them)
        format: what the file is (default: by the end of its name)
    """

    columns: tuple[str, ...] | None = None
    label: str | None = None
    names: tuple[str, ...] | None = None
    format: Literal["tsv", "csv", "jsonl", "parquet"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.columns is not None:
            from fastattn.text.labelled import check_text_columns  # --help needs no text package

            check_text_columns(self.columns)

    @property
    def table(self) -> dict[str, Any]:
        """These options by name."""
        return {name: getattr(self, name) for name in ("columns", "label", "names", "format")}


@dataclass(frozen=True, kw_only=True)
class SequenceRecipe(TokenRecipe, TableOptions):
    """How a model of texts or pairs of texts is trained. `TokenRecipe` has the other options.

    Args:
        batch_size: texts, or pairs, in a batch
        max_length: cut longer texts, or pairs, to this many wordpieces; the model keeps the limit (default: its own)
    """

    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": START,
        "--train": {"required": True, "nargs": "+", "metavar": "FILE", "help": f"texts and labels to learn: {TABLE}"},
        "--eval": {"metavar": "FILE", "help": "more of them, to measure the model on, once an epoch"},
        "--test": {"metavar": "FILE", "help": "more of them, to measure the finished model on"},
    }  # fmt: skip

    max_length: Count | None = None

    @property
    def reading(self) -> dict[str, Any]:
        return self.table


@dataclass(frozen=True, kw_only=True)
class SequencePredictOptions(TableOptions):
    """The options of `fastattn predict`.

    Args:
        answers: how answers are written: a table with a row for each input, or lines of JSON
    """

    answers: Literal["tsv", "jsonl"] = "tsv"
