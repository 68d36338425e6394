"""Train a Transformer that translates, from scratch, on parallel text.

  fastattn train translate names.tsv --eval eval.tsv --vocabulary characters --output names
  fastattn train translate names.tsv --eval eval.tsv --vocabulary characters --output names --resume
  fastattn train translate train.de train.en --eval dev.de dev.en --size base --metrics bleu chrf --output de-en

Parallel text is one file with two columns and a tab between them, or two files whose lines belong together. Pairs with
a blank side, or with more tokens than --max-length, are left out. The vocabulary is made of the text: byte pairs, by
default one vocabulary for both sides, or characters. Or give the files of SentencePiece models.

The optimizer is Adam (betas 0.9 and 0.98, eps 1e-9). The schedule is the paper's: the rate rises linearly for --warmup
steps, then falls with the square root of the steps; --schedule names another one. A step has --batch-tokens tokens of
both sides, computed --max-tokens at a time. LayerNorm comes before each sublayer, or after it, as in the paper, with
--post-norm. With --marian, transformers' MarianMTModel reads the network, and with SentencePiece models MarianTokenizer
reads those.

With --eval, the loss of a text, without label smoothing, and the --metrics of its greedy translations are measured once
an epoch: cer, the character error rate (edit distance over reference characters), and sacrebleu's bleu and chrf. All
texts are measured: one of more than --max-length tokens is an error before the training, unless --overlong says what to
do with it. The model is the mean of the weights at the ends of the last --average epochs; with --patience the best one;
with --ema the moving average.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from fastattn import checks
from fastattn.errors import OptionError
from fastattn.tasks.base import Recipe
from fastattn.tasks.options import AboveZero, Count, Fraction, Options, Probability, Seed

if TYPE_CHECKING:
    from fastattn.training import Adam, Batches, Optimizer, Schedule

AVERAGE = 5
VOCABULARY_SIZE = 8000
SIZES = {  # d_model, layers of each side, heads, ffn_dim
    "small": (128, 3, 4, 512),
    "base": (512, 6, 8, 2048),
    "big": (1024, 6, 16, 4096),
}


Overlong = Literal["error", "truncate", "skip"]
OverlongLine = Literal["error", "truncate", "skip", "split"]
NotNegative = Annotated[int, partial(checks.integer, low=0)]
Power = Annotated[float, partial(checks.number, low=-10.0, high=10.0, up_to=True)]


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(Options):
    """Options of `fastattn predict translate`.

    Args:
        pairs: the input has a second column with right translations, after a tab; print the character error rate of the
            pairs without a blank side on standard error
        attention: draw what the translation of the first line attends to, the mean of all layers and heads, to this
            .svg or .png file
        overlong: what happens to lines of more tokens than the model reads: truncate cuts them, skip leaves their
            translations blank, split translates them sentence by sentence; they are counted on standard error (default:
            error)
        num_beams: how many hypotheses a beam search keeps; 1 decodes greedily (default: the model's)
        n_best: lines to write for each line, its best translations, at most --num-beams unless they are samples
        length_penalty: a score is the sum of the log-probabilities over the length to this power (default: the model's,
            or 1)
        min_length: the least tokens of a translation, its start and end included
        no_repeat_ngram_size: no translation has the same sequence of so many tokens twice
        sampling_temperature: draw translations at random, with this temperature: below 1 prefers probable words
        top_k: draw from so many words, the most probable (default: the model's, or 50; 0 is all)
        top_p: draw from the most probable words that have this probability together
        seed: of the samples (default: another one each time)
        prefix: what every translation begins with
        replace_unknowns: put the word that an unknown token attends to most in its place
        scores: write the score of a translation before it, with a tab between them
    """

    pairs: bool = False
    attention: str | None = None
    overlong: OverlongLine = "error"
    num_beams: Count | None = None
    n_best: Count = 1
    length_penalty: Power | None = None
    min_length: NotNegative | None = None
    no_repeat_ngram_size: NotNegative | None = None
    sampling_temperature: AboveZero | None = None
    top_k: NotNegative | None = None
    top_p: Fraction | None = None
    seed: Seed | None = None
    prefix: str | None = None
    replace_unknowns: bool = False
    scores: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlong == "split" and (self.n_best > 1 or self.scores):
            raise OptionError("{overlong} split has neither {n_best} nor {scores}")
        for name in ("top_k", "top_p", "seed"):
            if getattr(self, name) is not None and self.sampling_temperature is None:
                raise OptionError(f"{{{name}}} needs {{sampling_temperature}}")

    @property
    def decoding(self) -> dict[str, Any]:
        """The options of `generate`."""
        names = ("num_beams", "length_penalty", "min_length", "no_repeat_ngram_size", "top_k", "top_p", "seed")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.sampling_temperature is not None:
            found |= {"do_sample": True, "temperature": self.sampling_temperature}
        return found


@dataclass(frozen=True, kw_only=True)
class TranslateRecipe(Recipe):
    """How a `Translator` is made and trained. `Recipe` has the other options.

    Args:
        metrics: metrics to measure beside the loss; the first one compares models (default: cer)
        vocabulary: bpe (byte pairs), characters, or SentencePiece model files, one or one a side (default: bpe)
        vocabulary_size: tokens of bpe, at least the characters of the text (default: 8000, or the characters)
        shared: one vocabulary and one table of embeddings for both sides (default: yes for bpe and for one file)
        d_model: width, instead of the width of --size
        layers: layers of each side, instead of the number in --size
        heads: attention heads, instead of the number in --size
        ffn_dim: width of the feed-forward layers, instead of the width of --size
        post_norm: put LayerNorm after each sublayer, as in the paper
        marian: make MarianMT's network, with --post-norm, its positions and its first weights
        dropout: dropout of embeddings and sublayers
        attention_dropout: dropout of attention weights
        max_length: the longest text in tokens
        overlong: what happens to longer texts of --eval and --test: truncate cuts what is read, skip leaves the pairs
            out; both are counted (default: error, before the training)
        batch_tokens: tokens of both sides in a step (the paper: 50000)
        max_tokens: the most tokens computed at once, to limit memory; a larger step is computed in parts
        learning_rate: the highest learning rate (default: the paper's, 1 / sqrt(d_model * warmup))
        schedule: how the rate goes on after --warmup; slanted-triangular begins and ends at 1/32 (default: the paper's)
        warmup: steps in which the rate rises
        label_smoothing: share of the target that goes to all tokens
        average: keep the mean of the weights at the ends of this many last epochs (default: 5, but at most a quarter of
            --epochs, and 1 with --ema or --patience)
        patience: stop after this many evaluations without a better one, and keep the best model (default: train all
            epochs and keep the mean of the last ones)
    """

    summary: ClassVar[str] = "translate text, line by line"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "train": {"nargs": "+", "metavar": "FILE", "help": "UTF-8 text to learn: one file, or source and target"},
        "--eval": {"nargs": "+", "metavar": "FILE", "help": "parallel text to measure the model on"},
        "--test": {"nargs": "+", "metavar": "FILE", "help": "parallel text to measure the final model on"},
        "--size": {"dest": "start", "choices": SIZES, "default": "small", "help": "size of the network, " + "; ".join(
            f"{name}: {d} wide, {n} layers, {h} heads, {f}" for name, (d, n, h, f) in SIZES.items()
        ) + " (default: %(default)s)"},
    }  # fmt: skip
    pipeline_tag: ClassVar[str | None] = "translation"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Translate text, line by line, as the lines come. A blank line stays blank.",
        "a Transformer of `fastattn train translate`, or MarianMT: a folder, a package or a Hugging Face name",
        "UTF-8 text",
    )
    predict_options: ClassVar[type[Options]] = TranslateOptions

    measuring: ClassVar[tuple[str, ...]] = ("metrics", "overlong")

    metrics: tuple[Literal["cer", "bleu", "chrf"], ...] | None = None
    vocabulary: tuple[str, ...] = ("bpe",)
    vocabulary_size: Count | None = None
    shared: bool | None = None
    d_model: Count | None = None
    layers: Count | None = None
    heads: Count | None = None
    ffn_dim: Count | None = None
    post_norm: bool = False
    marian: bool = False
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.0
    max_length: Count = 512
    overlong: Overlong = "error"
    epochs: Count = 40
    batch_tokens: Count = 2048
    max_tokens: Count = 4096
    warmup: Count = 1000
    label_smoothing: Probability = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, *more = self.vocabulary
        if len(more) > bool(self.vocabulary_files):
            raise OptionError("{vocabulary} must be bpe, characters, or one SentencePiece model or two")
        if self.vocabulary_size and kind != "bpe":
            raise OptionError("{vocabulary_size} is only for {vocabulary} bpe")
        if self.vocabulary_files and not (self.shares or more):
            raise OptionError("{no_shared} needs two SentencePiece models")

    def check_data(self, evaluates: bool, tests: bool) -> None:
        super().check_data(evaluates, tests)
        if self.metrics and not (evaluates or tests):
            raise OptionError("{metrics} needs {eval} or {test}")

    @property
    def vocabulary_files(self) -> tuple[str, ...]:
        """The SentencePiece models, if the vocabulary is not made of the text."""
        return () if self.vocabulary[0] in ("bpe", "characters") else self.vocabulary

    @property
    def shares(self) -> bool:
        """Whether both sides share one vocabulary."""
        kind, *more = self.vocabulary
        return (kind != "characters" and not more) if self.shared is None else self.shared

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics of translations."""
        return self.metrics or ("cer",)

    @property
    def metric(self) -> str:  # type: ignore[override]  # it depends on the metrics
        return self.measured[0]

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]  # likewise
        return self.metric != "cer"

    @property
    def averaged(self) -> int:
        single = self.ema is not None or self.patience
        return self.average or (1 if single else max(1, min(AVERAGE, self.epochs // 4)))

    def make_optimizer(self, model: Any) -> Adam:
        from fastattn.training import Adam

        usual = (model.config.d_model * self.warmup) ** -0.5
        rate = 1.0 if self.learning_rate is None else self.learning_rate / usual
        rate *= usual if self.schedule else 1.0  # Noam's schedule has the usual rate in it
        groups = self.param_groups(model, [{"params": [p for p in model.parameters() if p.requires_grad]}], rate)
        return Adam(groups, lr=rate, betas=(0.9, 0.98), eps=1e-9)

    def make_schedule(self, optimizer: Optimizer, model: Any, batches: Batches) -> Schedule:
        from fastattn.training import count_steps, get_noam_schedule, get_scheduler

        if self.schedule is None:
            return get_noam_schedule(optimizer, self.warmup, model.config.d_model)
        steps = count_steps(batches, self.epochs, batches.accumulation)
        if self.warmup > steps:
            raise OptionError("{warmup} is {}, but the run has only {} steps", self.warmup, steps)
        return get_scheduler(self.schedule, optimizer, self.warmup, steps)
