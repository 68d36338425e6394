"""Train ELMo's bidirectional language model on raw text, one sentence a line, words separated by whitespace.

  fastattn train bilm train.txt --eval eval.txt --output bilm
  fastattn train bilm train.txt --eval eval.txt --output bilm --resume
  fastattn train bilm news-*.txt --vocabulary vocab.txt --options options.json --num-sampled 8192 --output elmo

Truncated back-propagation through time: --batch-size streams of sentences in each direction, --unroll-steps words of
each a step, the LSTMs' state carried from a step to the next but for a few resets (--reset). Adam, the rate rising
linearly and then falling linearly to 0, gradients clipped to --max-norm. Words outside of the vocabulary are <UNK>
where they are predicted; where they are read the model sees their characters. Blank lines are passed over.

With --eval the perplexities of a text are measured once an epoch, each sentence by itself and by the full softmax,
and shown beside that of a unigram model: the counts of the words of the training text, each with 1 added.

Elmo.from_pretrained and BidirectionalLanguageModel.from_pretrained read the output folder, too, which has the
vocabulary in vocab.txt; Elmo's export makes bilm-tf's files of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastattn.tasks.base import AboveZero, Count, Fraction, OptionError, Recipe

if TYPE_CHECKING:
    from fastattn.training import Adam

CLIP = 10.0  # bilm-tf's, where the loss is multiplied by the steps that are unrolled


@dataclass(frozen=True, kw_only=True)
class BiLMRecipe(Recipe):
    """How a `BiLM` is made and trained; what else there is stands in `Recipe`.

    Args:
        vocabulary: file of the words to predict, one a line, most frequent first, <S>, </S> and <UNK> among them
            (default: the words of the text)
        vocabulary_size: at most so many words of the text
        min_count: words of the text that are rarer are <UNK> (default: 2, so that there is something to learn it from)
        dim: cells of each LSTM, in place of the options'
        projection_dim: outputs of each LSTM, likewise
        layers: of LSTMs, likewise
        dropout: of the LSTMs' inputs and the last one's output
        num_sampled: train a sampled softmax with so many wrong words a step (default: all words of the vocabulary)
        batch_size: streams in each direction
        unroll_steps: words of each stream in a step
        reset: share of the steps that a stream begins with zeros, as a sentence does that is read by itself (bilm-tf:
            0)
        shuffle: put the sentences into a new order each epoch (default: yes)
        max_norm: of the gradients (default: 10 / --unroll-steps, which is bilm-tf's 10)
    """

    summary: ClassVar[str] = "ELMo's bidirectional language model: perplexities of raw text"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "TRAIN", "help": "UTF-8 text to learn, one sentence a line"},
        "--eval": {"metavar": "FILE", "help": "text to measure the perplexity of, once an epoch"},
        "--options": {"dest": "start", "metavar": "FILE", "help": "options.json, as bilm-tf and AllenNLP have it, for "
                      "the sizes of the network (default: a small one, 256 filters over characters, two layers of 256 "
                      "cells projected to 64)"},
    }  # fmt: skip
    predicting: ClassVar[tuple[str, str, str]] = (
        "Measure the perplexity of each line, a sentence that is read by itself. A blank line stays blank.",
        "a bidirectional language model: folder, package or Hugging Face name",
        "UTF-8 text, one sentence a line",
    )
    metric: ClassVar[str | None] = "perplexity"
    higher_is_better: ClassVar[bool] = False

    vocabulary: str | None = None
    vocabulary_size: Count | None = None
    min_count: Count | None = None
    dim: Count | None = None
    projection_dim: Count | None = None
    layers: Count | None = None
    dropout: Fraction = 0.1
    num_sampled: Count | None = None
    epochs: Count = 10
    batch_size: Count = 32
    unroll_steps: Count = 20
    reset: Fraction = 0.05
    shuffle: bool = True
    learning_rate: AboveZero = 2e-3
    max_norm: AboveZero | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary and (self.vocabulary_size or self.min_count):
            raise OptionError("{vocabulary_size} and {min_count} are about a vocabulary that is made, not {vocabulary}")

    @property
    def clipped_to(self) -> float:
        return self.max_norm or CLIP / self.unroll_steps

    def make_optimizer(self, model: Any) -> Adam:
        from fastattn.training import Adam

        return Adam(model.parameters(), lr=self.learning_rate)
