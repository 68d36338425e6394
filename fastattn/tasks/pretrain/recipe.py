"""Pre-train BERT on raw text: one sentence per line, with a blank line between documents.

  fastattn train pretrain corpus.txt --eval held-out.txt --output bert
  fastattn train pretrain wiki.valid.raw --paragraphs --vocab-size 10000 --hidden-size 256 --layers 2 --output bert
  fastattn train pretrain domain-*.txt --model bert-base-uncased --learning-rate 5e-5 --output domain-bert

The model predicts hidden words, and whether the second of two segments follows the first. Segments, masks and the names
of options are those of google-research/bert's create_pretraining_data. Here they are drawn anew in each epoch, while
the model trains, unless --static-masks is given. The text may be larger than memory: its wordpieces are kept in
temporary files in TMPDIR, 4 bytes each.

Without --model the model is new, and a WordPiece vocabulary is trained from the text. With --model the run continues
from a BERT, or with --no-next-sentence from a model of another family, with its tokenizer: --learning-rate 5e-5 suits
it.

The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-6, no weight decay of biases and LayerNorm). The rate rises
linearly, then falls linearly to 0. Gradients are clipped to --max-norm. With --eval, the loss, the accuracy and the
perplexity of hidden words and the accuracy of next sentences are measured once an epoch, on the same instances in every
run. The loss of a unigram model of the training text is printed for comparison. transformers reads the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fastattn.errors import OptionError
from fastattn.tasks.base import AdamWRecipe
from fastattn.tasks.options import AboveZero, Count, Fraction, Probability

USUAL_LENGTH = 128
"""The `max_seq_length` of a model that reads as much."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(AdamWRecipe):
    """How a `Pretrainer` is made and trained. `AdamWRecipe` has the other options.

    Args:
        paragraphs: the lines of the files are paragraphs, which are split into sentences; a heading of the first level
            (= Title = or # Title) begins a document, and a blank line does not
        next_sentence: learn next sentences, too (default: yes); otherwise masked words alone
        vocab_size: the most wordpieces of the vocabulary that is trained from the text (default: 30522)
        do_lower_case: make letters lower case and remove accents, in the tokenizer that is trained (default: yes)
        tokenizer: folder or name of a tokenizer to use instead of a trained one
        config: config.json with the sizes of the network, instead of the options that follow
        hidden_size: width of the network (default: 128)
        layers: layers of the network (default: 2)
        heads: attention heads of each layer (default: one for every 64 of --hidden-size)
        intermediate_size: width of the feed-forward layers (default: 4 times --hidden-size)
        dropout: dropout of hidden states and of attention (default: as in --config or --model, otherwise 0.1)
        max_seq_length: the most wordpieces of an instance, special tokens included (default: 128, or what the model
            reads)
        max_predictions_per_seq: the most hidden words of an instance
        masked_lm_prob: share of the wordpieces to predict
        short_seq_prob: share of the documents with shorter instances
        dupe_factor: passes over the text in an epoch, with other segments and masks each
        do_whole_word_mask: hide all pieces of a word together
        static_masks: draw segments and masks once, not in each epoch
        batch_size: instances in a batch
        accumulation: batches per step
    """

    pipeline_tag: ClassVar[str | None] = "fill-mask"
    summary: ClassVar[str] = "pre-train BERT on raw text: masked words and next sentences"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "TRAIN", "help": "UTF-8 text to learn, one sentence a line and a blank line "
                  "between documents, or as --paragraphs says"},
        "--eval": {"metavar": "FILE", "help": "text to measure the losses on, once an epoch"},
        "--model": {"dest": "start", "metavar": "MODEL", "help": "the BERT to continue from: a folder, a package or a "
                    "Hugging Face name (default: a new one)"},
    }  # fmt: skip
    metric: ClassVar[str | None] = "masked_loss"
    higher_is_better: ClassVar[bool] = False
    eps: ClassVar[float] = 1e-6

    paragraphs: bool = False
    next_sentence: bool = True
    vocab_size: Count | None = None
    do_lower_case: bool = True
    tokenizer: str | None = None
    config: str | None = None
    hidden_size: Count | None = None
    layers: Count | None = None
    heads: Count | None = None
    intermediate_size: Count | None = None
    dropout: Probability | None = None
    max_seq_length: Count | None = None
    max_predictions_per_seq: Count = 20
    masked_lm_prob: Fraction = 0.15
    short_seq_prob: Fraction = 0.1
    dupe_factor: Count = 1
    do_whole_word_mask: bool = False
    static_masks: bool = False
    batch_size: Count = 32
    accumulation: Count = 1
    epochs: Count = 10
    learning_rate: AboveZero = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = [name for name in ("hidden_size", "layers", "heads", "intermediate_size") if getattr(self, name)]
        if self.config and sizes:
            raise OptionError(f"{{{sizes[0]}}} and {{config}} both give the size of the network; give one of them")
        if self.tokenizer and self.vocab_size:
            raise OptionError("{vocab_size} is for a vocabulary made of the text, not for {tokenizer}")

    def check_start(self) -> None:
        """Raise OptionError for an option of a new model, which `start` would not use."""
        for name in ("config", "hidden_size", "layers", "heads", "intermediate_size", "vocab_size", "tokenizer"):
            if getattr(self, name):
                raise OptionError(f"{{{name}}} is for a new model, not for {{model}}, which has its own")
