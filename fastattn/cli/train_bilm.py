"""Train ELMo's bidirectional language model on raw text, one sentence a line, words separated by whitespace.

  fastattn train-bilm train.txt --eval eval.txt --output bilm
  fastattn train-bilm train.txt --eval eval.txt --output bilm --resume
  fastattn train-bilm news-*.txt --vocabulary vocab.txt --options options.json --num-sampled 8192 --output elmo

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

import argparse
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastattn.cli import above_zero, fraction, positive, use_threads
from fastattn.cli.run_arguments import PLOT, add_run_arguments, check_output

if TYPE_CHECKING:
    from fastattn.models import BidirectionalLanguageModel
    from fastattn.text import Sentences, Vocabulary
    from fastattn.training import Trainer

SUMMARY = "train ELMo's bidirectional language model on raw text"
VOCABULARY = "vocab.txt"
CLIP = 10.0  # bilm-tf's, where the loss is multiplied by the steps that are unrolled

OPTIONS: dict[str, Any] = {
    "char_cnn": {
        "activation": "relu",
        "embedding": {"dim": 16},
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128]],
        "max_characters_per_token": 50,
        "n_highway": 1,
    },
    "lstm": {
        "cell_clip": 3,
        "dim": 256,
        "n_layers": 2,
        "proj_clip": 3,
        "projection_dim": 64,
        "use_skip_connections": True,
    },
}
"""A model that two cores train in minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", nargs="+", metavar="TRAIN", help="UTF-8 text to learn, one sentence a line")
    parser.add_argument("--output", "-o", required=True, metavar="FOLDER", help="where model, log and states go")
    parser.add_argument("--eval", metavar="FILE", help="text to measure the perplexity of, once an epoch")
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        help="words to predict, one a line, most frequent first, <S>, </S> and <UNK> among them (default: the words "
        "of the text)",
    )
    parser.add_argument("--vocabulary-size", type=positive, metavar="WORDS", help="at most so many words of the text")
    parser.add_argument(
        "--min-count",
        type=positive,
        metavar="COUNT",
        help="words of the text that are rarer are <UNK> (default: 2, so that there is something to learn it from)",
    )
    parser.add_argument(
        "--options",
        metavar="FILE",
        help="options.json, as bilm-tf and AllenNLP have it, for the sizes of the network (default: a small one, "
        "256 filters over characters, two layers of 256 cells projected to 64)",
    )
    parser.add_argument("--dim", type=positive, metavar="CELLS", help="of each LSTM, in place of the options'")
    parser.add_argument("--projection-dim", type=positive, metavar="DIM", help="outputs of each LSTM, likewise")
    parser.add_argument("--layers", type=positive, metavar="COUNT", help="of LSTMs, likewise")
    parser.add_argument("--dropout", type=fraction, default=0.1, help="of the LSTMs' inputs and the last one's output")
    parser.add_argument(
        "--num-sampled",
        type=positive,
        metavar="WORDS",
        help="train a sampled softmax with so many wrong words a step (default: all words of the vocabulary)",
    )
    parser.add_argument("--epochs", type=positive, default=10, help="how often the text is seen (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=positive, default=32, help="streams in each direction (default: %(default)s)"
    )
    parser.add_argument(
        "--unroll-steps", type=positive, default=20, help="words of each stream in a step (default: %(default)s)"
    )
    parser.add_argument(
        "--reset",
        type=fraction,
        default=0.05,
        metavar="P",
        help="share of the steps that a stream begins with zeros, as a sentence does that is read by itself (default: "
        "%(default)s; bilm-tf: 0)",
    )
    parser.add_argument(
        "--shuffle",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put the sentences into a new order each epoch (default: yes)",
    )
    parser.add_argument(
        "--learning-rate",
        type=above_zero,
        default=2e-3,
        metavar="RATE",
        help="the highest rate (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup", type=fraction, default=0.1, help="share of the steps in which it rises (default: %(default)s)"
    )
    parser.add_argument(
        "--max-norm",
        type=above_zero,
        help=f"of the gradients (default: {CLIP:g} / --unroll-steps, which is bilm-tf's {CLIP:g})",
    )
    parser.add_argument(
        "--evaluate-every", type=positive, metavar="STEPS", help="measure --eval so often (default: once an epoch)"
    )
    add_run_arguments(
        parser,
        patience="stop after so many evaluations that are no better, and keep the best model (default: train all "
        "epochs and keep the last model)",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.patience and not arguments.eval:
        raise ValueError("--patience needs --eval")
    if arguments.vocabulary and (arguments.vocabulary_size or arguments.min_count):
        raise ValueError("--vocabulary-size and --min-count are about a vocabulary that is made, not --vocabulary")
    check_output(arguments.output, arguments.resume)
    from fastattn.models import BidirectionalLanguageModel
    from fastattn.random import manual_seed
    from fastattn.text import Vocabulary, read_sentences, unigram_perplexity

    text = read_sentences(arguments.train)
    gold = read_sentences([arguments.eval]) if arguments.eval else None
    if arguments.vocabulary:
        vocabulary = Vocabulary.from_file(arguments.vocabulary)
    else:
        vocabulary = Vocabulary.build(text, arguments.vocabulary_size, arguments.min_count or 2)
    use_threads(arguments.threads)
    manual_seed(arguments.seed)
    model = BidirectionalLanguageModel(
        _config(arguments), len(vocabulary), num_sampled=arguments.num_sampled, dropout=arguments.dropout
    )
    baseline = None if gold is None else unigram_perplexity(text, gold, vocabulary)
    trainer = _make_trainer(arguments, model, vocabulary, text, gold, baseline)
    print(f"{len(text.words)} words in {len(text)} sentences, {len(vocabulary)} of vocabulary", file=sys.stderr)
    if arguments.resume and trainer.resume():
        print(f"goes on after step {trainer.step}", file=sys.stderr)
    trainer.train()
    if arguments.patience:
        trainer.load_best()
    vocabulary.write(Path(arguments.output, VOCABULARY))  # a folder with a model has its vocabulary
    model.save_pretrained(arguments.output)
    for entry in trainer.evaluations:
        values = entry["metrics"]
        print(
            f"epoch {entry['epoch']}, step {entry['step']}: perplexity {values['perplexity']:.2f} "
            f"(forward {values['forward_perplexity']:.2f}, backward {values['backward_perplexity']:.2f})"
        )
    if baseline is not None:
        print(f"unigram model: perplexity {baseline:.2f}")
    print(f"model: {arguments.output}")
    return 0


def _config(arguments: argparse.Namespace) -> Any:
    """The options of the file, or those of the small network, with the sizes that were asked for."""
    from fastattn.formats.hugging_face import read_json
    from fastattn.models import ElmoConfig

    options = read_json(arguments.options) if arguments.options else OPTIONS
    changes = {"dim": arguments.dim, "projection_dim": arguments.projection_dim, "n_layers": arguments.layers}
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(options.get("lstm"), dict):
        options = {**options, "lstm": {**options["lstm"], **given}}
    return ElmoConfig.from_options(options, arguments.options or "options")


def _make_trainer(
    arguments: argparse.Namespace,
    model: BidirectionalLanguageModel,
    vocabulary: Vocabulary,
    text: Sentences,
    gold: Sentences | None,
    baseline: float | None,
) -> Trainer:
    from fastattn.models import StreamLoss
    from fastattn.text import StreamBatches, character_ids, sentence_batches
    from fastattn.training import Adam, Trainer, count_steps, get_linear_schedule_with_warmup

    characters = partial(character_ids, max_characters=model.config.max_characters_per_token)
    batches = StreamBatches(
        text,
        vocabulary,
        characters,
        batch_size=arguments.batch_size,
        unroll_steps=arguments.unroll_steps,
        seed=arguments.seed,
        shuffle=arguments.shuffle,
    )
    optimizer = Adam(model.parameters(), lr=arguments.learning_rate)
    steps = count_steps(batches, arguments.epochs)
    loss = StreamLoss(model, arguments.reset)

    def evaluate() -> dict[str, float]:
        assert gold is not None
        assert baseline is not None
        perplexities = model.perplexities(sentence_batches(gold, vocabulary, characters))
        return {**perplexities, "unigram_perplexity": baseline}

    return Trainer(
        model,
        optimizer,
        get_linear_schedule_with_warmup(optimizer, int(arguments.warmup * steps), steps),
        batches,
        epochs=arguments.epochs,
        folder=arguments.output,
        loss=loss,
        carried=loss,
        max_norm=arguments.max_norm or CLIP / arguments.unroll_steps,
        evaluate=None if gold is None else evaluate,
        evaluate_every=arguments.evaluate_every,
        metric="perplexity",
        higher_is_better=False,
        patience=arguments.patience,
        save_every=arguments.save_every,
        keep=arguments.keep,
        progress=arguments.progress,
        plot=PLOT if arguments.plot else None,
        configuration={
            "config": model.config.to_options(),
            "dropout": arguments.dropout,
            "num_sampled": arguments.num_sampled,
            "reset": arguments.reset,
            "vocabulary_crc32": zlib.crc32("\n".join(vocabulary.words).encode("utf-8", "surrogatepass")),
            "eval_crc32": gold.crc32 if gold is not None and arguments.patience else None,  # when the run ends
        },
    )
