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

The output folder is a model folder, which Elmo.from_pretrained and BidirectionalLanguageModel.from_pretrained read,
with the vocabulary in vocab.txt; Elmo's export makes bilm-tf's files of it. Beside the model it holds log.jsonl (one
JSON object a step), loss.svg, and in states/ what --resume continues a run from, whether it was stopped with Ctrl-C,
killed, or ran out of disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastattn.tasks.base import (
    ABOVE_ZERO,
    COUNT,
    FRACTION,
    SWITCH,
    Answering,
    OptionError,
    Recipe,
    documented,
    option,
)

if TYPE_CHECKING:
    from fastattn.training import Adam

CLIP = 10.0  # bilm-tf's, where the loss is multiplied by the steps that are unrolled


@documented
@dataclass(frozen=True, kw_only=True)
class BiLMOptions(Answering):
    """Measure the perplexity of each line, a sentence that is read by itself. A blank line stays blank."""

    model: ClassVar[str] = "a bidirectional language model: the folder that `fastattn train bilm` made, or its name"
    input: ClassVar[str] = "UTF-8 text, one sentence a line"


@documented
@dataclass(frozen=True, kw_only=True)
class BiLMRecipe(Recipe):
    """How a `BiLM` is made and trained."""

    summary: ClassVar[str] = "ELMo's bidirectional language model: perplexities of raw text"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "TRAIN", "help": "UTF-8 text to learn, one sentence a line"},
        "--eval": {"metavar": "FILE", "help": "text to measure the perplexity of, once an epoch"},
        "--options": {
            "dest": "start",
            "metavar": "FILE",
            "help": "options.json, as bilm-tf and AllenNLP have it, for the sizes of the network (default: a small "
            "one, 256 filters over characters, two layers of 256 cells projected to 64)",
        },
    }
    answering: ClassVar[type[Answering]] = BiLMOptions
    metric: ClassVar[str | None] = "perplexity"
    higher_is_better: ClassVar[bool] = False

    vocabulary: str | None = option(
        None,
        "words to predict, one a line, most frequent first, <S>, </S> and <UNK> among them (default: the words of the "
        "text)",
        metavar="FILE",
    )
    vocabulary_size: int | None = option(None, "at most so many words of the text", COUNT, metavar="WORDS")
    min_count: int | None = option(
        None,
        "words of the text that are rarer are <UNK> (default: 2, so that there is something to learn it from)",
        COUNT,
        metavar="COUNT",
    )
    dim: int | None = option(None, "of each LSTM, in place of the options'", COUNT, metavar="CELLS")
    projection_dim: int | None = option(None, "outputs of each LSTM, likewise", COUNT, metavar="DIM")
    layers: int | None = option(None, "of LSTMs, likewise", COUNT, metavar="COUNT")
    dropout: float = option(0.1, "of the LSTMs' inputs and the last one's output", FRACTION)
    num_sampled: int | None = option(
        None,
        "train a sampled softmax with so many wrong words a step (default: all words of the vocabulary)",
        COUNT,
        metavar="WORDS",
    )
    epochs: int = option(10, "how often the text is seen (default: %(default)s)", COUNT)
    batch_size: int = option(32, "streams in each direction (default: %(default)s)", COUNT)
    unroll_steps: int = option(20, "words of each stream in a step (default: %(default)s)", COUNT)
    reset: float = option(
        0.05,
        "share of the steps that a stream begins with zeros, as a sentence does that is read by itself (default: "
        "%(default)s; bilm-tf: 0)",
        FRACTION,
        metavar="P",
    )
    shuffle: bool = option(True, "put the sentences into a new order each epoch (default: yes)", SWITCH)
    learning_rate: float = option(2e-3, "the highest rate (default: %(default)s)", ABOVE_ZERO, metavar="RATE")
    max_norm: float | None = option(
        None, f"of the gradients (default: {CLIP:g} / --unroll-steps, which is bilm-tf's {CLIP:g})", ABOVE_ZERO
    )

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
