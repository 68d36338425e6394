"""Train an AWD-LSTM, a language model of words, on raw text: one sentence or paragraph per line, words separated by
whitespace.

  fastattn train language-model train.txt --eval eval.txt --output lm
  fastattn train language-model train.txt --eval eval.txt --output lm --resume
  fastattn train language-model train.txt --direction backward --output backward
  fastattn train language-model train.txt --model lm --add-words --learning-rate 5 --layer-decay 0.385 \
    --schedule slanted-triangular --warmup 0.1 --output tuned
  fastattn train language-model train.txt --eval eval.txt --epochs 750 --average-after 5 --reset 0 --min-count 1 -o lm

Training is truncated back-propagation through time. Each step reads about --unroll-steps words of --batch-size streams,
which keep the order of the text. The lengths of steps vary, and the rate with them. The state of the LSTMs is carried
to the next step, except for a few resets (--reset). The optimizer is SGD at a constant rate. With --average-after, the
mean of all weights from some step on becomes the model: averaged SGD. Words outside the vocabulary are read and
predicted as <UNK>. Blank lines are skipped.

With --eval, the perplexity of the text, read in its order with the state carried on, is measured once per epoch. The
perplexity of a unigram model of the training text, with 1 added to each count, is printed for comparison.

The recipe is that of Merity, Keskar and Socher 2018 for WikiText-2; the last command is the whole of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from fastattn.errors import OptionError
from fastattn.tasks.options import AboveZero, Count, Fraction, Positive, Probability
from fastattn.tasks.streams.recipe import StreamRecipe

if TYPE_CHECKING:
    from fastattn.text import StreamBatches
    from fastattn.training import SGD, Batches, Optimizer, Schedule, WeightAverage


_SIZES = {
    "direction": "direction",
    "embedding_dim": "embedding_dim",
    "dim": "dim",
    "layers": "n_layers",
    "tie_weights": "tie_weights",
}
_REGULARIZATION = (
    *("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"),
    *("activation_penalty", "temporal_penalty"),
)


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(StreamRecipe):
    """How a `LanguageModel` is made and trained. `StreamRecipe` has the other options.

    Args:
        add_words: add words of the text to the vocabulary of --model; each begins as the mean of the others
        min_count: rarer words of the text become <UNK>, or are not added to the vocabulary of --model (default: 2, so
            that there is something to learn <UNK> from)
        direction: what the model reads: forward, backward, or both with a network each (default: forward)
        embedding_dim: numbers of an embedding (default: 400)
        dim: cells of each LSTM (default: 1150)
        layers: layers of LSTMs (default: 3)
        tie_weights: use the embeddings as the matrix of the softmax (default: yes)
        embedding_dropout: dropout of whole words
        input_dropout: dropout of the first LSTM's input
        hidden_dropout: dropout between two LSTMs
        output_dropout: dropout of the last LSTM's output
        weight_dropout: dropout of the weights from state to state
        activation_penalty: weight of the last LSTM's squared output in the loss (AR)
        temporal_penalty: weight of the squared change of its output from word to word in the loss (TAR)
        varied: draw the lengths of steps, and scale the rate with them (default: yes)
        shuffle: shuffle the sentences in each epoch (default: no, a line goes on from the one before)
        reset: share of the steps that a stream starts from zeros, like a sentence read on its own (the paper: 0)
        average_after: average the weights of all later steps, once an evaluation is worse than one that is more than
            this many evaluations older (the paper: 5; default: never)
        schedule: how the rate goes on after --warmup; slanted-triangular begins and ends at 1/32 (default: constant)
        weight_decay: weight decay of all weights
    """

    summary: ClassVar[str] = "an AWD-LSTM language model of words: perplexities of raw text"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "TRAIN", "help": "UTF-8 text to learn, one sentence or paragraph a line"},
        "--model": {"dest": "start", "metavar": "MODEL", "help": "the language model to continue from, with its "
                    "vocabulary and sizes: a folder, a package or a Hugging Face name (default: a new one)"},
        "--eval": {"metavar": "FILE", "help": "text to measure the perplexity of, once an epoch"},
        "--test": {"metavar": "FILE", "help": "text to measure the perplexity of the finished model on"},
    }  # fmt: skip
    predicting: ClassVar[tuple[str, str, str]] = (
        "Measure the perplexity of each line, one sentence on its own. A blank line stays blank.",
        "a language model: a folder, a package or a Hugging Face name",
        "UTF-8 text, one sentence a line",
    )

    add_words: bool = False
    direction: Literal["forward", "backward", "both"] | None = None
    embedding_dim: Count | None = None
    dim: Count | None = None
    layers: Count | None = None
    tie_weights: bool | None = None
    embedding_dropout: Probability = 0.1
    input_dropout: Probability = 0.65
    hidden_dropout: Probability = 0.2
    output_dropout: Probability = 0.4
    weight_dropout: Probability = 0.5
    activation_penalty: Positive = 2.0
    temporal_penalty: Positive = 1.0
    usual_schedule: ClassVar[str] = "constant"

    epochs: Count = 10
    batch_size: Count = 80
    unroll_steps: Count = 70
    varied: bool = True
    shuffle: bool = False
    learning_rate: AboveZero = 30.0
    warmup: Fraction = 0.0
    weight_decay: Positive = 1.2e-6
    max_norm: AboveZero | None = 0.25
    average_after: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average_after and (self.average or self.ema is not None):
            other = "average" if self.average else "ema"
            raise OptionError(f"{{average_after}} and {{{other}}} are two kinds of averages; give one of them")

    def check_data(self, evaluates: bool, tests: bool) -> None:
        super().check_data(evaluates, tests)
        if self.average_after and not evaluates:
            raise OptionError("{average_after} needs {eval}")

    def check_start(self) -> None:
        """Raise OptionError for an option of a new model, which `start` would not use."""
        for name in ("vocabulary", "vocabulary_size", "min_count", *_SIZES):
            if getattr(self, name) is not None and not (name == "min_count" and self.add_words):
                raise OptionError(f"{{{name}}} is for a new model, not for {{model}}, which has its own")

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of an `AwdLstmConfig` for a new model, without those that have their defaults."""
        found = {field: getattr(self, name) for name, field in _SIZES.items()}
        return {field: value for field, value in found.items() if value is not None}

    @property
    def regularization(self) -> dict[str, Any]:
        """The fields of an `AwdLstmConfig` for training."""
        return {name: getattr(self, name) for name in _REGULARIZATION}

    def make_optimizer(self, model: Any) -> SGD:
        from fastattn.training import SGD

        groups = self.param_groups(model, [{"params": list(model.parameters())}], self.learning_rate)
        return SGD(groups, lr=self.learning_rate, weight_decay=self.weight_decay)

    def make_average(self, model: Any) -> WeightAverage | None:
        from fastattn.training import TriggeredAverage

        return TriggeredAverage(model, self.average_after) if self.average_after else super().make_average(model)

    def make_schedule(self, optimizer: Optimizer, model: Any, batches: Batches) -> Schedule:
        """A rate that rises for `warmup` of the steps, then goes on as `schedule` says, times the length of a varied
        step."""
        found, share = super().make_schedule(optimizer, model, batches), cast("StreamBatches", batches).share
        found.settings |= {"varied": self.varied}
        return found.changed(lambda step, factor: share(step) * factor) if self.varied else found
