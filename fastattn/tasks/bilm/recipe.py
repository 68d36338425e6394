"""Train ELMo's bidirectional language model on raw text: one sentence per line, words separated by whitespace.

  fastattn train bilm train.txt --eval eval.txt --output bilm
  fastattn train bilm train.txt --eval eval.txt --output bilm --resume
  fastattn train bilm news-*.txt --vocabulary vocab.txt --options options.json --num-sampled 8192 --output elmo

Training is truncated back-propagation through time. Each step reads --unroll-steps words of --batch-size streams of
sentences in each direction, and the state of the LSTMs is carried to the next step, except for a few resets (--reset).
The optimizer is Adam. The rate rises linearly, then falls linearly to 0. Gradients are clipped to --max-norm. The model
reads the characters of every word, and predicts <UNK> for words outside the vocabulary. Blank lines are skipped.

With --eval, perplexities are measured once per epoch, for each sentence on its own and with the full softmax. The
perplexity of a unigram model of the training text, with 1 added to each count, is printed for comparison.

Elmo.from_pretrained and BidirectionalLanguageModel.from_pretrained also read the output folder, and Elmo's export turns
it into bilm-tf's files. vocab.txt has the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastattn.tasks.options import AboveZero, Count, Fraction
from fastattn.tasks.streams.recipe import StreamRecipe

if TYPE_CHECKING:
    from fastattn.training import Adam

CLIP = 10.0  # as in bilm-tf, which multiplies the loss by the unrolled steps


@dataclass(frozen=True, kw_only=True)
class BiLMRecipe(StreamRecipe):
    """How a `BiLM` is made and trained. `StreamRecipe` has the other options.

    Args:
        dim: cells of each LSTM, instead of the number in --options
        projection_dim: outputs of each LSTM, instead of the number in --options
        layers: layers of LSTMs, instead of the number in --options
        dropout: dropout of the LSTMs' inputs and the last LSTM's output
        num_sampled: train a sampled softmax with this many wrong words per step (default: all words of the vocabulary)
        max_norm: the maximum norm of the gradients (default: 10 / --unroll-steps, which equals bilm-tf's 10)
    """

    summary: ClassVar[str] = "ELMo's bidirectional language model: perplexities of raw text"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "TRAIN", "help": "UTF-8 text to learn, one sentence a line"},
        "--eval": {"metavar": "FILE", "help": "text to measure the perplexity of, once an epoch"},
        "--options": {"dest": "start", "metavar": "FILE", "help": "options.json of bilm-tf or AllenNLP with the sizes "
                      "of the network (default: a small one, 256 filters over characters, two layers of 256 cells "
                      "projected to 64)"},
    }  # fmt: skip
    predicting: ClassVar[tuple[str, str, str]] = (
        "Measure the perplexity of each line, one sentence on its own. A blank line stays blank.",
        "a bidirectional language model: a folder, a package or a Hugging Face name",
        "UTF-8 text, one sentence a line",
    )
    dim: Count | None = None
    projection_dim: Count | None = None
    layers: Count | None = None
    dropout: Fraction = 0.1
    num_sampled: Count | None = None
    epochs: Count = 10
    learning_rate: AboveZero = 2e-3
    max_norm: AboveZero | None = None

    @property
    def clipped_to(self) -> float:
        return self.max_norm or CLIP / self.unroll_steps

    def make_optimizer(self, model: Any) -> Adam:
        from fastattn.training import Adam

        groups = [{"params": list(model.parameters())}]
        return Adam(self.param_groups(model, groups, self.learning_rate), lr=self.learning_rate)
